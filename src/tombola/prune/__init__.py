"""The science: tensors in, tensors out.

Masks, what may be pruned, scores, how many to keep where, schedules, what survivors restart from, and the controls.
No files, no ``nn.Module``, no global state: imports are torch, the standard library and the rooms below.
``tests/prune`` and ``tests/paper`` state the definitions.
"""
