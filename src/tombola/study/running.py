"""A whole study: its searches side by side on one store, and what they say of the claims."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, final

from tombola.data import load
from tombola.errors import Diverged, EmptiedLayer, InvalidScores, InvalidValue, MissingEvidence, TombolaError
from tombola.files import write_all
from tombola.search.find import Silent
from tombola.search.find import run as run_search
from tombola.search.finding import Finding
from tombola.search.named import prepare
from tombola.search.settings import Settings
from tombola.search.setup import Setup
from tombola.study.claims import Settlement, settle
from tombola.study.families import by_family
from tombola.study.library import claims_of
from tombola.study.recalling import trained_with
from tombola.study.remembering import Remembering
from tombola.study.runner import Attempt, Runner, Told
from tombola.study.spec import Spec, from_toml
from tombola.study.store import Store
from tombola.train.pool import Pool
from tombola.train.source import Splits
from tombola.train.watch import Watcher

SCHEMA: Final = 1
SPEC_FILE: Final = "study.toml"
SEARCH_FILE: Final = "search.toml"
"""Of a single search; what it says is what a study of one search would."""

ONE: Final = "search"
"""What that search and its study are called."""

RESULT_FILE: Final = "result.json"

STORE: Final = "store"
"""Of a study that was given no other, in its folder."""

_KEY_LINE: Final = "# key "
_STORE_LINE: Final = "# store "
_LOOK_EVERY_SECONDS: Final = 0.1
_ITS_OWN: Final = (Diverged, EmptiedLayer, InvalidScores, MissingEvidence)
"""What ends a search and says nothing about the others."""

Workers = Callable[[Remembering], AbstractContextManager[tuple[Attempt, Callable[[], None], int]]]
"""Gives what trains one unit somewhere, what lets everything in progress stop, and how many go at once."""


class Observer(Told, Watcher):
    """Who watches a study; does nothing by itself."""

    def planned(self, spec: Spec, setups: Mapping[str, Setup]) -> None:
        """Everything is decided."""

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:
        """Validation of a unit."""

    def stop(self) -> bool:
        """Whether to stop."""
        return False


@final
@dataclass(frozen=True)
class Studied:
    """What a study found.

    Attributes:
        spec: what was asked.
        findings: search -> what it found.
        failed: search -> why it found nothing.
        settlements: what is said of each claim.
        seconds: wall time, of this process alone.
    """

    spec: Spec
    findings: Mapping[str, Finding]
    failed: Mapping[str, str]
    settlements: tuple[Settlement, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Give the documented object; what the clock says stands under ``wall`` alone."""
        return {
            "schema": SCHEMA,
            "study": self.spec.name,
            "title": self.spec.title,
            "key": self.spec.key,
            "searches": {name: _summary(finding) for name, finding in self.findings.items()},
            "failed": dict(self.failed),
            "claims": [one.as_json() for one in self.settlements],
            "wall": {"seconds": self.seconds},
        }

    def save(self, folder: Path) -> None:
        """Write ``result.json`` and a folder for each search, as ``tombola find`` does.

        Raises:
            CannotWrite: the folder cannot be written, or the disk is full; nothing is half-written.
        """
        text = json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n"
        files = {folder / RESULT_FILE: text.encode()}
        for name, finding in self.findings.items():
            files |= finding.encoded(folder / name)
        write_all(files)


def run(
    spec: Spec, folder: Path, store: Path, workers: Workers | None = None, observer: Observer | None = None
) -> Studied:
    """Run a study, or what is missing of it.

    Args:
        spec: what to do.
        folder: for ``study.toml`` and the results.
        store: the store's folder; studies on one store share their units.
        workers: where units are trained; by default in a process for each core.
        observer: is told of progress.

    Raises:
        TombolaError: what can be known beforehand is refused beforehand.
        KeyboardInterrupt: stopped; what is finished is in the store, and what was in progress can be gone on with.
    """
    began, observer = time.monotonic(), observer or Observer()
    claims = claims_of(spec)
    setups = _prepared(spec)
    begin(spec, folder, store)
    held = Store(store)
    trained = {name: trained_with(setup) for name, setup in setups.items()}
    alone = {name: setup.alone for name, setup in setups.items() if setup.alone is not None}
    one = Remembering(alone, trained, held.folder, watcher=observer)
    observer.planned(spec, setups)
    cores = max(setup.workers for setup in setups.values())
    with held.in_use(), (workers or partial(local, workers=cores))(one) as (attempt, let_stop, count):
        runner = Runner(held, attempt, count, observer)
        try:
            searches = [_Search(name, setup, runner, folder / name) for name, setup in setups.items()]
            while sum(not search.ended() for search in searches):
                if observer.stop():
                    raise KeyboardInterrupt("the observer asked for it")
                time.sleep(_LOOK_EVERY_SECONDS)
        except BaseException:
            runner.stop()
            let_stop()
            raise
        finally:
            runner.close()
    findings = {search.name: search.finding for search in searches if search.finding is not None}
    failed = {search.name: str(search.error) for search in searches if search.error is not None}
    settlements = tuple(settle(claim, findings) for claim in claims)
    return Studied(spec, findings, failed, settlements, time.monotonic() - began)


