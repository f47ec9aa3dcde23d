"""What is wrong with a ticket: the decision on numbers made by hand, and one break planted on the digits."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import tombola
from tombola.cli import main
from tombola.errors import EmptiedLayer, InvalidValue
from tombola.explain.checkup import checkup
from tombola.explain.diagnosis import Arm, Cause, Diagnosis, diagnose
from tombola.explain.exchanges import filled, with_signs
from tombola.explain.material import read
from tombola.explain.remedy import remedy
from tombola.explain.why import Why, own_ticket, ticket_of, why
from tombola.ticket import Ticket, save

SICK = (0.950, 0.951, 0.949)
HEALTHY = (0.980, 0.981, 0.979)
NAN = (math.nan, 0.98, 0.98)


def moved(by: float, of: tuple[float, ...] = SICK) -> tuple[float, ...]:
    return tuple(one + by + wobble for one, wobble in zip(of, (0.0, 0.0005, -0.0005), strict=True))


def found(
    *exchanges: tuple[Cause, float],
    own: float = 0.950,
    reference: tuple[float, ...] = HEALTHY,
    dense: tuple[float, ...] = HEALTHY,
    signs_alone: bool = True,
    patient: tuple[float, ...] = SICK,
) -> Diagnosis:
    arms = [Arm(cause.value, moved(by, patient), cause) for cause, by in exchanges]
    return diagnose(
        patient, own, arms, reference=Arm("reference ticket", reference), dense=[Arm("dense network", dense)],
        margin=0.002, signs_alone=signs_alone,
    )  # fmt: skip


@pytest.mark.parametrize("cause", [Cause.SIGNS, Cause.VALUES, Cause.MASK, Cause.STEP, Cause.RATE])
def test_the_exchange_that_closes_the_gap_is_named(cause: Cause) -> None:
    others = [(one, 0.002) for one in (Cause.VALUES, Cause.MASK, Cause.STEP, Cause.RATE) if one is not cause]
    told = found(*others, (cause, 0.027))
    assert told.cause is cause
    assert told.exchange == cause.value
    assert told.sentence.startswith(f"{cause.value}: the ticket is 3.00 points below the reference ticket")
    effect = next(one for one in told.effects if one.cause is cause)
    assert effect.share == pytest.approx(0.9)
    assert effect.lower is not None
    assert effect.recovered == pytest.approx(0.027)
    assert 0 < effect.lower < 0.027


def test_half_of_the_gap_is_enough_and_less_is_not() -> None:
    assert found((Cause.MASK, 0.0151)).cause is Cause.MASK
    assert found((Cause.MASK, 0.0149)).cause is Cause.NONE
    assert "best: 50 %" in found((Cause.MASK, 0.0149)).sentence


def test_what_noise_could_have_done_is_not_named() -> None:
    """On average the mask recovers two thirds, and in one order it loses."""
    wild = Arm("mask", (0.950 + 0.06, 0.951 - 0.02, 0.949 + 0.02), Cause.MASK)
    told = diagnose(SICK, 0.95, [wild], reference=Arm("reference", HEALTHY), dense=[], margin=0.002)
    assert told.cause is Cause.NONE


def test_values_are_named_in_place_of_a_rewinding_step_that_does_little_more() -> None:
    assert found((Cause.STEP, 0.030), (Cause.VALUES, 0.025)).cause is Cause.VALUES
    assert found((Cause.STEP, 0.030), (Cause.VALUES, 0.020)).cause is Cause.STEP
    assert found((Cause.STEP, 0.030), (Cause.MASK, 0.029)).cause is Cause.STEP


def test_signs_are_named_only_where_nothing_else_differs() -> None:
    both = ((Cause.VALUES, 0.030), (Cause.SIGNS, 0.028))
    assert found(*both).cause is Cause.SIGNS
    told = found(*both, signs_alone=False)
    assert told.cause is Cause.VALUES
    assert "its signs alone recover 93 %" in told.sentence
    assert found((Cause.VALUES, 0.030), (Cause.SIGNS, 0.020)).cause is Cause.VALUES
    assert found((Cause.STEP, 0.030), *both).cause is Cause.SIGNS


def test_of_two_that_tie_the_one_named_first_wins_whatever_their_order() -> None:
    pair = ((Cause.RATE, 0.02), (Cause.MASK, 0.02))
    assert found(*pair).cause is Cause.MASK
    assert found(*reversed(pair)).cause is Cause.MASK


def test_no_gap_is_no_break() -> None:
    told = found((Cause.MASK, 0.0), reference=moved(0.0), dense=moved(0.001))
    assert told.cause is Cause.NOT_BROKEN
    assert not told.cause.named
    assert all(one.share is None for one in told.effects)


def test_a_gap_that_is_not_shown_cannot_be_told() -> None:
    told = found(reference=(0.99, 0.94, 0.98), dense=moved(0.0))
    assert told.cause is Cause.CANNOT_TELL
    two = diagnose(SICK[:2], 0.95, [], reference=Arm("r", HEALTHY[:2]), dense=[], margin=0.002)
    assert two.cause is Cause.CANNOT_TELL
    assert two.lower is None
    json.dumps(two.as_json(), allow_nan=False)


def test_where_the_reference_suffers_too_the_gap_is_to_the_dense_network_at_its_best_rate() -> None:
    told = diagnose(
        SICK, 0.95, [Arm("learning rate 0.1", moved(0.02), Cause.RATE)], reference=Arm("reference ticket", SICK),
        dense=[Arm("dense network", SICK), Arm("dense network at 0.1", HEALTHY)], margin=0.002,
    )  # fmt: skip
    assert (told.cause, told.target) == (Cause.RATE, "dense network at 0.1")
    assert told.dense_gain == pytest.approx(0.03)
    assert "the dense network suffers too: it gains 3.00 points" in told.sentence
    alone = found((Cause.RATE, 0.02))
    assert alone.dense_gain is None
    assert "the dense network gains nothing by it" in alone.sentence


def test_an_order_of_its_own_is_told_from_the_others() -> None:
    """One run lies apart from the others by chance as often as any of them, so it takes more than for a mean."""
    told = found(own=0.93, patient=HEALTHY)
    assert told.cause is Cause.ORDER
    assert "below itself in others" in told.sentence
    assert found(own=0.977, patient=HEALTHY).cause is Cause.NOT_BROKEN
    assert found((Cause.MASK, 0.027), own=math.nan).cause is Cause.MASK


def test_an_arm_that_is_not_a_number_is_left_out() -> None:
    arms = [Arm("mask", NAN, Cause.MASK), Arm("values", moved(0.027), Cause.VALUES)]
    told = diagnose(SICK, 0.95, arms, reference=Arm("reference ticket", NAN), dense=[Arm("dense", HEALTHY)], margin=0)
    assert (told.cause, told.target) == (Cause.VALUES, "dense")
    assert told.effects[0].recovered is None
    nobody = diagnose(SICK, 0.95, [], reference=Arm("reference", NAN), dense=[], margin=0)
    assert (nobody.cause, nobody.gap, nobody.target) == (Cause.CANNOT_TELL, None, "")
    with pytest.raises(InvalidValue, match="not all numbers"):
        found(patient=NAN)
    with pytest.raises(InvalidValue, match="2 data orders"):
        found(reference=HEALTHY[:2])


def test_one_component_is_exchanged_and_the_others_stay() -> None:
    mask = {"w": torch.tensor([True, True, False])}
    ours, theirs = {"w": torch.tensor([-1.0, 2.0, 0.0])}, {"w": torch.tensor([3.0, -4.0, 5.0])}
    assert filled(ours, mask, theirs)["w"].tolist() == [-1.0, 2.0, 5.0]
    assert with_signs(filled(ours, mask, theirs), theirs, mask)["w"].tolist() == [1.0, -2.0, 5.0]
    cells = checkup(mask, ours, healthy=theirs, reference=mask).rows[0]
    row = dict(zip(("layer", "kept", "of", "equal", "signs"), cells, strict=False))
    assert row == {"layer": "w", "kept": 2, "of": 3, "equal": 0.0, "signs": 0.0}
    empty = {"w": torch.zeros(3, dtype=torch.bool)}
    assert checkup(empty, ours, healthy=theirs, reference=empty).rows[0][3:6] == (None, None, None)


WORDS = ["find", "--rounds", "4", "--rate", "0.5", "--iterations", "150", "--replicates", "1", "--dense-runs", "1",
         "--controls", "none", "--workers", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert main([*WORDS, "--out", str(folder)]) == 0
    return folder


def test_a_planted_break_is_named_and_nothing_is_trained_twice(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the signs are flipped at 6 % of the weights; the exchange of all values is the same network."""
    material = read(run)
    one, rng = material.families[0], torch.Generator().manual_seed(3)
    masks = one.masks[4]
    start = {
        name: value * torch.where(torch.rand(value.shape, generator=rng) < 0.5, -1.0, 1.0) if name in masks else value
        for name, value in one.theta_0.items()
    }
    path = tmp_path / "flipped.safetensors"
    save(Ticket(start, masks), path)
    words = ["analyze", str(run), "--draws", "1", "--why", str(path), "--out"]
    assert main([*words, str(tmp_path / "first")]) == 0
    out = capsys.readouterr().out
    assert "Cause: signs: the ticket is" in out
    assert "Next: Start from the initial values, whose signs these should be" in out
    told = json.loads((tmp_path / "first" / "analysis.json").read_text())["why"]
    assert told["diagnosis"]["cause"] == "signs"
    assert told["arms"]["signs"] == told["arms"]["values"] == told["arms"]["reference ticket"]
    table = (tmp_path / "first" / "why.csv").read_text().splitlines()
    assert table[0] == "trained,accuracy,recovered,low,high,share"
    assert table[1].startswith("the ticket,")
    kept = sorted(path.name for path in (run / "store" / "units").rglob("*") if path.is_file())
    assert main([*words, str(tmp_path / "second")]) == 0
    assert sorted(path.name for path in (run / "store" / "units").rglob("*") if path.is_file()) == kept
    first, second = ((tmp_path / name / "analysis.json").read_bytes() for name in ("first", "second"))
    assert first == second


