"""A whole search on the digits, small enough to take a second."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from small import ITERATIONS, settings

from tombola import models, ticket
from tombola.data import load
from tombola.errors import Diverged
from tombola.prune.masks import apply
from tombola.search import find as module
from tombola.search.choosing import best_level
from tombola.search.find import Silent, find, run
from tombola.search.finding import Finding
from tombola.search.named import prepare
from tombola.seeds import generator
from tombola.stats import Judgement, Verdict, as_json, judge, read_csv
from tombola.train import engines
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.train.source import Splits
from tombola.types import RunResult, Seed, Snapshot, TrainJob, TrainOutcome


@pytest.fixture(scope="module")
def finding() -> Finding:
    return find(settings())


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def encoded(finding: Finding) -> dict[str, bytes]:
    return {path.name: content for path, content in finding.encoded(Path("there")).items()}


LEVEL_KEYS = {"level", "density", "kept", "total", "density_all_parameters", "gate", "verdict", "arms"}
RUN_KEYS = {"test_accuracy", "test_accuracy_at_early_stop", "early_stop_iteration", "censored"}
COST_KEYS = {
    *("iterations", "samples", "dense_trainings", "flops_dense", "flops_effective", "dense_trainings_effective"),
    *("purposes", "finding", "runs", "wall"),
}


def check_json(found: dict[str, Any], replicates: list[int]) -> None:
    """What ``docs/json.md`` promises."""
    assert {"data", "model", "engine", "strategy", "seed", "replicates", "margin", "sentence"} <= found.keys()
    assert found["certified"].keys() == {"budget", "early", "speed"}
    assert found["certified_density"] == found["certified"]["budget"]
    assert found["cost"].keys() == COST_KEYS
    assert found["replicates_used"] == replicates
    assert [len(runs) for runs in found["dense_runs"]] == [2] * len(replicates)
    assert [level["level"] for level in found["levels"]] == [0, 1, 2]
    for level in found["levels"]:
        assert level.keys() >= LEVEL_KEYS
        assert ("judged" in level) == (level["level"] > 0)
        assert level["density"] == level["kept"] / level["total"]
        arms = {"ticket", "reinit", "shuffle"} if level["gate"] else {"ticket"}
        assert level["arms"].keys() == arms
        for runs in level["arms"].values():
            assert runs.keys() == RUN_KEYS
            assert all(len(values) == len(replicates) for values in runs.values())
    first = [runs[0] for runs in found["dense_runs"]]
    assert found["levels"][0]["arms"]["ticket"]["test_accuracy"] == first
    assert found["levels"][0]["verdict"] == "not applicable"


def test_the_json_is_what_is_documented(finding: Finding) -> None:
    found = strict(encoded(finding)["result.json"].decode())
    check_json(found, [0, 1])
    assert (found["data"], found["model"], found["engine"]) == ("digits", "small:net", "plain")
    assert (found["strategy"], found["seed"], found["replicates"], found["margin"]) == ("imp", 0, 2, 0.01)
    assert found["dropped"] == []
    assert found["ticket"] == str(Path("there/ticket.safetensors"))
    assert found["trained"] == str(Path("there/trained.safetensors"))
    assert {"ticket", "trained"} & finding.as_json().keys() == set()


def judged_again(finding: Finding, text: str) -> Judgement:
    before = finding.judgement
    return judge(
        read_csv(text), margin=before.margin, gates=before.gates, alpha=before.alpha, lottery=before.lottery,
        speed=before.not_applicable.get("speed"), seed=finding.about["seed"],
    )  # fmt: skip


def test_the_written_table_is_judged_alike(finding: Finding) -> None:
    again = judged_again(finding, encoded(finding)["results.csv"].decode())
    assert as_json(again) == as_json(finding.judgement)


@pytest.mark.parametrize("changes", [{}, {"rewind": "step:7"}, {"strategy": "one-shot"}])
def test_the_ticket_stands_on_its_own(changes: dict[str, Any], tmp_path: Path) -> None:
    """Its file loads, verifies, starts from theta_0 or theta_k, and trains to the reported accuracy."""
    finding = find(settings(controls=(), dense_runs=1, **changes))
    files = encoded(finding)
    path = tmp_path / "ticket.safetensors"
    path.write_bytes(files["ticket.safetensors"])
    assert ticket.verify(path).ok
    mine = ticket.load(path)
    about = mine.provenance
    assert mine == finding.chosen.ticket
    chosen = finding.levels[about["level"]]
    assert (mine.kept, mine.total, mine.density) == (chosen.kept, chosen.total, chosen.density)
    assert mine.density_all_parameters == chosen.density_all_parameters

    # From here on only the file and the public data set are used.
    factory = models.from_path(about["model"])
    build = partial(models.call_factory, factory, tuple(about["input_shape"]), about["classes"])
    recipe = Recipe(**{**about["recipe"], "milestones": tuple(about["recipe"]["milestones"])})
    splits, seed = Splits(partial(load, about["data"])), Seed(about["seed"], about["replicate"])
    # One recipe for every round, and the record names it.
    assert (recipe.digest, splits.dataset.fingerprint) == (about["recipe_digest"], about["data_fingerprint"])
    trainer = PlainTrainer(build, splits, recipe)
    theta_0 = models.initial(build, seed)
    start = theta_0
    if about["start_step"]:
        (dense,) = trainer([TrainJob(theta_0, {}, seed, recipe.iterations, (about["start_step"],))])
        start = dense.saved[about["start_step"]]
    expected = apply(start.params, mine.masks)
    assert all(torch.equal(value, mine.start[name]) for name, value in expected.items())
    assert all(torch.equal(value, mine.buffers[name]) for name, value in start.buffers.items())

    job = TrainJob(Snapshot(about["start_step"], mine.start, mine.buffers), mine.masks, seed, about["end_step"])
    (again,) = trainer([job])
    assert again.test_accuracy == about["reported"]["test_accuracy"]
    assert again.early_stop_iteration == about["reported"]["early_stop_iteration"]
    assert again.test_accuracy_at_early_stop == about["reported"]["test_accuracy_at_early_stop"]
    trained = safetensors.torch.load(files["trained.safetensors"])
    assert trained.keys() == again.end.params.keys() | again.end.buffers.keys()
    assert all(torch.equal(trained[n], v) for n, v in {**again.end.params, **again.end.buffers}.items())


def test_one_and_two_workers_find_the_same() -> None:
    found = [find(settings(workers=n)) for n in (1, 2)]
    one, two = (finding.as_json() for finding in found)
    # What the clock says has a place of its own.
    assert one["cost"].pop("wall").keys() == two["cost"].pop("wall").keys()
    assert json.dumps(one) == json.dumps(two)
    assert found[0].chosen.ticket == found[1].chosen.ticket


def test_the_cost_is_counted_by_hand() -> None:
    """LeNet on 8x8 digits: 64 x 300 + 300 x 100 + 100 x 10 multiply-adds an example, six operations each."""
    finding = find(settings(model="lenet-300-100", rate=0.2, rounds=2, gates=(0.64,)))
    runs_dense, runs_1, runs_2 = 2 * 2, 2 * 1, 2 * 3
    examples = ITERATIONS * 50
    assert finding.cost.iterations == ITERATIONS * (runs_dense + runs_1 + runs_2)
    assert finding.cost.dense_trainings == 12
    assert finding.cost.flops_dense == 6 * 50_200 * examples * 12
    level_1 = 15_360 + 24_000 + 900
    level_2 = 12_288 + 19_200 + 810
    assert [level.kept for level in finding.levels] == [50_200, level_1, level_2]
    effective = 6 * examples * (50_200 * runs_dense + level_1 * runs_1 + level_2 * runs_2)
    assert finding.cost.flops_effective == pytest.approx(effective, rel=1e-12)
    assert finding.cost.seconds > 0


@pytest.mark.parametrize(
    "changes",
    [{}, {"rewind": "step:7"}, {"rewind": "lr"}, {"strategy": "finetune"}, {"strategy": "one-shot"}, {"controls": ()}],
)
def test_the_iterations_foretold_are_the_iterations_spent(changes: dict[str, Any]) -> None:
    setup = prepare(settings(replicates=1, **changes))
    assert run(setup).cost.iterations == setup.total_iterations()


@pytest.mark.parametrize("changes", [{"rewind": "lr"}, {"strategy": "finetune"}])
def test_trained_weights_are_no_lottery_ticket_and_make_no_claim_of_speed(changes: dict[str, Any]) -> None:
    finding = find(settings(controls=(), margin=0.49, **changes))
    judgement = finding.judgement
    assert not judgement.lottery
    assert judgement.certified["speed"] is None
    assert "keep trained weights" in judgement.not_applicable["speed"]
    assert not {level.verdict for level in judgement.levels} & {Verdict.WINS, Verdict.MATCHES_NO_EFFECT}
    ends = (2 * ITERATIONS, 3 * ITERATIONS) if changes.get("strategy") else (ITERATIONS,)
    assert finding.chosen.ticket.provenance["end_step"] in ends


def test_a_decaying_rate_makes_no_claim_of_speed() -> None:
    finding = find(settings(controls=(), dense_runs=1, recipe={"schedule": "cosine"}))
    assert "cosine schedule" in finding.judgement.not_applicable["speed"]
    assert finding.judgement.lottery


class Losing:
    """A pool that runs one job of one call of one family to divergence."""

    def __init__(self, trainer: PlainTrainer, _: int, *, call: int, arm: str) -> None:
        self._trainer, self._call, self._arm = trainer, call, arm

    def __enter__(self) -> "Losing":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        self._call -= 1
        lost = [self._call == -1 and job.name == self._arm and job.seed.replicate == 1 for job in jobs]
        runs = self._trainer(jobs)
        return [
            replace(run, result=RunResult.DIVERGED, sentence="diverged: the validation loss is nan at iteration 6",
                    early_stop_iteration=None, test_accuracy=None, test_accuracy_at_early_stop=None)
            if gone else run for gone, run in zip(lost, runs, strict=True)
        ]  # fmt: skip


@pytest.mark.parametrize(("call", "arm"), [(0, "dense"), (1, "ticket"), (2, "ticket"), (2, "shuffle")])
def test_a_diverged_family_leaves_the_verdict_at_every_level(
    call: int, arm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "Pool", partial(Losing, call=call, arm=arm))
    finding = find(settings(replicates=3))
    assert finding.judgement.replicates == (0, 2)
    assert {(d.replicate, d.level, d.arm.split()[0]) for d in finding.dropped} == {(1, call, arm)}
    assert finding.chosen.ticket.provenance["replicate"] in (0, 2)
    files = encoded(finding)
    found = strict(files["result.json"].decode())
    check_json(found, [0, 2])
    assert found["dropped"][0]["sentence"] == "diverged: the validation loss is nan at iteration 6"
    assert call == 0 or "Replicate 1 is left out at every level" in finding.judgement.dropped[0]
    again = judged_again(finding, files["results.csv"].decode())
    assert as_json(again) == as_json(finding.judgement)
    # The families that stay are not touched by the one that left.
    monkeypatch.undo()
    whole = find(settings(replicates=3))
    for level, undisturbed in zip(finding.levels, whole.levels, strict=True):
        for name, runs in level.arms.items():
            assert all(runs[r] == undisturbed.arms[name][r] for r in (0, 2))


def test_when_nothing_trains_the_search_says_so() -> None:
    with pytest.raises(Diverged, match=r"no family is left at level 0: .*diverged.*Lower the learning rate"):
        find(settings(recipe={"optimizer": "sgd", "lr": 1e30}))


def test_one_family_cannot_tell() -> None:
    finding = find(settings(replicates=1, dense_runs=1))
    assert finding.judgement.verdict is Verdict.CANNOT_TELL
    assert finding.as_json()["certified_density"] is None


def test_masks_do_not_depend_on_the_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """With made-up test accuracies the same masks, starts and validation losses come out."""
    calls: list[list[TrainJob]] = []
    honest, draw = Losing.__call__, random.Random(0).random

    def noted(self: Losing, jobs: Sequence[TrainJob], *, made_up: bool) -> list[TrainOutcome]:
        calls.append(list(jobs))
        outcomes = honest(self, jobs)
        return [
            replace(o, test_accuracy=draw(), test_accuracy_at_early_stop=draw()) if made_up else o for o in outcomes
        ]

    monkeypatch.setattr(engines, "Pool", partial(Losing, call=99, arm=""))
    for made_up in (False, True):
        monkeypatch.setattr(Losing, "__call__", partialmethod(noted, made_up=made_up))
        find(settings())
    assert len(calls) == 6
    for first, second in zip(calls[:3], calls[3:], strict=True):
        for a, b in zip(first, second, strict=True):
            assert all(torch.equal(mask, b.masks[name]) for name, mask in a.masks.items())
            assert all(torch.equal(value, b.start.params[name]) for name, value in a.start.params.items())


def test_the_choice_looks_at_the_test_split_only_through_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the judgement, made-up test accuracies choose the same ticket: the lowest validation loss of its level."""
    seen: list[Any] = []
    choose = module.choose
    monkeypatch.setattr(module, "choose", lambda *given: seen.append(given) or choose(*given))
    chosen = find(settings(replicates=3, dense_runs=1)).chosen
    ((setup, book, judgement, about),) = seen
    draw = random.Random(0).random
    for candidates in book.candidates.values():
        for r, candidate in candidates.items():
            candidates[r] = replace(candidate, run=replace(candidate.run, test_accuracy=draw()))
    again = choose(setup, book, judgement, about)
    assert all(torch.equal(mask, chosen.masks[name]) for name, mask in again.masks.items())
    level, replicate = chosen.ticket.provenance["level"], chosen.ticket.provenance["replicate"]
    losses = {r: candidate.validation for r, candidate in book.candidates[level].items()}
    assert losses[replicate] == min(losses.values())


