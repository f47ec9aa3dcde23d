"""What ``tombola analyze`` says of a run: tables, what is missing and why, and the verdict on the conjecture."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

import tombola
from tombola.analysis.conjecture import Conjecture, conjecture
from tombola.analysis.excess import DRAWS
from tombola.analysis.supermask import Evaluate
from tombola.errors import InvalidValue
from tombola.explain.deeper import Deeper
from tombola.explain.material import Material, of, read
from tombola.explain.tables import Missing, Table, tables
from tombola.explain.why import Why
from tombola.search.finding import Finding
from tombola.search.levels import TICKET
from tombola.types import Seed, Snapshot

SCHEMA: Final = 1

_USUAL: Final = 0.2
"""Density at which a run is looked at where nothing is certified."""


@final
@dataclass(frozen=True)
class Report:
    """An analysis of one run at one level.

    Attributes:
        title: what was run.
        level: looked at.
        density: of that level, a fraction of the prunable weights.
        families: how many.
        tables: what was measured.
        missing: what was not, and why.
        conjecture: the verdict on the lottery ticket conjecture.
        seed: of the draws of the null.
        deeper: what was trained further for; ``None`` where nothing was.
        why: what is wrong with a ticket; ``None`` where that was not asked.
    """

    title: str
    level: int
    density: float
    families: int
    tables: tuple[Table, ...]
    missing: tuple[Missing, ...]
    conjecture: Conjecture
    seed: int
    deeper: Deeper | None = None
    why: Why | None = None

    @property
    def sentence(self) -> str:
        """The verdict on the conjecture, with its numbers."""
        return self.conjecture.sentence

    def as_json(self) -> dict[str, Any]:
        """Give plain values, documented in ``docs/json.md``."""
        return {
            "schema": SCHEMA,
            "versions": {"tombola": tombola.__version__, "torch": torch.__version__},
            "title": self.title,
            "level": self.level,
            "density": self.density,
            "families": self.families,
            "seed": self.seed,
            "tables": {one.name: {**asdict(one), "rows": [list(row) for row in one.rows]} for one in self.tables},
            "missing": {one.name: one.why for one in self.missing},
            "conjecture": self.conjecture.as_json(),
            "deeper": None if self.deeper is None else self.deeper.as_json(),
            "why": None if self.why is None else self.why.as_json(),
        }

    def encoded(self, folder: Path) -> dict[Path, bytes]:
        """Give the files of the report: one object, and a table of the numbers behind every figure."""
        text = json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n"
        every = (
            *self.tables,
            *(() if self.deeper is None else self.deeper.tables),
            *(() if self.why is None else (self.why.checks, self.why.table)),
        )
        return {folder / "analysis.json": text.encode()} | {folder / f"{one.name}.csv": _csv(one) for one in every}

    def __repr__(self) -> str:
        from tombola.explain.shown import as_text

        return as_text(self)


def report(
    material: Material,
    level: int | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    told: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure a run at a level.

    Args:
        material: the run.
        level: of its search; by default the certified one, else the gate nearest 20 %.
        draws: of the null, for each family.
        seed: of these draws.
        told: is told what is being measured.

    Raises:
        InvalidValue: there is no such level with masks.
    """
    at = _usual(material) if level is None else level
    if at not in material.levels:
        known = ", ".join(f"{one} ({100 * density:.2f} %)" for one, density in material.levels.items())
        raise InvalidValue(f"there are no masks of level {at} in this run. Known: {known}.")
    measured: list[Table] = []
    missing: list[Missing] = []
    for one in tables(material, at, seed=Seed(seed)):
        told(one.name)
        measured.append(one) if isinstance(one, Table) else missing.append(one)
    told("the conjecture")
    return Report(
        title=material.title,
        level=at,
        density=material.levels[at],
        families=len(material.families),
        tables=tuple(measured),
        missing=tuple(missing),
        conjecture=conjecture(
            material.families,
            material.counts(at),
            seed=Seed(seed),
            draws=draws,
            evaluate=_evaluate(material),
            reinit_gaps=_gaps(material, at),
            groups=material.groups(),
        ),
        seed=seed,
    )


def analyze(
    run: Finding | Path | str,
    *,
    search: str | None = None,
    level: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    build: Callable[[], nn.Module] | None = None,
    score: Callable[[nn.Module], float] | None = None,
    example: Tensor | None = None,
) -> Report:
    """Say why a finished run came out as it did; what ``tombola analyze`` prints.

    Args:
        run: a finding of a loop of your own, or the folder of any finished run.
        search: which search of a study.
        level: looked at; by default the certified one, else the gate nearest 20 %.
        draws: of the null that contains no seeking, for each family.
        seed: of these draws.
        build: makes the network, for a loop of your own; with ``score`` networks are evaluated.
        score: evaluates one on validation data: an accuracy, a fraction.
        example: inputs of the network, ``[1, ...]``, for a loop of your own; with ``build`` paths are followed and
            units aligned.

    Raises:
        TombolaError: see :func:`tombola.explain.material.read` and :func:`report`.
    """
    found = (
        of(run, build, score, example)
        if isinstance(run, Finding)
        else read(Path(run), search, build=build, score=score)
    )
    return report(found, level, draws=draws, seed=seed)


def _usual(material: Material) -> int:
    certified = material.result.get("certified_density")
    wanted = _USUAL if certified is None else certified
    among = material.gates or tuple(material.levels)
    if not among:
        raise InvalidValue("this run has no masks besides the dense ones: nothing was pruned.")
    return min(among, key=lambda level: abs(material.levels[level] - wanted))


def _gaps(material: Material, level: int) -> Mapping[int, float] | None:
    ticket, reinit = material.accuracies(level, TICKET), material.accuracies(level, "reinit")
    used = {one.replicate for one in material.families}
    return {r: ticket[r] - reinit[r] for r in ticket if r in reinit and r in used} or None


def _evaluate(material: Material) -> Mapping[int, Evaluate] | None:
    """Give what evaluates each family's supermasks: on its own validation split, which its training has not seen."""
    if not material.eyes:
        return None

    def of(replicate: int, accuracy: Callable[[Snapshot], float]) -> Evaluate:
        return lambda params: accuracy(Snapshot(0, params, material.buffers[replicate]))

    return {r: of(r, eyes.accuracy) for r, eyes in material.eyes.items()}


def _csv(table: Table) -> bytes:
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(table.headings)
    writer.writerows(["" if cell is None else cell for cell in row] for row in table.rows)
    return page.getvalue().encode()
