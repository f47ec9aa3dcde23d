"""What a ticket costs to find: the searches of finished studies against their iterative one, as a table and as JSON.

``python benchmarks/cheaper.py FOLDER... --out benchmarks/results/NAME.json``: each folder is one of ``tombola study run
cheaper``, ``cheaper-fashion`` or ``cheaper-conv``. A search is non-inferior to iterative pruning where the one-sided
95 % limit of its tickets' paired difference lies above minus 0.2 points.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any, Final

from machine import heading

from tombola.files import write_all
from tombola.stats import t_test
from tombola.study.library.cheaper import GATES

MARGIN: Final = 0.002
REFERENCE: Final = "iterative"


def rows(folder: Path) -> list[dict[str, Any]]:
    """Compare every search of a study with its reference, at each gate."""
    found = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))}
    reference = found[REFERENCE]
    return [
        compared(name, result, reference, gate)
        for name, result in found.items()
        for gate in GATES
        if any(abs(math.log(level["density"] / gate)) < 0.05 for level in result["levels"])
    ]


def compared(name: str, result: dict[str, Any], reference: dict[str, Any], gate: float) -> dict[str, Any]:
    """Compare a search with the reference at a gate; costs are per family, in dense trainings."""
    here, there = (nearest(one, gate) for one in (result, reference))
    ticket, other = (one["arms"]["ticket"]["test_accuracy"] for one in (here, there))
    lower = float(t_test([a - b for a, b in zip(ticket, other, strict=True)], alpha=0.05).lower)
    cost, most = (price(one, level["level"]) for one, level in ((result, here), (reference, there)))
    families = len(ticket)
    return {
        "search": name,
        "density": here["density"],
        "accuracy": ticket,
        "minus_reference": 100 * sum(a - b for a, b in zip(ticket, other, strict=True)) / families,
        "lower": 100 * lower,
        "non_inferior": lower > -MARGIN,
        "verdict": here["verdict"],
        "reference_verdict": there["verdict"],
        "search_cost": cost["dense_trainings"] / families,
        "search_cost_effective": cost["dense_trainings_effective"] / families,
        "ratio": cost["dense_trainings"] / most["dense_trainings"],
        "ratio_effective": cost["dense_trainings_effective"] / most["dense_trainings_effective"],
        "verification_cost": result["cost"]["purposes"]["verification"]["dense_trainings"] / families,
        "controls_cost": result["cost"]["purposes"]["controls"]["dense_trainings"] / families,
    }


def nearest(result: dict[str, Any], gate: float) -> dict[str, Any]:
    """Give the level at a gate."""
    levels = [one for one in result["levels"] if one["level"]]
    return min(levels, key=lambda one: abs(math.log(one["density"] / gate)))


def price(result: dict[str, Any], level: int) -> dict[str, Any]:
    """Give what finding the masks of a level took, over all families."""
    return next(one for one in result["cost"]["finding"] if one["level"] == level)


def main() -> None:
    """Print the tables and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    report: dict[str, Any] = {**heading(), "margin_points": 100 * MARGIN, "studies": {}}
    for folder in given.folders:
        report["studies"][folder.name] = table = rows(folder)
        print(f"\n{folder.name}\n")
        print(
            "| search | density | minus iterative (lower limit) | verdict | search: dense trainings | by operations |"
        )
        print("|---|--:|--:|---|--:|--:|")
        for row in sorted(table, key=lambda row: (-row["density"], row["search_cost"])):
            against = f"{row['minus_reference']:+.2f} ({row['lower']:+.2f})"
            costs = f"{row['search_cost']:.2f} | {row['search_cost_effective']:.2f}"
            print(f"| {row['search']} | {100 * row['density']:.1f} % | {against} | {row['verdict']} | {costs} |")
    write_all({given.out: (json.dumps(report, indent=1) + "\n").encode()})


if __name__ == "__main__":
    main()
