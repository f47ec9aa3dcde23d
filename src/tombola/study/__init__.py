"""Experiments: a specification, its units of work, and a store that survives a crash.

``spec`` says what a study is; ``units`` names each training by everything it depends on; ``store`` keeps what is
finished; ``remembering`` trains what is not. May import everything below the command line. Proved by ``tests/study``
and ``tests/crash``.
"""
