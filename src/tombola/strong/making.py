"""A strong ticket made and measured: what ``tombola strong construct`` does, with every number it tells."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

import tombola
from tombola import canonical
from tombola.data import Dataset
from tombola.errors import InvalidValue, Unsolved
from tombola.strong import file
from tombola.strong.certificate import Certifier, bisect
from tombola.strong.construct import Construction, construct
from tombola.strong.target import Target
from tombola.strong.verify import Measured, examples, measure

_START: Final = 0.1
_LEAST: Final = 1e-7
_STEPS: Final = 10
"""Between which errors a goal is looked for, and in how many halvings: to a factor of 1.014."""

_PAUSE: Final = 5.0
"""Seconds between two words about progress."""


@final
@dataclass(frozen=True)
class Made:
    """A strong ticket, and everything that was found of it.

    Attributes:
        title: what it stands for.
        construction: how it was made.
        measured: what it does on data; ``None`` without.
        dataset: these data.
        signed: inputs may be negative.
        domain: the box that the inputs come from, least and largest entry; ``None`` without data.
        uniform: bound on the logits' distance for every input of the domain, in the target's units.
        verifying: seconds of the measuring.
        threads: that shared the construction.
    """

    title: str
    construction: Construction
    measured: Measured | None
    dataset: Dataset | None
    signed: bool
    domain: tuple[float, float] | None
    uniform: float | None
    verifying: float
    threads: int

    def as_json(self, path: Path | None = None) -> dict[str, Any]:
        """Give plain values: the keys of ``result.json``."""
        found, seen = self.construction, self.measured
        network = found.network
        return {
            "weights": found.target.weights,
            "sums": found.sums,
            "solved": found.solved,
            "unresolved": found.unresolved,
            "seconds": found.seconds,
            "weights_per_second": found.target.weights / found.seconds,
            "error": found.error,
            "max_error": found.max_error,
            "mean_error": found.mean_error,
            "kept": network.kept,
            "total": network.total,
            "agreement": None if seen is None else seen.agreement,
            "certified": None if seen is None else seen.certified,
            "target_accuracy": None if seen is None else seen.target_accuracy,
            "ticket_accuracy": None if seen is None else seen.accuracy,
            "furthest_logit": None if seen is None else seen.furthest,
            "examples": None if seen is None else len(seen.predictions),
            "data": None if self.dataset is None else self.dataset.name,
            "domain": None if self.domain is None else f"[{self.domain[0]:g}, {self.domain[1]:g}]^n",
            "uniform_margin": None if self.uniform is None else 2**0.5 * self.uniform,
            "layers": [asdict(one) for one in found.fits],
            "candidates": network.blocks[0].candidates,
            "copies": network.blocks[0].copies,
            "depth": network.depth,
            "seed": network.seed,
            "signed": self.signed,
            "sizes": file.sizes(network, found.target.weights),
            "verifying_seconds": self.verifying,
            "threads": self.threads,
            "target": self.title,
            "versions": {"tombola": tombola.__version__, "torch": torch.__version__},
            "ticket": None if path is None else str(path),
        }

    def claims(self) -> dict[str, Any]:
        """Give what the file says of itself, to be checked."""
        said = {name: value for name, value in self.as_json().items() if name not in _CLOCKS}
        network = self.construction.network
        return {
            **said,
            "effective": file.fingerprint(network, signed=self.signed),
            "data_fingerprint": None if self.dataset is None else self.dataset.fingerprint,
        }

    def encoded(self) -> bytes:
        """Give the bytes of the file."""
        predictions = None if self.measured is None else self.measured.predictions
        return file.encode(self.construction.network, self.claims(), predictions)

    def result_bytes(self, path: Path) -> bytes:
        """Give the bytes of ``result.json``."""
        return (canonical.dumps(self.as_json(path)) + "\n").encode()


_CLOCKS: Final = ("seconds", "weights_per_second", "verifying_seconds", "threads", "ticket", "versions")
"""What differs from one making to the next."""


def make(
    target: Target,
    dataset: Dataset | None = None,
    *,
    title: str = "a network",
    seed: int = 0,
    error: float = 1e-3,
    agreement: float | None = None,
    certified: float | None = None,
    doubled: bool = True,
    candidates: int | None = None,
    threads: int = 1,
    told: Callable[[str], object] = lambda text: None,  # noqa: ARG005
) -> Made:
    """Construct a strong ticket and measure it.

    Args:
        target: what it is to stand for.
        dataset: what it is measured on; its test split, or all of it where the publisher has none.
        title: of the target, for a person.
        seed: of the random network.
        error: of every weight, in the target's units; the largest that is tried where a goal is given.
        agreement, certified: a share of the examples: the largest error, to a tenth of a power of ten or so, that
            reaches it is looked for by halving; on these data, so it holds for them.
        doubled, candidates, threads: as for :func:`~tombola.strong.construct.construct`.
        told: is given a sentence now and then.

    Raises:
        InvalidValue: the data are not for this network, or no error reaches the goal.
        Unsolved: weights are further away than the error.
    """
    x, y = (None, None) if dataset is None else examples(dataset)
    signed = x is None or bool((x < 0).any())
    if x is not None:
        _check_input(target, x[:1])

    def built(error: float) -> Construction:
        return construct(
            target,
            seed=seed,
            error=error,
            doubled=doubled,
            candidates=candidates,
            signed=signed,
            threads=threads,
            told=_Pace(told),
        )

    def looked(found: Construction) -> Measured | None:
        if x is None or y is None:
            return None
        return measure(found.network, target, x, y, signed=signed)

    if agreement is not None or certified is not None:
        error = _largest(built, looked, agreement, certified, told)
    found = built(error)
    told(f"{found.sums:,} subset sums in {found.seconds:.2f} s; running the masked random network")
    began = time.perf_counter()
    seen = looked(found)
    domain, uniform = None, None
    if x is not None:
        domain = (float(x.min()), float(x.max()))
        norm = max(map(abs, domain)) * x[0].numel() ** 0.5
        uniform = Certifier(found.network, target, signed=signed).everywhere(norm, x[:1])
    return Made(title, found, seen, dataset, signed, domain, uniform, time.perf_counter() - began, threads)


def _largest(
    built: Callable[[float], Construction],
    looked: Callable[[Construction], Measured | None],
    agreement: float | None,
    certified: float | None,
    told: Callable[[str], object],
) -> float:
    @cache
    def reaches(error: float) -> bool:
        seen = looked(built(error))
        assert seen is not None
        good = (agreement is None or seen.agreement >= agreement) and (certified is None or seen.certified >= certified)
        told(
            f"error {error:.3g}: {100 * seen.agreement:.2f} % agree, {100 * seen.certified:.2f} % certified"
            f"{'' if good else ', not enough'}"
        )
        return good

    least = _LEAST
    while True:
        try:
            reaches(least)
        except Unsolved:
            # So small an error is not to be had everywhere; a larger one may be enough.
            if least > _START / 100:
                raise
            least *= 10
        else:
            break
    found = bisect(reaches, start=_START, least=least, steps=_STEPS)
    if found is None:
        goal = f"agreement {agreement}" if agreement is not None else f"a certified share of {certified}"
        raise InvalidValue(f"no error down to {least:.0e} reaches {goal} on these data. Ask for less.")
    return found


def _check_input(target: Target, x: Tensor) -> None:
    try:
        with torch.no_grad():
            target(x.double())
    except RuntimeError as error:
        raise InvalidValue(
            f"the network does not take examples of shape {tuple(x.shape[1:])}: {error}. Give other data, or none."
        ) from error


class _Pace:
    """Says how far the work is, not more often than every few seconds."""

    def __init__(self, told: Callable[[str], object]) -> None:
        self.told, self.last = told, time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        now = time.perf_counter()
        if now - self.last >= _PAUSE:
            self.last = now
            self.told(f"{done:,} of {total:,} subset sums")
