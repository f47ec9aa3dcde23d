"""Train, validation and test parts, drawn from the named stream ``split``."""

from dataclasses import dataclass, replace
from typing import Final, final

import torch
from torch import Tensor

from tombola.data.dataset import Dataset
from tombola.data.published import PUBLISHED
from tombola.errors import DataTooSmall
from tombola.seeds import generator
from tombola.types import Seed

TEST_PERCENT: Final = 30
"""Of all examples, where the publisher has no test split."""

VALIDATION_PERCENT: Final = 15
"""Of all examples, where the publisher has no test split."""

HELD_OUT_PERCENT: Final = 10
"""Of the training examples, for validation, where the publisher has a test split."""


@final
@dataclass(frozen=True, eq=False)
class Split:
    """The three parts of a data set; each in the order of the original.

    Attributes:
        train_x, val_x, test_x: float32 ``[N, *input_shape]``.
        train_y, val_y, test_y: int64 ``[N]``.
    """

    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor
    test_x: Tensor
    test_y: Tensor


@final
@dataclass(frozen=True, eq=False)
class Indices:
    """Which examples of ``dataset.train_x`` go where; int64, increasing; ``test`` is ``None`` if it is published."""

    train: Tensor
    val: Tensor
    test: Tensor | None


def split(dataset: Dataset, seed: Seed) -> Split:
    """Draw the validation part and, where the publisher has none, the test part.

    With a published test split the validation part is drawn by replicate 0 of ``seed.root``, so all replicates of a
    study share it: 5,000 of 60,000 uniformly for MNIST (Frankle & Carbin 2019, section 2) and Fashion-MNIST, 5,000 of
    50,000 uniformly for CIFAR-10, for other data sets 10 % stratified by class.

    Without one (digits), all three parts are drawn by ``seed.root`` and ``seed.replicate``, stratified by class:
    30 % test, 15 % validation, the rest training; for the digits' 1,797 that is 539, 270 and 988. A replicate then
    draws its own test examples, so that pooling over replicates does not repeat one small test set's luck.

    ``seed.order`` does not matter. Percentages are rounded to the nearest whole number, halves up.

    Raises:
        DataTooSmall: a part would have no example, or training none of some class.

    Example:
        >>> from tombola.data.digits import read_digits
        >>> parts = split(read_digits(), Seed(0))
        >>> len(parts.train_y), len(parts.val_y), len(parts.test_y)
        (988, 270, 539)
    """
    at = indices(dataset, seed)
    x, y = dataset.train_x, dataset.train_y
    if at.test is not None:
        test_x, test_y = x[at.test], y[at.test]
    else:
        assert dataset.test_x is not None
        assert dataset.test_y is not None
        test_x, test_y = dataset.test_x, dataset.test_y
    return Split(x[at.train], y[at.train], x[at.val], y[at.val], test_x, test_y)


def indices(dataset: Dataset, seed: Seed) -> Indices:
    """Give the positions in ``dataset.train_x`` that :func:`split` takes; arguments and errors are its."""
    total = len(dataset.train_y)
    if dataset.test_y is not None:
        draw = generator(replace(seed, replicate=0), "split")
        published = PUBLISHED.get(dataset.name)
        if published is not None and total == published.train:
            held = published.validation
            val = torch.randperm(total, generator=draw)[:held]
        else:
            held = _percent(HELD_OUT_PERCENT, total)
            (val,) = _stratified(dataset.train_y, dataset.classes, (held,), draw)
        test = None
        sizes = {"train": total - held, "validation": held, "test": len(dataset.test_y)}
    else:
        held, tested = _percent(VALIDATION_PERCENT, total), _percent(TEST_PERCENT, total)
        draw = generator(seed, "split")
        val, test = _stratified(dataset.train_y, dataset.classes, (held, tested), draw)
        sizes = {"train": total - held - tested, "validation": held, "test": tested}
    taken = torch.zeros(total, dtype=torch.bool)
    taken[val] = True
    if test is not None:
        taken[test] = True
    train = (~taken).nonzero().reshape(-1)
    _check(dataset, train, sizes)
    return Indices(train, val.sort().values, None if test is None else test.sort().values)


def apportion(total: int, counts: list[int]) -> list[int]:
    """Share ``total`` out in proportion to ``counts`` by largest remainders (Hamilton's method); ties to the first.

    Args:
        total: how many to share out, at most ``sum(counts)``.
        counts: how many each class has.

    Returns:
        For each class its share rounded down or up, never more than it has; the sum is ``total``.

    Example:
        >>> apportion(5, [10, 10, 4])
        [2, 2, 1]
    """
    whole = max(sum(counts), 1)
    shares = [total * count // whole for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda k: (-(total * counts[k] % whole), k))
    for k in by_remainder[: total - sum(shares)]:
        shares[k] += 1
    return shares


def _stratified(labels: Tensor, classes: int, sizes: tuple[int, ...], draw: torch.Generator) -> list[Tensor]:
    """Draw disjoint groups of the given sizes, each with every class in proportion; one shuffle for each class."""
    members = [(labels == k).nonzero().reshape(-1) for k in range(classes)]
    shuffled = [m[torch.randperm(len(m), generator=draw)] for m in members]
    groups: list[Tensor] = []
    for size in sizes:
        # Later groups are shared out over what earlier ones left, so that no class is asked for more than it has.
        shares = apportion(size, [len(m) for m in shuffled])
        groups.append(torch.cat([m[:share] for m, share in zip(shuffled, shares, strict=True)]))
        shuffled = [m[share:] for m, share in zip(shuffled, shares, strict=True)]
    return groups


def _percent(percent: int, total: int) -> int:
    return (percent * total + 50) // 100


def _check(dataset: Dataset, train: Tensor, sizes: dict[str, int]) -> None:
    parts = ", ".join(f"{size:,} for {part}" for part, size in sizes.items())
    if min(sizes.values()) < 1:
        raise DataTooSmall(
            f"the data set {dataset.name!r} has {len(dataset.train_y):,} training examples, which gives {parts}. "
            "Each part needs at least one; use a larger data set."
        )
    present = torch.bincount(dataset.train_y[train], minlength=dataset.classes)
    if int(present.min()) == 0:
        missing = int(present.argmin())
        had = int((dataset.train_y == missing).sum())
        raise DataTooSmall(
            f"the data set {dataset.name!r} has {had} of class {missing} among {len(dataset.train_y):,} training "
            f"examples, and the split ({parts}) leaves none of it for training. Give it more examples, or leave it out."
        )