def test_the_runs_own_ticket_is_set_against_the_one_shot_mask(run: Path) -> None:
    told = why(read(run), own_ticket(read(run), 2))
    assert told.patient == "own"
    arms = {one.name: one for one in told.arms}
    rates = [f"{what} {rate}" for what in ("learning rate", "dense network at") for rate in ("0.0013", "0.0004")]
    assert arms.keys() == {"the ticket", "reference ticket", "dense network", "mask", "rewinding step", *rates}
    assert told.checks.rows[0][3:5] == (1.0, 1.0)
    assert arms["mask"].accuracies == arms["reference ticket"].accuracies


@pytest.mark.parametrize(
    ("cause", "command", "cost"),
    [
        (Cause.VALUES, "find --data digits --iterations 150 --replicates 3 --dense-runs 1 --controls none", 6),
        (Cause.MASK, "--strategy one-shot --densities 0.25", 6),
        (Cause.STEP, "--rewind step:8", 6),
        (Cause.RATE, "--lr 0.0004", 6),
        (Cause.ORDER, "analyze RUN --why own --level 2 --orders 6", 30),
        (Cause.NONE, "--orders 6", 30),
        (Cause.CANNOT_TELL, "--orders 6", 30),
        (Cause.NOT_BROKEN, "", 0),
    ],
)
def test_every_cause_leads_to_an_experiment_with_its_cost(run: Path, cause: Cause, command: str, cost: float) -> None:
    material = read(run)
    told = replace(found(), cause=cause, exchange="learning rate 0.0004")
    next_one = remedy(told, material, own_ticket(material, 2), orders=3, arms=10, step=8, own_mask=True)
    assert command in next_one.command
    assert next_one.dense_trainings == cost
    assert next_one.command in next_one.sentence


