"""What is seen while a search runs: a live view on a terminal, plain lines elsewhere; always on standard error."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tombola.saying import say
from tombola.search.find import Observer
from tombola.search.finding import LevelSummary
from tombola.search.levels import Dropped
from tombola.search.setup import Setup
from tombola.stats import ACCURACY, Scale
from tombola.types import TrainJob

_BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 24
_SHOWN_LEVELS = 12


@contextmanager
def watching() -> Iterator[Observer]:
    """Give an observer that shows progress in the way that fits where standard error goes."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Progress(say)
        return
    progress = _Progress()
    view = _View(progress)
    with Live(get_renderable=view.render, console=console, refresh_per_second=4, transient=True):
        yield progress


@final
class _Progress:
    """How far the search is, in iterations; says a line per level to whoever listens."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.began = time.monotonic()
        self.total = 1
        self.setup: Setup | None = None
        self.jobs: list[TrainJob] = []
        self.steps: dict[int, int] = {}
        self.curves: dict[int, list[float]] = defaultdict(list)
        self.levels: list[LevelSummary] = []
        self.dropped: list[Dropped] = []
        self._before = 0
        self._say = say or (lambda _: None)

    def planned(self, setup: Setup) -> None:
        self.setup, self.total, self.began = setup, setup.total_iterations(), time.monotonic()
        self._say(_headline(setup))
        for note in setup.notes:
            self._say(f"Note: {note}")

    def training(self, jobs: Sequence[TrainJob]) -> None:
        self._before += sum(job.stop - job.start.step for job in self.jobs)
        self.jobs, self.steps, self.curves = list(jobs), {}, defaultdict(list)

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:  # noqa: ARG002
        # A loop of the user's own may report how far it is and nothing else.
        if loss == loss:
            self.curves[job].append(loss)
        self.steps[job] = step

    def stop(self) -> bool:
        return False

    def level_done(self, summary: LevelSummary, dropped: Sequence[Dropped]) -> None:
        self._before += sum(job.stop - job.start.step for job in self.jobs)
        # A further look has the same levels again, with more families.
        self.levels = [*(one for one in self.levels if one.level != summary.level), summary]
        self.dropped.extend(dropped)
        self.jobs, self.steps = [], {}
        for one in dropped:
            self._say(f"family {one.replicate} leaves the search: {one.arm} {one.sentence}")
        percent = " %" if self.scale.is_accuracy else ""
        arms = "  ".join(f"{name} {self.mean(summary, name)}{percent}" for name in summary.arms)
        self._say(
            f"level {summary.level}: {100 * summary.density:.2f} % of the weights  {arms}  "
            f"({_duration(self.elapsed)} so far, {self.left()})"
        )

    @property
    def done(self) -> int:
        """Iterations done."""
        return self._before + sum(step - job.start.step for job, step, _ in self.running())

    def running(self) -> list[tuple[TrainJob, int, list[float]]]:
        """Give the jobs that have been evaluated, each with its step and losses.

        Copies: evaluations arrive in another thread than the one that draws.
        """
        jobs, steps = self.jobs, dict(self.steps)
        return [(jobs[n], step, list(self.curves[n])) for n, step in steps.items() if n < len(jobs)]

    @property
    def elapsed(self) -> float:
        """Seconds since training began."""
        return time.monotonic() - self.began

    @property
    def scale(self) -> Scale:
        """How scores are shown."""
        return ACCURACY if self.setup is None else self.setup.score.fitted(self.setup.margin)

    def mean(self, summary: LevelSummary, arm: str) -> str:
        """Give the mean score of an arm."""
        runs = summary.arms[arm].values()
        return self.scale.value(sum(run.test_accuracy for run in runs) / max(1, len(runs)))

    def left(self) -> str:
        """Say how long it may still take."""
        if self.done == 0:
            return "time left not known yet"
        return f"about {_duration(self.elapsed * max(0, self.total - self.done) / self.done)} left"


@final
class _View:
    """Families, levels, curves and time left, redrawn in place."""

    def __init__(self, progress: _Progress) -> None:
        self._progress = progress

    def render(self) -> RenderableType:
        """Draw the present state."""
        progress = self._progress
        if progress.setup is None:
            return Text("loading")
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=progress.total, completed=progress.done, width=40),
            f"{100 * progress.done / progress.total:.0f} %",
            _duration(progress.elapsed),
            progress.left(),
        )
        parts: list[RenderableType] = [Text(_headline(progress.setup), style="bold"), bar, self._levels()]
        if progress.jobs:
            parts.append(self._curves())
        parts.extend(
            Text(f"family {one.replicate} left the search: {one.arm} {one.sentence}", style="red")
            for one in progress.dropped
        )
        return Group(*parts)

    def _levels(self) -> Table:
        table = Table(
            title=f"mean {self._progress.scale.heading}", title_justify="left", box=None, padding=(0, 2, 0, 0)
        )
        arms = list(dict.fromkeys(name for level in self._progress.levels for name in level.arms)) or ["ticket"]
        for heading in ("level", "density", *arms):
            table.add_column(heading, justify="right")
        for level in self._progress.levels[-_SHOWN_LEVELS:]:
            cells = [self._progress.mean(level, name) if name in level.arms else "" for name in arms]
            table.add_row(str(level.level), f"{100 * level.density:.2f} %", *cells)
        return table

    def _curves(self) -> Table:
        table = Table(title="validation loss, now training", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for heading in ("family", "arm", "curve", "loss", "iteration"):
            table.add_column(heading, justify="right" if heading in ("loss", "iteration") else "left")
        running = [(job, step, losses) for job, step, losses in self._progress.running() if losses and step < job.stop]
        for job, step, losses in running[:_SHOWN_LEVELS]:
            table.add_row(
                str(job.seed.replicate), job.name, _sparkline(losses), f"{losses[-1]:.4f}", f"{step} of {job.stop}"
            )
        return table


def _headline(setup: Setup) -> str:
    method, plan, families = setup.method, setup.plan, len(setup.families)
    return (
        f"{setup.title}, {method.strategy}: "
        f"{families} {'family' if families == 1 else 'families'}, {_counted(method.dense_runs, 'dense run')} each, "
        f"{_counted(plan.cuts, 'level')} to {100 * plan.densities[-1]:.2f} % of {plan.prunable:,} weights, "
        f"{setup.iterations:,} iterations a run, {setup.engine}"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sparkline(losses: Sequence[float]) -> str:
    stride = max(1, -(-len(losses) // _CURVE_WIDTH))
    shown = [value for value in losses[::stride] if value == value]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    span = high - low
    if not (0 < span < float("inf")):
        return _BARS[0] * len(shown)
    return "".join(_BARS[min(7, int(8 * (value - low) / span))] for value in shown)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
