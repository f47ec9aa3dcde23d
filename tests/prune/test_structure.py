"""Structures keep exactly what they plan, in the shapes that their definitions say."""

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tombola.errors import ImpossibleDensity, InvalidScores, InvalidValue, ShapeMismatch, UnknownName
from tombola.prune.allocation.layer_rates import LayerRates
from tombola.prune.allocation.uniform import Uniform
from tombola.prune.counting import Cut, half_up, size_of
from tombola.prune.masks import counts, nested
from tombola.prune.structure import NM, Blocks, Group, Slice, Structure, Units, alive_units, named
from tombola.prune.structure.shares import Shares

SHAPES = {"conv": (12, 6, 3, 3), "fc1": (20, 48), "fc2": (7, 20), "vector": (9,)}
CHAIN = (
    Group("conv", 12, (Slice("conv", 0), Slice("conv.bias", 0), Slice("fc1", 1, 4))),
    Group("fc1", 20, (Slice("fc1", 0), Slice("fc2", 1))),
)
EVERY: Mapping[str, Structure] = {
    "2:4": NM(2, 4),
    "1:3": NM(1, 3),
    "block:4x4": Blocks(4, 4),
    "block:5x7": Blocks(5, 7, "mean"),
    "block:1x1": Blocks(1, 1),
    "neurons": Units(CHAIN),
}


def ones(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, Tensor]:
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


def sizes(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, int]:
    return {name: size_of(shape) for name, shape in shapes.items()}


def draw(masks: Mapping[str, Tensor], seed: int = 0, levels: int = 0) -> dict[str, Tensor]:
    """Draw scores, of few values where ``levels`` says so; pruned entries are -inf."""
    rng = torch.Generator().manual_seed(seed)
    drawn = {n: torch.rand(mask.shape, generator=rng) for n, mask in masks.items()}
    if levels:
        drawn = {n: (value * levels).floor() for n, value in drawn.items()}
    return {n: value.masked_fill(~masks[n], -torch.inf) for n, value in drawn.items()}


def cut(density: str) -> Cut:
    return Cut(density=Fraction(density))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("schedule", ["rate", "densities"])
def test_each_level_has_the_planned_counts_and_lies_in_the_one_before(name: str, levels: int, schedule: str) -> None:
    structure, masks, planned = EVERY[name], ones(), sizes()
    first = {"2:4": "0.5", "1:3": "1/3"}.get(name, "0.8")
    asked = [cut(first), cut("0.3"), cut("0.2"), cut("0.1")]
    for level in range(4):
        one = asked[level] if schedule == "densities" else Cut(rate=Fraction(1, 5))
        after = structure.plan(SHAPES, planned, one, Uniform())
        assert all(0 <= after[n] <= planned[n] for n in SHAPES)
        assert min(after["conv"], after["fc1"]) > 0, "the others may have fewer weights than a block"
        assert sum(after.values()) < sum(planned.values())
        rng = torch.Generator().manual_seed(level)
        found = structure.choose(draw(masks, level, levels), masks, after, rng)
        assert counts(found) == after
        assert nested(found, masks)
        assert list(found) == list(SHAPES)
        masks, planned = found, after


@pytest.mark.parametrize("name", EVERY)
def test_ties_are_broken_by_the_generator_and_by_nothing_else(name: str) -> None:
    structure, masks = EVERY[name], ones()
    scores = draw(masks, levels=1)
    planned = structure.plan(SHAPES, sizes(), Cut(rate=Fraction(1, 2)), Uniform())

    def chosen(seed: int | None) -> dict[str, Tensor]:
        return structure.choose(scores, masks, planned, None if seed is None else torch.Generator().manual_seed(seed))

    state = torch.random.get_rng_state()
    first, again, other = chosen(1), chosen(1), chosen(2)
    assert all(torch.equal(first[n], again[n]) for n in SHAPES)
    assert not all(torch.equal(first[n], other[n]) for n in SHAPES)
    assert all(torch.equal(chosen(None)[n], chosen(None)[n]) for n in SHAPES)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", EVERY)
