"""The compiled subset-sum solver beside its reference in torch; both give the same answers, bit for bit.

May import torch, numpy and the errors. Proof: tests/strong/test_subset_sum.py.
"""
