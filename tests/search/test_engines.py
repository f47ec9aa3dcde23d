"""Which engine trains, and that a search by any of them is the same search."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small import settings
from torch import Tensor, nn

from tombola.cli import main
from tombola.errors import InvalidValue, UnknownName
from tombola.search.find import find
from tombola.search.finding import Finding
from tombola.search.isolation import isolate
from tombola.search.named import prepare
from tombola.sparse.kernels.library import missing
from tombola.ticket import verify
from tombola.train.engines import pick

compiled = pytest.mark.skipif(missing() is not None, reason=f"no sparse engine: {missing()}")
ENGINES = ["plain", pytest.param("sparse", marks=compiled), "replicas"]
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
NORMED = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))


def searched(engine: str, **changes: Any) -> Finding:
    return find(settings(model="lenet-300-100", rate=0.5, engine=engine, **changes))


def scores(finding: Finding) -> list[list[float]]:
    return [[run.test_accuracy for runs in level.arms.values() for run in runs.values()] for level in finding.levels]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_makes_the_same_search(engine: str) -> None:
    """The same counts, grids and arms; scores apart by what rounding does to the last few of 540 images."""
    found, plain = searched(engine), searched("plain")
    assert found.about["engine"] == engine
    assert [level.kept for level in found.levels] == [level.kept for level in plain.levels]
    assert [list(level.arms) for level in found.levels] == [list(level.arms) for level in plain.levels]
    assert found.cost.iterations == plain.cost.iterations
    assert found.cost.flops_effective == pytest.approx(plain.cost.flops_effective)
    for mine, theirs in zip(scores(found), scores(plain), strict=True):
        assert mine == pytest.approx(theirs, abs=4 / 540)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_seed_gives_the_same_bits(engine: str) -> None:
    first, second = searched(engine, workers=1), searched(engine, workers=2)
    assert first.ticket == second.ticket
    assert scores(first) == scores(second)
    assert all(torch.equal(value, second.chosen.trained[name]) for name, value in first.chosen.trained.items())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_ticket_trains_again_by_its_own_engine(engine: str, tmp_path: Path) -> None:
    found = searched(engine, rounds=1, dense_runs=1, controls=()).save(tmp_path)
    assert verify(found.files["ticket"]).ok
    again = isolate(found.ticket)
    assert all(check.ok for check in again.checks())
    assert bool(again.unlike) == (engine == "replicas")
    if engine != "replicas":
        assert again.test_accuracy == found.ticket.provenance["reported"]["test_accuracy"]


@compiled
def test_auto_takes_the_sparse_engine_where_it_can_and_says_why_not() -> None:
    x = torch.zeros(1, 8, 8)
    assert pick("auto", LINEAR, x, "cpu").name == "sparse"
    plain = pick("auto", NORMED, x, "cpu")
    assert plain.name == "plain"
    assert "BatchNorm1d" in str(plain.why)
    assert pick("auto", LINEAR, x, "cuda").name == "replicas"
    assert "engine sparse on cpu, 1 worker (" in prepare(settings(model="lenet-300-100", engine="auto")).engine
    assert "(" in prepare(settings(engine="auto")).engine


def test_auto_does_without_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMBOLA_KERNELS", "none")
    picked = pick("auto", LINEAR, torch.zeros(1, 8, 8), "cpu")
    assert picked.name == "plain"
    assert str(picked.why).startswith("TOMBOLA_KERNELS=none switches the compiled kernels off")


def test_without_kernels_a_ticket_of_the_sparse_engine_is_told_of_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMBOLA_KERNELS", "none")
    with pytest.raises(InvalidValue, match=r"unset it.*a ticket is trained again by the engine that found it") as told:
        pick("sparse", LINEAR, torch.zeros(1, 8, 8), "cpu")
    assert "--" not in str(told.value)


def test_replicas_says_where_a_stack_gains_little() -> None:
    large = nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
    assert "238,510 weights gains little" in str(pick("replicas", large, torch.zeros(1, 28, 28), "cpu").why)
    assert pick("replicas", LINEAR, torch.zeros(1, 8, 8), "cpu").why is None


def test_an_engine_that_cannot_is_refused_by_name() -> None:
    x = torch.zeros(1, 8, 8)
    with pytest.raises(UnknownName, match="Did you mean 'sparse'"):
        pick("sparce", LINEAR, x, "cpu")
    with pytest.raises(InvalidValue, match=r"sparse engine cannot train this network.*Use the engine auto or plain"):
        pick("sparse", NORMED, x, "cpu")
    with pytest.raises(InvalidValue, match="it runs on the CPU"):
        pick("sparse", LINEAR, x, "cuda")
    with pytest.raises(InvalidValue, match="replicas engine cannot train this network"):
        pick("replicas", nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)), x, "cpu")


def test_the_command_line_takes_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["find", "--rounds", "1", "--replicates", "2", "--dense-runs", "1", "--iterations", "20", "--workers", "1"]
    assert main([*flags, "--engine", "replicas", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "engine replicas on cpu, in one process whatever the number of workers" in " ".join(said.split())
    assert main([*flags, "--engine", "fast"]) == 2


class PerRow(nn.Module):
    """Looks like a chain of linear layers, and is none for examples of two rows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@compiled
def test_auto_asks_the_network_and_not_its_layers_alone() -> None:
    picked = pick("auto", PerRow(), torch.zeros(2, 4), "cpu")
    assert picked.name == "plain"
    assert picked.why is not None
    with pytest.raises(InvalidValue, match="cannot train this network") as told:
        pick("sparse", PerRow(), torch.zeros(2, 4), "cpu")
    assert str(told.value).count("cannot train") == 1