def test_a_schedule_that_rises_is_refused(name: str) -> None:
    structure = EVERY[name]
    low = structure.plan(SHAPES, sizes(), cut("0.2"), Uniform())
    with pytest.raises(ImpossibleDensity, match="only"):
        structure.plan(SHAPES, low, cut("0.6"), Uniform())


@pytest.mark.parametrize("name", ["block:5x7", "neurons"])
def test_a_density_just_above_what_whole_units_reached_is_no_rise(name: str) -> None:
    structure, planned = EVERY[name], sizes()
    total = sum(planned.values())
    for keep in range(total, total // 2, -1):
        after = structure.plan(SHAPES, planned, Cut(keep=keep), Uniform())
        assert all(after[n] <= planned[n] for n in SHAPES)
        planned = after


def groups_of(mask: Tensor, of: int) -> Tensor:
    """Give each group along the input as a row, made by hand rather than by the code's own view."""
    rows = []
    for index in torch.cartesian_prod(*(torch.arange(n) for n in (mask.shape[0], *mask.shape[2:]))).reshape(
        -1, mask.dim() - 1
    ):
        line = mask[(index[0], slice(None), *index[1:])]
        rows += [line[at : at + of] for at in range(0, len(line) - of + 1, of)]
    return torch.stack(rows)


@given(keep=st.integers(1, 5), more=st.integers(1, 4), columns=st.integers(1, 14), kernel=st.sampled_from([(), (2, 2)]),
       seed=st.integers(0, 99), tied=st.booleans())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_nm_keeps_exactly_n_of_every_m_along_the_input(
    keep: int, more: int, columns: int, kernel: tuple[int, ...], seed: int, tied: bool
) -> None:
    of, shapes = keep + more, {"w": (3, columns, *kernel)}
    structure, masks = NM(keep, of), ones(shapes)
    scores = draw(masks, seed, levels=2 * tied)
    whole = columns // of * of
    if not whole:
        with pytest.raises(InvalidValue, match="leaves everything"):
            structure.plan(shapes, sizes(shapes), Cut(rate=Fraction(1, 5)), LayerRates())
        return
    planned = structure.plan(shapes, sizes(shapes), Cut(rate=Fraction(1, 5)), LayerRates())
    found = structure.choose(scores, masks, planned, torch.Generator().manual_seed(seed))["w"]
    assert bool(found[:, whole:].all()), "the remainder is dense"
    rows, values = groups_of(found, of), groups_of(scores["w"], of)
    assert rows.sum(1).unique().tolist() == [keep]
    worst = values.masked_fill(~rows, torch.inf).min(1).values
    assert bool((worst >= values.masked_fill(rows, -torch.inf).max(1).values).all()), "the best of each"


def test_nm_by_hand() -> None:
    scores = {"w": torch.tensor([[1.0, 9.0, 3.0, 2.0, 0.0, 5.0, 5.0, 4.0, 0.1]])}
    structure = NM(2, 4)
    found = structure.choose(scores, ones({"w": (1, 9)}), {"w": 5}, None)
    assert found["w"].int().tolist() == [[0, 1, 1, 0, 0, 1, 1, 0, 1]]
    inside = structure.choose({"w": scores["w"].masked_fill(~found["w"], -torch.inf)}, found, {"w": 2}, None)
    assert inside["w"].nonzero()[:, 1].tolist() in ([1, 5], [1, 6])


def test_the_first_nm_level_is_the_pattern_or_less_and_the_error_names_the_density() -> None:
    structure = NM(2, 4)
    with pytest.raises(ImpossibleDensity, match=r"--densities 0\.5"):
        structure.plan(SHAPES, sizes(), cut("0.8"), LayerRates())
    with pytest.raises(ImpossibleDensity, match=r"--densities 1/3"):
        NM(1, 3).plan(SHAPES, sizes(), cut("0.9"), LayerRates())
    pattern = structure.pattern(SHAPES)
    assert pattern == {"conv": 12 * 9 * (2 + 2), "fc1": 480, "fc2": 70, "vector": 9}
    assert structure.plan(SHAPES, sizes(), cut("0.5"), LayerRates()) == pattern
    assert structure.plan(SHAPES, sizes(), Cut(rate=Fraction(1, 5)), LayerRates()) == pattern
    total = sum(sizes().values())
    less = structure.plan(SHAPES, sizes(), cut("0.2"), Uniform())
    assert less == Uniform().plan(SHAPES, pattern, cut("0.2"))
    assert abs(sum(less.values()) - half_up(Fraction(total, 5))) <= 1
    found = structure.choose(draw(ones()), ones(), less, None)
    assert int(groups_of(found["fc1"], 4).sum(1).max()) <= 2, "inside the pattern in one cut as well"
    later = structure.plan(SHAPES, pattern, Cut(rate=Fraction(1, 5)), Uniform())
    assert later == {n: count - half_up(Fraction(count, 5)) for n, count in pattern.items()}


def test_blocks_are_whole_and_the_best_by_hand() -> None:
    weight = torch.tensor([[1.0, 1, 5, 0, 9], [1, 1, 0, 0, 9], [2, 2, 3, 3, 0]])
    structure, masks = Blocks(2, 2), ones({"w": (3, 5)})
    # 2 full blocks (sums 4 and 5), 1 at the right edge, 2 at the lower edge (4 and 6), a corner: 8 + 2 + 4 + 1.
    half = structure.plan({"w": (3, 5)}, {"w": 15}, Cut(keep=9), Uniform())
    assert half == {"w": 9}, "half of each kind, halves upwards: 1 full, the right edge, 1 lower, the corner"
    found = structure.choose({"w": weight}, masks, half, None)["w"]
    assert found.int().tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]
    swapped = Blocks(2, 2, "l2").choose({"w": torch.tensor([[2.0, 2, 3, 0], [2, 2, 0, 0]])}, ones({"w": (2, 4)}),
                                        {"w": 4}, None)["w"]  # fmt: skip
    assert swapped[0].tolist() == [True, True, False, False], "root of 16 against root of 9"


