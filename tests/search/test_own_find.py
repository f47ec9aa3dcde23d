"""``tombola.find``: a network and a loop of one's own, one call."""

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from own_kit import Lstm, T, Tied, conv, images, loop, mlp, nats, on_test, searched, sequences
from torch import Tensor, nn
from torch.optim import optimizer as optim_module

import tombola
from tombola import models
from tombola.errors import Diverged, InvalidValue, NothingToPrune, TombolaError, UnknownName
from tombola.prune.evidence import Evidence
from tombola.prune.masks import apply, nested
from tombola.search.finding import Finding
from tombola.stats import Verdict
from tombola.types import Masks, Params, Seed


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The suite runs on every core already; threads of two processes on one core wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finding() -> Finding:
    return searched(mlp, loop(said="both"))


def test_it_gives_levels_a_verdict_a_ticket_and_a_network(finding: Finding) -> None:
    assert [level.kept for level in finding.levels] == [1056, 536, 274]
    assert finding.levels[1].arms.keys() == {"ticket", "reinit", "shuffle"}
    assert isinstance(finding.verdict, Verdict)
    assert "against dense" in finding.sentence
    assert finding.cost.iterations == 3 * T * (2 + 2 + 2 * 2)
    about = finding.ticket.provenance
    assert (about["engine"], about["model"]) == ("own", "torch.nn.modules.container:Sequential")
    assert about["factory"] == "own_kit:mlp"
    init = models.initial(mlp, Seed(0, about["replicate"]))
    expected = apply(init.params, finding.ticket.masks)
    assert all(torch.equal(value, finding.ticket.start[name]) for name, value in expected.items())


def test_the_trained_network_scores_what_is_reported(finding: Finding) -> None:
    assert on_test()(finding.network) == finding.ticket.provenance["reported"]["test_accuracy"]
    for name, mask in finding.ticket.masks.items():
        assert not finding.network.get_parameter(name)[~mask].any()
    assert not finding.network.training


def test_the_ticket_trains_again_in_the_same_loop(finding: Finding) -> None:
    """Two lines and the loop: the file, a network, and the accuracy that was reported."""
    from tombola.train.own import OwnTrainer
    from tombola.types import Snapshot, TrainJob

    about, ticket = finding.ticket.provenance, finding.ticket
    job = TrainJob(Snapshot(0, ticket.start, ticket.buffers), ticket.masks, Seed(0, about["replicate"]), T)
    (again,) = OwnTrainer(mlp, loop(said="both"), on_test())([job])
    assert again.test_accuracy == about["reported"]["test_accuracy"]
    assert all(torch.equal(value, finding.network.get_parameter(name)) for name, value in again.end.params.items())


def test_it_saves_what_loads_and_verifies(finding: Finding, tmp_path: Path) -> None:
    saved = finding.save(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "networks.safetensors", "result.json", "results.csv", "ticket.safetensors", "trained.safetensors",
    ]  # fmt: skip
    assert tombola.verify(saved.files["ticket"]).ok
    assert tombola.load(saved.files["ticket"]) == finding.ticket
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["score"] == "accuracy"
    assert found["notes"] == []
    assert found["cost"]["flops_dense"] is None
    fresh = mlp()
    with tombola.attach(fresh, finding.ticket.apply_to(fresh)) as on:
        assert sum(int(mask.sum()) for mask in on.masks.values()) == finding.ticket.kept


def test_it_shows_itself(finding: Finding) -> None:
    text = repr(finding)
    assert "Sequential in your own loop, imp, 3 families" in text
    assert "50.76 %" in text
    assert f"Verdict: {finding.verdict.value}." in text
    assert "0.bias" not in text
    assert "(of kind bias)" in text
    page = finding._repr_html_()
    assert page.count("<tr>") == 1 + len(finding.levels)
    assert "<script" not in searched(type("<script>", (nn.Sequential,), {})(*mlp()), replicates=None)._repr_html_()


def test_the_same_call_gives_the_same_finding(finding: Finding) -> None:
    again = searched(mlp, loop(said="both"))
    assert again.ticket == finding.ticket
    assert searched(mlp, loop(said="both"), seed=1).ticket != finding.ticket


def test_a_family_shares_its_seed_and_families_do_not() -> None:
    heard: list[tuple[int, int, int, int]] = []
    searched(train=loop(spy=lambda model, seed, iterations, record: heard.append(  # noqa: ARG005
        (seed, iterations, record.start, record.stop))))  # fmt: skip
    dense, later = heard[:6], heard[6:]
    assert {one[1:] for one in heard} == {(T, 0, T)}
    assert len({seed for seed, *_ in dense}) == 6
    assert {seed for seed, *_ in later} == {dense[0][0], dense[2][0], dense[4][0]}


