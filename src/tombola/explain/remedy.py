"""The cheapest experiment that a diagnosis leads to, with its command and its cost."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from tombola.explain.diagnosis import Cause, Diagnosis
from tombola.explain.exchanges import Patient
from tombola.explain.material import Material
from tombola.prune.masks import density
from tombola.search.settings import Method, Settings
from tombola.stats.paired import MIN_REPLICATES

_RUN: Final = "RUN"
"""The folder that `tombola analyze` was given."""


@final
@dataclass(frozen=True)
class Remedy:
    """What to try next.

    Attributes:
        sentence: for a person.
        command: what runs it, where RUN is the folder that was analysed; empty where there is nothing to do.
        dense_trainings: what it takes at most, in iterations of a dense training; 0 where there is nothing to do.
    """

    sentence: str
    command: str
    dense_trainings: float

    def as_json(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


def remedy(
    found: Diagnosis, material: Material, patient: Patient, *, orders: int, arms: int, step: int, own_mask: bool
) -> Remedy:
    """Give the cheapest next experiment.

    A search is of as many families as a verdict takes, one dense run in each, without controls.

    Args:
        found: the diagnosis.
        material: the run that the ticket was set against.
        patient: the ticket.
        orders: data orders that were trained.
        arms: networks in each of them.
        step: the later rewinding step.
        own_mask: whether the ticket's mask is the run's own, so that the reference mask was the one-shot mask.
    """
    assert material.setup is not None
    method, families = material.setup.method, MIN_REPLICATES
    one_shot: dict[str, Any] = {"strategy": "one-shot", "densities": f"{density(patient.masks):.4g}"}
    if found.cause in _REPAIRED:
        what, gates = _REPAIRED[found.cause], len(material.gates)
        if len(material.families) < families or not gates or (found.cause is Cause.MASK and own_mask):
            return _search(what, method, one_shot, 2.0 * families)
        given = {"strategy": "transfer", "source": _RUN}
        return _search(f"{what}, with the masks of the run", method, given, families * (1.0 + gates))
    if found.cause is Cause.STEP:
        return _search(f"Rewind to step {step}", method, {**one_shot, "rewind": f"step:{step}"}, 2.0 * families)
    if found.cause is Cause.RATE:
        rate = found.exchange.split()[-1]
        return _search("Search at the lower rate", method, {**one_shot, "lr": rate}, 2.0 * families)
    if found.cause is Cause.NOT_BROKEN:
        return Remedy("Nothing is to be repaired.", "", 0.0)
    level = "" if patient.level is None else f" --level {patient.level}"
    command = f"tombola analyze {_RUN} --why {shlex.quote(patient.name)}{level} --orders {2 * orders}"
    return Remedy(_said(_MORE[found.cause], command, orders * arms), command, float(orders * arms))


_REPAIRED: Final = {
    Cause.VALUES: "Start from the initial values",
    Cause.SIGNS: "Start from the initial values, whose signs these should be",
    Cause.MASK: "Take another mask",
}

_MORE: Final = {
    Cause.ORDER: "See whether it is this data order alone, in more of them",
    Cause.NONE: "See in more data orders what little each exchange does",
    Cause.CANNOT_TELL: "Take more data orders",
}


def _search(what: str, method: Method, changes: Mapping[str, str], cost: float) -> Remedy:
    command = _find(method, changes)
    return Remedy(_said(what, command, cost), command, cost)


def _said(what: str, command: str, cost: float) -> str:
    return f"{what}: `{command}`, the iterations of {cost:g} dense trainings at most, less what the store has."


def _find(method: Method, changes: Mapping[str, str]) -> str:
    """Write the search on the run's own data, with its recipe; given masks say nothing of how they are made."""
    assert isinstance(method, Settings)
    recipe = dict(method.recipe or {})
    milestones = recipe.pop("milestones", ())
    if milestones:
        recipe["schedule"] = f"step:{','.join(map(str, milestones))}"
    recipe.pop("gamma", None)
    own = {} if "source" in changes else {"allocation": method.allocation, "structure": method.structure}
    words: dict[str, Any] = {
        "data": method.data,
        "model": method.model,
        "scope": method.scope if method.scope != "weights" else None,
        "exclude": ",".join(method.exclude) or None,
        "seed": method.seed or None,
        "rewind": method.rewind if method.rewind != "init" else None,
        **{name: value for name, value in own.items() if value != "none"},
        **recipe,
        "replicates": MIN_REPLICATES,
        "dense_runs": 1,
        "controls": "none",
        **changes,
    }
    flags = [
        f"--{name.replace('_', '-')}" if value is True else f"--{name.replace('_', '-')} {shlex.quote(str(value))}"
        for name, value in words.items()
        if value is not None and value is not False
    ]
    return " ".join(["tombola find", *flags])
