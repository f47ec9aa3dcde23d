"""How numbers look in a sentence: one place, so that every sentence of a verdict says them alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

# A float has no decimals worth the name beyond it.
_LONG = 1e15


def percent(fraction: float) -> str:
    """Write a density: ``0.2113 -> '21.1 %'``, with two digits below one percent."""
    value = 100 * fraction
    return f"{value:.1f} %" if value >= 0.995 else f"{value:.2g} %"


def level_of(probability: float) -> str:
    """Write a confidence level: ``0.95 -> '95 %'``."""
    return f"{100 * probability:.6g} %"


def fixed(value: float, *, signed: bool = True, digits: int = 2) -> str:
    """Write a number with so many decimals, with one digit where they would hide it."""
    if not math.isfinite(value):
        return "unknown"
    if abs(value) >= _LONG or (value and abs(value) < 0.5 * 10**-digits):
        return significant(value, signed=signed, digits=6 if abs(value) >= _LONG else 1)
    return f"{value:{'+' if signed else ''}.{digits}f}" if value else f"{0:.{digits}f}"


def significant(value: float, *, signed: bool = True, digits: int = 3) -> str:
    """Write a number with so many significant digits: ``-0.000123 -> '-0.000123'``, ``1.5e-9 -> '+1.5e-09'``."""
    if not math.isfinite(value):
        return "unknown"
    return f"{value:{'+' if signed else ''}.{digits}g}" if value else "0"


def points(fraction: float, *, signed: bool = True, digits: int = 2) -> str:
    """Write a difference of accuracies in percentage points: ``0.0043 -> '+0.43'``."""
    return fixed(100 * fraction, signed=signed, digits=digits)


def digits_apart(a: float, b: float, *, show: Callable[..., str] = points, fewest: int = 2) -> int:
    """Return how many digits make two differences look as different as they are; up to four more than the fewest."""
    for digits in range(fewest, fewest + 4):
        if show(a, digits=digits) != show(b, digits=digits) or a == b:
            return digits
    return fewest + 4


def p_text(p: float) -> str:
    """Write a p value after its sign: ``'= 0.034'``, ``'= 4e-4'``, ``'< 1e-16'``."""
    if p < 1e-16:
        return "< 1e-16"
    if p >= 0.001:
        return f"= {p:.2g}"
    mantissa, exponent = f"{p:.0e}".split("e")
    return f"= {mantissa}e{int(exponent)}"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: ``'1 replicate'``, ``'5 replicates'``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(words: Sequence[str]) -> str:
    """Join words: ``'a'``, ``'a and b'``, ``'a, b and c'``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def at_most_thousand(replicates: int | None) -> str:
    """Write a needed number of replicates, where ``None`` stands for more than 1000."""
    return "more than 1000" if replicates is None else str(replicates)
