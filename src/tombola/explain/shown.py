"""A report as a person reads it."""

import io
from collections.abc import Iterator
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table as Grid

from tombola.explain.report import Report
from tombola.explain.tables import Cell, Table
from tombola.explain.why import Why

_WIDTH: Final = 160
_LONG: Final = ("quantiles", "deciles")
"""Tables of many rows, which the files have."""


def rendered(report: Report) -> RenderableType:
    """Lay a report out for a terminal."""
    head = (
        f"{report.title}: level {report.level}, {100 * report.density:.2f} % of the weights, {report.families} "
        f"{'family' if report.families == 1 else 'families'}; means with 95 % intervals over families"
    )
    shown = [part for table in report.tables if table.name not in _LONG for part in (_grid(table), "")]
    if report.deeper is not None:
        shown += [part for table in report.deeper.tables for part in (_grid(table), "")]
    asked = () if report.why is None else _why(report.why)
    said = "" if report.deeper is None else report.deeper.sentence
    return Group(
        head,
        "",
        *shown,
        *_missing(report),
        "",
        f"Conjecture: {report.conjecture.verdict.value}.",
        report.sentence,
        *(("", f"The experiment that intervenes: {said}") if said else ()),
        *asked,
    )


def _why(why: Why) -> tuple[RenderableType, ...]:
    """Lay out what is wrong with a ticket: what is seen, what was trained, the cause, what to do."""
    return (
        "",
        f"Why the ticket {why.patient} (family {why.family}, {100 * why.density:.2f} %) does not win: "
        f"{why.dense_trainings:.3g} dense trainings",
        _grid(why.checks),
        "",
        _grid(why.table),
        "",
        f"Cause: {why.diagnosis.sentence}",
        f"Next: {why.remedy.sentence}",
    )


def as_text(report: Report) -> str:
    """Give it as plain text."""
    page = io.StringIO()
    Console(file=page, width=_WIDTH, highlight=False, emoji=False, markup=False, color_system=None).print(
        rendered(report)
    )
    return page.getvalue().rstrip("\n")


def _missing(report: Report) -> Iterator[str]:
    for one in report.missing:
        yield f"Not measured: {one.name}. {one.why}"


def _grid(table: Table) -> Grid:
    """Give a table in which a mean stands with its interval."""
    columns = [i for i, heading in enumerate(table.headings) if heading not in ("low", "high")]
    grid = Grid(title=table.title, title_justify="left")
    for i in columns:
        grid.add_column(table.headings[i], justify="left" if i == 0 else "right")
    for row in table.rows:
        grid.add_row(*(_cell(table, row, i) for i in columns))
    return grid


def _cell(table: Table, row: tuple[Cell, ...], i: int) -> str:
    value = row[i]
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if table.headings[i] == "density":
        return f"{100 * value:.2f} %"
    has = i + 2 < len(row) and table.headings[i + 1 : i + 3] == ("low", "high") and row[i + 1] is not None
    return f"{value:.4g}" + (f" ({row[i + 1]:.4g} to {row[i + 2]:.4g})" if has else "")