@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), block=st.tuples(st.integers(1, 4), st.integers(1, 4)),
       keep=st.integers(1, 81), seed=st.integers(0, 9))  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_blocks_keep_whole_rectangles_and_the_nearest_count(
    shape: tuple[int, int], block: tuple[int, int], keep: int, seed: int
) -> None:
    keep, structure = min(keep, shape[0] * shape[1]), Blocks(*block)
    planned = structure.plan({"w": shape}, {"w": shape[0] * shape[1]}, Cut(keep=keep), Uniform())
    masks = ones({"w": shape})
    found = structure.choose(draw(masks, seed), masks, planned, None)["w"]
    assert int(found.sum()) == planned["w"]
    sides = []
    for top in range(0, shape[0], block[0]):
        for left in range(0, shape[1], block[1]):
            part = found[top : top + block[0], left : left + block[1]]
            assert part.unique().numel() == 1
            sides.append(tuple(part.shape))
    kinds = {side: sides.count(side) for side in sides}
    fractions = {Fraction(2 * j - 1, 2 * n) for n in kinds.values() for j in range(1, n + 1)} | {Fraction(0)}
    reached = [sum(half_up(f * n) * side[0] * side[1] for side, n in kinds.items()) for f in fractions]
    assert min(abs(count - keep) for count in reached) == abs(planned["w"] - keep), "the nearest count"
    if block == (1, 1):
        assert planned["w"] == keep
    full = Blocks(*shape)
    assert full.plan({"w": shape}, {"w": masks["w"].numel()}, Cut(keep=keep), Uniform())["w"] in (0, masks["w"].numel())


def test_a_mean_is_not_a_sum_where_weights_are_missing() -> None:
    masks = {"w": torch.tensor([[True, True, True, False]])}
    scores = {"w": torch.tensor([[2.0, 2.0, 3.0, -torch.inf]])}
    planned = {"w": 2}
    assert Blocks(1, 2).choose(scores, masks, planned, None)["w"].int().tolist() == [[1, 1, 0, 0]]
    assert Blocks(1, 2, "mean").choose(scores, masks, planned, None)["w"].int().tolist() == [[0, 0, 1, 0]]


