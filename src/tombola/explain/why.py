"""Why a ticket does not win: one component after another is exchanged for a healthy one, and each ticket is trained.

The patient is a ticket file, or a run's own ticket. The run that it is set against gives what is healthy: the start
values of the family, the recipe, the data, its dense network and its masks. What stands in for each component:

========================= =============================================================================================
mask                      the run's own, cut to the patient's counts in every tensor by the trained dense weights; the
                          one-shot mask of the dense run where that is the patient's own or there is none as dense
values                    theta_0 of the family, or theta_K where the run rewinds to step K; biases too
signs                     those of these values; the patient's magnitudes stay
data order                orders that no run of the search has seen
rewinding step            the dense run's values 5 % of T later, and the positions from there on
learning rate             a third and a tenth of the recipe's
========================= =============================================================================================

The one-shot mask is not the first choice: at low density it is below an iterative one by itself, and would hide half of
what a shuffled mask loses. A pruned weight has no start value in a ticket, so where the exchanged mask keeps one that
the patient prunes, it starts from the run's. Everything is trained in the same few data orders, so differences are
paired; the patient in its own order stands beside, for an order can be at fault too. The dense network is trained at
each rate as well: a rate that the whole network suffers from is told from one that only the ticket does.

Accuracies are on the test split, as the verdict's are: nothing that is kept is chosen by them. A network that diverges
counts as guessing. All runs are kept in the run's store, so an interrupted diagnosis goes on where it was.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from tombola import ticket as tickets
from tombola.errors import EmptiedLayer, InvalidValue, ShapeMismatch
from tombola.explain.checkup import checkup
from tombola.explain.diagnosis import Arm, Diagnosis, diagnose
from tombola.explain.exchanges import DENSE, PATIENT, REFERENCE, Patient, Trial, start_of
from tombola.explain.material import Material
from tombola.explain.remedy import Remedy, remedy
from tombola.explain.tables import Table
from tombola.models.state import state_buffers
from tombola.prune.masks import counts, density
from tombola.search.setup import Setup
from tombola.stats.paired import MIN_REPLICATES

OWN: Final = "own"
"""What a run's own ticket is called."""

ORDERS: Final = 3
"""Data orders that every exchange is trained in."""


@final
@dataclass(frozen=True)
class Why:
    """Why a ticket does not win.

    Attributes:
        patient: what it is called.
        family: the replicate of the run that it was set against.
        density: of the patient's mask.
        orders: data orders of every arm.
        checks: what is seen without training.
        arms: what was trained, the accuracies in every order.
        own: the patient's accuracy in its own data order.
        diagnosis: the cause, with its numbers.
        remedy: the cheapest next experiment.
        dense_trainings: what all this takes, in iterations of a dense training; what was in the store counts too.
    """

    patient: str
    family: int
    density: float
    orders: int
    checks: Table
    arms: tuple[Arm, ...]
    own: float
    diagnosis: Diagnosis
    remedy: Remedy
    dense_trainings: float

    @property
    def table(self) -> Table:
        """What each exchange did, in percentage points."""
        rows = [
            (one.name, *(None if x is None else 100 * x for x in (one.accuracy, one.recovered, one.lower, one.upper)),
             None if one.share is None else 100 * one.share)
            for one in self.diagnosis.effects
        ]  # fmt: skip
        effects = {one.name for one in self.diagnosis.effects}
        beside = [
            (one.name, 100 * sum(one.accuracies) / len(one.accuracies), None, None, None, None)
            for one in self.arms
            if one.name not in effects
        ]
        return Table(
            "why",
            f"The ticket with one component exchanged, {self.orders} data orders: accuracy in %, points recovered "
            "(95 % limits, one-sided), and that as a share of its gap in %",
            ("trained", "accuracy", "recovered", "low", "high", "share"),
            (*beside, *rows),
        )

    def as_json(self) -> dict[str, Any]:
        """Give plain values."""
        return {
            "patient": self.patient,
            "family": self.family,
            "density": self.density,
            "orders": self.orders,
            "own": self.own,
            "arms": {one.name: list(one.accuracies) for one in self.arms},
            "checks": {"headings": list(self.checks.headings), "rows": [list(row) for row in self.checks.rows]},
            "diagnosis": self.diagnosis.as_json(),
            "remedy": self.remedy.as_json(),
            "dense_trainings": self.dense_trainings,
        }


