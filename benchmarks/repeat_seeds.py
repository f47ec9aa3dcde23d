"""Repeat the default search with many seeds and count how often the ticket wins at some gate.

``python benchmarks/repeat_seeds.py --seeds 20 --out benchmarks/results/NAME.json``: about half a minute per seed on two
cores. Every seed draws its own splits, initialisations and data orders.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from machine import heading

from tombola.files import write_all
from tombola.search.find import find
from tombola.search.settings import Settings


def main() -> None:
    """Run the seeds and write what each found; a partial file is written after every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        rows.append(_one(seed))
        wins = sum(any(gate["verdict"] == "wins" for gate in row["gates"]) for row in rows)
        report = {
            "command": "tombola find --seed SEED",
            **heading(),
            "seeds": len(rows),
            "wins_at_some_gate": wins,
            "rows": rows,
        }
        write_all({arguments.out: (json.dumps(report, indent=1) + "\n").encode()})
        print(f"seed {seed}: {rows[-1]['verdict']}, {wins} of {len(rows)} win at some gate", flush=True)


def _one(seed: int) -> dict[str, Any]:
    finding = find(Settings(seed=seed))
    found = finding.as_json()
    return {
        "seed": seed,
        "verdict": found["verdict"],
        "certified_density": found["certified_density"],
        "seconds": round(finding.cost.seconds, 1),
        "gates": [
            {
                "density": level["density"],
                "verdict": level["verdict"],
                "certified": level["judged"]["certified"],
                "difference": level["judged"]["budget"]["mean"],
                "lower": level["judged"]["budget"]["lower"],
                "controls": {
                    name: {"mean": control["mean"], "p_holm": control["p_holm"]}
                    for name, control in level["judged"]["controls"].items()
                },
            }
            for level in found["levels"]
            if level["gate"]
        ],
    }


if __name__ == "__main__":
    main()
