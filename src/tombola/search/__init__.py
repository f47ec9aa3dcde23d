"""The loop: train, prune, rewind, repeat, and what comes of it.

``levels`` is the search itself, generic in trainer and pruner. ``settings`` (torch-free) says what is asked; ``named``
(our models, data and trainer) and ``own`` (a user's network and loop: ``tombola.find``) make a ``setup`` of it;
``find`` runs that, judges it and chooses the ticket; ``noticed`` looks whether the runs were trained alike; ``finding``
holds the result with its ``ledger`` of cost, ``shown`` and ``live`` show it; ``keeping`` saves what is finished of a
search that is interrupted; ``isolation`` trains a ticket from its file.
May import every room below ``cli``. ``tests/search`` proves it.
"""
