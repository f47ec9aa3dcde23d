"""What is measured; torch-free, so that a wrong word is refused at once."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from tombola.errors import InvalidValue, UnknownName

BENCHMARKS: Final = ("iteration", "ladder", "scaling", "replicas")

MODELS: Final = ("64-300-100-10", "lenet-300-100", "mlp-3072-1024-1024-10")

RIVALS: Final[Mapping[str, tuple[str, ...]]] = {
    "eager": ("iteration", "ladder", "replicas"),
    "compiled": ("iteration", "ladder"),
    "prune": ("iteration", "ladder"),
    "csr": ("iteration",),
    "sparseprop": ("iteration",),
    "jax": ("replicas",),
}
"""Rival -> the benchmarks it takes part in."""

OURS: Final = {"iteration": "sparse", "ladder": "sparse", "scaling": "sparse", "replicas": "replicas"}
"""Benchmark -> what the rivals are compared with."""

_TURNS: Final = {"iteration": (8, 40), "ladder": (1, 5), "scaling": (3, 9), "replicas": (3, 9)}
_SLICE: Final = 100, 300
_DENSITIES: Final = {
    "iteration": ((1.0, 0.2, 0.05), (1.0, 0.5, 0.2, 0.1, 0.036, 0.012)),
    "scaling": ((0.1,), (1.0, 0.1)),
    "replicas": ((0.2,), (0.2,)),
}
_DEFAULT_MODELS: Final = {
    "iteration": ("lenet-300-100",),
    "ladder": ("lenet-300-100",),
    "scaling": ("lenet-300-100",),
    "replicas": ("64-300-100-10", "lenet-300-100"),
}


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured.

    Attributes:
        benchmarks: of ``BENCHMARKS``; none for all of them in a short form.
        models: of ``MODELS``; none for each benchmark's own.
        densities: fractions kept, in (0, 1]; none for each benchmark's own. The ladder has its own always.
        rivals: of ``RIVALS``, or ``all`` for those that are available here.
        turns: how often everything is measured; ``None`` for each benchmark's own number.
        threads: of the rivals that can use several; tombola's engines train on one.
        iterations: of a level's slice of the ladder; ``None`` for 300, in the short form 100.

    Raises:
        UnknownName: a word that is none of these.
        InvalidValue: a number out of its range, or a rival that takes part in none of the benchmarks.
    """

    benchmarks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    densities: tuple[float, ...] = ()
    rivals: tuple[str, ...] = ("all",)
    turns: int | None = None
    threads: int = 1
    iterations: int | None = None

    def __post_init__(self) -> None:
        for kind, given, known in (
            ("benchmark", self.benchmarks, BENCHMARKS),
            ("model of the benchmarks", self.models, MODELS),
            ("rival", self.rivals, ("all", *RIVALS)),
        ):
            for name in given:
                if name not in known:
                    raise UnknownName.among(kind, name, known)
        for density in self.densities:
            if not (math.isfinite(density) and 0 < density <= 1):
                raise InvalidValue(
                    f"a density is {density:g}; it is a fraction above 0, at most 1. Write 0.1 for 10 %."
                )
        for word, value in (("turns", self.turns), ("threads", self.threads), ("iterations", self.iterations)):
            if value is not None and value < 1:
                raise InvalidValue(f"{word} is {value}; it is a whole number, at least 1.")
        for name in self.rivals:
            if name != "all" and not any(name in self.rivals_of(benchmark) for benchmark in self.chosen):
                raise InvalidValue(
                    f"the rival {name} takes part in {' and '.join(RIVALS[name])}, and what is asked for is "
                    f"{' and '.join(self.chosen)}. Ask for one of its benchmarks, or leave it out."
                )

    @property
    def short(self) -> bool:
        """Whether everything is measured in a short form."""
        return not self.benchmarks

    @property
    def chosen(self) -> tuple[str, ...]:
        """The benchmarks, in their own order."""
        return tuple(name for name in BENCHMARKS if name in self.benchmarks) or BENCHMARKS

    @property
    def slice(self) -> int:
        """Iterations of a level's slice of the ladder."""
        return self.iterations or _SLICE[not self.short]

    def turns_of(self, benchmark: str) -> int:
        """Give the number of turns that count."""
        return self.turns or _TURNS[benchmark][not self.short]

    def models_of(self, benchmark: str) -> tuple[str, ...]:
        """Give the networks."""
        return self.models or _DEFAULT_MODELS[benchmark]

    def densities_of(self, benchmark: str) -> tuple[float, ...]:
        """Give the densities, dense first."""
        return tuple(sorted(set(self.densities or _DENSITIES[benchmark][not self.short]), reverse=True))

    def rivals_of(self, benchmark: str) -> tuple[str, ...]:
        """Give the rivals that were asked for and take part."""
        asked = tuple(RIVALS) if "all" in self.rivals else self.rivals
        return tuple(name for name in RIVALS if name in asked and benchmark in RIVALS[name])

    def as_json(self) -> dict[str, Any]:
        """Give what was asked for as plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
