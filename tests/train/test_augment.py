"""Augmentation: each image moved and mirrored as a whole, by position alone, and in training only."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tombola import models
from tombola.data import Split, load
from tombola.errors import InvalidValue, UnknownName
from tombola.train.augment import PADDING, augmented, crop_flip, draw_crop_flip
from tombola.train.order import BatchOrder
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import AUGMENTATIONS, Recipe
from tombola.train.source import Splits
from tombola.types import Seed, TrainJob, TrainOutcome

SPLITS = Splits(partial(load, "digits"))
HOW = Recipe(iterations=12, batch_size=30, lr=3e-3, eval_every=4, augment="crop-flip")


def pictures(*shape: int) -> Tensor:
    """Give pictures of which no two pixels are equal, and none is zero."""
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)


def test_four_cuts_by_hand() -> None:
    x = pictures(4, 1, 2, 3)
    offsets = torch.tensor([[4, 4], [4, 4], [5, 3], [5, 3]])
    cut = crop_flip(x, offsets, torch.tensor([False, True, False, True]))
    assert cut[:, 0].tolist() == [
        [[1, 2, 3], [4, 5, 6]],
        [[9, 8, 7], [12, 11, 10]],
        # A row further down and a column further left is cut: the image goes up, and to the right.
        [[0, 16, 17], [0, 0, 0]],
        [[23, 22, 0], [0, 0, 0]],
    ]


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_every_output_is_one_cut_of_the_padded_image_mirrored_or_not(
    data: st.DataObject, channels: int, height: int, width: int
) -> None:
    cuts = data.draw(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.booleans()), min_size=1, max_size=5))
    x = pictures(len(cuts), channels, height, width)
    got = crop_flip(x, torch.tensor([[r, c] for r, c, _ in cuts]), torch.tensor([flip for _, _, flip in cuts]))
    assert got.is_contiguous()
    for image, made, (row, column, flip) in zip(x, got, cuts, strict=True):
        padded = torch.zeros(channels, height + 8, width + 8)
        padded[:, 4 : 4 + height, 4 : 4 + width] = image
        cut = padded[:, row : row + height, column : column + width]
        assert torch.equal(made, cut.flip(2) if flip else cut)


def test_a_batch_is_cut_as_drawn() -> None:
    x = pictures(40, 3, 8, 8).double()
    made = augmented("crop-flip", x, Seed(1), 5)
    assert made.dtype == x.dtype
    padded = functional.pad(x, (4, 4, 4, 4))
    found = []
    for image, got in zip(padded, made, strict=True):
        cuts = {(r, c, flip): cut.flip(2) if flip else cut for r in range(9) for c in range(9)
                for flip in (False, True) for cut in [image[:, r : r + 8, c : c + 8]]}  # fmt: skip
        found += [how for how, cut in cuts.items() if torch.equal(cut, got)]
    offsets, flips = draw_crop_flip(40, Seed(1), 5)
    assert found == [(r, c, flip) for (r, c), flip in zip(offsets.tolist(), flips.tolist(), strict=True)]


def test_places_and_flips_are_uniform_and_independent() -> None:
    examples = 81_000
    offsets, flips = draw_crop_flip(examples, Seed(0), 0)
    assert offsets.shape == (examples, 2)
    cell = (offsets[:, 0] * 9 + offsets[:, 1]) * 2 + flips
    counts = torch.bincount(cell, minlength=162).double()
    assert len(counts) == 162
    # Chi-square with 161 degrees of freedom: mean 161, standard deviation sqrt(322).
    assert abs(float(((counts - 500) ** 2 / 500).sum()) - 161) < 5 * 322**0.5
    # Half of the images are flipped, to five standard deviations.
    assert abs(int(flips.sum()) - examples / 2) < 5 * (examples / 4) ** 0.5


def test_what_is_drawn_follows_from_seed_and_position_alone() -> None:
    x = pictures(20, 1, 8, 8)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = augmented("crop-flip", x, Seed(3, 1), 7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(one, augmented("crop-flip", x, Seed(3, 1), 7))
    others = [(Seed(3, 1), 8), (Seed(3, 2), 7), (Seed(4, 1), 7), (Seed(3, 1, order=1), 7)]
    assert not any(torch.equal(one, augmented("crop-flip", x, *other)) for other in others)


def test_the_first_draws_stay_what_they_are() -> None:
    offsets, flips = draw_crop_flip(6, Seed(0), 0)
    assert offsets.tolist() == [[7, 1], [6, 4], [1, 8], [0, 3], [6, 8], [5, 1]]
    assert flips.tolist() == [True, True, False, True, True, True]


def test_without_augmentation_the_batch_is_the_batch() -> None:
    for x in (torch.zeros(3, 5), torch.zeros(3, 1, 8, 8)):
        assert augmented("none", x, Seed(0), 0) is x


@pytest.mark.parametrize("shape", [(3, 64), (3, 8, 8), (3, 1, 4, 8, 8)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValue, match=r"shape \(3, .*the augmentation 'none'"):
        augmented("crop-flip", torch.zeros(shape), Seed(0), 0)


def test_an_unknown_augmentation_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'crop-flip'"):
        augmented("crop-flp", torch.zeros(1, 1, 8, 8), Seed(0), 0)


def test_every_augmentation_that_a_recipe_takes_can_be_done() -> None:
    for kind in AUGMENTATIONS:
        assert augmented(kind, torch.zeros(2, 1, 8, 8), Seed(0), 0).shape == (2, 1, 8, 8)


class Seeing(nn.Module):
    """Remembers what it is shown, in training and in evaluation."""

    def __init__(self, seen: dict[bool, list[Tensor]]) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 10)
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen[self.training].append(x.clone())
        return self.inner(x.flatten(1))


def ran(how: Recipe, job: TrainJob | None = None, seen: dict[bool, list[Tensor]] | None = None) -> TrainOutcome:
    looked: dict[bool, list[Tensor]] = {True: [], False: []} if seen is None else seen
    build = partial(Seeing, looked)
    seed = Seed(5, 2)
    job = job or TrainJob(models.initial(build, seed), {}, seed, how.iterations, (5,))
    (done,) = PlainTrainer(build, SPLITS, how)([job])
    return done


def test_training_batches_are_augmented_and_no_other_example_is() -> None:
    seen: dict[bool, list[Tensor]] = {True: [], False: []}
    ran(HOW, seen=seen)
    split: Split = SPLITS(Seed(5, 2))
    order = BatchOrder(len(split.train_y), HOW.batch_size, Seed(5, 2))
    batches = [split.train_x[order.at(step)] for step in range(HOW.iterations)]
    expected = [crop_flip(x, *draw_crop_flip(len(x), Seed(5, 2), step)) for step, x in enumerate(batches)]
    assert len(seen[True]) == HOW.iterations
    assert all(torch.equal(a, b) for a, b in zip(seen[True], expected, strict=True))
    allowed = (split.val_x, split.test_x)
    assert all(any(torch.equal(x, part[a : a + 500]) for part in allowed for a in (0, 500)) for x in seen[False])


def test_a_rewound_run_draws_what_its_dense_run_drew() -> None:
    whole = ran(HOW)
    job = TrainJob(whole.saved[5], {}, Seed(5, 2), HOW.iterations, (5,))
    again = ran(HOW, job)
    for name, value in whole.end.params.items():
        assert torch.equal(value, again.end.params[name])


def test_augmentation_changes_the_run_and_moves_no_other_stream() -> None:
    plain = replace(HOW, augment="none")
    augmented_run, plain_run = ran(HOW), ran(plain)
    assert not torch.equal(augmented_run.end.params["inner.weight"], plain_run.end.params["inner.weight"])
    seen: dict[bool, list[Tensor]] = {True: [], False: []}
    ran(plain, seen=seen)
    split = SPLITS(Seed(5, 2))
    order = BatchOrder(len(split.train_y), HOW.batch_size, Seed(5, 2))
    assert all(torch.equal(x, split.train_x[order.at(step)]) for step, x in enumerate(seen[True]))


def test_a_trainer_refuses_data_that_are_no_images() -> None:
    def flat(seed: Seed) -> Split:
        split = SPLITS(seed)
        return replace(split, train_x=split.train_x.flatten(1))

    start = models.initial(lambda: Seeing({True: [], False: []}), Seed(0))
    with pytest.raises(InvalidValue, match=r"shape \(30, 64\)"):
        PlainTrainer(lambda: Seeing({True: [], False: []}), flat, HOW)([TrainJob(start, {}, Seed(0), 1)])


def test_padding_is_the_papers() -> None:
    assert PADDING == 4