@pytest.mark.parametrize(
    ("build", "data", "changes"),
    [
        (conv, images, {}),
        (Lstm, sequences, {}),
        (Tied, sequences, {"scope": "weights+embeddings"}),
        (Tied, sequences, {"exclude": ("*.linear1.weight",)}),
    ],
)
def test_other_networks_go_through_the_same_call(build: Any, data: Any, changes: dict[str, Any]) -> None:
    seen: list[nn.Module] = []
    found = searched(
        build, loop(data, spy=lambda model, **_: seen.append(model)), on_test(data), dense_runs=1, **changes
    )
    masks = found.ticket.masks
    own = dict(build().named_parameters())
    assert masks.keys() <= own.keys()
    assert all(own[name].dim() > 1 for name in masks)
    assert found.ticket.density == found.levels[found.ticket.provenance["level"]].density
    state = found.network.state_dict()
    assert state.keys() == build().state_dict().keys()
    if build is conv:
        assert any(int(module[1].num_batches_tracked) == T for module in seen)  # type: ignore[index, arg-type]
        assert found.ticket.buffers["1.num_batches_tracked"] == 0
    if build is Lstm:
        assert {f"lstm.weight_{k}_l{n}{r}" for k in ("ih", "hh") for n in (0, 1) for r in ("", "_reverse")} < set(masks)
    if build is Tied:
        assert found.network.output.weight is found.network.embedding.weight
        assert found.as_json()["tied"] == {"output.weight": "embedding.weight"}
        assert ("embedding.weight" in masks) == ("scope" in changes)
        assert ("blocks.0.linear1.weight" in masks) == ("scope" in changes)


def test_a_module_is_one_family_without_reinit_and_says_so() -> None:
    module = mlp()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = searched(module, replicates=None)
    assert found.levels[1].arms.keys() == {"ticket", "shuffle"}
    assert found.verdict is Verdict.CANNOT_TELL
    assert "given as a module, so there is one family and no reinit control" in found.notes[0]
    assert found.notes[0] in " ".join(repr(found).split())
    assert found.as_json()["notes"] == list(found.notes)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    expected = apply(before, found.ticket.masks)
    assert all(torch.equal(value, expected[name]) for name, value in found.ticket.start.items())
    for refused, says in (({"replicates": 2}, "a module has one set"), ({"controls": ["reinit"]}, "leave reinit out")):
        with pytest.raises(InvalidValue, match=says):
            searched(module, **{"replicates": None, **refused})


@pytest.mark.parametrize("said", ["steps", "nothing"])
def test_without_losses_there_is_no_speed_and_the_result_says_so(said: str) -> None:
    found = searched(train=loop(said=said))
    assert found.judgement.certified["speed"] is None
    assert "reported no validation loss" in found.judgement.not_applicable["speed"]
    assert "reported no validation loss" in found.judgement.not_applicable["early"]
    assert "Speed was not judged: the training loop reported no validation loss" in found.sentence
    assert "the first, for the loop reported no validation to choose by" in found.chosen.why
    assert "early stop" not in repr(found).split("Verdict")[0]


@pytest.mark.parametrize("by", ["loss", "accuracy"])
def test_validation_chooses_the_family(by: str) -> None:
    """The lowest loss, or the highest accuracy; a test score, made up to say the opposite, has no part in it."""
    inner, seeds = loop(said="nothing"), list[int]()
    values = {0: 0.3, 1: 0.8, 2: 0.5}

    def train(model: nn.Module, *, seed: int, iterations: int, record: Any) -> None:
        inner(model, seed=seed, iterations=iterations, record=record)
        if seed not in seeds:
            seeds.append(seed)
        record(T, **{by: values[seeds.index(seed)]})

    found = searched(train=train, dense_runs=1, margin=0.49)
    assert found.ticket.provenance["replicate"] == (0 if by == "loss" else 1)
    assert "has the best validation" in found.chosen.why


def test_weights_behind_a_parametrization_are_named() -> None:
    def normed() -> nn.Module:
        net = mlp()
        nn.utils.parametrizations.weight_norm(net[1])  # type: ignore[index]
        return net

    skipped = searched(normed).as_json()["skipped"]
    assert "behind a parametrization" in skipped["1.parametrizations.weight.original1"]


