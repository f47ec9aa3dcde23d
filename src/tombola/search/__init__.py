"""The loop: train, prune, rewind, repeat, and what comes of it.

``levels`` is the search itself, generic in trainer and pruner; ``settings`` (torch-free) says what is asked, ``setup``
turns that into networks, data and a pruner, ``find`` runs it, judges it and chooses the ticket, ``finding`` holds the
result. May import every room below ``cli``. ``tests/search`` proves it.
"""
