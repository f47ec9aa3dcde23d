"""What a search found, as one object and as JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

from torch import nn

from tombola.analysis.family import Observed
from tombola.files import write_all
from tombola.search import observed
from tombola.search.ledger import Cost
from tombola.search.levels import Dropped
from tombola.search.looking import AfterCut
from tombola.search.shown import as_html, as_text
from tombola.stats import Judgement, LevelResults, Results, Run, Sequential, Verdict, as_json, write_csv
from tombola.ticket import Ticket, encode, encode_network
from tombola.types import Masks, Params, TrainOutcome

SCHEMA: Final = 1


@final
@dataclass(frozen=True)
class LevelSummary:
    """One level, without its tensors.

    Attributes:
        level: 0 is the dense network.
        kept: prunable weights left, the same in every family.
        total: prunable weights there are.
        density_all_parameters: fraction left of all parameters, biases and norms included.
        gate: whether the verdict is certified here.
        arms: arm -> replicate -> run.
        dense: at level 0, replicate -> every dense run; empty elsewhere.
        after_cut: replicate -> what the network was worth after the cut and before it was trained again; empty where
            survivors restart from early values.
        cut_from: the level whose trained network was cut; ``None`` for the dense level, and where the mask was made
            without one.
    """

    level: int
    kept: int
    total: int
    density_all_parameters: float
    gate: bool
    arms: Mapping[str, Mapping[int, Run]]
    dense: Mapping[int, tuple[Run, ...]] = field(default_factory=dict)
    after_cut: Mapping[int, AfterCut] = field(default_factory=dict)
    cut_from: int | None = None

    @property
    def density(self) -> float:
        """Fraction kept of the prunable weights."""
        return self.kept / self.total


@final
@dataclass(frozen=True)
class Chosen:
    """The subnetwork that is saved.

    Attributes:
        ticket: masks, start values and where they come from.
        trained: the network it trained into; pruned entries are zero.
        buffers: the rest of its state dict.
        tied: further name -> name of the parameter that it shares.
        network: the trained network as a module, in evaluation mode.
        why: how it was chosen.
    """

    ticket: Ticket
    trained: Params
    masks: Masks
    buffers: Params
    tied: Mapping[str, str]
    network: nn.Module
    why: str


@final
@dataclass(frozen=True, repr=False)
class Finding:
    """Everything a search found. A notebook shows it as a table with its verdict, and so does ``print``.

    Attributes:
        title: what was searched, for a person.
        about: what was run: data, model, engine, strategy, seed, recipe, versions and so on, as plain values.
        levels: level 0 first.
        dense: replicate -> its dense runs.
        judgement: the verdict.
        cost: what it took.
        chosen: the subnetwork to save.
        dropped: families that left the search.
        notes: what a reader should know about how it was run.
        files: what was written where.
        observed: replicate -> what an analysis looks at; empty where the runs are in a store.
        sequential: how often was looked and what was settled when, where families were added until it was.
    """

    title: str
    about: Mapping[str, Any]
    levels: tuple[LevelSummary, ...]
    dense: Mapping[int, tuple[Run, ...]]
    judgement: Judgement
    cost: Cost
    chosen: Chosen
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    observed: Mapping[int, Observed] = field(default_factory=dict)
    sequential: Sequential | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict at the certified density, or at the first gate where nothing is certified."""
        return self.judgement.verdict

    @property
    def sentence(self) -> str:
        """The verdict in one paragraph, with its numbers."""
        return self.judgement.sentence

    @property
    def ticket(self) -> Ticket:
        """The subnetwork worth keeping: its masks and the values it trains from."""
        return self.chosen.ticket

    @property
    def network(self) -> nn.Module:
        """The trained sparse network, pruned weights zero, in evaluation mode."""
        return self.chosen.network

    def save(self, folder: Path | str) -> "Finding":
        """Write ``ticket.safetensors``, ``trained.safetensors``, ``result.json`` and ``results.csv``, all or none.

        For a loop of your own ``networks.safetensors`` besides, which ``tombola analyze`` looks at.

        Returns:
            The finding, with the paths in ``files``.

        Raises:
            CannotWrite: the folder cannot be written, or the disk is full.
        """
        files = self.encoded(Path(folder))
        write_all(files)
        return replace(self, files={name: Path(folder) / f"{name}.safetensors" for name in ("ticket", "trained")})

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def as_json(self) -> dict[str, Any]:
        """Give the documented JSON object (``docs/json.md``): plain values, fractions, no NaN."""
        replicates = list(self.judgement.replicates)
        judgement: dict[str, Any] = dict(as_json(self.judgement))
        judged = {entry["density"]: entry for entry in judgement.pop("levels")}
        del judgement["sentence"]
        return {
            "schema": SCHEMA,
            **self.about,
            "replicates_used": replicates,
            "dropped": [vars(one) for one in self.dropped],
            "notes": list(self.notes),
            "levels": [_level_json(level, replicates, judged.get(level.density)) for level in self.levels],
            "dense_runs": [[run.test_accuracy for run in self.dense[r]] for r in replicates],
            "certified_density": self.judgement.certified_density,
            "certified": dict(self.judgement.certified),
            "verdict": self.judgement.verdict.value,
            "sentence": self.judgement.sentence,
            "judgement": judgement,
            "looks": None if self.sequential is None else self.sequential.as_json(),
            "cost": self.cost.as_json(),
            **{name: str(path) for name, path in self.files.items()},
        }

    def encoded(self, folder: Path) -> dict[Path, bytes]:
        """Give the files of this finding: the ticket, the trained network, the JSON and a table for ``judge``."""
        paths = {"ticket": folder / "ticket.safetensors", "trained": folder / "trained.safetensors"}
        chosen, table = self.chosen, results(self.levels, self.dense)
        named = replace(self, files=paths)
        text = json.dumps(named.as_json(), indent=1, allow_nan=False) + "\n"
        metadata = {"ticket": chosen.ticket.digest, "density": str(chosen.ticket.density)}
        return {
            paths["ticket"]: encode(chosen.ticket),
            paths["trained"]: encode_network(chosen.trained, chosen.masks, chosen.buffers, metadata, tied=chosen.tied),
            folder / "result.json": text.encode(),
            folder / "results.csv": write_csv(table, score=self.judgement.scale).encode(),
            **({folder / observed.FILE: observed.encode(self.observed)} if self.observed else {}),
        }


