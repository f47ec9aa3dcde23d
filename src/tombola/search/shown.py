"""A finding as a person sees it: one table and a few sentences, on a terminal and in a notebook."""

from __future__ import annotations

import html
import io
import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from rich.console import Console, Group, RenderableType
from rich.table import Table

from tombola.stats import LevelVerdict, Run, Scale
from tombola.stats.comparison import mean_interval

if TYPE_CHECKING:
    from tombola.search.finding import Finding, LevelSummary

_WIDTH_WITHOUT_TERMINAL: Final = 160
_NARROW: Final = 26
"""Columns that an arm takes with its early stop beside it; with fewer, the early stop stands under the score."""


_CUT: Final = {"accuracy": "right after the cut", "recalibrated": "recalibrated"}
"""Columns of what a network was worth before it was trained again, on validation; there where a search knows."""

_NAMED: Final = 3
"""Parameters named for each reason not to prune; the JSON has all."""


@final
@dataclass(frozen=True)
class Sheet:
    """What is shown, before it is laid out.

    Attributes:
        title: over the table.
        headings: of the columns before the arms.
        arms: their names.
        rows: the cells before the arms, per arm its score and its early stop, and the verdict.
        under: what the signs in the table mean.
        notes: sentences about how the search went.
        verdict: the verdict and its sentence.
        cost: what the search took.
    """

    title: str
    headings: tuple[str, ...]
    arms: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...], str], ...]
    under: str
    notes: tuple[str, ...]
    verdict: str
    cost: str

    @property
    def with_early_stop(self) -> bool:
        """Whether any run had one."""
        return any(early for _, arms, _ in self.rows for _, early in arms)


def sheet(finding: Finding) -> Sheet:
    """Put together what is shown of a finding."""
    judgement, about = finding.judgement, finding.about
    used = set(judgement.replicates)
    verdicts = {verdict.density: verdict for verdict in judgement.levels}
    arms = tuple(dict.fromkeys(name for level in finding.levels for name in level.arms))
    scale = judgement.scale
    alpha = judgement.alpha if finding.sequential is None else finding.sequential.plan.alpha
    families = "family" if len(used) == 1 else "families"
    cut = [key for key in _CUT if any(getattr(one, key) is not None for lv in finding.levels for one in
                                      lv.after_cut.values())]  # fmt: skip
    rows = tuple(
        (
            (str(level.level), f"{100 * level.density:.2f} %", f"{level.kept:,}", *_after_cut(level, used, cut)),
            tuple(_cells(level, arm, used, alpha, scale) for arm in arms),
            in_words(verdicts.get(level.density)),
        )
        for level in finding.levels
    )
    with_early = any(early for _, cells, _ in rows for _, early in cells)
    interval = f"{100 * (1 - alpha):g} % interval"
    what = f"{scale.heading} and early-stop iteration, each with its {interval}" if with_early else (
        f"{scale.heading} with its {interval}"
    )  # fmt: skip
    return Sheet(
        title=f"{finding.title}, {about['strategy']}, {len(used)} {families}; mean {what}",
        headings=("level", "density", "kept", *(_CUT[key] for key in cut)),
        arms=arms,
        rows=rows,
        under="* a gate, where the verdict is certified in sequence"
        + ("; > at least one minimum at the last evaluation" if with_early else ""),
        notes=tuple(_notes(finding)),
        verdict=f"Verdict: {judgement.verdict.value}. {judgement.sentence}",
        cost=finding.cost.sentence,
    )


def rendered(finding: Finding, width: int) -> RenderableType:
    """Lay a finding out for a terminal of a width, in characters."""
    shown = sheet(finding)
    table = Table(title=shown.title, title_justify="left")
    for heading in shown.headings:
        table.add_column(heading, justify="right")
    stacked = width < 60 + _NARROW * len(shown.arms)
    beside = shown.with_early_stop and not stacked
    for arm in shown.arms:
        table.add_column(arm, justify="right")
        if beside:
            table.add_column("early stop", justify="right")
    table.add_column("verdict")
    for first, arms, verdict in shown.rows:
        cells = [c for pair in arms for c in pair] if beside else ["\n@ ".join(filter(None, pair)) for pair in arms]
        table.add_row(*first, *cells, verdict)
    return Group(table, shown.under, *shown.notes, "", shown.verdict, "", *_files(finding), shown.cost)


