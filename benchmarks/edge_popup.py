"""How good are subnetworks of random networks? Learned masks on LeNet-300-100 and MNIST, no weight trained.

``python benchmarks/edge_popup.py --out benchmarks/results/NAME.json``; about half an hour on two cores. Three random
networks each, seed 0; 4 epochs of batches of 128 as the paper's recipe, and 20. The scores' learning rates were chosen
on the validation split of seed 7.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, Final

from machine import heading

from tombola.data import load
from tombola.files import write_all
from tombola.prune.learned import Popup, Supermask
from tombola.search.named import builder
from tombola.strong.edge_popup import learn, summary
from tombola.train.engines import trainer
from tombola.train.recipe import Recipe
from tombola.train.source import Splits
from tombola.train.watch import Unwatched
from tombola.types import ScoreRule, Seed

BATCH: Final = 128
REPLICATES: Final = 3
CASES: Final[tuple[tuple[str, ScoreRule, float, str, int], ...]] = (
    ("edge-popup, k = 0.5", Popup(0.5), 0.5, "signed-constant", 4),
    ("edge-popup, k = 0.3", Popup(0.3), 0.3, "signed-constant", 4),
    ("edge-popup, k = 0.1", Popup(0.1), 0.1, "signed-constant", 4),
    ("edge-popup, k = 0.5, Kaiming normal", Popup(0.5), 0.5, "kaiming-normal", 4),
    ("edge-popup, k = 0.5, scores' rate 1", Popup(0.5, lr=1.0), 0.5, "signed-constant", 4),
    ("edge-popup, k = 0.5, scores' rate 1", Popup(0.5, lr=1.0), 0.5, "signed-constant", 20),
    ("edge-popup, k = 0.1, scores' rate 1", Popup(0.1, lr=1.0), 0.1, "signed-constant", 20),
    ("supermask", Supermask(rescale=False), 0.5, "kaiming-normal", 20),
    ("supermask, signed constant", Supermask(rescale=False), 0.5, "signed-constant", 20),
    ("supermask, rescaled", Supermask(rescale=True), 1.0, "kaiming-normal", 20),
    ("supermask, rescaled, signed constant", Supermask(rescale=True), 1.0, "signed-constant", 20),
)


def main() -> None:
    """Train, print a row for each case, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    splits = Splits(partial(load, "mnist"))
    build = builder("lenet-300-100", splits.dataset)
    epoch = len(splits(Seed(0)).train_y) // BATCH
    report: dict[str, Any] = {**heading(), "model": "lenet-300-100", "data": "mnist", "batch_size": BATCH, "cases": []}
    print("| rule | epochs | in | test accuracy |\n|---|--:|--:|--:|")
    for name, rule, share, init, epochs in CASES:
        recipe = Recipe(iterations=epochs * epoch, batch_size=BATCH, eval_every=epoch)
        found = learn(
            build,
            trainer("plain", build, splits, recipe, "cpu", given.workers, Unwatched()),
            [Seed(0, replicate) for replicate in range(REPLICATES)],
            rule,
            recipe.iterations,
            init=init,
            share=share,
        )
        row = {"name": name, "epochs": epochs, **summary(found, rule, init)}
        report["cases"].append(row)
        accuracy = f"{100 * row['mean']:.2f} ({100 * row['low']:.2f} to {100 * row['high']:.2f})"
        print(f"| {name} | {epochs} | {100 * row['density'][0]:.1f} % | {accuracy} |", flush=True)
        write_all({given.out: (json.dumps(report, indent=1) + "\n").encode()})


if __name__ == "__main__":
    main()
