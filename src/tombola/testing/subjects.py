"""Small networks that criteria are tried on, with everything that a search would know of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola import models
from tombola.prune.evidence import Evidence
from tombola.prune.masks import kept, total
from tombola.types import Masks, Snapshot

HALF: Final = 0.5


@final
@dataclass(frozen=True)
class Subject:
    """A network that a criterion is tried on.

    Attributes:
        name: for the sentences.
        build: makes the network; its values do not count.
        shape: of one input.
        classes: of the outputs.
        masked: the parameters that have masks.
        cut: the parameter that is pruned whole where half of the weights are left; ``None`` for none.
        rounded: weights are whole numbers, so that many are equal and many are zero.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    masked: tuple[str, ...]
    cut: str | None = None
    rounded: bool = False


def _linear() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


def _conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def _narrow() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 1), nn.Tanh(), nn.Linear(1, 1, bias=False), nn.Linear(1, 2))


_LINEAR: Final = ("0.weight", "0.bias", "2.weight", "2.bias")

SUBJECTS: Final = (
    Subject("linear layers, biases masked too", _linear, (5,), 3, _LINEAR),
    Subject("convolutions with batch norm, the output layer dense", _conv, (1, 6, 6), 3,
            ("0.weight", "4.weight")),
    Subject("a tensor of one weight, which cuts the network in two", _narrow, (3,), 2,
            ("0.weight", "2.weight", "3.weight"), cut="2.weight"),
    Subject("equal weights and zeros", _linear, (5,), 3, ("0.weight", "2.weight"), rounded=True),
)  # fmt: skip


@final
@dataclass(frozen=True)
class Case:
    """A subject with values, masks and evidence.

    Attributes:
        params: what is scored.
        masks: over the subject's ``masked``.
        evidence: makes the evidence anew, its generator in the same state each time; of the masks given.
    """

    params: dict[str, Tensor]
    masks: dict[str, Tensor]
    evidence: Callable[[Masks], Evidence]


def case(subject: Subject, dtype: torch.dtype, left: float) -> Case:
    """Draw values and masks; the same ones every time.

    Args:
        subject: the network.
        dtype: of all values, inputs included.
        left: the fraction of the weights that masks keep, about: 0, .5 or 1.
    """
    rng = torch.Generator().manual_seed(0)
    with models.DRAWING, torch.random.fork_rng(devices=()):
        module = subject.build()

    def draw(shape: torch.Size) -> Tensor:
        values = torch.randn(shape, generator=rng)
        return (values.round() if subject.rounded else values).to(dtype)

    theta_0, theta_k, params, moved = (
        {name: draw(value.shape) for name, value in module.named_parameters()} for _ in range(4)
    )
    shapes = {name: value.shape for name, value in params.items()}
    masks = {name: torch.rand(shapes[name], generator=rng) < left for name in subject.masked}
    if left == HALF and subject.cut is not None:
        masks[subject.cut] = torch.zeros_like(masks[subject.cut])
    buffers = {
        name: value if not value.is_floating_point() else (torch.rand(value.shape, generator=rng) + HALF).to(dtype)
        for name, value in module.named_buffers()
    }
    batches = _batches(subject, dtype, rng)
    seen = models.view(module.to(dtype), Snapshot(0, params, buffers))

    def evidence(over: Masks) -> Evidence:
        return Evidence(
            theta_0=theta_0,
            theta_k=theta_k,
            buffers=seen.buffers,
            kinds=seen.kinds,
            forward=seen.forward,
            forward_training=seen.forward_training,
            uses=seen.uses,
            stages=seen.stages,
            loss=functional.cross_entropy,
            batches=batches,
            example=torch.zeros_like(batches[0][0][:1]),
            moved=moved,
            generator=torch.Generator().manual_seed(1),
            density=max(kept(over) // 2, 1) / total(over),
        )

    return Case(params, masks, evidence)


def _batches(subject: Subject, dtype: torch.dtype, rng: torch.Generator) -> tuple[tuple[Tensor, Tensor], ...]:
    targets = torch.arange(subject.classes).repeat(2)
    return tuple(
        (torch.randn((len(targets), *subject.shape), generator=rng).to(dtype), targets.clone()) for _ in range(2)
    )


def tensors_of(evidence: Evidence) -> Mapping[str, Tensor]:
    """List every tensor of the evidence by the words that point at it."""
    found: dict[str, Tensor] = {}
    for field in ("theta_0", "theta_k", "buffers", "moved"):
        named = getattr(evidence, field) or {}
        found.update({f"evidence.{field}[{name!r}]": value for name, value in named.items()})
    for number, (inputs, targets) in enumerate(evidence.batches or ()):
        found.update({f"evidence.batches[{number}][0]": inputs, f"evidence.batches[{number}][1]": targets})
    return found if evidence.example is None else {**found, "evidence.example": evidence.example}
