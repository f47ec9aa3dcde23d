"""Results as a CSV table: one row per trained network."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tombola.errors import InvalidResults
from tombola.stats.results import LevelResults, Results, Run
from tombola.stats.scale import ACCURACY, Scale

REQUIRED = ("replicate", "density", "arm", "test_accuracy")
OPTIONAL = ("test_accuracy_at_early_stop", "early_stop_iteration", "censored", "validation_accuracy")

# Spreadsheets and pandas write an integer column with gaps as 3700.0.
_INTEGER = re.compile(r"(\d{1,18})(?:\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_BOOLEAN = {"": False, "false": False, "0": False, "no": False, "true": True, "1": True, "yes": True}


@dataclass
class _Table:
    """What has been read so far, in the order of the file."""

    replicates: dict[int, None] = field(default_factory=dict)
    dense: dict[int, list[Run]] = field(default_factory=dict)
    cells: dict[float, dict[str, dict[int, Run | None]]] = field(default_factory=dict)
    lines: dict[tuple[int, float, str], int] = field(default_factory=dict)


def read_csv(path_or_text: str | Path, *, score: Scale = ACCURACY) -> Results:
    """Read results from a file, or from the text of one.

    Columns, in any order: ``replicate`` (a whole number), ``density`` (a fraction), ``arm`` and ``test_accuracy`` (a
    fraction, after the last iteration); if known ``test_accuracy_at_early_stop``, ``early_stop_iteration``,
    ``censored`` and ``validation_accuracy``. The dense network is arm ``dense`` (or ``ticket``) at density 1, one row
    per dense run; the first is the one that shares the ticket's data order. Every other arm is a control. An accuracy
    that is ``nan`` or empty is a run that diverged or is missing.

    Args:
        path_or_text: a path; a string that is empty or has a line break is the text itself.
        score: what the accuracy columns hold; for another score than accuracy any finite numbers.

    Returns:
        The study, levels dense to sparse, replicates and arms in the order of the file.

    Raises:
        InvalidResults: the file is missing or no CSV text, or a row cannot be read; the message names its line.
    """
    if isinstance(path_or_text, str) and (not path_or_text.strip() or "\n" in path_or_text or "\r" in path_or_text):
        return _parse(path_or_text.removeprefix("\ufeff"), "the text", score)
    return _parse(_load(Path(path_or_text)), str(path_or_text), score)


def _load(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InvalidResults(f"there is no file {path}. Give a CSV with the columns {_columns()}.") from None
    except IsADirectoryError:
        raise InvalidResults(f"{path} is a folder. Give the CSV file inside it.") from None
    except (OSError, ValueError) as error:
        raise InvalidResults(f"{path} cannot be read: {error}. Give a readable CSV file.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidResults(f"{path} is not a text file. Save the table as CSV in UTF-8.")
    return text


def _parse(text: str, source: str, score: Scale) -> Results:
    if not text.strip():
        raise InvalidResults(f"{source} is empty. Give a CSV with the columns {_columns()}.")
    if "\0" in text:
        raise InvalidResults(f"{source} is not a text file. Save the table as CSV in UTF-8.")
    table = _Table()
    try:
        for line, row in _rows(text, source):
            _add(table, row, line, score)
    except csv.Error as error:
        raise InvalidResults(f"{source} is not a CSV file: {error}. Give one with the columns {_columns()}.") from None
    return _assemble(table, source)


def _rows(text: str, source: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and stripped cells by column, without blank lines; missing optional columns are empty."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    header: list[str] = []
    for raw in reader:
        cells = [cell.strip() for cell in raw]
        if not any(cells):
            continue
        if not header:
            while not cells[-1]:
                cells.pop()
            header = [cell.lower() for cell in cells]
            _check_header(header, source)
            continue
        if any(cells[len(header) :]) or len(cells) < len(header):
            raise InvalidResults(
                f"line {reader.line_num} has {len(cells)} cells, and the header has {len(header)} columns. "
                "Give one cell for each."
            )
        yield reader.line_num, dict.fromkeys(OPTIONAL, "") | dict(zip(header, cells, strict=False))


def _check_header(header: list[str], source: str) -> None:
    missing = [name for name in REQUIRED if name not in header]
    unknown = [name for name in header if name not in REQUIRED + OPTIONAL]
    twice = sorted({name for name in header if header.count(name) > 1})
    if missing or unknown or twice:
        found = [
            f"{what} {', '.join(repr(name) for name in names)}"
            for what, names in (("lacks", missing), ("has unknown", unknown), ("repeats", twice))
            if names
        ]
        wrong = next((mark for mark in (";", "\t") if len(header) == 1 and mark in header[0]), None)
        hint = f" Its cells seem to be separated by {wrong!r}; use commas." if wrong else ""
        raise InvalidResults(f"the header of {source} {' and '.join(found)}. Expected columns: {_columns()}.{hint}")


def _columns() -> str:
    return f"{', '.join(REQUIRED)}; optional: {', '.join(OPTIONAL)}"


def _add(table: _Table, row: dict[str, str], line: int, score: Scale) -> None:
    replicate = _integer(row["replicate"], "replicate", line)
    if replicate is None:
        raise InvalidResults(f"line {line}: the replicate is empty. Number the families, such as 0, 1, 2.")
    density = _density(row["density"], line)
    arm = row["arm"].lower() if row["arm"].lower() in ("dense", "ticket") else row["arm"]
    run = _run(row, line, score)
    if not arm:
        raise InvalidResults(f"line {line}: the arm is empty. Write dense, ticket or the name of a control.")
    if not arm.isprintable():
        raise InvalidResults(
            f"line {line}: the arm {arm!r} has control characters in it. Write its name in plain text."
        )
    table.replicates[replicate] = None
    if density == 1 and arm in ("dense", "ticket"):
        table.dense.setdefault(replicate, []).append(run)
        return
    if density == 1:
        raise InvalidResults(
            f"line {line}: the control {arm!r} is at density 1. Controls share a ticket's density below 1."
        )
    if arm == "dense":
        raise InvalidResults(f"line {line}: arm dense is at density {density:g}. The dense network has density 1.")
    first = table.lines.setdefault((replicate, density, arm), line)
    if first != line:
        raise InvalidResults(
            f"lines {first} and {line} both give replicate {replicate}, density {density:g}, arm {arm!r}. "
            "Keep one; only dense runs may repeat."
        )
    runs = table.cells.setdefault(density, {}).setdefault(arm, {})
    runs[replicate] = None if math.isnan(run.test_accuracy) else run


def _run(row: dict[str, str], line: int, score: Scale) -> Run:
    read = _accuracy if score.is_accuracy else _score
    accuracy = read(row["test_accuracy"], "test_accuracy", line)
    early = read(row["test_accuracy_at_early_stop"], "test_accuracy_at_early_stop", line)
    iteration = _integer(row["early_stop_iteration"], "early_stop_iteration", line)
    if row["censored"].lower() not in _BOOLEAN:
        raise InvalidResults(f"line {line}: censored is {row['censored']!r}. Write true or false.")
    # A loop of the user's own may report its validation in another unit than the test.
    validation = _score(row["validation_accuracy"], "validation_accuracy", line)
    censored = _BOOLEAN[row["censored"].lower()]
    return Run(math.nan if accuracy is None else accuracy, early, iteration, censored, validation)


def _accuracy(text: str, column: str, line: int) -> float | None:
    if text.lower() in ("", "nan"):
        return None
    value = _number(text.removesuffix("%").rstrip(), column, line)
    if value > 1 or text.endswith("%"):
        raise InvalidResults(f"line {line}: {column} is {text}, which looks like percent; divide by 100.")
    if value < 0:
        raise InvalidResults(f"line {line}: {column} is {text}. An accuracy is a fraction in [0, 1].")
    return value


def _score(text: str, column: str, line: int) -> float | None:
    if text.lower() in ("", "nan"):
        return None
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    if math.isinf(value):
        raise InvalidResults(
            f"line {line}: {column} is {text!r}, which is not a finite number. Give one such as -1.5, or nan for a run "
            "without a result."
        )
    return value


def _density(text: str, line: int) -> float:
    value = _number(text, "density", line)
    if not 0 < value <= 1:
        raise InvalidResults(
            f"line {line}: density is {text}. It is the fraction of weights kept, in (0, 1]; 1 is dense."
        )
    return value


def _number(text: str, column: str, line: int) -> float:
    if not text:
        raise InvalidResults(f"line {line}: {column} is empty. Give a fraction.")
    if not _NUMBER.fullmatch(text):
        raise InvalidResults(f"line {line}: {column} is {text!r}, which is not a number. Give a fraction such as 0.2.")
    return float(text)


def _integer(text: str, column: str, line: int) -> int | None:
    if text.lower() in ("", "nan"):
        return None
    match = _INTEGER.fullmatch(text)
    if not match:
        raise InvalidResults(f"line {line}: {column} is {text!r}. Give a whole number of at least 0.")
    return int(match[1])


def _assemble(table: _Table, source: str) -> Results:
    if not any(table.dense.values()):
        raise InvalidResults(
            f"{source} has no dense run. Add rows with arm dense and density 1, at least one for each replicate."
        )
    if not any("ticket" in arms for arms in table.cells.values()):
        raise InvalidResults(f"{source} has no ticket below density 1. Add rows with arm ticket and its density.")
    for density, arms in table.cells.items():
        if "ticket" not in arms:
            line = min(at for (_, d, _), at in table.lines.items() if d == density)
            raise InvalidResults(
                f"line {line}: density {density:g} has no ticket, only {', '.join(arms)}. Add its tickets."
            )
    replicates = tuple(table.replicates)
    levels = tuple(
        LevelResults(density, {name: tuple(map(runs.get, replicates)) for name, runs in table.cells[density].items()})
        for density in sorted(table.cells, reverse=True)
    )
    return Results(replicates, tuple(tuple(table.dense.get(r, ())) for r in replicates), levels)


def write_csv(results: Results, *, score: Scale = ACCURACY) -> str:
    """Write results so that :func:`read_csv`, given the same score, returns them exactly.

    Optional columns appear where a run has them; a cell without a result is a row with an empty accuracy.

    Raises:
        InvalidResults: a score that :func:`read_csv` would refuse.
    """
    rows: list[tuple[int, str, str, Run | None]] = []
    for index, replicate in enumerate(results.replicates):
        rows += [(replicate, "1", "dense", run) for run in results.dense[index]]
        for level in results.levels:
            rows += [(replicate, repr(float(level.density)), arm, runs[index]) for arm, runs in level.arms.items()]
    runs = [run for *_, run in rows if run is not None]
    for one in runs:
        for value in (one.test_accuracy, one.test_accuracy_at_early_stop):
            if value is not None:
                score.check_value(value)
    used = [
        name
        for name, seen in zip(
            OPTIONAL,
            (
                any(run.test_accuracy_at_early_stop is not None for run in runs),
                any(run.early_stop_iteration is not None for run in runs),
                any(run.censored for run in runs),
                any(run.validation_accuracy is not None for run in runs),
            ),
            strict=True,
        )
        if seen
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*REQUIRED, *used])
    for replicate, density, arm, run in rows:
        writer.writerow([replicate, density, arm, *_cells(run, used)])
    return text.getvalue()


def _cells(run: Run | None, optional: list[str]) -> list[str]:
    if run is None:
        return [""] * (1 + len(optional))
    values = {
        "test_accuracy_at_early_stop": _text(run.test_accuracy_at_early_stop),
        "early_stop_iteration": "" if run.early_stop_iteration is None else str(run.early_stop_iteration),
        "censored": "true" if run.censored else "false",
        "validation_accuracy": _text(run.validation_accuracy),
    }
    return [_text(run.test_accuracy), *(values[name] for name in optional)]


def _text(value: float | None) -> str:
    return "" if value is None else repr(float(value))
