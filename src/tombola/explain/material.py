"""A finished run read back: its families' networks and scores, and the means to look at one or train one more."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from tombola import models
from tombola.analysis.family import Observed
from tombola.errors import InvalidResults, InvalidValue, UnknownName
from tombola.prune.masks import apply, counts
from tombola.prune.structure import Group
from tombola.search import observed as networks
from tombola.search.course import Cut, Followed
from tombola.search.find import Silent
from tombola.search.finding import Finding
from tombola.search.levels import TICKET, Level, merged, search
from tombola.search.looking import balanced
from tombola.search.named import prepare
from tombola.search.settings import Settings
from tombola.search.setup import Setup
from tombola.search.transferred import transferred
from tombola.study import units
from tombola.study.recalling import recalling, trained_with
from tombola.study.running import SEARCH_FILE, SPEC_FILE, store_of, written
from tombola.study.store import Store
from tombola.train.plain import evaluate, load
from tombola.train.process import undisturbed
from tombola.train.recalibrate import recalibrated
from tombola.types import Masks, Params, Seed, Snapshot, TrainFn, TrainJob, TrainOutcome

_RESULT: Final = "result.json"


@final
@dataclass(frozen=True)
class Eyes:
    """What one family's networks can be looked at with.

    Attributes:
        accuracy: of a network on the family's validation split, a fraction; on what a loop of your own calls its score
            otherwise.
        recalibrated: the same network with batch norm's statistics taken anew on training data.
    """

    accuracy: Callable[[Snapshot], float]
    recalibrated: Callable[[Snapshot], Snapshot] | None = None


@final
@dataclass(frozen=True)
class Material:
    """What a run left, in memory.

    Attributes:
        title: what was run, for a person.
        result: what ``result.json`` holds.
        families: what was observed, smallest replicate first.
        buffers: replicate -> the initial buffers; empty where the network has none.
        levels: level -> density, of the levels whose masks are here, dense to sparse.
        build: makes the network; ``None`` where nobody knows how.
        example: inputs of the network, ``[1, ...]``; ``None`` likewise.
        eyes: replicate -> what its networks can be looked at with; empty without data.
        setup: the search, where it can be gone on with.
        store: of its runs.
    """

    title: str
    result: Mapping[str, Any]
    families: tuple[Observed, ...]
    buffers: Mapping[int, Params]
    levels: Mapping[int, float]
    build: Callable[[], nn.Module] | None = None
    example: Tensor | None = None
    eyes: Mapping[int, Eyes] | None = None
    setup: Setup | None = None
    store: Path | None = None

    @property
    def gates(self) -> tuple[int, ...]:
        """The gates, dense to sparse."""
        return tuple(one["level"] for one in self.result["levels"] if one["gate"] and one["level"] in self.levels)

    def counts(self, level: int) -> dict[str, int]:
        """Give the weights kept in each tensor at a level: those of the first family's mask."""
        return counts(self.families[0].masks[level])

    def accuracies(self, level: int, arm: str = TICKET) -> dict[int, float]:
        """Give the test accuracies of an arm, by replicate; empty where it was not run there."""
        used = self.result["replicates_used"]
        found = next((one["arms"].get(arm) for one in self.result["levels"] if one["level"] == level), None)
        return {} if found is None else dict(zip(used, found["test_accuracy"], strict=True))

    def groups(self) -> tuple[Group, ...]:
        """Give the hidden units; empty where they cannot be found, for whatever reason."""
        if self.build is None or self.example is None:
            return ()
        try:
            return models.groups(self.module(), "neurons", self.example)
        except InvalidValue:
            return ()

    def module(self) -> nn.Module:
        """Build the network; its values do not count.

        Raises:
            InvalidValue: nobody knows how.
        """
        if self.build is None:
            raise InvalidValue(
                "this run does not say how its network is built. Pass the function that builds it: --build "
                "pkg.module:function, or tombola.analyze(..., build=...)."
            )
        with models.DRAWING, torch.random.fork_rng(devices=()):
            return self.build()

    @contextmanager
    def trainer(self, watcher: Any = None) -> Iterator[TrainFn]:
        """Give what trains further networks of this run, through its store: what is known is read.

        Raises:
            InvalidValue: it was trained by a loop that is not at hand.
        """
        if self.setup is None or self.store is None:
            raise InvalidValue(
                "this run was trained by a loop of your own, which is not at hand here, so no further network can be "
                "trained. Leave out what needs training."
            )
        with recalling(self.setup, self.store).trainer(watcher or Silent()) as train:
            yield train


