"""Find a first winning ticket on real data, and look at what was found.

Run it with ``python examples/01_first_ticket.py``; it takes about a minute on two cores. The same search on the
command line is ``tombola find``.
"""

import argparse
from pathlib import Path

from tombola.files import write_all
from tombola.search.find import find
from tombola.search.settings import Settings
from tombola.ticket import load, verify


def main() -> None:
    """Search, print the verdict, and read the ticket back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a few seconds, too short for a verdict")
    parser.add_argument("--out", type=Path, default=Path("tombola-runs/first-ticket"))
    arguments = parser.parse_args()

    # Five families of LeNet-300-100 on the 1,797 handwritten digits that come with tombola: train the dense network,
    # prune 20 % of the weights (10 % of the output layer's), reset the survivors to their initial values, repeat.
    settings = Settings(data="digits", model="lenet-300-100", strategy="imp", rounds=12, seed=0)
    if arguments.tiny:
        settings = Settings(rounds=2, replicates=2, dense_runs=1, workers=1, recipe={"iterations": 20})
    finding = find(settings)

    for level in finding.levels:
        accuracies = [run.test_accuracy for run in level.arms["ticket"].values()]
        mean = sum(accuracies) / len(accuracies)
        print(f"level {level.level:2d}: {100 * level.density:6.2f} % of the weights, test accuracy {100 * mean:.2f} %")
    print(finding.judgement.sentence)

    # The ticket is the mask and the *initial* values of the surviving weights, with its history.
    files = finding.encoded(arguments.out)
    write_all(files)
    path = arguments.out / "ticket.safetensors"
    ticket = load(path)
    print(f"{path}: {ticket.kept:,} of {ticket.total:,} weights; it verifies: {verify(path).ok}")


if __name__ == "__main__":
    main()
