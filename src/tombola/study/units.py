"""A unit of work: one network to train, named by everything that its outcome depends on."""

import hashlib
import math
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, final

import torch

import tombola
from tombola.errors import CorruptStore, ShapeMismatch
from tombola.prune.masks import density, fingerprint, pack, unpack
from tombola.prune.rewinding import masked
from tombola.sparse.kernels.library import kernels, missing
from tombola.study import tensors
from tombola.study.store import Store
from tombola.ticket import canonical
from tombola.types import Curve, Masks, Params, RunResult, Snapshot, Step, TrainJob, TrainOutcome

SCHEMA: Final = 1
"""Of the keys. It changes when the same settings are trained in another way, so that no old unit is taken for one."""

_MASKS, _MOVED = "masks", "moved"
"""What the masks at the end, in bits, and what was accumulated are called among the snapshots."""

_WORDS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@final
@dataclass(frozen=True)
class Trained:
    """What all units of one search are trained with.

    Attributes:
        network: identifies the network; see :func:`tombola.models.identity`.
        data: the data set's fingerprint.
        recipe: the recipe's digest.
        engine: which engine, and ``cpu`` or ``cuda``.
    """

    network: str
    data: str
    recipe: str
    engine: str


def describe(job: TrainJob, trained: Trained) -> dict[str, Any]:
    """Give everything that the outcome of a job depends on, as plain values; tensors by their digests.

    Raises:
        InvalidValue: the updates have a part that no name identifies.
    """
    start = masked(job.start, job.masks)
    return {
        "schema": SCHEMA,
        **asdict(trained),
        "start": _digest(start),
        "start_step": start.step,
        "masks": fingerprint(job.masks),
        "seed": [job.seed.root, job.seed.replicate, job.seed.order],
        "stop": job.stop,
        "save_at": sorted(set(job.save_at)),
        "with_optimizer": job.with_optimizer,
        # There were units before masks changed; theirs have no such field, and keep their key.
        **({} if job.updates is None else {"updates": dict(job.updates.describe())}),
        **({"moved": True} if job.moved else {}),
        **({} if job.fraction == 1 else {"fraction": job.fraction}),
        **({} if job.scores is None else {"scores": dict(job.scores.describe())}),
    }


def key(unit: Mapping[str, Any]) -> str:
    """Name a unit: 64 hexadecimal digits, equal for equal descriptions."""
    return hashlib.sha256(canonical.dumps(unit).encode()).hexdigest()


def put(store: Store, job: TrainJob, unit: Mapping[str, Any], outcome: TrainOutcome) -> None:
    """Keep a finished unit in a store; ``outcome.seconds`` goes among the clocks.

    Raises:
        CannotWrite: the store's disk is full or read-only; what was kept before stays.
    """
    clock = {"seconds": outcome.seconds, "host": socket.gethostname(), **versions(unit["engine"])}
    store.put(key(unit), record(job, unit, outcome), snapshots(job, outcome), clock)


def known(store: Store, unit: Mapping[str, Any]) -> TrainOutcome | None:
    """Read a unit's outcome; ``None`` where it is not there or not whole."""
    name = key(unit)
    kept = store.get(name)
    if kept is None or kept.tensors is None:
        return None
    try:
        found = outcome(kept.body, kept.tensors, kept.clock["seconds"], f"unit {name}")
    except (CorruptStore, KeyError):
        return None
    now = versions(unit["engine"])
    before = {name: kept.clock.get(name) for name in now}
    return found if before == now else replace(found, elsewhere=" ".join(f"{k} {v}" for k, v in before.items()))


