"""Figures of what was measured, as SVG; the same numbers give the same bytes. Needs matplotlib, an extra."""

import importlib.util
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

from tombola.strong.measuring import Law, Width


def available() -> bool:
    """Whether matplotlib is here."""
    return importlib.util.find_spec("matplotlib") is not None


def law(found: Law) -> bytes:
    """Draw candidates needed against the error: measured medians, and the law's."""

    def draw(axes: Any) -> None:
        for weight in dict.fromkeys(one.weight for one in found.rows):
            rows = [one for one in found.rows if one.weight == weight]
            (line,) = axes.plot([math.log2(1 / one.median) for one in rows], [one.count for one in rows], "o",
                                label=f"w = {weight:g}")  # fmt: skip
            axes.plot(
                [math.log2(1 / one.law) for one in rows], [one.count for one in rows], "-", color=line.get_color()
            )
        axes.set_xlabel("log2(1 / median error)")
        axes.set_ylabel("candidates")
        axes.set_title(f"points measured, slope {found.slope:.3f}; lines the law, {found.law_slope:.3f}", fontsize=9)
        axes.legend()

    return _svg("law", draw)


def width(found: Sequence[Width]) -> bytes:
    """Draw the accuracy of learned masks against the number of random weights."""

    def draw(axes: Any) -> None:
        for one in found:
            axes.plot([one.weights] * len(one.accuracy), [100 * value for value in one.accuracy], "o", color="0.3")
        axes.plot([one.weights for one in found], [100 * sum(one.accuracy) / len(one.accuracy) for one in found], "-")
        axes.set_xscale("log")
        axes.set_xlabel("random weights")
        axes.set_ylabel("test accuracy, %, no weight trained")

    return _svg("width", draw)


def _svg(name: str, draw: Callable[[Any], None]) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    page = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        draw(figure.subplots())
        figure.savefig(page, format="svg", metadata={"Date": None})
    return page.getvalue()
