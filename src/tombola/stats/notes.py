"""What a careful reader should know besides the verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from tombola.stats.judgement import LevelVerdict
from tombola.stats.power import power_non_inferiority
from tombola.stats.results import Results
from tombola.stats.scale import ACCURACY, Scale
from tombola.stats.wording import counted, percent, points

EXPLORATORY_BELOW = 5
LARGE_MARGIN = 0.05


def notes_on(
    results: Results, gates: Sequence[LevelVerdict], margin: float, alpha: float, dropped: int, scale: Scale = ACCURACY
) -> tuple[str, ...]:
    """Collect the notes on complete results and the verdicts at their gates."""
    return (
        *_on_replicates(results, alpha, dropped),
        *_on_power(len(results.replicates), gates, margin, alpha, scale),
        *_on_margin(results, margin, alpha, scale),
        *_on_censoring(results, gates),
        "Where replicates share a test set, every claim is conditional on it: more replicates do not average out its "
        "sampling error.",
    )


def _on_replicates(results: Results, alpha: float, dropped: int) -> Iterator[str]:
    count = len(results.replicates)
    if count < EXPLORATORY_BELOW:
        yield f"Exploratory: {counted(count, 'replicate')}; 5 are usual, 8 are what to publish with."
    if 2.0**-count >= alpha:
        yield (
            f"With {counted(count, 'replicate')} a sign-flip p cannot fall below {2.0**-count:.3g}, "
            "so it cannot confirm the t test."
        )
    if dropped:
        yield (
            f"{counted(dropped, 'replicate')} left out: what is said holds for families whose runs all finished, "
            "and a diverged ticket does not count against its arm."
        )
    fewest = min(len(runs) for runs in results.dense)
    if fewest < max(len(runs) for runs in results.dense):
        yield "The replicates have different numbers of dense runs, so their differences are not equally noisy."
    if fewest == 1:
        yield "With a single dense run in a replicate its noise enters every level; three dense runs are usual."


def _on_power(count: int, gates: Sequence[LevelVerdict], margin: float, alpha: float, scale: Scale) -> Iterator[str]:
    spreads = [gate.budget.sd for gate in gates if gate.budget.sd is not None]
    flat = [percent(gate.density) for gate in gates if gate.budget.sd == 0]
    if flat:
        yield (
            f"At {', '.join(flat)} all differences are equal, so nothing is known of their spread and the limits have "
            f"no width; is the {scale.name} fine enough?"
        )
    if spreads and count > 2:
        spread = statistics.median(spreads)
        power = power_non_inferiority(count, 0.0, spread, margin, alpha)
        yield (
            f"Power: with {counted(count, 'replicate')} and the median spread of "
            f"{scale.amount(spread, signed=False)}, a ticket exactly as good as dense passes one gate with probability "
            f"{power:.2f}."
        )


def _on_margin(results: Results, margin: float, alpha: float, scale: Scale) -> Iterator[str]:
    if scale.is_accuracy and margin > LARGE_MARGIN:
        yield f"The margin of {points(margin, signed=False)} points is large; was it meant as a percentage?"
    if margin == 0:
        yield f"A margin of 0 asks for better than dense: an equally good ticket passes with probability {alpha:g}."
    examples = _test_examples(results, margin) if scale.is_accuracy else None
    if examples is not None:
        yield (
            f"Resolution: every accuracy is a multiple of 1/{examples}, steps of {points(1 / examples, signed=False)} "
            f"points, more than the margin of {points(margin, signed=False)}; a larger test set would see finer."
        )


def _test_examples(results: Results, margin: float) -> int | None:
    """Guess the number of test examples where it is too few for the margin; ``None`` if there is no sign of that.

    The least number below ``1 / margin`` of which all accuracies are multiples; ten different ones are needed, for a
    few accuracies of a large test set may be multiples of a small number by chance.
    """
    runs = [run for family in results.dense for run in family]
    runs += [run for level in results.levels for arm in level.arms.values() for run in arm if run is not None]
    values = sorted({run.test_accuracy for run in runs})
    if len(values) < 10 or margin <= 0:
        return None
    for examples in range(len(values) - 1, math.ceil(1 / margin)):
        if all(abs(value * examples - round(value * examples)) < 1e-6 for value in values):
            return examples
    return None


def _on_censoring(results: Results, gates: Sequence[LevelVerdict]) -> Iterator[str]:
    dense = sum(runs[0].censored for runs in results.dense)
    tickets = sum(gate.speed.censored_tickets for gate in gates if gate.speed is not None)
    if dense or tickets:
        yield (
            f"Censored: {counted(dense, 'dense run')} and {counted(tickets, 'ticket')} at the gates had the least "
            "validation loss at the last evaluation, so their speed is not known; a gate with such a ticket is judged "
            "by a sign test that counts it as late. Train longer to see how fast they are."
        )