def test_a_loop_that_returns_its_score_needs_no_evaluate() -> None:
    inner, score = loop(said="nothing"), on_test()

    def train(model: nn.Module, **rest: Any) -> float:
        inner(model, **rest)
        model.eval()
        return score(model)

    found, other = searched(train=train, evaluate=None), searched(train=loop(said="nothing"))
    scores = [[run.test_accuracy for run in level.arms["ticket"].values()] for level in found.levels]
    assert scores == [[run.test_accuracy for run in level.arms["ticket"].values()] for level in other.levels]


def test_any_score_is_judged_under_its_own_name() -> None:
    found = searched(evaluate=nats, score="-nats", margin=0.05)
    assert found.judgement.score == "-nats"
    assert all(run.test_accuracy < 0 for run in found.levels[2].arms["ticket"].values())
    assert "test -nats" in found.sentence
    assert "points" not in found.sentence
    assert "accuracy" not in repr(found)
    with pytest.raises(InvalidValue, match="no margin for -nats"):
        searched(evaluate=nats, score="-nats")


def test_an_accuracy_that_is_none_is_refused_with_the_way_out() -> None:
    with pytest.raises(TombolaError, match=r"accuracy.*score="):
        searched(evaluate=nats)


def test_rewinding_to_a_step() -> None:
    heard: list[tuple[int, int, int]] = []
    train = loop(every=1, spy=lambda model, seed, iterations, record: heard.append(  # noqa: ARG005
        (iterations, record.start, record.stop)))  # fmt: skip
    found = searched(train=train, rewind=4, dense_runs=1)
    assert set(heard[:3]) == {(T, 0, T)}
    assert (T - 4, 4, T) in heard[3:]
    reinit = [one for one in heard[3:] if one[0] == T]
    assert len(reinit) == 3 * 2
    ticket = found.ticket
    assert ticket.provenance["start_step"] == 4
    assert ticket.theta_0 is not None
    init = models.initial(mlp, Seed(0, ticket.provenance["replicate"]))
    assert all(torch.equal(v, ticket.theta_0[n]) for n, v in apply(init.params, ticket.masks).items())
    assert any(not torch.equal(v, ticket.theta_0[n]) for n, v in ticket.start.items())


def test_rewinding_needs_the_loop_to_report_that_step() -> None:
    with pytest.raises(InvalidValue, match=r"rewinds to step 4 .* reported 3, 6, 9, 12. Call record\(4\)"):
        searched(rewind="step:4")
    with pytest.raises(InvalidValue, match="K is below that"):
        searched(rewind=T)


def test_a_loop_that_starts_over_after_a_rewind_is_told_so() -> None:
    def train(model: nn.Module, *, seed: int, iterations: int, record: Any) -> None:  # noqa: ARG001
        with torch.no_grad():
            model[1].weight.mul_(1.1)  # type: ignore[index, operator, union-attr]
        for step in range(1, iterations + 1):
            record(step, loss=1.0)

    with pytest.raises(
        InvalidValue, match=r"step 1 in a run from 4 to 12\. Steps count iterations since initialisation"
    ):
        searched(train=train, rewind=4)


@pytest.mark.parametrize("changes", [{"strategy": "one-shot"}, {"strategy": "finetune"}, {"rewind": "lr"}])
def test_the_other_strategies(changes: dict[str, Any]) -> None:
    found = searched(controls=["shuffle"], **changes)
    assert len(found.levels) == 3
    assert (found.ticket.theta_0, tombola.Finding) == (None, Finding)
    if changes.get("strategy") != "one-shot":
        assert "keep trained weights" in found.judgement.not_applicable["speed"]
        assert found.ticket.provenance["end_step"] in ((24, 36) if "strategy" in changes else (12,))


def test_the_ticket_knows_its_lineage() -> None:
    found = searched(gates=[0.26])
    ticket = found.ticket
    lineage = ticket.provenance["lineage"]
    assert [entry["kept"] for entry in lineage] == [1056, 536, 274]
    assert ticket.parent is not None
    assert nested(ticket.masks, ticket.parent)
    assert sum(int(mask.sum()) for mask in ticket.parent.values()) == 536


def test_a_criterion_of_ones_own() -> None:
    seen: list[str] = []

    def smallest(params: Params, masks: Masks, evidence: Evidence) -> dict[str, Tensor]:
        assert evidence.theta_0 is not None
        seen.extend(masks)
        return {name: (-params[name].abs()).masked_fill(~mask, -math.inf) for name, mask in masks.items()}

    found = searched(criterion=smallest, controls=[])
    assert seen
    assert "smallest" in found.ticket.provenance["criterion"]


