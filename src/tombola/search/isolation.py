"""A ticket trained in isolation, from its file alone; and whether that gives what its search reported."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import numpy
import torch

import tombola
from tombola import models
from tombola.data import load
from tombola.data.published import PUBLISHED
from tombola.errors import DataError, Diverged, TicketError
from tombola.prune.catalogue import STRATEGIES
from tombola.prune.masks import apply
from tombola.search.named import builder, check_device
from tombola.ticket import Check, Ticket, encode_network
from tombola.train.engines import ENGINES, Engine, pick, trainer
from tombola.train.plain import load as put
from tombola.train.recipe import Recipe
from tombola.train.source import Splits
from tombola.train.watch import Unwatched
from tombola.types import RunResult, Seed, Snapshot, TrainJob, TrainOutcome

_ROUNDING: Final = 1e-5
"""Start values drawn by other versions or on another CPU may differ by this much, relatively and absolutely."""


@final
@dataclass(frozen=True)
class Isolated:
    """A ticket that has been trained again.

    Attributes:
        ticket: what was trained.
        outcome: the run.
        reported: the test accuracy that the ticket's search reported, a fraction; ``None`` where it reports none.
        test_examples: how many there are.
        unlike: what differs from the search, so that equal bits cannot be asked for; empty when nothing does.
        drawn: whether the initial values are those that the seed draws: the start values, or ``theta_0`` where the
            ticket has it beside start values of a later step; ``None`` where it has neither.
        tied: further name -> name of the parameter that it shares.
    """

    ticket: Ticket
    outcome: TrainOutcome
    reported: float | None
    test_examples: int
    unlike: tuple[str, ...]
    drawn: bool | None
    tied: Mapping[str, str]

    @property
    def test_accuracy(self) -> float:
        """Of the network after the last iteration, a fraction.

        Raises:
            Diverged: the run did.
            KeyboardInterrupt: the run was interrupted.
        """
        if self.outcome.result is RunResult.INTERRUPTED:
            raise KeyboardInterrupt(self.outcome.sentence)
        if self.outcome.test_accuracy is None:
            raise Diverged(
                f"trained in isolation, the ticket {self.outcome.sentence}, and its search reported a finished run. "
                "Check it with `tombola ticket verify PATH`, and train where it was found."
            )
        return self.outcome.test_accuracy

    def encoded(self) -> bytes:
        """Give the trained sparse network as plain safetensors; raises as :attr:`test_accuracy`."""
        metadata = {
            "ticket": self.ticket.digest,
            "density": str(self.ticket.density),
            "test_accuracy": str(self.test_accuracy),
        }
        end = self.outcome.end
        return encode_network(end.params, self.ticket.masks, end.buffers, metadata, tied=self.tied)

    def checks(self) -> tuple[Check, ...]:
        """Compare with what the ticket says of itself.

        The accuracy must be equal where nothing differs from the search, and within one test example elsewhere.

        Raises:
            TicketError: the ticket reports no accuracy.
        """
        return (*self._check_start(), self._check_accuracy())

    def _check_start(self) -> tuple[Check, ...]:
        if self.drawn is None:
            return ()
        which = "start values" if self.ticket.theta_0 is None else "initial values theta_0"
        if self.drawn:
            closely = "to rounding" if self.unlike else "bit for bit"
            return (Check("start", True, f"the {which} are those that the seed draws, {closely}"),)
        but = f"; mind that {' and '.join(self.unlike)}" if self.unlike else ""
        return (Check("start", False, f"the {which} are not those that the seed draws{but}"),)

    def _check_accuracy(self) -> Check:
        if self.reported is None:
            raise TicketError(
                "the ticket reports no test accuracy that a retraining could be compared with; one is expected under "
                "'reported'. Train it with `tombola ticket train` instead."
            )
        if self.outcome.result is RunResult.DIVERGED:
            return Check("retrained", False, f"{self.outcome.sentence}; reported was {_percent(self.reported)}")
        away = abs(self.test_accuracy - self.reported) * self.test_examples
        found = f"test accuracy {_percent(self.test_accuracy)}, reported {_percent(self.reported)}"
        if self.test_accuracy == self.reported:
            return Check("retrained", True, f"{found}: reproduced exactly")
        images = f"{away:.3g} of {self.test_examples} test examples apart"
        if not self.unlike:
            return Check("retrained", False, f"{found}: {images}, and with nothing else changed they must be equal")
        close = away <= 1 + 1e-6
        verdict = "reproduced within one test example" if close else "more than the one that is allowed"
        return Check("retrained", close, f"{found}: {images}, {verdict}; equality cannot be asked for, because "
                     + " and ".join(self.unlike))  # fmt: skip


def isolate(
    ticket: Ticket, *, model: str | None = None, data: str | None = None, device: str | None = None, workers: int = 1
) -> Isolated:
    """Train a ticket in isolation, as its search did: its masks, start values, recipe, seed and replicate.

    That is step 4 of Frankle & Carbin (2019), section 1: the subnetwork and its initial values, without the dense
    network that they came from.

    Args:
        ticket: from a search with an engine of tombola's own.
        model: the network's name or ``package.module:factory``. A ticket's own dotted path is not called unless it is
            given here: a ticket is data, and importing what it names would run code.
        data: where the data are, if they are not one of the published sets; for the same reason.
        device: ``cpu`` or ``cuda[:n]``; the ticket's own by default.
        workers: processes; one network keeps one busy.

    Raises:
        TicketError: the provenance lacks something that training needs, or the run cannot be repeated from a file.
        DataError: the data are not the ones that the ticket was found on.
        TombolaError: the data, network, device or recipe are refused as in :func:`tombola.search.named.prepare`.
    """
    about = ticket.provenance
    _check_repeatable(about)
    recipe = _recipe(about)
    seed = Seed(_whole(about, "seed"), _whole(about, "replicate"))
    first, last = _whole(about, "start_step"), _whole(about, "end_step")
    if not first < last <= recipe.iterations:
        raise TicketError(
            f"the ticket trains from iteration {first} to {last} of {recipe.iterations}; it starts before it ends, "
            "and ends no later than its recipe. Its search did not write this; get the ticket again."
        )
    where = device or _text(about, "device")
    check_device(where)
    splits = Splits(partial(load, data or _data(about)))
    _check_data(about, splits)
    name = model or _model(about)
    build = builder(name, splits.dataset)
    with torch.random.fork_rng(devices=()):
        module = build()
    tied = models.tied_names(module)
    job = TrainJob(
        start=Snapshot(first, ticket.start, ticket.buffers),
        masks=ticket.masks,
        seed=seed,
        stop=last,
        with_optimizer=False,
        name="ticket",
    )
    # Another network is the wrong one before it is one that the engine cannot train.
    put(module, job.start)
    engine = pick(_text(about, "engine"), module, splits.dataset.train_x[0], where, augmented=recipe.augmented)
    with trainer(engine.name, build, splits, recipe, where, workers, Unwatched()) as train:
        outcome = train([job])[0]
    unlike = _unlike(about, where, engine)
    known = ticket.theta_0 is not None or (first == 0 and str(about.get("rewind")).startswith("init:"))
    return Isolated(
        ticket=ticket,
        outcome=outcome,
        reported=_reported(about),
        test_examples=len(splits(seed).test_y),
        unlike=unlike,
        drawn=_follows(ticket, models.initial(build, seed), exactly=not unlike) if known else None,
        tied=tied,
    )


def _check_repeatable(about: Mapping[str, Any]) -> None:
    if _text(about, "engine") not in ENGINES:
        raise TicketError(
            f"the ticket was found with the engine {about['engine']!r:.40}; only tombola's own can be repeated. "
            "Put the ticket into the network with Ticket.apply_to, and train it where it was found."
        )
    strategy = STRATEGIES.get(str(about.get("strategy")))
    if strategy is not None and strategy.grows:
        raise TicketError(
            f"the ticket was found with the strategy {about['strategy']}, whose masks change while the network trains; "
            "the last of them and the initial values do not give that network again. Search again to repeat it, or "
            "put the ticket into the network with Ticket.apply_to."
        )
    if "optimiser saved" in _text(about, "rewind"):
        raise TicketError(
            f"the survivors went on with the optimiser's saved state ({about['rewind']:.120}), which a ticket does not "
            "hold, so the run cannot be repeated from its file. Tickets of imp, one-shot, at-init and lr-rewind can."
        )


def _recipe(about: Mapping[str, Any]) -> Recipe:
    fields = _given(about, "recipe")
    try:
        recipe = Recipe(**{**fields, "milestones": tuple(fields.get("milestones", ()))})
        digest = recipe.digest
    except (TypeError, ValueError, AttributeError) as error:
        raise TicketError(
            f"the ticket's recipe cannot be trained by: {error} A recipe of this version of tombola is expected; "
            "train with the version that wrote the ticket."
        ) from error
    if digest != _text(about, "recipe_digest"):
        raise TicketError(
            f"the ticket's recipe has the digest {digest}, and the ticket says {about['recipe_digest']!r:.40}. This "
            "version of tombola reads the recipe otherwise; train with the version that wrote the ticket."
        )
    return recipe


def _data(about: Mapping[str, Any]) -> str:
    name = _text(about, "data")
    if name not in PUBLISHED:
        raise TicketError(
            f"the ticket was found on the data set {name!r:.80}, which is not one of {', '.join(PUBLISHED)}. A ticket "
            "is not trusted to name files or code; say where the data are: --data PATH, or --data pkg.module:function."
        )
    return name


def _model(about: Mapping[str, Any]) -> str:
    name = _text(about, "model")
    if ":" in name:
        raise TicketError(
            f"the ticket was found on the network {name!r:.80}, which is code of your own. A ticket is not trusted to "
            f"name code; if that is what you want to run, say so: --model {name:.80}."
        )
    return name


def _check_data(about: Mapping[str, Any], splits: Splits) -> None:
    wanted, found = _text(about, "data_fingerprint"), splits.dataset.fingerprint
    if wanted != found:
        raise DataError(
            f"the data set {splits.dataset.name!r} here has the fingerprint {found:.16}..., and the ticket was found "
            f"on {wanted:.16}... They must be equal. Get the data that the ticket was found on, or name them: "
            "--data PATH."
        )


def _follows(ticket: Ticket, init: Snapshot, *, exactly: bool) -> bool:
    """Whether the ticket's theta_0 is that drawn again; with its buffers, unless they are of a later step."""
    drawn, stored = apply(init.params, ticket.masks), ticket.theta_0
    if stored is None:
        drawn, stored = {**drawn, **init.buffers}, {**ticket.start, **ticket.buffers}
    return drawn.keys() == stored.keys() and all(
        torch.equal(value, stored[name])
        if exactly
        else torch.allclose(value.double(), stored[name].double(), rtol=_ROUNDING, atol=_ROUNDING)
        for name, value in drawn.items()
    )


