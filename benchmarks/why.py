"""Tickets broken on purpose in ten ways, and what ``tombola analyze --why`` says is wrong with each.

``python benchmarks/why.py --work FOLDER --out benchmarks/results/NAME.json``: LeNet-300-100 on MNIST by iterative
pruning to 7 %. Of the healthy search's tickets three get start values from another seed, three a mask shuffled inside
each layer, and two half of their signs flipped; two more are the own tickets of searches at learning rates of 20 and 30
times the recipe's. The diagnosis is told the ticket and the run, and nothing of what was done. After these ten come
three tickets that nothing was done to, and the first eight breaks with other seeds, which were first drawn when the
rules of the diagnosis were settled. What is finished is in the work folder's store and is not trained again.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from machine import heading
from transfer import searched

from tombola import models, ticket
from tombola.explain.diagnosis import Cause
from tombola.explain.exchanges import Patient
from tombola.explain.material import Material, masked_start, read
from tombola.explain.why import own_ticket, ticket_of, why
from tombola.files import write_all
from tombola.prune.controls import Case, reinit, shuffle
from tombola.search.settings import Settings
from tombola.ticket import Ticket
from tombola.types import Masks, Params, Seed, Snapshot

GATE: Final = 0.0695
LEVEL: Final = 12
LR: Final = 1.2e-3
TIMES: Final = (20, 30)
"""Of the learning rate, at which the recipe breaks tickets and dense networks alike."""

OTHER: Final = 5000
"""Added to the seeds of a break for the second time."""

Break = Callable[[Material, int, int], tuple[Snapshot, Masks]]


def case(material: Material, replicate: int, seed: int) -> Case:
    """Give the healthy ticket of a family, as a control finds it."""
    one = next(one for one in material.families if one.replicate == replicate)
    start = Snapshot(0, one.theta_0, material.buffers[replicate])
    return Case(
        start=start,
        masks=one.masks[LEVEL],
        fresh=lambda: models.initial(material.module, Seed(seed)),
        one_shot=dict,
        generator=torch.Generator().manual_seed(seed),
    )


def values(material: Material, replicate: int, seed: int) -> tuple[Snapshot, Masks]:
    """Draw the start values anew."""
    return reinit(case(material, replicate, seed))


def masks(material: Material, replicate: int, seed: int) -> tuple[Snapshot, Masks]:
    """Shuffle the mask inside each layer; each weight that it keeps starts from its own initial value."""
    return shuffle(case(material, replicate, seed))


def signs(material: Material, replicate: int, seed: int) -> tuple[Snapshot, Masks]:
    """Flip the signs of half of the survivors."""
    found = case(material, replicate, seed)
    params: Params = {
        name: value * torch.where(torch.rand(value.shape, generator=found.generator) < 0.5, -1.0, 1.0)
        if name in found.masks
        else value
        for name, value in found.start.params.items()
    }
    return replace(found.start, params=params), found.masks


BREAKS: Final[tuple[tuple[Cause, Break, int, int], ...]] = (
    (Cause.VALUES, values, 0, 1001),
    (Cause.VALUES, values, 1, 1002),
    (Cause.VALUES, values, 2, 1003),
    (Cause.MASK, masks, 0, 2001),
    (Cause.MASK, masks, 1, 2002),
    (Cause.MASK, masks, 2, 2003),
    (Cause.SIGNS, signs, 0, 3001),
    (Cause.SIGNS, signs, 1, 3002),
)
"""What is broken, how, in which family, with which seed."""


def broken(material: Material, how: Break, replicate: int, seed: int, path: Path) -> Patient:
    """Break a ticket, write it as a file, and read that as the command does."""
    start, kept = how(material, replicate, seed)
    about = {"model": "lenet-300-100", "seed": 0, "replicate": replicate}
    ticket.save(Ticket(start.params, kept, start.buffers, about), path)
    return replace(ticket_of(material, path), name=path.name)


def diagnosed(material: Material, patient: Patient, planted: str, orders: int) -> dict[str, Any]:
    """Diagnose a ticket, and say whether that is what was done to it."""
    found = why(material, patient, orders=orders)
    named = found.diagnosis.cause.value
    print(planted, "->", found.diagnosis.sentence, flush=True)
    return {"planted": planted, "named": named, "right": named == planted, **found.as_json(), "patient": planted}


def main() -> None:
    """Break and diagnose."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=2_000)
    parser.add_argument("--orders", type=int, default=3)
    given = parser.parse_args()
    store = given.work / "store"

    def material(rate: float, replicates: int) -> Material:
        settings = Settings(
            data="mnist",
            model="lenet-300-100",
            replicates=replicates,
            dense_runs=1,
            rounds=LEVEL,
            gates=(GATE,),
            controls=(),
            workers=1,
            engine="sparse",
            recipe={"iterations": given.iterations, "batch_size": 60, "optimizer": "adam", "lr": rate},
        )
        folder = given.work / f"lr-{rate:g}"
        searched(settings, folder, store)
        return read(folder)

    healthy = material(LR, 3)
    rows: list[dict[str, Any]] = []
    right: dict[str, list[bool]] = {}

    def keep(part: str, row: dict[str, Any], title: str) -> None:
        rows.append({"set": part, "title": title, **row})
        right.setdefault(part, []).append(row["right"])
        report = {
            **heading(),
            "network": "lenet-300-100",
            "data": "mnist",
            "iterations": given.iterations,
            "lr": LR,
            "orders": given.orders,
            "named_right": {what: sum(of) for what, of in right.items()},
            "of": {what: len(of) for what, of in right.items()},
            "rows": rows,
        }
        write_all({given.out: (json.dumps(report, indent=1) + "\n").encode()})

    def break_all(part: str, further: int) -> None:
        for cause, how, replicate, seed in BREAKS:
            path = given.work / f"{how.__name__}-{replicate}.safetensors"
            patient = broken(healthy, how, replicate, seed + further, path)
            title = f"{cause.value}, family {replicate}, seed {seed + further}"
            keep(part, diagnosed(healthy, patient, cause.value, given.orders), title)

    break_all("ten", 0)
    for times in TIMES:
        run = material(times * LR, 1)
        row = diagnosed(run, own_ticket(run, LEVEL), Cause.RATE.value, given.orders)
        keep("ten", row, f"learning rate times {times}")
    for one in healthy.families:
        start = masked_start(one, one.masks[LEVEL], healthy.buffers[one.replicate])
        patient = Patient("own", LEVEL, one.replicate, one.masks[LEVEL], start.params, start.buffers)
        row = diagnosed(healthy, patient, Cause.NOT_BROKEN.value, given.orders)
        keep("healthy", row, f"nothing, family {one.replicate}")
    break_all("other seeds", OTHER)


if __name__ == "__main__":
    main()
