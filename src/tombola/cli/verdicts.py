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
    from tombola.search.finding import Finding

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
