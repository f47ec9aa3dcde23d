"""Search for a ticket by a score of your own.

The score is the size of a weight times the size of what comes in through it, as in Sun et al. (2024), equation 1. It is
checked against the contract that every criterion holds, and then used in a search on handwritten digits. Run it with
``python examples/03_your_own_criterion.py``; it takes less than a minute. With this file on the import path, the same
on the command line is ``tombola find --criterion my_scores:usage``, for a file named ``my_scores.py``.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from tombola.files import write_all
from tombola.prune.evidence import Evidence, only_alive
from tombola.prune.layers import Use
from tombola.prune.masks import apply, check
from tombola.search.find import find
from tombola.search.settings import Settings
from tombola.testing import check_criterion
from tombola.ticket import load, verify
from tombola.types import Masks, Params, Scores


def usage(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    """Score each weight by its size times the size of its inputs; a bias, which has none, by its size alone."""
    check(params, masks)
    weights = apply(params, masks)
    squares: dict[str, Tensor] = {}
    with torch.no_grad():
        for inputs, _ in evidence.require("batches"):
            _, uses = evidence.require("uses")(weights, inputs)
            for use in uses:
                squares[use.weight] = squares.get(use.weight, torch.zeros(())) + entering(use)
    sizes = {name: weights[name].float().abs() for name in masks}
    return only_alive({n: size * squares[n].sqrt() if n in squares else size for n, size in sizes.items()}, masks)


def entering(use: Use) -> Tensor:
    """Add up the squares of each input of a layer, in the shape of its weight: ``[1, in]`` or ``[1, in, 1, 1]``."""
    axis = use.inputs.dim() - 1 if use.kind == "linear" else 1
    others = [dim for dim in range(use.inputs.dim()) if dim != axis]
    total = use.inputs.float().square().sum(others)
    return total.reshape(1, -1, *[1] * (use.inputs.dim() - 2 if use.kind == "conv" else 0))


def main() -> None:
    """Check the criterion, search with it, and read the ticket back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a few seconds, too short for a verdict")
    parser.add_argument("--out", type=Path, default=Path("tombola-runs/your-own-criterion"))
    arguments = parser.parse_args()

    check_criterion(usage)
    print("the criterion holds its contract")

    settings = Settings(data="digits", model="lenet-300-100", criterion=usage, rounds=6, replicates=3, dense_runs=1)
    if arguments.tiny:
        settings = Settings(criterion=usage, rounds=2, replicates=2, dense_runs=1, workers=1, recipe={"iterations": 20})
    finding = find(settings)
    for level in finding.levels:
        accuracies = [run.test_accuracy for run in level.arms["ticket"].values()]
        mean = sum(accuracies) / len(accuracies)
        print(f"level {level.level}: {100 * level.density:6.2f} % of the weights, test accuracy {100 * mean:.2f} %")
    print(finding.judgement.sentence)

    write_all(finding.encoded(arguments.out))
    path = arguments.out / "ticket.safetensors"
    ticket = load(path)
    print(f"{path}: {ticket.kept:,} of {ticket.total:,} weights; it verifies: {verify(path).ok}")


if __name__ == "__main__":
    main()