def test_a_criterion_that_writes_to_the_weights_is_refused() -> None:
    with pytest.raises(TombolaError, match=r"writes to the weights or masks .* \(abs, not abs_\)"):
        searched(criterion=lambda params, masks, _: {name: params[name].abs_() for name in masks}, strategy="finetune")


def test_frozen_parameters_stay_whole_and_are_named() -> None:
    def frozen() -> nn.Module:
        net = mlp()
        net[1].weight.requires_grad_(False)  # type: ignore[index, union-attr]
        return net

    found = searched(frozen, loop(optimizer=lambda params, lr: torch.optim.SGD(
        [p for p in params if p.requires_grad], lr=lr)))  # fmt: skip
    assert set(found.ticket.masks) == {"3.weight"}
    assert found.as_json()["skipped"]["1.weight"] == "frozen: it requires no gradient"


def test_a_falling_rate_makes_no_claim_of_speed() -> None:
    def decaying(params: Any, lr: float) -> torch.optim.Optimizer:
        steps = torch.optim.SGD(params, lr=lr)
        steps.register_step_post_hook(lambda o, *_: o.param_groups[0].update(lr=o.param_groups[0]["lr"] * 0.9))
        return steps

    assert "learning rate falls" in searched(train=loop(optimizer=decaying)).judgement.not_applicable["speed"]
    told = searched(speed="validation has twenty examples")
    assert told.judgement.not_applicable["speed"] == "validation has twenty examples"


def test_other_grids_make_no_claim_of_speed() -> None:
    inner, other = loop(every=3), loop(every=2)

    def train(model: nn.Module, **rest: Any) -> None:
        masked = bool((model[1].weight == 0).any())  # type: ignore[index, union-attr]
        (other if masked else inner)(model, **rest)

    assert "at other steps" in searched(train=train).judgement.not_applicable["speed"]


def test_a_loop_that_ignores_its_seed_is_noticed() -> None:
    inner = loop()
    found = searched(train=lambda model, *, seed, iterations, record: inner(  # noqa: ARG005
        model, seed=1, iterations=iterations, record=record))  # fmt: skip
    assert any("came out identical" in note for note in found.notes)
    assert searched().notes == ()


@pytest.mark.parametrize("more", [2, 1.04])
def test_a_loop_that_trains_tickets_longer_is_refused(more: float) -> None:
    """Arms are compared after the same number of iterations; a loss scaler may skip a step now and then."""

    def train(model: nn.Module, *, seed: int, iterations: int, record: Any) -> None:  # noqa: ARG001
        steps = torch.optim.SGD(model.parameters(), lr=0.1)
        longer = bool((model[1].weight == 0).any())  # type: ignore[index, union-attr]
        g = torch.Generator().manual_seed(seed)
        for _ in range(round(more * iterations) if longer else iterations):
            steps.zero_grad()
            model(torch.randn(4, 1, 8, 8, generator=g)).square().mean().backward()
            steps.step()

    if more < 1.05:
        assert searched(train=train, iterations=25).notes == ()
        return
    with pytest.raises(InvalidValue, match=rf"took 24 optimiser steps for {T} iterations of the ticket.* network 12\."):
        searched(train=train)


def test_a_loop_that_trains_a_copy_or_nothing_is_refused() -> None:
    inner = loop()
    for train in (lambda model, **rest: inner(copy.deepcopy(model), **rest), lambda model, **rest: None):  # noqa: ARG005
        with pytest.raises(InvalidValue, match=r"left the network as it was.*not a copy"):
            searched(train=train)


def test_a_loop_that_counts_from_one_after_a_rewind_is_told_so() -> None:
    def train(model: nn.Module, *, seed: int, iterations: int, record: Any) -> None:  # noqa: ARG001
        steps = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(1, iterations + 1):
            model(images()[0][:4]).square().mean().backward()
            steps.step()
            if step % 4 == 0:
                record(step, loss=1.0)

    with pytest.raises(InvalidValue, match="reports step 4 after training, in a run that starts at 4"):
        searched(train=train, rewind=4)


