"""What training costs: time by density, engine and rival, all measured in one run on one recipe.

``settings`` says what is measured; ``workload`` is the network, its data and its masks; ``loop`` and ``rivals_*`` are
the ways of training it, ``equal`` the check that they compute the same losses; ``turns`` is the clock and ``floor``
what the processor allows; ``iteration``, ``ladder``, ``scaling`` and ``replicas`` are the benchmarks; ``run`` puts them
into a ``report``, ``shown`` into a table.
Imported here: the trainers and everything below them. Proved by ``tests/bench``; no test looks at a time.
"""
