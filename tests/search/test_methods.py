"""Every strategy, through the search: where masks come from, how many weights they keep, what survivors start from."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import tombola
from tombola.data import Split
from tombola.errors import ImpossibleDensity, InvalidValue, TicketError
from tombola.prune.catalogue import CRITERIA, STRATEGIES
from tombola.prune.criteria import magnitude
from tombola.prune.evidence import Evidence
from tombola.prune.masks import apply, counts, kept
from tombola.search.find import Silent, run
from tombola.search.finding import Finding
from tombola.search.isolation import isolate
from tombola.search.ledger import SCORING
from tombola.search.levels import TICKET, Level, search
from tombola.search.looking import balanced
from tombola.search.named import prepare
from tombola.search.settings import Method, Settings
from tombola.search.setup import Setup
from tombola.train.cost import flops_of_run, flops_per_example
from tombola.train.flops import FlopCount
from tombola.types import Masks, Params, Scores, Seed, TrainJob, TrainOutcome

DENSITIES = (0.5, 0.1)
T = 40
Runs = list[tuple[TrainJob, TrainOutcome]]


def settings(**changes: Any) -> Settings:
    """Give a search on the digits that takes a second or two."""
    recipe = {"iterations": T, "eval_every": 10, **changes.pop("recipe", {})}
    base: dict[str, Any] = {"densities": DENSITIES, "replicates": 1, "dense_runs": 1, "controls": (), "workers": 1}
    return Settings(**{**base, **changes}, recipe=recipe)


def levels_of(setup: Setup) -> list[Level]:
    """Search, and give every level with its tensors."""
    plan = setup.plan
    with setup.trainer(Silent()) as train:
        return list(
            search(
                setup.families,
                train,
                plan.pruner,
                plan.scope.prunable,
                iterations=setup.iterations,
                levels=plan.cuts,
                dense_runs=1,
                controls=plan.controls,
                control_levels=plan.gates,
            )
        )


def find(**changes: Any) -> Finding:
    return run(prepare(settings(**changes)))


FINDING = [name for name in STRATEGIES if name != "transfer"]
"""The strategies that find masks of their own."""


@pytest.mark.parametrize("strategy", FINDING)
def test_every_strategy_keeps_exactly_what_was_planned(strategy: str) -> None:
    setup = prepare(settings(strategy=strategy, controls=("shuffle", "reinit", "small-dense")))
    dense, *levels = levels_of(setup)
    init = setup.families[0].init
    for level, planned, density in zip(levels, setup.plan.levels[1:], DENSITIES, strict=True):
        masks, ticket = level.masks[0], level.arms[TICKET][0]
        if setup.plan.pruner.allocation.name not in ("global", "lamp"):
            assert counts(masks) == dict(planned)
        size = sum(setup.plan.levels[0].values())
        assert kept(masks) == sum(planned.values()) == round(density * size)
        assert all(not ticket.end.params[name][~mask].any() for name, mask in masks.items()), "zero where pruned"
        for job, _ in level.runs:
            if job.name == "shuffle":
                assert counts(job.masks) == counts(masks), "of the mask that the run ended with"
            if job.name == "small-dense":
                assert kept(job.masks) <= kept(masks)
        start = level.starts[0]
        source = init if setup.plan.pruner.rewind.keeps_start_values else None
        if source is not None:
            assert all(torch.equal(value, start.params[n]) for n, value in apply(source.params, masks).items())
        elif not setup.plan.pruner.from_dense and level is levels[1]:
            before = levels[0].arms[TICKET][0].end
            assert all(torch.equal(value, start.params[n]) for n, value in apply(before.params, masks).items())
        else:
            end = dense.arms[TICKET][0].end
            assert all(torch.equal(value, start.params[n]) for n, value in apply(end.params, masks).items())
    if not setup.plan.pruner.each_from_dense:
        assert all(not (levels[1].masks[0][n] & ~mask).any() for n, mask in levels[0].masks[0].items()), "nested"


@pytest.mark.parametrize("criterion", ["snip", "synflow", "magnitude"])
def test_a_mask_made_at_initialisation_does_not_depend_on_training(criterion: str) -> None:
    short, long = (
        levels_of(prepare(settings(strategy="at-init", criterion=criterion, recipe={"lr": rate})))
        for rate in (1e-4, 1e-2)
    )
    for one, other in zip(short, long, strict=True):
        assert all(torch.equal(mask, other.masks[0][name]) for name, mask in one.masks[0].items())


@pytest.mark.parametrize("criterion", ["random", "snip", "grasp", "synflow"])
def test_pruning_at_initialisation_is_exact_down_to_a_thousandth(criterion: str) -> None:
    setup = prepare(settings(strategy="at-init", criterion=criterion, densities=(0.1, 0.001), min_keep=1))
    pruner, family = setup.plan.pruner, setup.families[0]
    assert family.looking is not None
    evidence = replace(family.looking.evidence(family.init), theta_0=family.init.params,
                       generator=torch.Generator().manual_seed(0))  # fmt: skip
    dense = {name: torch.ones_like(family.init.params[name], dtype=torch.bool) for name in setup.plan.scope.prunable}
    size = sum(mask.numel() for mask in dense.values())
    for level, density in ((1, 0.1), (2, 0.001)):
        masks = pruner.prune(level, family.init.params, dense, evidence)
        assert abs(kept(masks) - density * size) <= 1
    again = pruner.prune(2, family.init.params, masks, evidence)
    assert all(torch.equal(mask, again[name]) for name, mask in masks.items()), "what is pruned does not come back"


def test_survivors_are_changed_to_make_up_only_where_they_keep_their_weights() -> None:
    kept_on = levels_of(prepare(settings(strategy="one-shot-finetune", criterion="obs", densities=(0.3,))))
    rewound = levels_of(prepare(settings(strategy="one-shot", criterion="obs", densities=(0.3,))))
    masks = kept_on[1].masks[0]
    assert all(torch.equal(mask, rewound[1].masks[0][name]) for name, mask in masks.items()), "one ranking"
    plain = apply(kept_on[0].arms[TICKET][0].end.params, masks)
    changed = kept_on[1].starts[0].params
    assert any(not torch.equal(changed[name], plain[name]) for name in masks)
    assert all(not changed[name][~mask].any() for name, mask in masks.items())
    init = apply(prepare(settings()).families[0].init.params, masks)
    assert all(torch.equal(value, rewound[1].starts[0].params[name]) for name, value in init.items())


@pytest.mark.parametrize("strategy", ["gradual", "set", "rigl"])
def test_what_changes_in_training_claims_nothing_about_initial_values(strategy: str) -> None:
    found = find(strategy=strategy, replicates=3, controls=("reinit",), densities=(0.3,))
    assert not found.judgement.lottery
    assert "keep trained values" not in found.sentence
    assert "masks change while the network trains" in found.judgement.not_applicable["speed"]
    with pytest.raises(TicketError, match="masks change while the network trains"):
        isolate(found.ticket)


def test_the_ledger_counts_each_stretch_of_a_run_by_its_own_masks() -> None:
    setup = prepare(settings(strategy="gradual", densities=(0.2,)))
    job, outcome = levels_of(setup)[1].runs[0]
    assert setup.work is not None
    macs = setup.work.macs
    each = 6.0 * sum(macs.values())
    stretches = [(job.start.step, {n: mask.numel() for n, mask in job.masks.items()}), *outcome.history]
    ends = [step for step, _ in stretches[1:]] + [T]
    by_hand = sum(
        (end - step) * 6.0 * sum(macs[n] * count / job.masks[n].numel() for n, count in left.items())
        for (step, left), end in zip(stretches, ends, strict=True)
    )
    found = flops_of_run(macs, job, outcome)
    assert found == pytest.approx(by_hand)
    assert 0.2 * each * T < found < each * T
    assert outcome.history[-1][1] == counts(outcome.masks or {})


def test_the_gradient_that_rigl_looks_at_is_paid_for() -> None:
    setup = prepare(settings(strategy="rigl", densities=(0.2,)))
    job, outcome = levels_of(setup)[1].runs[0]
    assert setup.work is not None
    macs = setup.work.macs
    sparse = flops_per_example(macs, job.masks)
    assert len(outcome.history) > 0
    looked = len(outcome.history) * 2 * (2 * sparse / 6 + sum(macs.values()))
    assert flops_of_run(macs, job, outcome) == pytest.approx(T * sparse + looked)


def test_what_a_criterion_costs_that_looks_is_in_the_ledger() -> None:
    looked, plain = find(strategy="one-shot", criterion="obd", replicates=3), find(strategy="one-shot", replicates=3)
    entries = [one for one in looked.cost.runs if one.arm == SCORING]
    assert len(entries) == len(DENSITIES) * 3
    assert all(one.flops_effective and one.flops_effective > 0 and one.iterations == 0 for one in entries)
    assert not [one for one in plain.cost.runs if one.arm == SCORING]
    assert looked.cost.iterations == plain.cost.iterations


def with_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))


def test_recalibrated_statistics_are_reported_beside_the_old_ones() -> None:
    model = f"{with_batch_norm.__module__}:with_batch_norm"
    common: dict[str, Any] = {"model": model, "strategy": "one-shot-finetune", "densities": (0.2,), "replicates": 3}
    stale, fresh = find(**common), find(**common, recalibrate=True)
    for replicate, one in fresh.levels[1].after_cut.items():
        assert one.recalibrated is not None
        assert one.accuracy == stale.levels[1].after_cut[replicate].accuracy, "the old statistics, as without"
        assert stale.levels[1].after_cut[replicate].recalibrated is None
    both = [(one.accuracy, one.recalibrated or 0.0) for one in fresh.levels[1].after_cut.values()]
    assert sum(after for _, after in both) > sum(before for before, _ in both)
    assert "recalibrated" in repr(fresh)
    assert not find().levels[1].after_cut, "a ticket restarts, so there is nothing to say of its dense weights"


@pytest.mark.parametrize(
    ("wrong", "kind", "match"),
    [
        ({"strategy": "gradual", "criterion": "snip"}, InvalidValue, "nothing to look at"),
        ({"strategy": "rigl", "criterion": "magnitude"}, InvalidValue, "takes no criterion"),
        ({"strategy": "set", "structure": "neurons"}, InvalidValue, "takes no structure"),
        ({"strategy": "at-init", "rewind": "step:3"}, InvalidValue, "takes no rewind"),
        ({"extra": 5}, InvalidValue, "length of a fine-tuning"),
        ({"densities": (0.5, 0.6)}, ImpossibleDensity, "below the one before"),
        ({"densities": (1.0,)}, ImpossibleDensity, "between 0 and 1"),
        ({"densities": (float("nan"),)}, ImpossibleDensity, "between 0 and 1"),
        ({"densities": (0.5,), "rounds": 2}, InvalidValue, "rounds cannot be given beside"),
        ({"structure": "5:3"}, InvalidValue, "5:3|5 of 3|3"),
        ({"structure": "heads"}, InvalidValue, "MultiheadAttention"),
        ({"recalibrate": 1}, InvalidValue, "true or false"),
        ({"recalibrate": True}, InvalidValue, "under imp they do not"),
        ({"strategy": "at-init", "criterion": "movement"}, InvalidValue, "before there is any"),
        ({"strategy": "at-init", "criterion": "movement-pruning"}, InvalidValue, "before there is any"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(
    wrong: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        prepare(settings(**wrong))


def test_the_strategies_criterion_is_the_one_where_none_is_named() -> None:
    assert [Method(strategy=name).criterion for name in FINDING] == [STRATEGIES[name].criterion for name in FINDING]
    assert all(one.criterion in CRITERIA for one in STRATEGIES.values())


def test_a_loop_of_ones_own_is_not_reached_into() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def train(*_: Any, **__: Any) -> float:
        raise AssertionError("refused before anything is trained")

    for wrong, match in (
        ({"strategy": "rigl"}, "not reached into"),
        ({"criterion": "movement-pruning"}, "not reached into"),
        ({"structure": "neurons"}, "example|input_shape"),
        ({"criterion": "snip"}, "batches and loss are not given"),
        ({"criterion": "obd", "loss": nn.functional.cross_entropy}, "batches is not given"),
        ({"strategy": "finetune", "recalibrate": True}, "batches are not given"),
        ({"batches": []}, "an example at least"),
        ({"batches": iter(())}, "a list of pairs"),
        ({"batches": [(torch.zeros(0, 4), torch.zeros(0))]}, "an example at least"),
    ):
        with pytest.raises(InvalidValue, match=match):
            tombola.find(build, train, iterations=3, rounds=1, progress=False, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("criterion", [name for name, one in CRITERIA.items() if one.looks])
def test_every_criterion_that_looks_is_found_by_through_the_search(criterion: str) -> None:
    setup = prepare(settings(strategy="one-shot", criterion=criterion, densities=(0.3,), recipe={"iterations": 10}))
    (_, level) = levels_of(setup)
    assert kept(level.masks[0]) == sum(setup.plan.levels[1].values())
    assert level.scoring[0].flops > 0


def test_operations_are_counted_by_hand() -> None:
    a, b = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5)
    with FlopCount() as counter:
        (a @ b).sum().backward()
    assert counter.flops == 2 * (2 * 3 * 4 * 5)


@pytest.mark.parametrize("changes", [{"criterion": "obs"}, {"recalibrate": True}])
def test_a_shuffled_mask_keeps_trained_weights_whatever_the_cut_did_to_the_survivors(changes: dict[str, Any]) -> None:
    model = f"{with_batch_norm.__module__}:with_batch_norm"
    setup = prepare(
        settings(model=model, strategy="one-shot-finetune", densities=(0.3,), controls=("shuffle",), **changes)
    )
    dense, level = levels_of(setup)
    trained = dense.arms[TICKET][0].end.params
    (job,) = [job for job, _ in level.runs if job.name == "shuffle"]
    for name, mask in job.masks.items():
        only_here = mask & ~level.masks[0][name]
        assert bool(only_here.any())
        assert torch.equal(job.start.params[name][only_here], trained[name][only_here])


def test_a_criterion_sees_training_examples_alone_and_as_many_of_each_class() -> None:
    x, labels = torch.arange(60.0).unsqueeze(1), torch.arange(60) % 3
    held_out = torch.full((6, 1), -1.0)
    split = Split(x[:57], labels[:57], held_out, torch.arange(6) % 3, held_out, torch.arange(6) % 3)
    batches = balanced(split, Seed(1))
    seen = torch.cat([inputs for inputs, _ in batches]).reshape(-1)
    assert len(seen) == len(seen.unique()) == 30, "19 of each class fill one batch of ten"
    assert bool((seen >= 0).all()), "none of validation and test"
    for inputs, targets in batches:
        assert targets.bincount().tolist() == [10, 10, 10]
        assert torch.equal(targets, inputs.reshape(-1).long() % 3), "each with its own label"
    again, other = balanced(split, Seed(1)), balanced(split, Seed(2))
    assert all(torch.equal(one, two) for (one, _), (two, _) in zip(batches, again, strict=True))
    assert not torch.equal(batches[0][0], other[0][0])


def test_a_criterion_is_told_the_density_of_its_level() -> None:
    told: list[float | None] = []

    def tells(params: Params, masks: Masks, evidence: Evidence) -> Scores:
        told.append(evidence.density)
        return magnitude(params, masks, evidence)

    levels_of(prepare(settings(strategy="at-init", criterion=tells)))
    assert told == [pytest.approx(one, abs=1e-4) for one in DENSITIES]