def as_text(finding: Finding) -> str:
    """Give the table and the sentences as plain text, as wide as the terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    page = io.StringIO()
    console = Console(file=page, width=width, highlight=False, emoji=False, markup=False, color_system=None)
    console.print(rendered(finding, width))
    return page.getvalue().rstrip("\n")


def as_html(finding: Finding) -> str:
    """Give the table and the sentences as HTML for a notebook; every text is escaped."""
    shown = sheet(finding)
    early = shown.with_early_stop
    heads = [*shown.headings, *(h for arm in shown.arms for h in ((arm, "early stop") if early else (arm,))), "verdict"]
    lines = [f"<table><caption>{html.escape(shown.title)}</caption><thead><tr>"]
    lines += [f"<th>{html.escape(head)}</th>" for head in heads]
    lines.append("</tr></thead><tbody>")
    for first, arms, verdict in shown.rows:
        cells = [*first, *(c for pair in arms for c in (pair if early else pair[:1])), verdict]
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    lines.append("</tbody></table>")
    lines += [f"<p>{html.escape(line)}</p>" for line in (shown.under, *shown.notes)]
    lines.append(f"<p><strong>{html.escape(shown.verdict)}</strong></p>")
    lines += [f"<p>{html.escape(line)}</p>" for line in (*_files(finding), shown.cost)]
    return "".join(lines)


def in_words(verdict: LevelVerdict | None) -> str:
    """Give the verdict of a level as a table cell; an asterisk marks a gate."""
    if verdict is None:
        return "dense"
    mark = "*" if verdict.gate else ""
    return verdict.verdict.value + mark + (", certified" if verdict.certified else "")


def _notes(finding: Finding) -> Iterator[str]:
    about = finding.about
    for one in finding.dropped:
        yield f"Family {one.replicate} left the search at level {one.level}: {one.arm} {one.sentence}."
    if about["skipped"]:
        yield f"Not pruned: {'; '.join(_by_reason(about['skipped']))}."
    if finding.sequential is not None:
        for gate in finding.sequential.settled.gates:
            yield f"Gate: {gate.sentence}"
    for note in (*finding.notes, *finding.judgement.notes, *_on_learning(finding)):
        yield f"Note: {note}"


def _by_reason(skipped: Mapping[str, str]) -> Iterator[str]:
    for why in dict.fromkeys(skipped.values()):
        names = [name for name, reason in skipped.items() if reason == why]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{', '.join(names[:_NAMED])}{more} ({why})"


def _on_learning(finding: Finding) -> Iterator[str]:
    """Warn where matching the dense network means little, because it has hardly learned."""
    classes = finding.about.get("classes")
    if classes is None:
        return
    runs = [run.test_accuracy for runs in finding.dense.values() for run in runs]
    mean, chance = sum(runs) / len(runs), 1 / classes
    if mean < (1 + chance) / 2:
        yield (
            f"The dense networks reach {100 * mean:.1f} %, where chance is {100 * chance:.1f} %: to match one that has "
            "hardly learned says little. Train longer, or at another learning rate."
        )


def _files(finding: Finding) -> tuple[str, ...]:
    if not finding.files:
        return (f"Ticket: {finding.chosen.why}. Nothing was saved.",)
    return (
        f"Ticket ({finding.chosen.why}): {finding.files['ticket']}",
        f"Trained sparse network: {finding.files['trained']}",
    )


def _cells(level: LevelSummary, arm: str, used: set[int], alpha: float, scale: Scale) -> tuple[str, str]:
    runs = [run for replicate, run in level.arms.get(arm, {}).items() if replicate in used]
    if not runs:
        return "", ""
    mean, half = _interval([run.test_accuracy for run in runs], alpha)
    score = scale.value(mean) + (f" ±{scale.value(half)}" if math.isfinite(half) else "")
    stops = [float(run.early_stop_iteration) for run in runs if run.early_stop_iteration is not None]
    if not stops:
        return score, ""
    mean, half = _interval(stops, alpha)
    return score, (">" if _any_censored(runs) else "") + f"{mean:.0f}" + (
        f" ±{half:.0f}" if math.isfinite(half) else ""
    )


def _after_cut(level: LevelSummary, used: set[int], keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        found = [getattr(one, key) for replicate, one in level.after_cut.items() if replicate in used]
        yield f"{100 * sum(found) / len(found):.2f}" if found else ""


def _any_censored(runs: Sequence[Run]) -> bool:
    return any(run.censored for run in runs)


def _interval(values: Sequence[float], alpha: float) -> tuple[float, float]:
    interval = mean_interval(values, alpha)
    return interval.mean, interval.high - interval.mean