def test_a_hand_written_optimiser_follows_the_advice() -> None:
    """One documented call after each step, in the dense run as well."""

    def train(model: nn.Module, *, seed: int, iterations: int, record: Any) -> None:  # noqa: ARG001
        x, y = images()
        g = torch.Generator().manual_seed(seed)
        velocity = [torch.ones_like(p) for p in model.parameters()]
        for _ in range(iterations):
            batch = torch.randint(100, (16,), generator=g)
            gradients = torch.autograd.grad(
                nn.functional.cross_entropy(model(x[batch]), y[batch]), list(model.parameters())
            )
            with torch.no_grad():
                for p, v, gradient in zip(model.parameters(), velocity, gradients, strict=True):
                    p -= 0.1 * v.mul_(0.9).add_(gradient)
            if advised:
                tombola.attached(model).reapply()

    advised = True
    assert searched(train=train).ticket.kept < 1056
    advised = False
    with pytest.raises(InvalidValue, match="are not zero after training"):
        searched(train=train)


def test_memory_holds_thesurvivors_of_a_level_only(finding: Finding) -> None:
    from tombola.search.book import survivors
    from tombola.search.choosing import whole
    from tombola.types import Snapshot

    masks = finding.ticket.masks
    start = Snapshot(0, finding.ticket.start, finding.ticket.buffers)
    few = survivors(start, masks)
    assert sum(few.params[name].numel() for name in masks) == finding.ticket.kept
    again = whole(few, masks)
    assert all(torch.equal(value, start.params[name]) for name, value in again.params.items())


def test_operations_are_counted_where_the_shape_is_known() -> None:
    found = searched(input_shape=(1, 8, 8), batch_size=16, controls=[], dense_runs=1)
    assert found.cost.flops_dense == 6 * 1056 * 16 * T * 3 * 3
    assert found.cost.flops_effective == 6 * 16 * T * 3 * (1056 + 536 + 274)


def zeros() -> nn.Module:
    net = mlp()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net


def no_seed(model: nn.Module, iterations: int, record: Any) -> None:
    pass


SHARED = mlp()


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"build": "mlp"}, InvalidValue, "build is a str"),
        ({"build": lambda: 3}, InvalidValue, "returned a int, expected a torch.nn.Module"),
        ({"build": lambda: nn.Sequential(nn.LazyLinear(3))}, InvalidValue, "no values yet"),
        ({"build": lambda: SHARED}, InvalidValue, "the same parameters every time"),
        ({"build": zeros}, InvalidValue, "same initial values whatever the seed"),
        ({"build": nn.BatchNorm1d(4), "replicates": None}, NothingToPrune, "nothing to prune"),
        ({"train": 3}, InvalidValue, "train is a int"),
        ({"train": no_seed}, InvalidValue, "def train.model, ., seed, iterations, record."),
        ({"evaluate": 3}, InvalidValue, "evaluate is a int"),
        ({"iterations": 0}, InvalidValue, "at least 1"),
        ({"iterations": 2.5}, InvalidValue, "whole number"),
        ({"strategy": "impp"}, UnknownName, "Did you mean 'imp'"),
        ({"controls": "reinit"}, InvalidValue, "expected a list"),
        ({"controls": ["reinitt"]}, UnknownName, "Did you mean 'reinit'"),
        ({"scope": "weight"}, UnknownName, "Did you mean 'weights'"),
        ({"exclude": ["nothing.*"]}, InvalidValue, "matches no parameter"),
        ({"margin": 0.7}, InvalidValue, "fraction of accuracy"),
        ({"margin": math.inf}, InvalidValue, "fraction of accuracy"),
        ({"density": 20.0, "rate": None}, TombolaError, "For 20 % write 0.2"),
        ({"score": ""}, InvalidValue, "the score is called"),
        ({"rewind": -1}, InvalidValue, "Known: init, step:K"),
        ({"evaluate": None}, InvalidValue, "give evaluate"),
        ({"evaluate": lambda _: "good"}, InvalidValue, "what evaluate returns .* is a str"),
        ({"evaluate": lambda _: math.nan}, Diverged, "the score is nan"),
        ({"build": nn.Identity}, NothingToPrune, "nothing to prune"),
        ({"rounds": 40}, TombolaError, "would keep as many weights as the level before it|would be left"),
        ({"rewind": 2.5}, InvalidValue, "rewind is 2.5; expected text"),
        ({"replicates": "3"}, InvalidValue, "replicates is '3'; expected a whole number"),
        ({"seed": "x"}, InvalidValue, "seed is 'x'"),
        ({"gates": 0.5}, InvalidValue, "gates is 0.5; expected a list"),
        ({"min_keep": "a"}, InvalidValue, "min-keep is 'a'"),
        ({"exclude": [3]}, InvalidValue, "expected a list of text"),
        ({"exclude": "1.weight"}, InvalidValue, "exclude is '1.weight'; expected a list, such as"),
        ({"progress": "x"}, InvalidValue, "progress is 'x'; expected True, False or an observer"),
        ({"score": 3}, InvalidValue, "score is 3; expected the score's name"),
        ({"speed": True}, InvalidValue, "speed is True; expected None, or the reason"),
        ({"criterion": 3}, InvalidValue, "criterion is 3; expected a name, or a function"),
        ({"density": True, "rate": None}, InvalidValue, "density is True; expected a number"),
    ],
)  # fmt: skip
def test_wrong_calls_are_refused_with_the_next_step(given: dict[str, Any], error: type[Exception], says: str) -> None:
    calls = {"build": mlp, "train": None, "evaluate": "on test", **given}
    with pytest.raises(error, match=says):
        searched(**calls)


