"""What a score is called, which values it takes, and how it looks in sentences and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import final

from tombola.errors import InvalidResults, InvalidValue
from tombola.stats.wording import counted, digits_apart, fixed, significant

LARGEST_ACCURACY_MARGIN = 0.5

_LONGEST_NAME = 40
# Beyond it a row of zeros hides the number, and scientific notation is easier to read.
_MOST_DECIMALS = 9


@final
@dataclass(frozen=True)
class Scale:
    """A score by which networks are compared; larger is better.

    ``Scale("accuracy")`` is a fraction in [0, 1], shown times 100, its differences in points. Any other name stands for
    a score that takes any finite value and is shown as it is: negative perplexity, BLEU, R^2, a reward.

    Attributes:
        name: as sentences say it.
        decimals: with which numbers are shown, see :meth:`fitted`; ``None`` shows each by its own size. Accuracy has 2.

    Raises:
        InvalidValue: a name that is empty, longer than 40 characters, or no plain text.

    Example:
        >>> Scale("BLEU").fitted(margin=0.2).difference(1.234)
        '+1.23'
        >>> ACCURACY.difference(0.0123)
        '+1.23'
    """

    name: str
    decimals: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not (self.name.strip() == self.name and self.name.isprintable() and 0 < len(self.name) <= _LONGEST_NAME):
            shown = self.name if len(self.name) <= _LONGEST_NAME else self.name[:_LONGEST_NAME] + "..."
            raise InvalidValue(
                f"the score is called {shown!r}, {counted(len(self.name), 'character')}. Its name is 1 to "
                f"{_LONGEST_NAME} printable characters without space at the ends. Give a short one, such as 'BLEU'."
            )
        if self.is_accuracy:
            object.__setattr__(self, "decimals", 2)

    @property
    def is_accuracy(self) -> bool:
        """Whether values are fractions in [0, 1]."""
        return self.name == "accuracy"

    @property
    def unit(self) -> str:
        """What follows a difference: ``"points"``, or nothing."""
        return "points" if self.is_accuracy else ""

    @property
    def heading(self) -> str:
        """The title of a table or axis of values: ``"test accuracy in %"`` or ``"test NAME"``."""
        return "test accuracy in %" if self.is_accuracy else f"test {self.name}"

    def column(self, arm: str) -> str:
        """Give the heading of a column of an arm's values: ``"ticket %"``, or the arm alone."""
        return f"{arm} %" if self.is_accuracy else arm

    def fitted(self, margin: float) -> Scale:
        """Return this scale with as many decimals as show the margin with two significant digits.

        Accuracy keeps its two decimals; with a margin of 0, or one too small for decimals, each number is shown by its
        own size.
        """
        if self.is_accuracy:
            return self
        decimals = 1 - math.floor(math.log10(margin)) if margin > 0 else _MOST_DECIMALS + 1
        return replace(self, decimals=max(0, decimals) if decimals <= _MOST_DECIMALS else None)

    def value(self, x: float) -> str:
        """Write one score: ``0.9772 -> '97.72'`` as an accuracy, ``'0.9772'`` as another score."""
        if self.decimals is None:
            return significant(x, signed=False, digits=6)
        return fixed(self._factor * x, signed=False, digits=self.decimals)

    def difference(self, x: float, *, signed: bool = True, digits: int | None = None) -> str:
        """Write a difference of scores without its unit: ``0.0043 -> '+0.43'`` as accuracies.

        Args:
            x: the difference, in the units of the score.
            signed: whether a plus sign stands before a positive one.
            digits: decimals, or significant digits where ``decimals`` is ``None``; those of the scale by default.
        """
        shown = self.digits if digits is None else digits
        write = significant if self.decimals is None else fixed
        return write(self._factor * x, signed=signed, digits=shown)

    def amount(self, x: float, *, signed: bool = True, digits: int | None = None) -> str:
        """Write a difference with its unit: ``'+0.43 points'``, or ``'+0.0043'`` for a score without one."""
        return self._with_unit(self.difference(x, signed=signed, digits=digits))

    def margin_text(self, margin: float) -> str:
        """Write a margin as it was given, with its unit: ``0.005 -> '0.5 points'``, or ``'0.005'``."""
        return self._with_unit(f"{self._factor * margin:g}")

    @property
    def digits(self) -> int:
        """With how many digits a difference is shown."""
        return 3 if self.decimals is None else self.decimals

    def digits_apart(self, a: float, b: float) -> int:
        """Return with how many digits two differences look as different as they are; up to four more than usual."""
        return digits_apart(a, b, show=self.difference, fewest=self.digits)

    def check_value(self, value: float) -> float:
        """Return a score that is one; NaN stands for no result and passes.

        Raises:
            InvalidResults: an accuracy outside [0, 1], another score that is infinite.
        """
        if self.is_accuracy and not (math.isnan(value) or 0 <= value <= 1):
            raise InvalidResults(f"there is an accuracy of {value:g}. Accuracies are fractions in [0, 1].")
        if math.isinf(value):
            raise InvalidResults(
                f"there is a score ({self.name}) of {value:g}. Scores are finite numbers; write nan for a run that has "
                "no result."
            )
        return value

    def check_margin(self, margin: float | None) -> float:
        """Return a margin that can be judged by.

        Raises:
            InvalidValue: ``None``, or out of range: [0, 0.5] for accuracy, finite and at least 0 for another score.
        """
        if margin is None:
            raise InvalidValue(
                f"there is no margin for {self.name}. Say before looking how much of it may be lost, in its own units: "
                "a number of at least 0, as --margin 0.1 or margin=0.1."
            )
        if self.is_accuracy and not 0 <= margin <= LARGEST_ACCURACY_MARGIN:
            raise InvalidValue(
                f"the margin is {margin:g}. It is a fraction of accuracy between 0 and 0.5: "
                f"write 0.002 for 0.2 points{_as_fraction(margin)}."
            )
        if not (math.isfinite(margin) and margin >= 0):
            raise InvalidValue(
                f"the margin is {margin:g}. It is how much {self.name} may be lost, in its own units: give a finite "
                "number of at least 0."
            )
        return margin

    @property
    def _factor(self) -> float:
        return 100 if self.is_accuracy else 1

    def _with_unit(self, text: str) -> str:
        return f"{text} {self.unit}" if self.unit else text


def _as_fraction(margin: float) -> str:
    return f", {margin / 100:g} for {margin:g} point{'' if margin == 1 else 's'}" if 0.5 < margin <= 50 else ""


ACCURACY = Scale("accuracy")
"""Test accuracy, the score of the paper and of tombola's own training."""
