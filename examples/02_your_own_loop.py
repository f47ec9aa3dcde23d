"""Search for a ticket in a network of your own, through a training loop of your own.

A character-level transformer language model with tied embeddings and an ordinary PyTorch loop, on Tiny Shakespeare
where ``TOMBOLA_DATA/tinyshakespeare/input.txt`` is present and on Python's own documentation elsewhere. Nothing in the
network or the loop knows of masks. Run it with ``python examples/02_your_own_loop.py``: about an hour and a half on one
busy core.
"""

import argparse
import math
import os
import pydoc_data.topics
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import tombola

CONTEXT = 64


class LanguageModel(nn.Module):
    """A decoder of ``layers`` pre-norm blocks; the output layer shares its weight with the embedding."""

    def __init__(self, characters: int, width: int = 96, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.position = nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, characters, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)
        self.output.weight = self.embedding.weight

    def forward(self, text: Tensor) -> Tensor:
        """Give logits (batch, length, characters) for the character after each of ``text`` (batch, length)."""
        length = text.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.embedding(text) + self.position(torch.arange(length))
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask, is_causal=True)
        logits: Tensor = self.output(self.norm(hidden))
        return logits


def read_text() -> tuple[str, str]:
    """Give the name of a text and the text."""
    path = Path(os.environ.get("TOMBOLA_DATA", "")) / "tinyshakespeare" / "input.txt"
    if path.is_file():
        return "Tiny Shakespeare", path.read_text()
    return "Python's documentation", "".join(pydoc_data.topics.topics.values())


def windows(codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Cut pieces of CONTEXT characters, and the character that follows each of theirs."""
    pieces = torch.stack([codes[start : start + CONTEXT + 1] for start in starts.tolist()])
    return pieces[:, :-1], pieces[:, 1:]


def nats(model: nn.Module, codes: Tensor, pieces: int) -> float:
    """Give the mean loss per character on pieces spread evenly over a text."""
    starts = torch.linspace(0, len(codes) - CONTEXT - 1, pieces).long()
    with torch.no_grad():
        losses = [
            functional.cross_entropy(model(x).flatten(0, 1), y.flatten()) for x, y in
            (windows(codes, some) for some in starts.split(64))
        ]  # fmt: skip
    return float(torch.stack(losses).mean())


def main() -> None:
    """Search, show the table and the verdict, and read the ticket back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a few seconds, too short for a verdict")
    parser.add_argument("--out", type=Path, default=Path("tombola-runs/your-own-loop"))
    arguments = parser.parse_args()
    tiny = arguments.tiny

    name, text = read_text()
    if tiny:
        text = text[:20_000]
    alphabet = {character: code for code, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([alphabet[character] for character in text])
    training, validation, test = codes.split([len(codes) - 2 * (len(codes) // 10)] + 2 * [len(codes) // 10])
    print(f"{name}: {len(codes):,} characters, {len(alphabet)} different ones")
    every, pieces, batch = (2, 8, 4) if tiny else (50, 256, 32)

    def build() -> nn.Module:
        return LanguageModel(len(alphabet), width=16, layers=2) if tiny else LanguageModel(len(alphabet))

    def train(model: nn.Module, *, seed: int, iterations: int, record: tombola.Record) -> None:
        order = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
        for step in range(record.start + 1, record.start + iterations + 1):
            x, y = windows(training, torch.randint(len(training) - CONTEXT, (batch,), generator=order))
            loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % every == 0:
                model.eval()
                record(step, loss=nats(model, validation, pieces))
                model.train()

    def evaluate(model: nn.Module) -> float:
        return -nats(model, test, 4 * pieces) / math.log(2)

    # Half of each layer's weights go in every round; the embedding, which is the output layer too, stays whole.
    found = tombola.find(
        build,
        train,
        evaluate,
        iterations=4 if tiny else 800,
        rate=0.5,
        rounds=2 if tiny else 5,
        replicates=2 if tiny else 5,
        dense_runs=1 if tiny else 2,
        gates=(0.5,) if tiny else (0.5, 0.25, 0.125),
        score="-bits per character",
        margin=0.02,
    )
    found = found.save(arguments.out)
    print(found)
    again = tombola.load(found.files["ticket"])
    print(f"{again.kept:,} of {again.total:,} weights; it verifies: {tombola.verify(found.files['ticket']).ok}")


if __name__ == "__main__":
    main()