def test_squares_of_negative_scores_are_refused_and_pools_have_names() -> None:
    with pytest.raises(InvalidScores, match="sum or mean"):
        Blocks(1, 1, "l2").choose({"w": torch.tensor([[-1.0, 2.0]])}, ones({"w": (1, 2)}), {"w": 1}, None)
    kept = Blocks(1, 2).choose({"w": torch.tensor([[-9.0, -9.0, -1.0, -1.0]])}, ones({"w": (1, 4)}), {"w": 2}, None)
    assert kept["w"].int().tolist() == [[0, 0, 1, 1]], "a sum keeps the sign: larger is kept longer"
    with pytest.raises(UnknownName, match="mean"):
        Blocks(1, 1, "meen")
    with pytest.raises(UnknownName):
        Units(CHAIN, pool="max")


def test_counts_that_blocks_do_not_have_are_refused() -> None:
    with pytest.raises(InvalidValue, match="add up"):
        Blocks(2, 2).choose(draw(ones({"w": (4, 4)})), ones({"w": (4, 4)}), {"w": 5}, None)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), least=st.integers(0, 1), budget=st.integers(0, 120))
@settings(max_examples=100, deadline=None)
def test_shares_are_a_ladder_and_the_last_step_is_the_largest_in_budget(
    sizes: list[int], least: int, budget: int
) -> None:
    shares = Shares(tuple(sizes), least)
    fractions = sorted({Fraction(0)} | {Fraction(2 * j - 1, 2 * n) for n in sizes for j in range(1, n + 1)})
    every = [tuple(max(least, half_up(f * n)) for n in sizes) for f in fractions]
    assert all(all(a <= b for a, b in zip(low, high, strict=True)) for low, high in pairwise(every))
    inside = [vector for vector in every if sum(vector) <= budget]
    step = shares.last(sum, budget)
    assert (shares.at(step) if step >= 0 else None) == (inside[-1] if inside else None)


def test_units_are_rows_times_columns_by_hand() -> None:
    shapes = {"a": (3, 2), "b": (2, 3)}
    group = Group("a", 3, (Slice("a", 0), Slice("b", 1)))
    scores = {"a": torch.tensor([[1.0, 1], [4, 4], [2, 2]]), "b": torch.tensor([[9.0, 0, 1], [9, 0, 1]])}
    planned = Units((group,)).plan(shapes, sizes(shapes), Cut(keep=11), Uniform())
    assert planned == {"a": 4, "b": 4}, "2 of 3 units: 8 weights, and 12 would be more than 11"
    found = Units((group,)).choose(scores, ones(shapes), planned, None)
    assert found["a"].int().tolist() == [[1, 1], [1, 1], [0, 0]], "units score 20, 8 and 6"
    assert found["b"].int().tolist() == [[1, 1, 0], [1, 1, 0]]


def test_a_stream_read_and_written_by_one_tensor_loses_the_same_row_and_column() -> None:
    shapes = {"w": (4, 4), "in": (4, 2), "out": (2, 4)}
    group = Group("s", 4, (Slice("in", 0), Slice("w", 0), Slice("w", 1), Slice("out", 1)))
    planned = Units((group,)).plan(shapes, sizes(shapes), Cut(keep=10), Uniform())
    assert planned == {"w": 4, "in": 4, "out": 4} or sum(planned.values()) <= 10
    assert planned == {"w": 1, "in": 2, "out": 2}
    found = Units((group,)).choose(draw(ones(shapes), 3), ones(shapes), planned, None)
    row, column = found["w"].nonzero()[0].tolist()
    assert row == column == int(found["in"].any(1).nonzero()) == int(found["out"].any(0).nonzero())