def why(material: Material, patient: Patient, *, orders: int = ORDERS, watcher: Any = None) -> Why:
    """Find what is wrong with a ticket.

    Args:
        material: the run that it is set against.
        patient: from :func:`own_ticket` or :func:`ticket_of`.
        orders: data orders of every arm, at least 3: fewer say nothing about noise.
        watcher: is told of every evaluation; asked whether to stop.

    Raises:
        InvalidValue: too few orders, or the run was trained by a loop that is not at hand, or keeps trained weights.
        KeyboardInterrupt: interrupted; what is finished is in the store.
    """
    check_orders(orders)
    setup = trainable(material)
    trial = Trial(material, setup, patient, orders=orders, watcher=watcher)
    arms = trial.arms()
    kinds = {one.name: one for one in arms}
    dense = [one for one in arms if one.name.startswith(DENSE)]
    found = diagnose(
        kinds[PATIENT].accuracies,
        trial.own,
        [one for one in arms if one.cause is not None],
        reference=kinds[REFERENCE],
        dense=dense,
        margin=setup.margin,
        signs_alone=trial.signs_alone,
    )
    return Why(
        patient.name,
        patient.family,
        density(patient.masks),
        orders,
        checkup(patient.masks, patient.start, healthy=trial.healthy.params, reference=trial.run_mask),
        tuple(arms),
        trial.own,
        found,
        remedy(found, material, patient, orders=orders, arms=len(arms), step=trial.later, own_mask=trial.has_run_mask),
        trial.iterations / setup.iterations,
    )


def check_orders(orders: int) -> None:
    """Raise unless there are enough data orders.

    Raises:
        InvalidValue: there are not.
    """
    if orders < MIN_REPLICATES:
        raise InvalidValue(
            f"{orders} data orders show too little of the noise, and nothing is beyond it. Take at least "
            f"{MIN_REPLICATES}: --orders {MIN_REPLICATES}."
        )


def trainable(material: Material) -> Setup:
    """Give the search behind a run, where tickets can be trained as it does.

    Raises:
        InvalidValue: they cannot.
    """
    setup = material.setup
    if setup is None or setup.alone is None or material.store is None:
        raise InvalidValue(
            "this run was trained by a loop of your own, which is not at hand here, so no exchange can be trained. Ask "
            "--why of a run of `tombola find` or `tombola study run`."
        )
    if not setup.plan.pruner.keeps_start_values:
        raise InvalidValue(
            f"the survivors of this run ({setup.method.strategy}) keep trained weights or change while they train, so "
            "it has no tickets that start from early values. Ask --why of a search by imp, one-shot or adaptive."
        )
    return setup


def own_ticket(material: Material, level: int) -> Patient:
    """Give the ticket of a run's first family at a level.

    Raises:
        InvalidValue: there is no such level, or as :func:`trainable`.
    """
    setup, one = trainable(material), material.families[0]
    if level not in one.masks:
        raise InvalidValue(f"there are no masks of level {level} in this run. Known: {', '.join(map(str, one.masks))}.")
    start = start_of(material, setup, one)
    return Patient(OWN, level, one.replicate, one.masks[level], start.params, start.buffers)


def ticket_of(material: Material, path: Path) -> Patient:
    """Read a ticket of a run's network; it belongs to the family that it names, else to the first.

    Raises:
        TicketError, ShapeMismatch: no ticket, a damaged one, or one of another network or scope.
        EmptiedLayer: its mask keeps nothing of a tensor.
        InvalidValue: as :func:`trainable`.
    """
    setup = trainable(material)
    found = tickets.load(path)
    module = material.module()
    masks = {name: mask.cpu() for name, mask in found.apply_to(module).items()}
    if masks.keys() != set(setup.plan.scope.prunable):
        raise ShapeMismatch(
            f"the masks of {path} are over {', '.join(sorted(masks))}, and in this run "
            f"{', '.join(setup.plan.scope.prunable)} are pruned. Set it against a run of its own network and scope."
        )
    for name, count in counts(masks).items():
        if count == 0:
            raise EmptiedLayer(
                f"the mask of {path} keeps none of the {masks[name].numel()} weights of {name!r}: nothing passes, "
                "whatever it starts from, so the mask is to blame and nothing needs to be trained to see it. Make it "
                "anew with a minimum in every layer: --min-keep 1."
            )
    about, replicates = found.provenance, [one.replicate for one in material.families]
    named = about.get("replicate") if about.get("seed") == setup.method.seed else None
    return Patient(
        str(path),
        None,
        named if named in replicates else replicates[0],
        masks,
        {name: value.detach().clone() for name, value in module.named_parameters()},
        state_buffers(module),
    )
