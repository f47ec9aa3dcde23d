"""Why it works: what training did to the weights that a mask keeps, and whether it sought them out.

Lives here: measurements on tensors, each beside the chance or the null that contains no seeking (``null``), and the
verdict on the conjecture that SGD seeks out and trains a well-initialised subset (``conjecture``), with the experiment
that intervenes (``intervention``). No files, no command line, no training of its own.
May import ``train`` and every room below it. ``tests/analysis`` proves it: definitions by brute force, and the error
rate of each verdict on families that seek nothing.
"""
