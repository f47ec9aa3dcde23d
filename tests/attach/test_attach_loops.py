"""Loops that are not ours: plain, accumulating, compiled, and two processes under DistributedDataParallel."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attach_kit import batch, half, mlp
from torch import Tensor, nn

from tombola.attach import attach, attached
from tombola.prune.select import select

STEPS, SIZE = 8, 16


def data(step: int) -> tuple[Tensor, Tensor]:
    x, y = batch(size=SIZE, seed=step)
    return x.double(), y


def plain(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x, y = data(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()


def accumulating(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """As a trainer of another library does it: micro-batches, a step at every second."""
    for step in steps:
        x, y = data(step)
        for number in range(2):
            part = slice(number * SIZE // 2, (number + 1) * SIZE // 2)
            (nn.functional.cross_entropy(model(x[part]), y[part]) / 2).backward()
            if number == 1:
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()


def compiled(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    plain(torch.compile(model, fullgraph=True, backend="aot_eager"), optimizer, steps)


Loop = Callable[[nn.Module, torch.optim.Optimizer, range], None]


def prune_and_train(loop: Loop) -> tuple[nn.Module, dict[str, Tensor]]:
    """Train, prune by magnitude through the handle, train on: two lines around any loop."""
    model = mlp().double()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    masks = half(model, density=0.8)
    handle = attach(model, masks)
    loop(model, optimizer, range(STEPS))
    scores = {n: model.get_parameter(n).detach().abs().masked_fill(~m, -torch.inf) for n, m in masks.items()}
    handle.update(select(scores, {n: int(m.sum()) // 2 for n, m in masks.items()}))
    loop(model, optimizer, range(STEPS, 2 * STEPS))
    return model, handle.masks


@pytest.mark.parametrize("loop", [accumulating, compiled])
def test_three_loops_find_one_ticket(loop: Loop) -> None:
    torch._dynamo.reset()
    model, masks = prune_and_train(plain)
    other, found = prune_and_train(loop)
    for name, mask in masks.items():
        assert torch.equal(found[name], mask)
        assert torch.equal(other.get_parameter(name) != 0, mask)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        # Two halves of a batch are summed in another order; everything else is equal bit for bit.
        assert torch.equal(a, b) if loop is compiled else torch.allclose(a, b, atol=1e-12, rtol=1e-9)


WORKER = """
import os, sys, torch
sys.path.insert(0, {folder!r})
from attach_kit import half, mlp
from test_attach_loops import STEPS, data
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tombola.attach import RanksDiffer, attach, attached
torch.set_num_threads(1)
rank = int(os.environ["RANK"])
torch.distributed.init_process_group("gloo", init_method={store!r}, rank=rank, world_size=2)
model = DistributedDataParallel(mlp().double(), gradient_as_bucket_view=True)
masks = half(model.module, density=0.8)
handle = attach(model, masks)
optimizer = torch.optim.AdamW(model.parameters(), 0.01)
for step in range(STEPS):
    x, y = (part.chunk(2)[rank] for part in data(step))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    assert all(not model.module.get_parameter(n).grad[~m].any() for n, m in masks.items())
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
every = [None, None]
state = {{n: v.tolist() for n, v in model.module.state_dict().items()}}
torch.distributed.all_gather_object(every, (handle.fingerprint(), state))
assert every[0] == every[1], "the ranks hold different masks or weights"
handle.check_ranks()
# What happens without the check: a random prune after wrapping, each rank with its own generator.
other = half(model.module, seed=rank)
raised = 0
for act in (lambda: handle.update(other), lambda: attach(DistributedDataParallel(mlp()), other)):
    try:
        act()
    except RanksDiffer as error:
        raised += "the ranks hold different masks (rank 0:" in str(error)
assert raised == 2, raised
assert handle.fingerprint() == every[0][0], "a refused update leaves the masks that were on"
alone = attach(mlp(), other)
try:
    alone.check_ranks()
    raise SystemExit("ranks with different masks were not told apart")
except RanksDiffer:
    pass
if rank == 0:
    torch.save(model.module.state_dict(), sys.argv[1])
torch.distributed.destroy_process_group()
"""


def test_two_processes_hold_one_mask(tmp_path: Path) -> None:
    script, out = tmp_path / "worker.py", tmp_path / "weights.pt"
    script.write_text(WORKER.format(folder=str(Path(__file__).parent), store=f"file://{tmp_path / 'store'}"))
    workers = [
        subprocess.Popen([sys.executable, str(script), str(out)], stderr=subprocess.PIPE, text=True,
                         env={**os.environ, "RANK": str(rank), "OMP_NUM_THREADS": "1"})
        for rank in range(2)
    ]  # fmt: skip
    told = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(told)
    model = mlp().double()
    attach(model, half(model, density=0.8))
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for step in range(STEPS):
        x, y = data(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    for name, value in torch.load(out, weights_only=True).items():
        assert torch.allclose(model.state_dict()[name], value, atol=1e-12, rtol=1e-9), name
    assert attached(model)
