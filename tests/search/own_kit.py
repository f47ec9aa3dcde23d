"""Networks and loops of a user's own, small enough to search in a second."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola import Record, find
from tombola.search.finding import Finding

T = 12

Data = tuple[Tensor, Tensor]


@cache
def images() -> Data:
    """Give 200 pictures of 8x8 in two classes: which half is brighter."""
    x = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0, :4].mean((1, 2)) > x[:, 0, 4:].mean((1, 2))).long()


@cache
def sequences() -> Data:
    """Give 200 sequences of 6 tokens; the class is whether the first occurs again."""
    x = torch.randint(0, 8, (200, 6), generator=torch.Generator().manual_seed(0))
    return x, (x[:, 1:] == x[:, :1]).any(1).long()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 2)
    )


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 10)
        self.lstm = nn.LSTM(10, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.output = nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embedding(x))
        logits: Tensor = self.output(hidden[:, -1])
        return logits


class Tied(nn.Module):
    """A transformer whose output layer shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 16)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True) for _ in range(2))
        self.output = nn.Linear(16, 8, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embedding(x)
        for block in self.blocks:
            hidden = block(hidden)
        logits: Tensor = self.output(hidden.mean(1))[:, :2]
        return logits


def loop(
    data: Callable[[], Data] = images,
    *,
    every: int = 3,
    said: str = "loss",
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    spy: Callable[..., Any] = lambda **_: None,
) -> Callable[..., None]:
    """Give an ordinary training loop that reports ``said``: loss, both, steps or nothing."""

    def train(model: nn.Module, *, seed: int, iterations: int, record: Record) -> None:
        x, y = data()
        spy(model=model, seed=seed, iterations=iterations, record=record)
        steps = optimizer(model.parameters(), lr=0.01)
        for step in range(record.start, record.start + iterations):
            g = torch.Generator().manual_seed(seed * 1000 + step)
            batch = torch.randint(100, (16,), generator=g)
            loss = functional.cross_entropy(model(x[batch]), y[batch])
            steps.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            steps.step()
            if (step + 1) % every == 0 and said != "nothing":
                report(model, x, y, step + 1, record, said)

    return train


def report(model: nn.Module, x: Tensor, y: Tensor, step: int, record: Record, said: str) -> None:
    model.eval()
    with torch.no_grad():
        logits = model(x[100:150])
    model.train()
    loss = functional.cross_entropy(logits, y[100:150])
    accuracy = (logits.argmax(1) == y[100:150]).float().mean()
    if said == "steps":
        record(step)
    elif said == "both":
        record(step, loss=loss, accuracy=accuracy)
    else:
        record(step, loss=loss)


def on_test(data: Callable[[], Data] = images) -> Callable[[nn.Module], float]:
    def evaluate(model: nn.Module) -> float:
        x, y = data()
        with torch.no_grad():
            return float((model(x[150:]).argmax(1) == y[150:]).float().mean())

    return evaluate


def nats(model: nn.Module) -> float:
    x, y = images()
    with torch.no_grad():
        return -float(functional.cross_entropy(model(x[150:]), y[150:]))


def searched(build: Any = mlp, train: Any = None, evaluate: Any = "on test", **changes: Any) -> Finding:
    """Search small; ``changes`` go to ``find``."""
    options: dict[str, Any] = {
        "iterations": T, "rate": 0.5, "rounds": 2, "replicates": 3, "dense_runs": 2, "progress": False, **changes,
    }  # fmt: skip
    return find(build, train or loop(), on_test() if evaluate == "on test" else evaluate, **options)