def _unlike(about: Mapping[str, Any], device: str, engine: Engine) -> tuple[str, ...]:
    """Say what differs between here and the search, as far as bits depend on it."""
    then = about.get("versions")
    then = then if isinstance(then, dict) else {}
    now = {
        "tombola": tombola.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
    found = [
        f"{name} is {version} here and was {then.get(name, 'not recorded')!s:.40}"
        for name, version in now.items()
        if then.get(name) != version
    ]
    if device != about.get("device"):
        found.append(f"the device is {device} here and was {about.get('device')!s:.40}")
    if engine.kernels != about.get("kernels"):
        found.append(f"the compiled kernels are {engine.kernels} here and were {about.get('kernels')!s:.40}")
    if engine.name == "replicas":
        found.append("its search trained it in a stack with others, whose sums may be taken in another order")
    if not device.startswith("cpu"):
        found.append(f"sums on {device} need not be taken in one order")
    else:
        here = torch.backends.cpu.get_cpu_capability()
        was = about.get("cpu_capability", then.get("cpu_capability"))
        if was is None:
            found.append("the ticket does not record its CPU's capability")
        elif was != here:
            found.append(f"the CPU's capability is {here} here and was {was!s:.40}")
    return tuple(found)


def _reported(about: Mapping[str, Any]) -> float | None:
    reported = about.get("reported")
    value = reported.get("test_accuracy") if isinstance(reported, dict) else None
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _given(about: Mapping[str, Any], key: str) -> Any:
    if key not in about:
        raise TicketError(
            f"the ticket does not say its {key.replace('_', ' ')}, which training it again needs. A ticket written by "
            "`tombola find` does; train this one in your own code, with Ticket.apply_to."
        )
    return about[key]


def _text(about: Mapping[str, Any], key: str) -> str:
    value: str = _checked(about, key, lambda value: isinstance(value, str), "text")
    return value


def _whole(about: Mapping[str, Any], key: str) -> int:
    # A truth value is an int to Python, and no count.
    value: int = _checked(about, key, lambda value: type(value) is int and value >= 0, "a whole number, at least 0")
    return value


def _checked(about: Mapping[str, Any], key: str, good: Callable[[Any], bool], expected: str) -> Any:
    value = _given(about, key)
    if not good(value):
        raise TicketError(
            f"the ticket's {key.replace('_', ' ')} is {value!r:.40}; expected {expected}. Get the ticket again."
        )
    return value


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.2f} %"
