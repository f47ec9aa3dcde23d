"""How fast and how near are strong tickets? The solver by candidates and cores, and constructions of trained networks.

``python benchmarks/strong.py RUN [--depth L+1] --out benchmarks/results/NAME.json``: RUN is the folder of a finished
search or study on LeNet-300-100 and MNIST whose trained ticket and dense network are taken (``--search`` names one of a
study).
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, Final

import torch
from machine import heading

from tombola.cli.trained import open_trained
from tombola.files import write_all
from tombola.seeds import generator
from tombola.strong.construct import construct
from tombola.strong.making import make
from tombola.strong.measuring import measured_law
from tombola.strong.plain import materialised
from tombola.strong.subset_sum import nearest
from tombola.strong.verify import classes, examples
from tombola.types import Seed

ROWS: Final = {10: 400_000, 12: 200_000, 16: 100_000, 20: 40_000, 24: 10_000, 28: 2_000, 30: 1_000}
TURNS: Final = 5


def speed(count: int, threads: int) -> float:
    """Give weights a second at a number of candidates, the best of a few turns."""
    rng = generator(Seed(0), "init", "speed", count)
    rows = ROWS[count]
    u, v = torch.rand(rows, count, generator=rng), torch.rand(rows, count, generator=rng) * 2 - 1
    products, targets = u.double() * v.double(), torch.rand(rows, generator=rng).double() - 0.5
    best = float("inf")
    for _ in range(TURNS):
        began = time.perf_counter()
        nearest(products, targets, threads=threads)
        best = min(best, time.perf_counter() - began)
    return rows / best


ERRORS: Final = {"2L": (1e-2, 1e-3, 1e-4, 1e-5), "L+1": (1e-3, 1e-4, 1e-5)}


def made(run: str, search: str | None, depth: str, dense: bool, error: float, threads: int) -> dict[str, Any]:
    """Construct and measure one strong ticket; its plain layers with every random weight too, on a thousand images."""
    target, dataset, _ = open_trained(run, dense=dense, search=search)
    assert dataset is not None
    title = "dense network" if dense else "trained ticket"
    found = make(target, dataset, title=title, error=error, doubled=depth == "2L", threads=threads)
    x, _ = examples(dataset)
    own, ours = classes(found.construction.network, x[:1000])
    plain = materialised(found.construction.network)
    with torch.no_grad():
        logits = torch.cat([plain(some) for some in x[:1000].split(250)])
    del plain
    again = 3 if depth == "2L" else 0
    times = [construct(target, error=error, threads=threads).seconds for _ in range(again)]
    as_layers = {
        "images": 1000,
        "same_predictions": int((logits.argmax(1) == own).sum()),
        "furthest_logit": float((logits.double() / found.construction.network.scale - ours).abs().max()),
    }
    return {**found.as_json(), "seconds_again": times, "materialised": as_layers}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--search", default=None)
    parser.add_argument("--depth", choices=list(ERRORS), default="2L")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(2)
    load = os.getloadavg()
    report: dict[str, Any] = {"speed": [], "constructions": []}
    for count in ROWS if given.depth == "2L" else ():
        one, two = speed(count, 1), speed(count, 2)
        report["speed"].append({"candidates": count, "one_thread": one, "two_threads": two, "ratio": two / one})
        print(f"| {count} | {one:,.0f} | {two:,.0f} | {two / one:.2f} |", flush=True)
    for dense in (True, False):
        for error in ERRORS[given.depth]:
            row = made(given.run, given.search, given.depth, dense, error, 2)
            report["constructions"].append(row)
            print(
                f"| {row['target']} | {error:g} | {row['seconds']:.2f} | {row['candidates']} | {row['solved']:,} | "
                f"{row['max_error']:.2e} | {row['mean_error']:.2e} | {100 * row['agreement']:.2f} % | "
                f"{100 * row['certified']:.2f} % | {row['kept']:,} | {row['sizes']['mask_entropy']:,.0f} |",
                flush=True,
            )
    if given.depth == "2L":
        law = measured_law(lists=20_000, threads=2)
        report["law"] = {"slope": law.slope, "law_slope": law.law_slope, "furthest": law.furthest,
                         "rows": [vars(one) for one in law.rows]}  # fmt: skip
        print(f"slope {law.slope:.3f}, by the law {law.law_slope:.3f}; furthest by a factor of {law.furthest:.2f}")
    write_all({given.out: (json.dumps({**heading(load), **report}, indent=1) + "\n").encode()})


if __name__ == "__main__":
    main()
