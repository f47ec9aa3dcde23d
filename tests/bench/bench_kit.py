"""A small workload, made once."""

from functools import cache

from tombola.bench.workload import Workload, workload

SMALL = "64-300-100-10"


@cache
def small() -> Workload:
    return workload(SMALL)
