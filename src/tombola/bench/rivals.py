"""The rivals by name: what makes them, and why one is not here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from tombola.bench import rivals_compiled, rivals_csr, rivals_jax, rivals_prune, rivals_sparseprop
from tombola.bench.loop import Masks, Way, eager
from tombola.bench.settings import RIVALS
from tombola.bench.workload import Workload
from tombola.errors import InvalidValue


def _here() -> str | None:
    return None


_WHY_NOT: Final[Mapping[str, Callable[[], str | None]]] = {
    "compiled": rivals_compiled.why_not,
    "sparseprop": rivals_sparseprop.why_not,
    "jax": rivals_jax.why_not,
}

_LOOPS: Final[Mapping[str, Callable[[Workload, Masks], Way]]] = {
    "eager": eager,
    "compiled": rivals_compiled.loop,
    "prune": rivals_prune.loop,
    "csr": rivals_csr.loop,
    "sparseprop": rivals_sparseprop.loop,
}


@final
@dataclass(frozen=True)
class LeftOut:
    """A rival without a time.

    Attributes:
        rival: its name.
        why: one sentence.
        benchmark, model, density: where; ``None`` for everywhere.
    """

    rival: str
    why: str
    benchmark: str | None = None
    model: str | None = None
    density: float | None = None


def absent(asked: Sequence[str], *, by_name: bool) -> list[LeftOut]:
    """List the rivals that do not run here.

    Raises:
        InvalidValue: one of them was asked for by name.
    """
    found = [LeftOut(name, f"{why}.") for name in asked if (why := _WHY_NOT.get(name, _here)()) is not None]
    if by_name and found:
        first = found[0]
        raise InvalidValue(f"the rival {first.rival} does not run here. {first.why} Or leave it out: --rivals all.")
    return found


def make(name: str, work: Workload, masks: Masks) -> Way | str:
    """Make a rival's loop, or say in one sentence why it takes no part at these masks."""
    assert name in RIVALS
    if name == "csr" and not masks:
        return "nothing is pruned, and a dense matrix is no CSR tensor."
    if name == "sparseprop" and (why := rivals_sparseprop.why_not_at(work, masks)):
        return f"{why}."
    return _LOOPS[name](work, masks)