def read(
    folder: Path,
    name: str | None = None,
    *,
    build: Callable[[], nn.Module] | None = None,
    score: Callable[[nn.Module], float] | None = None,
) -> Material:
    """Read a run from the folder of a search, of a study, or of a finding that was saved.

    Args:
        folder: what ``tombola find --out``, ``tombola study run --out`` or ``Finding.save`` wrote.
        name: which search of a study; not needed where there is one.
        build: makes the network, for a loop of your own.
        score: evaluates one, likewise.

    Raises:
        InvalidResults: there is no finished run, or its files are damaged.
        UnknownName: the study has no such search.
        TombolaError: the data or the network are not at hand, as in :func:`tombola.search.named.prepare`.
    """
    if (folder / networks.FILE).exists():
        return _own(folder, build, score)
    file = SEARCH_FILE if (folder / SEARCH_FILE).exists() else SPEC_FILE
    if not (folder / file).exists():
        raise InvalidResults(
            f"there is no finished run in {folder}: it has no {SEARCH_FILE}, {SPEC_FILE} or {networks.FILE}. Give the "
            "folder of `tombola find --out`, of `tombola study run --out`, or of Finding.save."
        )
    searches = written(folder, file).searches
    if name is not None and name not in searches:
        raise UnknownName.among("search", name, searches)
    if name is None and len(searches) > 1:
        raise InvalidValue(
            f"the study in {folder} has {len(searches)} searches. Say which: --search NAME, of {', '.join(searches)}."
        )
    wanted = name or next(iter(searches))
    where = folder if file == SEARCH_FILE else folder / wanted
    return _recalled(searches[wanted], _result(where, folder), store_of(folder, file))


def ready(settings: Settings) -> Setup:
    """Prepare a search, with the masks of the run that it takes them from.

    Raises:
        TombolaError: as :func:`tombola.search.named.prepare`, :func:`read` and
            :func:`tombola.search.transferred.transferred`.
    """
    setup = prepare(settings)
    if settings.source is None:
        return setup
    found = read(Path(settings.source))
    masks = {one.replicate: {level: one.masks[level] for level in found.gates} for one in found.families}
    return transferred(setup, masks, settings.source)


def of(
    finding: Finding,
    build: Callable[[], nn.Module] | None = None,
    score: Callable[[nn.Module], float] | None = None,
    example: Tensor | None = None,
) -> Material:
    """Look at a finding of a loop of your own that is still in memory; the arguments are those of :func:`read`."""
    if not finding.observed:
        raise InvalidValue("this finding's runs are in a store. Give the folder that they were saved in.")
    return _from_networks(finding.observed, finding.as_json(), finding.title, build, score, example)


def _own(folder: Path, build: Callable[[], nn.Module] | None, score: Callable[[nn.Module], float] | None) -> Material:
    path = folder / networks.FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidResults(f"{path} cannot be read: {error}. Save the finding again.") from error
    return _from_networks(networks.decode(data, str(path)), _result(folder, folder), str(folder), build, score, None)


def _from_networks(
    found: Mapping[int, Observed],
    result: Mapping[str, Any],
    title: str,
    build: Callable[[], nn.Module] | None,
    score: Callable[[nn.Module], float] | None,
    example: Tensor | None,
) -> Material:
    used = [found[r] for r in result["replicates_used"] if r in found]
    if not used:
        raise InvalidResults("no family of this run went to its end. Run it again.")
    density = {one["level"]: one["density"] for one in result["levels"]}
    eyes = None
    if score is not None and build is not None:
        eyes = dict.fromkeys(result["replicates_used"], Eyes(partial(_scored, build, score)))
    return Material(
        title=title,
        result=result,
        families=tuple(used),
        buffers={one.replicate: {} for one in used},
        levels={level: density[level] for level in sorted(used[0].masks)},
        build=build,
        example=example,
        eyes=eyes,
    )


