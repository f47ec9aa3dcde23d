"""Our own trainers: all one recipe, all drawing the same batches, all equal to the plain one.

``recipe`` (torch-free), ``order`` (the batches), ``loss``, ``optimizer``, ``process`` (threads and generators),
``watch`` (who is told) and ``run`` (what every engine's run is made of); ``plain`` (the loop everyone would write: the
reference) and ``pool`` (independent jobs in parallel processes); ``sparse`` (cost falls with density), ``replicas``
(stacks) and ``engines`` (which of them); ``own`` with ``record`` and ``ranks`` (a loop that is not ours); ``cost``
counts operations. A trainer is a :class:`~tombola.types.TrainFn`.
May import the rooms below ``search``. ``tests/train`` proves it.
"""
