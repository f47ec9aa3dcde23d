"""A whole run: every benchmark that was asked for, row by row."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import final

import torch

from tombola.bench import iteration, ladder, replicas, rivals_compiled, scaling
from tombola.bench.floor import Machine, measured
from tombola.bench.report import Report, Row, cores
from tombola.bench.rivals import LeftOut, absent
from tombola.bench.settings import Settings
from tombola.bench.workload import Workload, workload

Grown = Callable[[Report], None]
"""Told after every benchmark of a model at a density."""


def run(settings: Settings, *, say: Callable[[str], None] = lambda _: None, grown: Grown = lambda _: None) -> Report:
    """Measure.

    Args:
        settings: what.
        say: told what is going on.
        grown: told when there are more rows.

    Raises:
        InvalidValue: a rival that was asked for by name does not run here, or there are no compiled kernels.
    """
    report = Report(settings)
    asked = list(dict.fromkeys(name for benchmark in settings.chosen for name in settings.rivals_of(benchmark)))
    report.left_out = absent(asked, by_name="all" not in settings.rivals)
    threads = torch.get_num_threads()
    try:
        _Run(settings, report, say, grown).all()
    finally:
        torch.set_num_threads(threads)
    return report


@final
class _Run:
    def __init__(self, settings: Settings, report: Report, say: Callable[[str], None], grown: Grown) -> None:
        self.settings, self.report, self.say, self.grown = settings, report, say, grown
        self.absent = {one.rival for one in report.left_out}
        self.workload = cache(self._workload)
        self.benchmarks = {
            "iteration": self._iteration,
            "ladder": self._ladder,
            "scaling": self._scaling,
            "replicas": self._replicas,
        }

    def all(self) -> None:
        """Go through the benchmarks."""
        for benchmark in self.settings.chosen:
            # The trainers use one thread, so in the other benchmarks everybody does.
            torch.set_num_threads(self.settings.threads if benchmark == "iteration" else 1)
            for name in self.settings.models_of(benchmark):
                self.benchmarks[benchmark](self.workload(name))

    def _iteration(self, work: Workload) -> None:
        rivals = self._rivals("iteration", work)
        for density in self.settings.densities_of("iteration"):
            self.say(f"iteration {work.name}: density {density:g}")
            self._take(
                iteration.measure(
                    work,
                    density,
                    rivals=rivals,
                    turns=self.settings.turns_of("iteration"),
                    threads=self.settings.threads,
                    machine=self.report.machine[work.name],
                )
            )

    def _ladder(self, work: Workload) -> None:
        self._take(
            ladder.measure(
                work,
                rivals=self._rivals("ladder", work),
                turns=self.settings.turns_of("ladder"),
                iterations=self.settings.slice,
                machine=self.report.machine[work.name],
                say=self._level,
            )
        )

    def _level(self, sentence: str) -> None:
        self.say(sentence)
        self.grown(self.report)

    def _scaling(self, work: Workload) -> None:
        here = cores()
        if here < 2:
            self.report.notes.append("scaling was left out: this process may use one core, and it takes two.")
            return
        for density in self.settings.densities_of("scaling"):
            self.say(f"scaling {work.name}: density {density:g}")
            self._take(scaling.measure(work, density, turns=self.settings.turns_of("scaling"), cores=here))

    def _replicas(self, work: Workload) -> None:
        for density in self.settings.densities_of("replicas"):
            self.say(f"replicas {work.name}: density {density:g}")
            self._take(
                replicas.measure(
                    work,
                    density,
                    rivals=self._rivals("replicas", work),
                    turns=self.settings.turns_of("replicas"),
                    machine=self.report.machine[work.name],
                )
            )

    def _take(self, found: Iterator[Row | LeftOut]) -> None:
        for one in found:
            if isinstance(one, Row):
                self.report.rows.append(one)
            else:
                self.report.left_out.append(one)
        self.grown(self.report)

    def _rivals(self, benchmark: str, work: Workload) -> list[str]:
        names = [name for name in self.settings.rivals_of(benchmark) if name not in self.absent]
        if "compiled" in names:
            self._compile(work)
        return names

    def _compile(self, work: Workload) -> None:
        self.say(f"{work.name}: torch.compile generates its code; this is not timed as training")
        seconds = rivals_compiled.compiled(work).seconds
        note = (
            f"torch.compile took {seconds:.1f} s for {work.name}, once and before the clock; inductor's cache makes "
            "later runs shorter."
        )
        if not any(f"for {work.name}, once" in one for one in self.report.notes):
            self.report.notes.append(note)

    def _workload(self, name: str) -> Workload:
        self.say(f"{name}: data, and what one thread of this machine does")
        work = workload(name)
        self.report.data[name] = work.data
        self.report.machine[name] = self._machine(work)
        return work

    def _machine(self, work: Workload) -> Machine:
        return measured(sum(work.kept({})))