def _scored(build: Callable[[], nn.Module], score: Callable[[nn.Module], float], network: Snapshot) -> float:
    with undisturbed("cpu"):
        module = build()
        state = module.state_dict()
        module.load_state_dict({**state, **network.params, **network.buffers})
        return float(score(module.eval()))


def _result(where: Path, folder: Path) -> Mapping[str, Any]:
    path = where / _RESULT
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or "replicates_used" not in found:
            raise ValueError("it is no result of a search")
    except FileNotFoundError as error:
        raise InvalidResults(
            f"the run in {folder} is not finished: there is no {path}. The same command goes on with it."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidResults(f"{path} cannot be read: {error}. Run it again; nothing is trained twice.") from error
    return found


def _recalled(settings: Settings, result: Mapping[str, Any], store: Path) -> Material:
    """Walk through the search again, reading every run from its store."""
    setup = ready(settings)
    if setup.alone is None:
        raise InvalidValue(
            "the runs of the engine replicas are kept as one stack, and cannot be read one by one. Search with "
            "--engine plain, sparse or auto."
        )
    looks = result.get("looks")
    levels = _walk(setup, store, looks["families"] if looks else len(setup.families))
    used = result["replicates_used"]
    kept = {level.level: level.masks for level in levels if level.level}
    inits = {family.replicate: family.init for family in setup.families}
    families = tuple(
        Observed(
            replicate=r,
            theta_0=inits[r].params,
            ends=tuple(run.end.params for run in levels[0].dense[r]),
            prunable=tuple(setup.plan.scope.prunable),
            masks={level: masks[r] for level, masks in kept.items()},
        )
        for r in used
    )
    data = setup.alone.splits(Seed(settings.seed, used[0]))
    return Material(
        title=setup.title,
        result=result,
        families=families,
        buffers={r: inits[r].buffers for r in used},
        levels={level: setup.plan.densities[level] for level in sorted(kept)},
        build=setup.build,
        example=data.train_x[:1],
        eyes={r: _eyes(setup, Seed(settings.seed, r)) for r in used},
        setup=setup,
        store=store,
    )


def _eyes(setup: Setup, seed: Seed) -> Eyes:
    assert setup.alone is not None
    split = setup.alone.splits(seed)

    def accuracy(network: Snapshot) -> float:
        with undisturbed("cpu"):
            module = setup.build()
            load(module, network)
            return evaluate(module, split.val_x, split.val_y)[1]

    def again(network: Snapshot) -> Snapshot:
        with models.DRAWING:
            return recalibrated(setup.build, network, {}, [x for x, _ in balanced(split, seed)])

    return Eyes(accuracy, again if setup.families[0].init.buffers else None)


def _walk(setup: Setup, store: Path, families: int) -> list[Level]:
    """Give the levels of a finished search, its looks together."""
    held, trained = Store(store), trained_with(setup)

    def known(jobs: Sequence[TrainJob], /) -> list[TrainOutcome]:
        return [_known(held, job, trained) for job in jobs]

    course, parts = setup.course, list[list[Level]]()
    sizes = [families] if setup.looks is None else [size for size in setup.looks.sizes if size <= families]
    for before, size in pairwise((0, *sizes)):
        look = search(
            setup.families[before:size],
            known,
            setup.plan.pruner,
            setup.plan.scope.prunable,
            iterations=setup.iterations,
            levels=setup.plan.cuts,
            dense_runs=setup.method.dense_runs,
            course=course,
            rounds=setup.plan.rounds,
        )
        parts.append(list(look))
        course = Followed(tuple(Cut(one.cut_from or 0, one.level) for one in parts[0] if one.level))
    return [merged(level) for level in zip(*parts, strict=True)]


def _known(store: Store, job: TrainJob, trained: units.Trained) -> TrainOutcome:
    found = units.known(store, units.describe(job, trained))
    if found is None:
        raise InvalidResults(
            f"the store {store.folder} lacks the run {job.name!r} of family {job.seed.replicate} from iteration "
            f"{job.start.step} to {job.stop}. Run the search again; what is there is not trained twice."
        )
    return found


def masked_start(one: Observed, masks: Masks, buffers: Params) -> Snapshot:
    """Give a family's initial network under a mask."""
    return Snapshot(0, apply(one.theta_0, masks), buffers)
