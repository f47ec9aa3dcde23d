"""A report as a person reads it."""

from collections.abc import Iterator
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table

from tombola.bench.report import Report, Row


def rendered(report: Report) -> RenderableType:
    """Give a table for every benchmark of every model, and sentences below."""
    tables: list[RenderableType] = [
        _table(benchmark, model, list(rows), report)
        for (benchmark, model), rows in groupby(report.rows, key=lambda row: (row.benchmark, row.model))
    ]
    return Group(*tables, *_sentences(report))


def _table(benchmark: str, model: str, rows: list[Row], report: Report) -> Table:
    machine = report.machine[model].as_json()
    several = benchmark in ("scaling", "replicas")
    title = f"{benchmark}: {model}, batch {rows[0].batch}"
    if benchmark != "replicas":  # it has a part of the data only
        title += f", {report.data[model]}"
    table = Table(title=title, title_justify="left", caption=(
        f"one thread here: {machine['peak_gflops']} GFLOP/s, {machine['copy_gigabytes_a_second']} GB/s"
    ), caption_justify="left")  # fmt: skip
    ratio = "over one job" if benchmark == "scaling" else f"over {'replicas' if benchmark == 'replicas' else 'sparse'}"
    heads = [
        "density",
        "rival",
        *([_counted(benchmark)] if several else []),
        "ms",
        "spread",
        "least",
        ratio,
        "of least",
    ]
    for heading in [*heads, "times the floor"]:
        table.add_column(heading, justify="left" if heading == "rival" else "right")
    last: float | None = rows[0].density
    for row in rows:
        if row.density != last:
            table.add_section()
            last = row.density
        count = [str(row.jobs if benchmark == "scaling" else row.replicates)] if several else []
        floor = "" if not row.floor_milliseconds else f"{row.milliseconds / row.floor_milliseconds:.1f}"
        table.add_row(
            "all levels" if row.density is None else f"{100 * row.density:.3g} %",
            row.rival,
            *count,
            _number(row.milliseconds),
            "" if row.spread is None else _number(row.spread),
            _number(row.least_milliseconds),
            f"{row.ratio:.2f}",
            f"{row.ratio_of_least:.2f}",
            floor,
        )
    return table


def _counted(benchmark: str) -> str:
    return "jobs" if benchmark == "scaling" else "networks"


def _number(milliseconds: float) -> str:
    return f"{milliseconds:.3f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _sentences(report: Report) -> Iterator[str]:
    for model, found in report.ladder().items():
        yield (
            f"The whole ladder of {model}: the fastest masked dense loop ({found['rival']}) takes {found['ratio']:.2f} "
            "times as long as the sparse engine."
        )
    yield from report.notes
    for one in report.left_out:
        places = [place for place in (one.benchmark, one.model) if place]
        where = f" ({', '.join([*places, *([f'density {one.density:g}'] if one.density is not None else [])])})"
        yield f"Left out: {one.rival}{where if places else ''}: {one.why}"
    load = ", ".join(f"{value:.2f}" for value in report.load)
    yield (
        f"Medians of turns that alternate; ratios are medians of neighbouring turns. Load average before: {load}. "
        "Other work on the machine shows in the spread."
    )