def test_ctrl_c_in_the_loop_leaves_nothing_behind() -> None:
    inner, calls = loop(), iter(range(100))

    def train(model: nn.Module, **rest: Any) -> None:
        if next(calls) == 7:
            raise KeyboardInterrupt
        inner(model, **rest)

    torch.manual_seed(4)
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        searched(train=train)
    assert torch.equal(torch.get_rng_state(), state)
    assert not optim_module._global_optimizer_post_hooks
    assert not optim_module._global_optimizer_pre_hooks


def test_an_observer_can_stop_it() -> None:
    class Impatient:
        def __init__(self) -> None:
            self.levels = 0

        def planned(self, setup: Any) -> None: ...

        def training(self, jobs: Sequence[Any]) -> None: ...

        def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None: ...

        def level_done(self, summary: Any, dropped: Any) -> None:  # noqa: ARG002
            self.levels += 1

        def stop(self) -> bool:
            return self.levels == 1

    with pytest.raises(KeyboardInterrupt, match="ticket: interrupted at iteration 3 of 12"):
        searched(progress=Impatient())


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    searched(progress=True, controls=[])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3 families, 2 dense runs each, 2 levels to 25.95 % of 1,056 weights, 12 iterations a run" in captured.err
    assert captured.err.count("level ") == 3


RANKS = """
import sys
sys.path.insert(0, {folder!r})
import torch, tombola
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from own_kit import T, mlp, on_test, images, report

distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], world_size=2, rank=int(sys.argv[1]))
rank = distributed.get_rank()

def build():
    if {fault!r} == "values" and rank == 1:
        torch.rand(1)
    return mlp()

def train(model, *, seed, iterations, record):
    x, y = images()
    wrapped = model if {fault!r} == "alone" else DistributedDataParallel(model)
    steps = torch.optim.AdamW(wrapped.parameters(), lr=0.01)
    for step in range(iterations):
        g = torch.Generator().manual_seed(seed * 1000 + step)
        mine = torch.randint(100, (16,), generator=g)[rank::2]
        loss = nn.functional.cross_entropy(wrapped(x[mine]), y[mine])
        steps.zero_grad()
        loss.backward()
        steps.step()
        if (step + 1) % 3 == 0:
            report(model, x, y, step + 1, record, "loss")

def evaluate(model):
    return on_test()(model) - 0.1 * rank

try:
    found = tombola.find(build, train, evaluate, iterations=T, rate=0.5, rounds=2, replicates=3, dense_runs=1)
    print(found.ticket.digest, found.as_json()["sentence"])
except tombola.TombolaError as error:
    print(type(error).__name__, error)
distributed.destroy_process_group()
"""


def ranks(fault: str, tmp_path: Path) -> list[tuple[str, str]]:
    code = RANKS.format(folder=str(Path(__file__).parent), fault=fault)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(rank), str(tmp_path / "meet")], env=environment, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in range(2)
    ]  # fmt: skip
    return [process.communicate(timeout=240) for process in started]


def test_two_ranks_find_one_ticket(tmp_path: Path) -> None:
    (out, progress), (other, silence) = ranks("none", tmp_path)
    assert out == other
    assert len(out.split()[0]) == 64
    assert "level 2" in progress
    assert "level" not in silence


@pytest.mark.parametrize(
    ("fault", "says"),
    [("values", "the ranks start the run 'dense' from different values"), ("alone", "the ranks hold different masks")],
)
def test_ranks_that_differ_are_refused(fault: str, says: str, tmp_path: Path) -> None:
    for out, _ in ranks(fault, tmp_path):
        assert out.startswith(f"RanksDiffer {says}")
