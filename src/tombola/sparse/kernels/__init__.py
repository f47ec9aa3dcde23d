"""The compiled kernels, each beside its plain reference.

One header for each concern (gather, rows, dense, activation, loss, update, network), written once on sixteen lanes and
compiled for each level of processor; ``library`` picks one and gives it to Python, ``reference`` says in numpy what
each kernel means. Proved by ``tests/sparse``.
"""
