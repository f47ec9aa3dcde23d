"""A finding as a table and sentences for a person."""

import math
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from tombola.cli.verdicts import console, in_words
from tombola.search.finding import Finding, LevelSummary
from tombola.stats import Run
from tombola.stats.comparison import mean_interval


def show_finding(finding: Finding) -> None:
    """Print the table, the verdict, the cost and the path of the ticket."""
    screen = console()
    alpha = finding.judgement.alpha
    used = set(finding.judgement.replicates)
    verdicts = {verdict.density: verdict for verdict in finding.judgement.levels}
    controls = list(dict.fromkeys(name for level in finding.levels for name in level.arms if name != "ticket"))
    about, families = finding.about, "family" if len(used) == 1 else "families"
    table = Table(
        title=f"{about['model']} on {about['data']}, {about['strategy']}, {len(used)} {families}; mean test accuracy "
        f"in % and early-stop iteration, each with its {100 * (1 - alpha):g} % interval",
        title_justify="left",
    )
    for heading in ("level", "density", "kept"):
        table.add_column(heading, justify="right")
    arms = ("ticket", *controls)
    # On a narrow terminal the early-stop iteration stands under its accuracy.
    stacked = screen.width < 60 + 26 * len(arms)
    for arm in arms:
        table.add_column(arm, justify="right")
        if not stacked:
            table.add_column("early stop", justify="right")
    table.add_column("verdict")
    for level in finding.levels:
        cells = [_arm_cells(level, arm, used, alpha) for arm in arms]
        table.add_row(
            str(level.level),
            f"{100 * level.density:.2f} %",
            f"{level.kept:,}",
            *(("\n@ ".join(filter(None, pair)) for pair in cells) if stacked else (c for pair in cells for c in pair)),
            in_words(verdicts.get(level.density)),
        )
    screen.print(table)
    _show_rest(finding, screen)


def _show_rest(finding: Finding, screen: Console) -> None:
    about, cost = finding.about, finding.cost
    screen.print("* a gate, where the verdict is certified in sequence; > at least one minimum at the last evaluation")
    for one in finding.dropped:
        screen.print(f"Family {one.replicate} left the search at level {one.level}: {one.arm} {one.sentence}.")
    if about["skipped"]:
        screen.print("Not pruned: " + ", ".join(f"{name} ({why})" for name, why in about["skipped"].items()) + ".")
    for note in (*finding.judgement.notes, *_on_learning(finding)):
        screen.print(f"Note: {note}")
    screen.print(
        f"Cost: {cost.iterations:,} training iterations = {cost.dense_trainings:.1f} dense trainings, "
        f"{cost.flops_dense:.3g} FLOPs as computed, {cost.flops_effective:.3g} on surviving weights alone, "
        f"{cost.seconds:.0f} s."
    )
    screen.print()
    screen.print(f"Verdict: {finding.judgement.verdict.value}. {finding.judgement.sentence}")
    screen.print()
    if finding.files:
        screen.print(f"Ticket ({finding.chosen.why}): {finding.files['ticket']}")
        screen.print(f"Trained sparse network: {finding.files['trained']}")
    else:
        screen.print("Nothing was saved.")


def _on_learning(finding: Finding) -> Iterator[str]:
    """Warn where matching the dense network means little, because it has hardly learned."""
    runs = [run.test_accuracy for runs in finding.dense.values() for run in runs]
    mean, chance = sum(runs) / len(runs), 1 / finding.about["classes"]
    if mean < (1 + chance) / 2:
        yield (
            f"The dense networks reach {100 * mean:.1f} %, where chance is {100 * chance:.1f} %: to match one that has "
            "hardly learned says little. Train longer, or at another learning rate."
        )


def _arm_cells(level: LevelSummary, arm: str, used: set[int], alpha: float) -> tuple[str, str]:
    runs = [run for replicate, run in level.arms.get(arm, {}).items() if replicate in used]
    if not runs:
        return "", ""
    accuracy = _interval([100 * run.test_accuracy for run in runs], alpha, 2)
    stops = [run.early_stop_iteration for run in runs if run.early_stop_iteration is not None]
    mark = ">" if _any_censored(runs) else ""
    return accuracy, mark + _interval([float(stop) for stop in stops], alpha, 0)


def _any_censored(runs: Sequence[Run]) -> bool:
    return any(run.censored for run in runs)


def _interval(values: Sequence[float], alpha: float, digits: int) -> str:
    if not values:
        return ""
    interval = mean_interval(values, alpha)
    half = interval.high - interval.mean
    text = f"{interval.mean:.{digits}f}"
    return f"{text} ±{half:.{digits}f}" if math.isfinite(half) else text
