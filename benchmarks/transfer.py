"""Tickets on other data and other optimisers: masks and start values found on one, trained on another, with verdicts.

``python benchmarks/transfer.py --work FOLDER --out benchmarks/results/NAME.json``: LeNet-300-100 on MNIST and
Fashion-MNIST, by Adam and by SGD: four searches by iterative pruning, and each one's masks trained in the other three
settings from the same initial values, against the dense network there, its mask initialised anew and shuffled. What is
finished is in the work folder's store and is not trained again.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from machine import heading

from tombola.explain.material import ready
from tombola.files import write_all
from tombola.search.find import run
from tombola.search.finding import Finding
from tombola.search.settings import Settings
from tombola.study.recalling import recalling
from tombola.study.running import one_search

DATA: Final = ("mnist", "fashion-mnist")
OPTIMIZERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "adam": {"optimizer": "adam", "lr": 1.2e-3},
    "sgd": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9},
}
GATES: Final = (0.2107, 0.0695)


def searched(settings: Settings, folder: Path, store: Path) -> Finding:
    """Run a search, or read it, and leave what a further one takes masks from."""
    finding = run(recalling(ready(settings), store)).save(folder)
    write_all(one_search(settings, folder, store))
    return finding


def cells(finding: Finding) -> dict[str, Any]:
    """Give what the matrix shows of a search."""
    told = finding.as_json()
    return {
        "verdict": told["verdict"],
        "sentence": told["sentence"],
        "certified_density": told["certified_density"],
        "levels": [
            {
                "density": level["density"],
                "verdict": level["verdict"],
                "arms": {name: arm["test_accuracy"] for name, arm in level["arms"].items()},
            }
            for level in told["levels"]
            if level["gate"] or not level["level"]
        ],
        "dense": told["dense_runs"],
    }


def main() -> None:
    """Fill the matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=4_000)
    parser.add_argument("--replicates", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    report: dict[str, Any] = {**heading(), "iterations": given.iterations, "replicates": given.replicates}
    report |= {"network": "lenet-300-100", "recipes": OPTIMIZERS, "matrix": {}}
    places = [(data, name) for data in DATA for name in OPTIMIZERS]
    store = given.work / "store"
    for source in places:
        for target in sorted(places, key=lambda place: place != source):
            folder = given.work / "-".join((*source, "to", *target))
            masks_of = str(given.work / "-".join((*source, "to", *source)))
            how: dict[str, Any] = {"strategy": "transfer", "source": masks_of}
            if source == target:
                how = {"rounds": 12, "gates": GATES}
            settings = Settings(
                data=target[0],
                model="lenet-300-100",
                replicates=given.replicates,
                dense_runs=2,
                workers=given.workers,
                recipe={"iterations": given.iterations, "batch_size": 60, **OPTIMIZERS[target[1]]},
                **how,
            )
            finding = searched(settings, folder, store)
            report["matrix"].setdefault(" ".join(source), {})[" ".join(target)] = cells(finding)
            print(" ".join(source), "->", " ".join(target), finding.verdict.value, flush=True)
            write_all({given.out: (json.dumps(report, indent=1) + "\n").encode()})


if __name__ == "__main__":
    main()