def begin(spec: Spec, folder: Path, store: Path) -> None:
    """Write down what is run in a folder, with its key, and its store where that is elsewhere.

    Raises:
        InvalidValue: another study is in it.
    """
    lines = [f"{_KEY_LINE}{spec.key}"] + ([] if store == folder / STORE else [f"{_STORE_LINE}{store.absolute()}"])
    path, text = folder / SPEC_FILE, "\n".join([*lines, spec.to_toml()]).encode()
    try:
        there = written(folder) if path.exists() else spec
    except InvalidValue:
        there = spec  # cut short or altered, and what it said is known
    if there.key != spec.key:
        raise InvalidValue(
            f"{folder} holds the study {there.name!r} with other settings (key {there.key[:8]}, and this is "
            f"{spec.key[:8]}). Give another --out, or go on with that one: tombola study resume {folder}."
        )
    if not path.exists() or path.read_bytes() != text:
        write_all({path: text})


def written(folder: Path, file: str = SPEC_FILE) -> Spec:
    """Read what is run in a folder.

    Raises:
        InvalidValue: there is no study, or its file was cut short or altered.
    """
    path = folder / file
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidValue(
            f"there is no study in {folder}: it has no {file}. Begin one: tombola study run NAME."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path} cannot be read: {error}. Run the study by its name or its own file.") from error
    spec = from_toml(text, str(path))
    if text.partition("\n")[0] != f"{_KEY_LINE}{spec.key}":
        raise InvalidValue(
            f"{path} was altered: its settings do not fit its key. Run the study by its name or its own file, or give "
            "another --out for another study."
        )
    return spec


def one_search(settings: Settings, folder: Path, store: Path) -> dict[Path, bytes]:
    """Give the file that says what a single search in a folder was asked, as a study of one says it."""
    spec = Spec(ONE, {ONE: settings})
    lines = [f"{_KEY_LINE}{spec.key}"] + ([] if store == folder / STORE else [f"{_STORE_LINE}{store.absolute()}"])
    return {folder / SEARCH_FILE: "\n".join([*lines, spec.to_toml()]).encode()}


def store_of(folder: Path, file: str = SPEC_FILE) -> Path:
    """Give the store that the study in a folder was run on, or would be."""
    try:
        lines = (folder / file).read_text(encoding="utf-8").splitlines()[:2]
    except (OSError, UnicodeDecodeError):
        lines = []
    elsewhere = [line.removeprefix(_STORE_LINE) for line in lines if line.startswith(_STORE_LINE)]
    return Path(elsewhere[0]) if elsewhere else folder / STORE


@contextmanager
def local(one: Remembering, workers: int) -> Iterator[tuple[Attempt, Callable[[], None], int]]:
    """Train units in processes of this machine."""
    with Pool(one, workers) as pool:
        # One more than can be trained at once, so that a worker that has done with one unit finds the next.
        yield pool.one, pool.let_stop, workers + 1


def _prepared(spec: Spec) -> dict[str, Setup]:
    """Prepare every search; those on the same data share them."""
    splits: dict[str, Splits] = {}
    setups = {}
    for name, settings in spec.searches.items():
        mine = splits.setdefault(settings.data, Splits(partial(load, settings.data)))
        try:
            setups[name] = prepare(settings, mine)
        except TombolaError as error:
            raise type(error)(f"searches.{name}: {error}") from error
        if setups[name].alone is None:
            raise InvalidValue(
                f"searches.{name}: the engine replicas trains families as one, and a study trains one unit at a time. "
                "Use plain, sparse or auto."
            )
    return setups


@final
@dataclass
class _Search:
    """One search in a thread of its own; what it finds is written when it ends, whatever becomes of the others."""

    name: str
    setup: Setup
    runner: Runner
    folder: Path
    finding: Finding | None = None
    error: TombolaError | None = None
    _fatal: BaseException | None = None
    _done: bool = False

    def __post_init__(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def ended(self) -> bool:
        """Whether it has found something or cannot; raises what ends the whole study."""
        if self._fatal is not None:
            raise self._fatal
        return self._done

    def _run(self) -> None:
        try:
            train = self.runner.train_for(self.name, trained_with(self.setup))
            # The units are watched, not the search: which comes first depends on the workers.
            setup = replace(self.setup, trainer=lambda _: nullcontext(train))
            self.finding = run_search(setup, Silent(), by_family)
            write_all(self.finding.encoded(self.folder))
        except _ITS_OWN as error:
            self.error = error
        except BaseException as error:
            self._fatal = error
        self._done = True


def _summary(finding: Finding) -> dict[str, Any]:
    return {
        "verdict": finding.verdict.value,
        "sentence": finding.sentence,
        "certified_density": finding.judgement.certified_density,
        "engine": finding.about["engine"],
        "levels": [
            {
                "density": level.density,
                **{
                    name: sum(run.test_accuracy for run in runs.values()) / len(runs)
                    for name, runs in level.arms.items()
                    if runs
                },
            }
            for level in finding.levels
        ],
    }
