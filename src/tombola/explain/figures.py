"""Plain figures of a report, as SVG; the same numbers give the same bytes. Needs matplotlib, an extra."""

import importlib.util
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tombola.explain.report import Report
from tombola.explain.tables import Table


def available() -> bool:
    """Whether matplotlib is here."""
    return importlib.util.find_spec("matplotlib") is not None


def encoded(report: Report, folder: Path) -> dict[Path, bytes]:
    """Draw what there is to draw, a file for each figure."""
    found = {one.name: one for one in report.tables}
    return {folder / f"{name}.svg": _svg(draw, found[name]) for name, draw in _FIGURES.items() if name in found}


def _svg(draw: Callable[[Any, Table], None], table: Table) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    page = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": table.name}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        draw(axes, table)
        axes.set_title(table.title, fontsize=8, wrap=True)
        figure.savefig(page, format="svg", metadata={"Date": None})
    return page.getvalue()


def _bars(axes: Any, table: Table) -> None:
    """Draw the first quantity of every row, with its interval."""
    names = [str(row[0]) for row in table.rows]
    axes.barh(names, [row[1] or 0.0 for row in table.rows], xerr=_errors(table), color="0.7")
    axes.set_xlabel(table.headings[1])
    axes.invert_yaxis()


def _rates(axes: Any, table: Table) -> None:
    for k, name in ((1, "all"), (4, "kept"), (7, "pruned")):
        axes.plot([str(row[0]) for row in table.rows], [row[k] for row in table.rows], "o-", label=name)
    axes.set_ylabel("share of signs flipped")
    axes.legend()


def _deciles(axes: Any, table: Table) -> None:
    for layer in dict.fromkeys(row[0] for row in table.rows):
        rows = [row for row in table.rows if row[0] == layer]
        axes.plot([row[1] for row in rows], [row[2] for row in rows], "o-", label=str(layer))
    axes.set_xlabel("decile of |w_0|, smallest first")
    axes.set_ylabel("share kept")
    axes.legend()


def _levels(axes: Any, table: Table) -> None:
    axes.loglog([row[1] for row in table.rows], [row[2] for row in table.rows], "o-")
    axes.set_xlabel("density")
    axes.set_ylabel(table.headings[2])


def _layers(axes: Any, table: Table) -> None:
    for layer in dict.fromkeys(row[2] for row in table.rows):
        rows = [row for row in table.rows if row[2] == layer]
        axes.loglog([row[1] for row in rows], [row[3] for row in rows], "o-", label=str(layer))
    axes.set_xlabel("density")
    axes.set_ylabel("density of the layer")
    axes.legend()


def _errors(table: Table) -> list[list[float]] | None:
    if any(row[2] is None for row in table.rows):
        return None
    means, lows, highs = ([float(row[k] or 0) for row in table.rows] for k in (1, 2, 3))
    return [
        [mean - low for mean, low in zip(means, lows, strict=True)],
        [high - mean for mean, high in zip(means, highs, strict=True)],
    ]


_FIGURES: Final[Mapping[str, Callable[[Any, Table], None]]] = {
    "movement": _bars,
    "deciles": _deciles,
    "signs": _rates,
    "overlap": _bars,
    "densities": _layers,
    "effective": _levels,
    "supermasks": _bars,
}
