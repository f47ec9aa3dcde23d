"""Judgements as tables and sentences for a person; torch-free."""

import math
import sys

from rich.console import Console
from rich.table import Table

from tombola.stats import Judgement, LevelVerdict

_WIDTH_WITHOUT_TERMINAL = 160


def console() -> Console:
    """Give a console on standard output that does not wrap tables in a pipe."""
    return Console(
        width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False, emoji=False, markup=False
    )


def show_judgement(judgement: Judgement) -> None:
    """Print the table and the verdict of a judged CSV."""
    screen = console()
    table = Table(title=f"ticket against dense, margin {100 * judgement.margin:g} points", title_justify="left")
    controls = list(dict.fromkeys(name for level in judgement.levels for name in level.controls))
    for heading in ("density", "n", "ticket %", "dense %", "difference", "lower limit"):
        table.add_column(heading, justify="right")
    for name in controls:
        table.add_column(f"minus {name} (Holm p)", justify="right")
    table.add_column("verdict")
    for level in judgement.levels:
        budget = level.budget
        cells = (
            f"{100 * level.controls[name].mean:+.2f} ({level.controls[name].p_holm:.2g})"
            if name in level.controls
            else ""
            for name in controls
        )
        table.add_row(
            f"{100 * level.density:.4g} %",
            str(budget.n),
            f"{100 * budget.ticket.mean:.2f}",
            f"{100 * budget.dense.mean:.2f}",
            f"{100 * budget.mean:+.2f}",
            f"{100 * budget.lower:+.2f}" if math.isfinite(budget.lower) else "none",
            *cells,
            in_words(level),
        )
    screen.print(table)
    for sentence in judgement.dropped:
        screen.print(sentence)
    for note in judgement.notes:
        screen.print(f"Note: {note}")
    screen.print(f"Verdict: {judgement.verdict.value}. {judgement.sentence}")


def in_words(verdict: LevelVerdict | None) -> str:
    """Give the verdict of a level as a table cell; an asterisk marks a gate."""
    if verdict is None:
        return "dense"
    mark = "*" if verdict.gate else ""
    return verdict.verdict.value + mark + (", certified" if verdict.certified else "")
