"""Several processes training one network: one start, one word for what came of it."""

import hashlib
from dataclasses import replace
from typing import Any

import torch
from torch import distributed

from tombola.attach.ranks import check_equal
from tombola.errors import RanksDiffer
from tombola.types import RunResult, TrainJob, TrainOutcome


def world() -> int:
    """Count the processes; 1 where training is not distributed."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def check_start(job: TrainJob) -> None:
    """Raise unless every process of a distributed run was given one subnetwork with one set of values."""
    if world() == 1:
        return
    check_equal(job.masks)
    digest = hashlib.sha256()
    for name, value in sorted({**job.start.params, **job.start.buffers}.items()):
        digest.update(f"{len(name)} {name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    every: list[str] = [""] * world()
    distributed.all_gather_object(every, digest.hexdigest())
    if len(set(every)) > 1:
        held = ", ".join(f"rank {rank}: {value[:12]}" for rank, value in enumerate(every))
        raise RanksDiffer(
            f"the ranks start the run {job.name!r} from different values ({held}). Let every rank call find with one "
            "seed and one factory, and train inside DistributedDataParallel."
        )


def agreed(outcome: TrainOutcome) -> TrainOutcome:
    """Take rank 0's word for what a run scored, so that all ranks decide alike; a run lost on one is lost on all."""
    if world() == 1:
        return outcome
    told = {name: getattr(outcome, name) for name in ("result", "sentence", "curve", "early_stop_iteration", "censored",
            "test_accuracy", "test_accuracy_at_early_stop", "optimizer_steps", "rate_fell")}  # fmt: skip
    every: list[dict[str, Any]] = [{}] * world()
    distributed.all_gather_object(every, told)
    word = next((one for one in every if one["result"] is not RunResult.FINISHED), every[0])
    return replace(outcome, **word)
