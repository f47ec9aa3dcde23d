"""Augmentation of training batches: a function of the seed and the position, as the order of the examples is."""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tombola.errors import InvalidValue, UnknownName
from tombola.seeds import generator
from tombola.train.recipe import AUGMENTATIONS
from tombola.types import Seed, Step

PADDING: Final = 4
"""Pixels of zeros that are added to each side before a crop."""


def augmented(kind: str, x: Tensor, seed: Seed, step: Step) -> Tensor:
    """Augment a training batch.

    ``crop-flip`` is that of He et al. (2016), section 4.2: 4 pixels of padding on each side, a random crop of the
    image's own size, and a horizontal flip of every second image on average. The paper pads images from which the mean
    was subtracted; ours are as the data set gives them, in [0, 1] for pixels, and padded with zeros, which is black.

    Args:
        kind: one of :data:`~tombola.train.recipe.AUGMENTATIONS`.
        x: ``[B, C, H, W]``, any dtype and device; with ``none`` any shape.
        seed: its ``augment`` stream, folded with the step, draws the crops and flips: on the CPU, so that they are the
            same on every device. A run that is rewound to a step draws there what its dense run drew.
        step: the position in training.

    Returns:
        ``x`` itself with ``none``, otherwise a new tensor of its shape, dtype and device.

    Raises:
        UnknownName: no augmentation is called so.
        InvalidValue: the examples are no images.
    """
    if kind == "none":
        return x
    if kind != "crop-flip":
        raise UnknownName.among("augmentation", kind, AUGMENTATIONS)
    if x.dim() != 4:
        raise InvalidValue(
            f"the augmentation {kind!r} crops and flips images, and a training batch has shape {tuple(x.shape)}. A "
            "batch of images is (examples, channels, height, width); give the data that shape, or train with the "
            "augmentation 'none'."
        )
    offsets, flips = draw_crop_flip(len(x), seed, step)
    return crop_flip(x, offsets.to(x.device), flips.to(x.device))


def draw_crop_flip(examples: int, seed: Seed, step: Step) -> tuple[Tensor, Tensor]:
    """Draw what :func:`crop_flip` does to each example of a batch.

    Returns:
        Where the crops begin in the padded images, row and column: int64 ``[examples, 2]``, uniform on 0 to 8. And
        which are flipped: bool ``[examples]``, each with probability one half.
    """
    draw = generator(seed, "augment", step)
    offsets = torch.randint(2 * PADDING + 1, (examples, 2), generator=draw)
    return offsets, torch.randint(2, (examples,), generator=draw).bool()


def crop_flip(x: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
    """Pad each image with 4 pixels of zeros on every side, cut one of its own size out of it, and mirror it if asked.

    Args:
        x: ``[B, C, H, W]``.
        offsets: int64 ``[B, 2]``, the row and the column of the padded image where the cut begins, 0 to 8; at (4, 4)
            nothing is moved.
        flips: bool ``[B]``, whether the cut is mirrored, left for right.

    Returns:
        ``[B, C, H, W]``, contiguous.
    """
    batch, channels, height, width = x.shape
    padded = functional.pad(x, (PADDING,) * 4)
    down = torch.arange(height, device=x.device)
    across = torch.arange(width, device=x.device)
    rows = offsets[:, :1] + down
    columns = offsets[:, 1:] + torch.where(flips[:, None], across.flip(0), across)
    pixels = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).flatten(1)
    return padded.flatten(2).gather(2, pixels[:, None].expand(-1, channels, -1)).reshape(batch, channels, height, width)
