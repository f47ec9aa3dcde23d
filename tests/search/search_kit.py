"""A trainer that trains nothing, and what every search must do, as functions of the search."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tombola.prune.controls import CONTROLS as EVERY_CONTROL
from tombola.prune.masks import nested
from tombola.prune.pruner import Pruner, imp
from tombola.prune.rewinding import masked
from tombola.search.levels import TICKET, Family, Level, search
from tombola.seeds import generator
from tombola.types import Curve, RunResult, Seed, Snapshot, TrainJob, TrainOutcome

T = 100
PRUNABLE = ("w", "v")
Search = Callable[..., Iterator[Level]]

CONTROLS = {name: control for name, control in EVERY_CONTROL.items() if not name.startswith("small-dense")}
"""Those that need no units of a network: what is searched here is no network with units."""


def draw(seed: Seed) -> Snapshot:
    g = generator(seed, "init")
    params = {"w": torch.randn(20, 10, generator=g), "b": torch.randn(10, generator=g)}
    return Snapshot(0, {**params, "v": torch.randn(6, 20, generator=g)}, {"mean": torch.zeros(10)})


def families(count: int = 3) -> list[Family]:
    return [Family(Seed(5, r), draw(Seed(5, r)), draw) for r in range(count)]


@dataclass
class FakeTrain:
    """Moves every weight a little, in a way that depends on all a job says, and writes the jobs down.

    Attributes:
        diverges: whether a job of a call (0 is the dense level) does.
        tests: gives the test accuracy; nothing in a search may depend on it.
    """

    diverges: Callable[[int, TrainJob], bool] = lambda call, job: False  # noqa: ARG005
    tests: Callable[[], float] = lambda: 0.9
    result: RunResult = RunResult.DIVERGED
    calls: list[list[TrainJob]] = field(default_factory=list)

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        self.calls.append(list(jobs))
        return [self.train(len(self.calls) - 1, job) for job in jobs]

    def train(self, call: int, job: TrainJob) -> TrainOutcome:
        if self.diverges(call, job):
            lost = Snapshot(10, {name: value * math.nan for name, value in job.start.params.items()})
            curve = Curve((10,), (math.nan,), (0.0,))
            return TrainOutcome(
                self.result, f"{self.result.value} at iteration 10", lost, job.start, {}, curve,
                None, False, None, None, 10, 0.0,
            )  # fmt: skip
        middle = {k: self.at(job, k) for k in job.save_at}
        end = self.at(job, job.stop)
        loss = float(end.params["w"].abs().mean())
        return TrainOutcome(
            RunResult.FINISHED, f"trained to iteration {job.stop}", end, end, middle,
            Curve((job.stop,), (loss,), (0.5,)), job.stop, True, self.tests(), self.tests(),
            job.stop - job.start.step, 0.0,
        )  # fmt: skip

    def at(self, job: TrainJob, step: int) -> Snapshot:
        g = generator(job.seed, "order", step)
        params = {n: v + 0.3 * torch.randn(v.shape, generator=g) for n, v in job.start.params.items()}
        moments = {n: {"momentum_buffer": torch.randn(v.shape, generator=g)} for n, v in params.items()}
        return masked(Snapshot(step, params, {"mean": torch.full((10,), float(step))}, moments), job.masks)


def run(
    search_: Search = search, pruner: Pruner | None = None, train: FakeTrain | None = None, **options: Any
) -> tuple[list[Level], list[list[TrainJob]]]:
    """Run a search to its end; give the levels and the jobs of each call."""
    train = train or FakeTrain()
    options = {"iterations": T, "levels": 3, **options}
    found = list(search_(options.pop("families", None) or families(), train, pruner or imp(), PRUNABLE, **options))
    return found, train.calls


def all_controls(*levels: int) -> dict[str, Any]:
    return {"controls": CONTROLS, "control_levels": levels}


def check_families_are_paired(search_: Search) -> None:
    """Inside a family everything shares one initialisation and one data order; only further dense runs differ."""
    levels, calls = run(search_, dense_runs=3, **all_controls(1, 2, 3))
    assert len(calls) == 4
    dense, rounds = calls[0], calls[1:]
    assert [(job.seed.replicate, job.seed.order) for job in dense] == [(r, k) for r in range(3) for k in range(3)]
    assert {job.seed.root for call in calls for job in call} == {5}
    for job in dense:
        assert not job.masks
        assert (job.start.step, job.stop) == (0, T)
        same = draw(Seed(5, job.seed.replicate)).params
        assert all(torch.equal(value, same[name]) for name, value in job.start.params.items())
    for call in rounds:
        assert all(job.seed == Seed(5, job.seed.replicate, 0) for job in call)
        assert [job.seed.replicate for job in call] == [r for r in range(3) for _ in range(1 + len(CONTROLS))]
    for level in levels[1:]:
        assert all(runs.keys() == {0, 1, 2} for runs in level.arms.values())
        assert level.arms.keys() == {TICKET, *CONTROLS}


def check_tickets_start_from_their_own_initialisation(search_: Search) -> None:
    """Alive weights restart from theta_0 bit for bit, pruned ones from 0, buffers from theirs; masks nest."""
    levels, calls = run(search_)
    for before, level, jobs in zip(levels, levels[1:], calls[1:], strict=False):
        for job in jobs:
            r = job.seed.replicate
            init = families()[r].init
            expected = masked(init, level.masks[r])
            assert (job.start.step, job.stop, job.start.optimizer) == (0, T, None)
            assert job.masks is level.masks[r]
            assert job.start.params.keys() == expected.params.keys()
            for name, value in expected.params.items():
                assert torch.equal(job.start.params[name], value)
                assert torch.equal(level.starts[r].params[name], value)
            assert torch.equal(job.start.buffers["mean"], init.buffers["mean"])
            assert nested(level.masks[r], before.masks[r])


def check_diverged_runs_make_no_mask(search_: Search) -> None:
    """A family with a run that diverged leaves: no mask is made of NaN, and no later level has it."""
    for arm, call in (("dense", 0), (TICKET, 1), ("reinit", 2)):
        seen: list[float] = []

        def spy(params: Any, masks: Any, _: Any, seen: list[float] = seen) -> dict[str, torch.Tensor]:
            # A criterion that lets NaN through, for the pruner would refuse it.
            seen.extend(float(params[name].sum()) for name in masks)
            return {name: params[name].nan_to_num().abs().masked_fill(~masks[name], -math.inf) for name in masks}

        def diverges(at: int, job: TrainJob, arm: str = arm, call: int = call) -> bool:
            return at == call and job.name == arm and job.seed.replicate == 1 and job.seed.order in (0, 2)

        levels, calls = run(
            search_,
            replace(imp(), criterion=spy),
            FakeTrain(diverges),
            dense_runs=3,
            controls={"reinit": CONTROLS["reinit"]},
            control_levels=(1, 2, 3),
        )
        assert not any(math.isnan(value) for value in seen)
        for number, level in enumerate(levels):
            expected = {0, 1, 2} if number < call else {0, 2}
            assert level.masks.keys() == level.starts.keys() == expected
            assert all(runs.keys() == expected for runs in level.arms.values())
            assert number > 0 or level.dense.keys() == expected
            told = [(d.replicate, d.level, d.arm, d.sentence) for d in level.dropped]
            names = {"dense": ["dense run 0", "dense run 2"]}.get(arm, [arm])
            lost = [(1, call, name, "diverged at iteration 10") for name in names]
            assert told == (lost if number == call else [])
        assert all(job.seed.replicate != 1 for later in calls[call + 1 :] for job in later)