def versions(engine: str) -> dict[str, str]:
    """Give what the last bits of a training depend on besides its unit."""
    sparse = engine.startswith("sparse")
    return {
        **({"kernels": kernels().level} if sparse and missing() is None else {}),
        "tombola": tombola.__version__,
        "torch": torch.__version__,
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def _digest(snapshot: Snapshot) -> str:
    slots = {f"{name}/{slot}": value for name, of in (snapshot.optimizer or {}).items() for slot, value in of.items()}
    every = {
        **{f"params/{name}": value for name, value in snapshot.params.items()},
        **{f"buffers/{name}": value for name, value in snapshot.buffers.items()},
        **{f"optimizer/{name}": value for name, value in slots.items()},
    }
    return canonical.digest(every, "fresh" if snapshot.optimizer is None else "given")


def record(job: TrainJob, unit: Mapping[str, Any], outcome: TrainOutcome) -> dict[str, Any]:
    """Give what a store keeps of a finished unit, but for its tensors and its time."""
    return {
        "unit": dict(unit),
        "name": job.name,
        "density": density(_final(job, outcome.masks)),
        "outcome": {
            "result": outcome.result.value,
            "sentence": outcome.sentence,
            "curve": {name: [plain(one) for one in values] for name, values in vars(outcome.curve).items()},
            "early_stop_iteration": outcome.early_stop_iteration,
            "censored": outcome.censored,
            "test_accuracy": plain(outcome.test_accuracy),
            "test_accuracy_at_early_stop": plain(outcome.test_accuracy_at_early_stop),
            "iterations": outcome.iterations,
            **({"history": written(outcome.history)} if outcome.masks is not None else {}),
        },
        "saved": sorted(outcome.saved),
    }


def snapshots(job: TrainJob, outcome: TrainOutcome) -> bytes:
    """Give the tensors that a store keeps of a finished unit."""
    saved = {f"at {step}": one for step, one in outcome.saved.items()}
    kept = {"end": outcome.end, "best": outcome.best, **saved, **besides(outcome.masks, outcome.moved)}
    return tensors.write(kept, _final(job, outcome.masks))


def _final(job: TrainJob, masks: Masks | None) -> Masks:
    return job.masks if masks is None else masks


def besides(masks: Masks | None, moved: Params | None) -> dict[str, Snapshot]:
    """Give masks that changed and what was accumulated as further snapshots; nothing for what there is none of."""
    bits = {} if masks is None else {_MASKS: Snapshot(0, {name: pack(mask) for name, mask in masks.items()})}
    return bits if moved is None else {**bits, _MOVED: Snapshot(0, moved)}


def found_masks(held: Mapping[str, Snapshot], like: Params) -> Masks | None:
    """Read masks that :func:`besides` gave back; ``like`` has their shapes."""
    if _MASKS not in held:
        return None
    return {name: unpack(bits, tuple(like[name].shape)) for name, bits in held[_MASKS].params.items()}


def found_moved(held: Mapping[str, Snapshot]) -> Params | None:
    """Read what was accumulated from what :func:`besides` gave."""
    return held[_MOVED].params if _MOVED in held else None


def written(history: tuple[tuple[Step, Mapping[str, int]], ...]) -> list[Any]:
    """Give the changes of masks as plain values; in lists, for canonical JSON sorts the names."""
    return [[step, [[name, count] for name, count in counts.items()]] for step, counts in history]


def read_history(value: Any) -> tuple[tuple[Step, Mapping[str, int]], ...]:
    """Undo :func:`written`."""
    return tuple((step, dict(counts)) for step, counts in value)


def outcome(body: Mapping[str, Any], data: bytes, seconds: float, where: str) -> TrainOutcome:
    """Read an outcome back, equal to what was kept in every bit.

    Raises:
        CorruptStore: the record and its tensors do not belong together.
    """
    of, held = body["outcome"], tensors.read(data, where)
    try:
        curve = {name: tuple(number(one) for one in values) for name, values in of["curve"].items()}
        return TrainOutcome(
            result=RunResult(of["result"]),
            sentence=of["sentence"],
            end=held["end"],
            best=held["best"],
            saved={step: held[f"at {step}"] for step in body["saved"]},
            curve=Curve(**curve),
            early_stop_iteration=of["early_stop_iteration"],
            censored=of["censored"],
            test_accuracy=number(of["test_accuracy"]),
            test_accuracy_at_early_stop=number(of["test_accuracy_at_early_stop"]),
            iterations=of["iterations"],
            seconds=seconds,
            masks=found_masks(held, held["end"].params),
            history=read_history(of.get("history", ())),
            moved=found_moved(held),
        )
    except (KeyError, TypeError, ValueError, ShapeMismatch) as error:
        raise CorruptStore(f"{where} does not hold the outcome of a training run ({error}). It is redone.") from error


def plain(value: Any) -> Any:
    """Write what JSON has no number for as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def number(value: Any) -> Any:
    return _WORDS[value] if isinstance(value, str) else value