def run_of(outcome: TrainOutcome) -> Run:
    """Keep of a finished run what the verdict reads."""
    assert outcome.test_accuracy is not None
    return Run(
        test_accuracy=outcome.test_accuracy,
        test_accuracy_at_early_stop=outcome.test_accuracy_at_early_stop,
        early_stop_iteration=outcome.early_stop_iteration,
        censored=outcome.censored,
        validation_accuracy=next(filter(math.isfinite, reversed(outcome.curve.accuracy)), None),
    )


def results(levels: tuple[LevelSummary, ...], dense: Mapping[int, tuple[Run, ...]]) -> Results:
    """Arrange the runs for the verdict; a family that left has no run at later levels and is dropped there."""
    replicates = tuple(sorted(dense))
    return Results(
        replicates=replicates,
        dense=tuple(dense[r] for r in replicates),
        levels=tuple(
            LevelResults(
                level.density,
                {name: tuple(runs.get(r) for r in replicates) for name, runs in level.arms.items()},
            )
            for level in levels
            if level.level > 0
        ),
    )


def _level_json(level: LevelSummary, replicates: list[int], judged: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "level": level.level,
        "density": level.density,
        "kept": level.kept,
        "total": level.total,
        "density_all_parameters": level.density_all_parameters,
        "gate": level.gate,
        "cut_from": level.cut_from,
        "verdict": Verdict.NOT_APPLICABLE.value if judged is None else judged["verdict"],
        "arms": {
            name: {
                key: [_plain(getattr(runs[r], key)) for r in replicates]
                for key in ("test_accuracy", "test_accuracy_at_early_stop", "early_stop_iteration", "censored")
            }
            for name, runs in level.arms.items()
        },
        **_after_cut_json(level, replicates),
        **({} if judged is None else {"judged": {k: v for k, v in judged.items() if k not in ("density", "gate")}}),
    }


def _after_cut_json(level: LevelSummary, replicates: list[int]) -> dict[str, Any]:
    if not level.after_cut:
        return {"after_cut": None}
    found = [level.after_cut[r] for r in replicates]
    return {"after_cut": {key: [getattr(one, key) for one in found] for key in ("accuracy", "recalibrated")}}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
