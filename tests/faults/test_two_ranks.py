"""Masks of two ranks are compared wherever masks are put on: the collective call is played by one process."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import distributed, nn

from tombola.attach import RanksDiffer, attach

MASK = {"weight": torch.tensor([[True, False], [False, True]])}
OTHER = {"weight": torch.tensor([[True, False], [True, False]])}


def pretend(monkeypatch: pytest.MonkeyPatch, say: Callable[[Any], Any]) -> list[Any]:
    """Play rank 0 of two; rank 1 answers what ``say`` makes of our own answer."""
    heard: list[Any] = []

    def gather(every: list[Any], mine: Any) -> None:
        heard.append(mine)
        every[:] = [mine, say(mine)]

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_gather_object", gather)
    return heard


def test_other_masks_on_another_rank_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with attach(nn.Linear(2, 2), OTHER) as there:
        theirs = (there.fingerprint(), 2)
    with attach(nn.Linear(2, 2), MASK) as here:
        heard = pretend(monkeypatch, lambda _: theirs)
        with pytest.raises(
            RanksDiffer, match=r"rank 0: 2 kept, .*; ?rank 1: 2 kept|rank 0: 2 kept, .*, rank 1: 2 kept"
        ):
            here.check_ranks()
        assert heard == [(here.fingerprint(), 2)]


def test_the_same_masks_on_both_ranks_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with attach(nn.Linear(2, 2), MASK) as here:
        pretend(monkeypatch, lambda mine: mine)
        here.check_ranks()
