"""Print the Markdown table of a search from its JSON: ``python benchmarks/table.py result.json``."""

import json
import sys
from pathlib import Path
from typing import Any

from tombola.stats import Scale
from tombola.stats.comparison import mean_interval


def main() -> None:
    """Read the JSON of ``tombola find --json`` and print one row per level."""
    found = json.loads(Path(sys.argv[1]).read_text())
    arms = list(dict.fromkeys(name for level in found["levels"] for name in level["arms"]))
    # Results of before there were other scores do not name theirs.
    scale = Scale(found.get("score", "accuracy")).fitted(found["margin"])
    heads = [cell for arm in arms for cell in (f"{arm}, %" if scale.is_accuracy else arm, "early stop")]
    print("| " + " | ".join(["level", "density", "kept", *heads, "verdict"]) + " |")
    print("|" + "--:|" * (3 + len(heads)) + "---|")
    for level in found["levels"]:
        mark = " (certified)" if level.get("judged", {}).get("certified") else ""
        cells = [cell for arm in arms for cell in _arm(level["arms"].get(arm), found["alpha"], scale)]
        verdict = "dense" if level["level"] == 0 else level["verdict"] + mark
        row = [str(level["level"]), f"{100 * level['density']:.2f} %", f"{level['kept']:,}", *cells, verdict]
        print("| " + " | ".join(row) + " |")


def _arm(arm: dict[str, list[Any]] | None, alpha: float, scale: Scale) -> tuple[str, str]:
    if arm is None:
        return "", ""
    accuracy = mean_interval(arm["test_accuracy"], alpha)
    stop = mean_interval(arm["early_stop_iteration"], alpha)
    late = "> " if any(arm["censored"]) else ""
    return (
        f"{scale.value(accuracy.mean)} ± {scale.value(accuracy.high - accuracy.mean)}",
        f"{late}{stop.mean:.0f} ± {stop.high - stop.mean:.0f}",
    )


if __name__ == "__main__":
    main()
