"""Inputs that fuzzing found to end in different ways, each refused or accepted as it was then.

``benchmarks/fuzz_tickets.py --corpus tests/ticket/corpus`` adds to them. A file's name begins with the step that
refuses it, or ``accepted``, and says whether it was read with a factory of one's own.
"""

from pathlib import Path

import pytest
import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.ticket import Ticket, decode, encode
from tombola.ticket.decode import STEPS, stepwise

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(path.name for path in CORPUS.iterdir())
DRAWN = ("values", "provenance", "accepted")
"""Another torch or CPU draws other start values, and may end at an earlier one of these."""


def linear(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of one's own of benchmarks/fuzz_tickets.py."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(torch.Size(input_shape).numel()), classes))


def outcome(data: bytes, own: bool) -> tuple[str, Ticket | str]:
    steps, done = stepwise(data, "FILE", linear if own else None), 0
    while True:
        try:
            next(steps)
            done += 1
        except StopIteration as end:
            return "accepted", end.value
        except TombolaError as error:
            return STEPS[done], str(error)


def test_there_is_a_corpus() -> None:
    assert {name.split("-")[0] for name in FILES} == {*STEPS, "accepted"}
    assert sum((CORPUS / name).stat().st_size for name in FILES) < 300_000


@pytest.mark.parametrize("name", FILES)
def test_an_input_ends_as_it_did(name: str) -> None:
    data = (CORPUS / name).read_bytes()
    step, whose, _ = name.split("-")
    found, ticket = outcome(data, whose == "own")
    assert found == step or {found, step} <= set(DRAWN)
    if isinstance(ticket, str):
        assert ticket.isprintable()
        assert len(ticket) <= 1200
    else:
        seed_only = b'\\"drawn\\":\\"' in data
        build = linear if whose == "own" else None
        again = encode(ticket, seed_only=seed_only, build=build)
        assert decode(again, build=build) == ticket
        assert encode(decode(again, build=build), seed_only=seed_only, build=build) == again