V = Verdict


@pytest.mark.parametrize(
    ("verdicts", "level", "why"),
    [
        ({1: (V.WINS, True), 2: (V.MATCHES, True), 3: (V.WINS, False)}, 2, "the sparsest certified level"),
        ({1: (V.CANNOT_TELL, False), 2: (V.MATCHES_NO_EFFECT, False), 3: (V.CANNOT_TELL, False)}, 2, "that matches"),
        ({1: (V.CANNOT_TELL, False), 2: (V.LOSES, False)}, 1, "that does not lose"),
        ({1: (V.LOSES, False), 2: (V.LOSES, False)}, 1, "every level loses"),
    ],
)
def test_the_level_that_is_chosen(verdicts: dict[int, tuple[Verdict, bool]], level: int, why: str) -> None:
    given: Any = {n: SimpleNamespace(verdict=v, certified=c) for n, (v, c) in verdicts.items()}
    found = best_level(given)
    assert found[0] == level
    assert why in found[1]


class Diary:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def planned(self, setup: Any) -> None:
        self.told.append(("planned", setup.total_iterations()))

    def training(self, jobs: Sequence[TrainJob]) -> None:
        self.told.append(("training", len(jobs)))

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:
        assert loss > 0
        assert 0 <= accuracy <= 1
        self.told.append((job, step))

    def stop(self) -> bool:
        return False

    def level_done(self, summary: Any, dropped: Any) -> None:
        self.told.append(("done", summary.level, len(dropped)))


def expected_diary() -> Iterator[Any]:
    yield ("planned", 2 * ITERATIONS * (2 + 2 + 2 * 2))
    for level, jobs in enumerate((4, 6, 6)):
        yield ("training", jobs)
        yield from ((job, step) for job in range(jobs) for step in (6, 12, 18, 24))
        yield ("done", level, 0)


def test_an_observer_hears_everything_in_order() -> None:
    diary = Diary()
    find(settings(), diary)
    assert diary.told == list(expected_diary())


def test_an_observer_can_stop_the_search() -> None:
    class Impatient(Diary):
        def stop(self) -> bool:
            return ("done", 0, 0) in self.told

    diary = Impatient()
    with pytest.raises(KeyboardInterrupt, match="level 1, ticket: interrupted at iteration 0 of 24"):
        find(settings(), diary)
    assert Silent().stop() is False


def test_a_search_draws_from_no_stream_of_the_caller() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    find(settings(dense_runs=1, controls=("random", "permute"), rounds=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert generator(Seed(0), "order").initial_seed() != 3