def test_units_keep_one_fraction_of_every_group_and_the_most_weights_allowed() -> None:
    structure = Units(CHAIN)
    planned, masks = sizes(), ones()
    for asked in ("0.7", "0.4", "0.15"):
        planned = structure.plan(SHAPES, planned, cut(asked), LayerRates())
        masks = structure.choose(draw(masks), masks, planned, None)
        kept = {name: int(alive.sum()) for name, alive in alive_units(CHAIN, masks).items()}
        total = sum(sizes().values())
        assert sum(planned.values()) <= half_up(Fraction(asked) * total)
        low = max((kept["conv"] - Fraction(1, 2)) / 12, (kept["fc1"] - Fraction(1, 2)) / 20)
        high = min((kept["conv"] + Fraction(1, 2)) / 12, (kept["fc1"] + Fraction(1, 2)) / 20)
        assert low <= high, "one fraction gives both numbers"
        more = [max(kept["conv"], half_up(high * 12)), max(kept["fc1"], half_up(high * 20))]
        bigger = more[0] * 54 + more[0] * 4 * more[1] + more[1] * 7 + 9
        assert bigger > half_up(Fraction(asked) * total), "the next step is too large"


def test_too_few_weights_for_one_unit_of_each_group_name_the_least_density() -> None:
    # 54 + 4 + 7 + 9 weights are left with one channel and one neuron: 74 of 1,757.
    with pytest.raises(ImpossibleDensity, match=r"takes 74\. Ask for a density of at least 0\.0422"):
        Units(CHAIN).plan(SHAPES, sizes(), cut("0.04"), Uniform())
    planned = Units(CHAIN).plan(SHAPES, sizes(), cut("0.0422"), Uniform())
    assert sum(planned.values()) == 74


def test_groups_whose_readers_are_not_pruned_stay_whole() -> None:
    shapes = {"conv": SHAPES["conv"], "fc1": SHAPES["fc1"]}
    planned = Units(CHAIN).plan(shapes, sizes(shapes), cut("0.5"), Uniform())
    found = Units(CHAIN).choose(draw(ones(shapes)), ones(shapes), planned, None)
    assert bool(found["fc1"].any(1).all()), "fc2 reads fc1 and is not pruned"
    with pytest.raises(InvalidValue, match="Widen the scope"):
        Units(CHAIN[1:]).plan(shapes, sizes(shapes), cut("0.5"), Uniform())


def test_groups_that_do_not_fit_or_overlap_are_refused() -> None:
    shapes = {"a": (3, 2), "b": (2, 3)}
    for wrong, error, what in (
        (Group("a", 4, (Slice("a", 0), Slice("b", 1))), ShapeMismatch, "has 3 entries"),
        (Group("a", 3, (Slice("a", 0), Slice("a", 0), Slice("b", 1))), InvalidValue, "share"),
    ):
        with pytest.raises(error, match=what):
            Units((wrong,)).plan(shapes, sizes(shapes), Cut(keep=8), Uniform())


def test_masks_and_counts_that_are_not_of_whole_units_are_refused() -> None:
    planned = Units(CHAIN).plan(SHAPES, sizes(), cut("0.5"), Uniform())
    masks = ones()
    masks["fc1"] = draw(masks)["fc1"] > 0.3
    with pytest.raises(InvalidValue, match="masks so far"):
        Units(CHAIN).choose(draw(masks), masks, planned, None)
    with pytest.raises(InvalidValue, match="whole neurons"):
        Units(CHAIN).choose(draw(ones()), ones(), {**planned, "fc1": planned["fc1"] + 1}, None)


def test_structures_by_name() -> None:
    assert named("none") is None
    assert named("2:4") == NM(2, 4)
    assert named("block:8x1", pool="mean") == Blocks(8, 1, "mean")
    assert named("neurons", lambda kind: CHAIN if kind == "neurons" else ()) == Units(CHAIN)
    for text in ("2:4", "block:8x1"):
        found = named(text)
        assert found is not None
        assert found.name == text
    for wrong in ("4:2", "0:4", "block:0x4", "block:4", "channels", "2:4:8", ""):
        with pytest.raises(InvalidValue):
            named(wrong)
    with pytest.raises(InvalidValue, match="groups"):
        named("heads")