def test_with_enough_families_the_runs_own_masks_are_trained_from_its_values(run: Path) -> None:
    material = read(run)
    enough = replace(material, families=material.families * 3)
    told = replace(found(), cause=Cause.MASK)
    next_one = remedy(told, enough, own_ticket(material, 2), orders=3, arms=10, step=8, own_mask=False)
    assert next_one.command.endswith("--strategy transfer --source RUN")
    assert next_one.dense_trainings == 3 * (1 + len(material.gates))


def test_what_cannot_be_looked_into_is_refused_before_anything_is_measured(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hurt = tmp_path / "hurt.safetensors"
    hurt.write_bytes((run / "ticket.safetensors").read_bytes()[:-7])
    other = tmp_path / "other.safetensors"
    save(Ticket({"w": torch.ones(2)}, {"w": torch.tensor([True, False])}), other)
    ticket = str(run / "ticket.safetensors")
    for words, said in (
        ([str(hurt)], "CorruptTicket"),
        ([str(other)], "ShapeMismatch"),
        ([str(tmp_path / "none")], "TicketError"),
        ([ticket, "--orders", "2"], "--orders 3"),
    ):
        assert main(["analyze", str(run), "--why", *words]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert "measured" not in err


def test_a_ticket_of_part_of_the_network_and_a_loop_of_ones_own_are_refused(run: Path, tmp_path: Path) -> None:
    material = read(run)
    one = material.families[0]
    few = dict(list(one.masks[1].items())[:1])
    save(Ticket(one.theta_0, few), tmp_path / "few.safetensors")
    with pytest.raises(tombola.TombolaError, match="are pruned"):
        ticket_of(material, tmp_path / "few.safetensors")
    with pytest.raises(InvalidValue, match="no masks of level 9"):
        own_ticket(material, 9)
    with pytest.raises(InvalidValue, match="loop of your own"):
        own_ticket(replace(material, setup=None), 1)


def test_an_emptied_layer_is_the_cause_without_training(run: Path, tmp_path: Path) -> None:
    one = read(run).families[0]
    masks = {name: mask.clone() for name, mask in one.masks[1].items()}
    masks["fc2.weight"][:] = False
    save(Ticket(one.theta_0, masks), tmp_path / "empty.safetensors")
    with pytest.raises(EmptiedLayer, match=r"none of the 30000 weights of 'fc2.weight'.*the mask is to blame"):
        ticket_of(read(run), tmp_path / "empty.safetensors")


def test_the_keys_are_those_of_their_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    said = text[text.index("and `why`, which") : text.index("# The table that `tombola judge` reads")]
    told = found((Cause.MASK, 0.02)).as_json()
    for key in (*told, *told["effects"][0]):
        assert f"`{key}`" in said, key
    for one in fields(Why):
        assert f"`{one.name}`" in said, one.name
