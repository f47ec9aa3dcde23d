"""Draw what an iteration costs by density, from the JSON of ``tombola bench iteration``.

``python benchmarks/figure.py RESULTS.json --out docs/figures/cost-by-density.svg`` (``pip install tombola[plots]``):
time against density, both logarithmic, one line for each rival and one for the floor; for the first model of the
results, or for ``--model``. The same results give the same bytes under the same matplotlib.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tombola.errors import InvalidResults, TombolaError
from tombola.files import write_all

NAMES: Final = {
    "sparse": "tombola, sparse engine",
    "eager": "PyTorch, masked dense (eager)",
    "compiled": "PyTorch, masked dense (compiled)",
    "prune": "torch.nn.utils.prune",
    "csr": "PyTorch CSR (csr)",
    "sparseprop": "SparseProp (sparseprop)",
}

# Okabe and Ito's colours, without the two that are faint on white or on black; grey for words and axes, so that both
# grounds will do.
COLOURS: Final = {
    "sparse": "#009E73",
    "eager": "#0072B2",
    "compiled": "#56B4E9",
    "prune": "#CC79A7",
    "csr": "#D55E00",
    "sparseprop": "#E69F00",
}
MARKERS: Final = {"sparse": "o", "eager": "s", "compiled": "^", "prune": "v", "csr": "D", "sparseprop": "P"}
GREY: Final = "#808080"

SETTINGS: Final[Any] = {
    "svg.hashsalt": "tombola",
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


NEEDED: Final = {"processor", "versions", "date", "data", "rows"}
NEEDED_OF_A_ROW: Final = {
    *("benchmark", "model", "rival", "density", "batch", "threads", "milliseconds", "floor_milliseconds", "turns")
}


def main() -> int:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        write_all({arguments.out: drawn(read(arguments.results), arguments.model)})
    except TombolaError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def read(path: Path) -> dict[str, Any]:
    """Read a report.

    Raises:
        InvalidResults: there is none at the path.
    """
    wrote = "Give a file that `tombola bench iteration --out FILE` wrote."
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise InvalidResults(f"{path} cannot be read: {error.strerror}. {wrote}") from error
    except ValueError as error:
        raise InvalidResults(f"{path} is not JSON. {wrote}") from error
    if not isinstance(report, dict) or not isinstance(report.get("rows"), list):
        raise InvalidResults(f"{path} has no list of rows. {wrote}")
    lacks = NEEDED - report.keys()
    for row in report["rows"]:
        lacks |= NEEDED_OF_A_ROW - row.keys() if isinstance(row, dict) else NEEDED_OF_A_ROW
    if lacks:
        raise InvalidResults(f"{path} lacks {', '.join(sorted(lacks))}, or a row of it does. {wrote}")
    return report


def drawn(report: dict[str, Any], model: str | None = None) -> bytes:
    """Give the figure as SVG.

    Raises:
        InvalidResults: the report has no iteration of the model.
    """
    every = [row for row in report["rows"] if row["benchmark"] == "iteration"]
    rows = [row for row in every if row["model"] == (model or every[0]["model"])]
    if not rows:
        has = ", ".join(sorted({row["model"] for row in every})) or "none at all"
        raise InvalidResults(f"there is no iteration of {model or 'any model'} in these results; there are: {has}.")
    with matplotlib.rc_context():
        # The user's own style is left out.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(7.2, 5.0), layout="constrained")
        axes = figure.add_subplot()
        _lines(axes, rows)
        axes.set(xscale="log", yscale="log", xlabel="density (fraction of the weights kept), sparser to the right")
        axes.set_ylabel("time of a training iteration (ms)")
        axes.xaxis.set_inverted(True)
        densities = sorted({row["density"] for row in rows})
        axes.set_xticks(densities, [f"{density:.2g}" for density in densities])
        axes.minorticks_off()
        axes.grid(which="major", color=GREY, alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(frameon=False, fontsize=8.5, loc="outside upper center", ncols=3)
        figure.supxlabel(_caption(report, rows), fontsize=8, x=0.01, ha="left")
        out = io.BytesIO()
        # Without a date in it the same results make the same file.
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": "tombola"})
    return out.getvalue()


def _lines(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    for rival, name in NAMES.items():
        points = sorted((row["density"], row["milliseconds"]) for row in rows if row["rival"] == rival)
        if points:
            wide = 2.4 if rival == "sparse" else 1.4
            axes.plot(
                *zip(*points, strict=True),
                color=COLOURS[rival],
                marker=MARKERS[rival],
                markersize=5,
                linewidth=wide,
                label=name,
            )
    floor = sorted({(row["density"], row["floor_milliseconds"]) for row in rows if row["floor_milliseconds"]})
    if floor:
        axes.plot(
            *zip(*floor, strict=True),
            color=GREY,
            linestyle="--",
            linewidth=1.2,
            label="floor: what the processor allows",
        )


def _caption(report: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    first, model = rows[0], rows[0]["model"]
    threads = max(row["threads"] for row in rows)
    return (
        f"{model}, batch {first['batch']}, Adam; {report['data'][model]}.\n"
        f"{threads} thread{'s' if threads > 1 else ''} of {report['processor']}, torch {report['versions']['torch']}, "
        f"{report['date']}; medians of {first['turns']} alternating turns."
    )


if __name__ == "__main__":
    raise SystemExit(main())
