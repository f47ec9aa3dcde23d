"""A search that takes a second, and networks to search in by dotted path."""

from typing import Any

import torch
from torch import Tensor, nn

from tombola.search.settings import Settings

ITERATIONS = 24


def settings(**changes: Any) -> Settings:
    recipe = {"iterations": ITERATIONS, "batch_size": 50, "lr": 3e-3, "eval_every": 6, **changes.pop("recipe", {})}
    base = {"model": "small:net", "rounds": 2, "rate": 0.5, "replicates": 2, "dense_runs": 2, "workers": 1}
    return Settings(**{**base, **changes}, recipe=recipe)


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10))


def wrong_input() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(63, 10))


def wrong_classes() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))


def a_tuple() -> nn.Module:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.out(x.flatten(1))
            return logits, logits

    return Two()


def no_weights() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64))


def few_examples() -> tuple[Tensor, Tensor]:
    """Give 40 examples of two classes."""
    return torch.randn(40, 64, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
