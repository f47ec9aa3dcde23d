"""Judgements and findings on standard output; torch-free."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tombola.search.shown import in_words, rendered
from tombola.stats import Judgement
from tombola.stats.wording import percent

if TYPE_CHECKING:
    from pathlib import Path

    from tombola.search.finding import Finding
    from tombola.study.claims import Settlement
    from tombola.study.ranking import Ranking, Standing
    from tombola.study.running import Studied

_WIDTH_WITHOUT_TERMINAL = 160


def console() -> Console:
    """Give a console on standard output that does not wrap tables in a pipe."""
    return Console(
        width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False, emoji=False, markup=False
    )


def show_judgement(judgement: Judgement) -> None:
    """Print the table and the verdict of a judged CSV."""
    screen, scale = console(), judgement.scale
    table = Table(
        title=f"{scale.heading}: ticket against dense, margin {scale.margin_text(judgement.margin)}",
        title_justify="left",
    )
    controls = list(dict.fromkeys(name for level in judgement.levels for name in level.controls))
    for heading in ("density", "n", scale.column("ticket"), scale.column("dense"), "difference", "lower limit"):
        table.add_column(heading, justify="right")
    for name in controls:
        table.add_column(f"minus {name} (Holm p)", justify="right")
    table.add_column("verdict")
    for level in judgement.levels:
        budget = level.budget
        cells = (
            f"{scale.difference(level.controls[name].mean)} ({level.controls[name].p_holm:.2g})"
            if name in level.controls
            else ""
            for name in controls
        )
        table.add_row(
            f"{100 * level.density:.4g} %",
            str(budget.n),
            scale.value(budget.ticket.mean),
            scale.value(budget.dense.mean),
            scale.difference(budget.mean),
            scale.difference(budget.lower) if math.isfinite(budget.lower) else "none",
            *cells,
            in_words(level),
        )
    screen.print(table)
    for sentence in judgement.dropped:
        screen.print(sentence)
    for note in judgement.notes:
        screen.print(f"Note: {note}")
    screen.print(f"Verdict: {judgement.verdict.value}. {judgement.sentence}")


def show_finding(finding: Finding) -> None:
    """Print the table, the verdict, the cost and the path of the ticket."""
    screen = console()
    screen.print(rendered(finding, screen.width))


def show_study(studied: Studied, folder: Path) -> None:
    """Print each search's verdict and the table of claims."""
    screen = console()
    for name, finding in studied.findings.items():
        screen.print(f"{name}: {finding.verdict.value}. {finding.sentence}\n")
    for name, why in studied.failed.items():
        screen.print(f"{name}: no result. {why}\n")
    if studied.settlements:
        table = Table(title=f"{studied.spec.name}: what was published, and what was measured", title_justify="left")
        for heading in ("claim", "published", "counts as the same", "measured, 95 % interval", "verdict"):
            table.add_column(heading, justify="left" if heading in ("claim", "verdict") else "right")
        for one in studied.settlements:
            table.add_row(one.claim.text, *_claim_cells(one), one.verdict.value)
        screen.print(table)
        for why in dict.fromkeys(one.why for one in studied.settlements if one.why):
            about = [one.claim.name for one in studied.settlements if one.why == why]
            screen.print(f"Cannot tell, for {why}: {', '.join(about)}.")
    screen.print(f"\nWritten to {folder}.")


def show_rankings(
    study: str, reference: str, rankings: Sequence[Ranking], sentences: Sequence[str], markdown: bool
) -> None:
    """Print a table for each density, on the screen or in Markdown."""
    headings = (
        "rank", "arm", "density", "n", "test accuracy, 95 %", f"minus {reference}, 95 %", "dense trainings",
        "with the best",
    )  # fmt: skip
    screen = console()
    for sentence in sentences:
        screen.print(f"{sentence}\n")
    for ranking in rankings:
        title = f"{study} at {percent(ranking.density)}: mean test accuracy of n families, and what a family costs"
        rows = [_rank_cells(one, reference) for one in ranking.standings]
        if markdown:
            aligned = [":--" if name in ("arm", "with the best") else "--:" for name in headings]
            print("\n".join([f"{title}\n", *("| " + " | ".join(row) + " |" for row in (headings, aligned, *rows))]))
        else:
            table = Table(title=title, title_justify="left")
            for name in headings:
                table.add_column(name, justify="left" if name in ("arm", "with the best") else "right")
            for row in rows:
                table.add_row(*row)
            screen.print(table)
        for note in ranking.notes:
            screen.print(f"\nNote: {note}" if markdown else f"Note: {note}")
        print()
    screen.print(
        f"With the best: cannot be told from the arm of rank 1 by paired t tests, Holm-adjusted over the arms. Minus "
        f"{reference}: paired by family. No interval below three families."
    )


def _rank_cells(one: Standing, reference: str) -> tuple[str, ...]:
    def across(value: float | None, ends: tuple[float, float] | None, sign: str) -> str:
        if value is None:
            return ""
        between = "" if ends is None else f" ({100 * ends[0]:{sign}.2f} to {100 * ends[1]:{sign}.2f})"
        return f"{100 * value:{sign}.2f}{between}"

    return (
        str(one.rank),
        one.arm,
        f"{100 * one.density:.4g} %",
        str(one.n),
        across(one.mean, one.interval, ""),
        "the reference" if one.arm == reference else across(one.difference, one.difference_interval, "+"),
        "" if one.cost is None else f"{one.cost:.2f}",
        {True: "yes", False: "no", None: "cannot tell"}[one.with_best],
    )


def _claim_cells(one: Settlement) -> tuple[str, str, str]:
    unit = "" if one.claim.unit == "times" else f" {one.claim.unit}"
    low, high = one.claim.band
    if math.isinf(high):
        band = f"above {low:g}{unit}"
    elif math.isinf(low):
        band = f"below {high:g}{unit}"
    else:
        band = f"{low:g} to {high:g}{unit}"
    published = "direction only" if one.claim.published is None else f"{one.claim.published:g}{unit}"
    if one.measured is None:
        return published, band, "not measured"
    interval = "" if one.interval is None else f" ({one.interval[0]:.2f} to {one.interval[1]:.2f})"
    return published, band, f"{one.measured:.2f}{unit}{interval}"
