"""The plain loop under ``torch.compile``: forward and backward pass in generated code, the optimiser fused."""

import shutil
import time
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.bench.equal import examples
from tombola.bench.loop import Masks, TorchLoop, factors, restart
from tombola.bench.workload import Workload

_CHUNK: Final = 500


def why_not() -> str | None:
    """Say why it does not run here."""
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "torch.compile needs a C++ compiler at run time, and there is none: install g++"
    return None


@final
@dataclass(frozen=True, eq=False)
class Compiled:
    """A network and the code generated for it.

    Attributes:
        network: whose parameters the code reads and writes.
        loss: of a training batch.
        logits: of a chunk of an evaluation.
        seconds: what generating took.
    """

    network: nn.Module
    loss: Any
    logits: Any
    seconds: float


def loop(work: Workload, masks: Masks) -> TorchLoop:
    """Make the loop; code is generated once for a network, whatever its masks."""
    made = compiled(work)
    restart(made.network, work, masks)
    for p in made.network.parameters():
        p.grad = None

    def judge(x: Tensor, y: Tensor) -> tuple[float, float]:
        loss, right = 0.0, 0
        with torch.no_grad():
            for some_x, some_y in zip(x.split(_CHUNK), y.split(_CHUNK), strict=True):
                logits = made.logits(some_x)
                loss += float(functional.cross_entropy(logits, some_y, reduction="sum"))
                right += int((logits.argmax(1) == some_y).sum())
        return loss / len(y), right / len(y)

    return TorchLoop(work, made.network, held=factors(made.network, masks), loss=made.loss, judge=judge)


@cache
def compiled(work: Workload) -> Compiled:
    """Generate the code, and run it once so that nothing is left to generate."""
    network = work.build()

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(network(x), y)

    def logits_of(x: Tensor) -> Tensor:
        return network(x)

    # Code for each shape; code for any shape would be slower.
    loss, logits = (torch.compile(function, dynamic=False) for function in (loss_of, logits_of))
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x, y = work.split.train_x[: work.batch], work.split.train_y[: work.batch]
        loss(x, y).backward()
        with torch.no_grad():
            for chunk in (*work.split.val_x.split(_CHUNK), *examples(work)[0].split(_CHUNK)):
                logits(chunk)
    return Compiled(network, loss, logits, time.perf_counter() - began)
