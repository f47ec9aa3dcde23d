"""Judgements and findings on standard output; torch-free."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tombola.search.shown import in_words, rendered
from tombola.stats import Judgement

if TYPE_CHECKING:
    from pathlib import Path

    from tombola.search.finding import Finding
    from tombola.study.claims import Settlement
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
