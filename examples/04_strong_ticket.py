"""Find a trained network inside a random one, without training anything.

A small network is trained on handwritten digits. Then every one of its weights is found as a sum of a few random
products, so that a masked random network predicts what the trained one does; for most inputs that is certified. Run it
with ``python examples/04_strong_ticket.py``; it takes a few seconds. On the command line the same is ``tombola strong
construct RUN`` for the folder of any ``tombola find``.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from tombola.data import load
from tombola.files import write_all
from tombola.strong.making import make
from tombola.strong.target import read
from tombola.strong.verify import verify


def main() -> None:
    """Train, construct, write, and check what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="fewer iterations")
    parser.add_argument("--out", type=Path, default=Path("tombola-runs/strong-ticket"))
    arguments = parser.parse_args()

    digits = load("digits")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60 if arguments.tiny else 400):
        loss = nn.functional.cross_entropy(network(digits.train_x), digits.train_y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    made = make(read(network), digits, title="a network of 40 hidden units", error=1e-3)
    found = made.as_json()
    print(f"{found['solved']:,} weights found as sums of random products in {found['seconds']:.2f} s")
    print(f"{found['kept']:,} of {found['total']:,} random weights are kept, and none was trained")
    agree, certified = (100 * found[name] for name in ("agreement", "certified"))
    print(f"{agree:.2f} % of the predictions are the same; {certified:.2f} % for certain")

    path = arguments.out / "strong.safetensors"
    write_all({path: made.encoded()})
    checks = verify(path, dataset=digits)
    print(f"{path}: drawn again from its seed and mask, it verifies: {all(check.ok for check in checks)}")


if __name__ == "__main__":
    main()
