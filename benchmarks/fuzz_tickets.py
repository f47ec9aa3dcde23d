"""Alter ticket files at random and see that reading them never does worse than refuse.

``python benchmarks/fuzz_tickets.py --seconds 600 --corpus tests/ticket/corpus --out benchmarks/results/NAME.json``

Each input is a ticket file with bits flipped, pieces cut, moved or added, or with its header, its description or its
tensors edited and every digest set right again, so that the checks behind the digests are reached. Whatever comes,
``decode`` must return a ticket or raise a ``TombolaError``, within bounded time and memory; a ticket that is returned
must say of itself what the file says, tensor by tensor and word by word, and be written and read again without change.
Inputs that end in a way not seen before (at which step, with which error, its names and numbers aside) are kept.
"""

import argparse
import hashlib
import json
import random
import re
import resource
import signal
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeAlias, final

import numpy
import safetensors
import torch
from machine import heading
from torch import nn

from tombola import models
from tombola.errors import TombolaError
from tombola.files import write_all
from tombola.prune.masks import fingerprint, kept, total
from tombola.ticket import Ticket, canonical, decode, encode
from tombola.ticket.decode import STEPS, stepwise
from tombola.ticket.replay import Factory
from tombola.types import Masks, Seed

Raw: TypeAlias = dict[str, tuple[str, list[int], bytes]]
"""Tensor name -> the file's dtype, shape and bytes, which need not agree."""

SECONDS: Final = 5.0
"""What one input may take; reading any of the originals takes less than a hundredth of it."""

MEMORY: Final = 1 << 30
"""Bytes of address space that the process may take beyond those it has when the inputs begin."""

_WORDS: Final = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "F16": "float16",
    "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
_VALUES: Final[tuple[Any, ...]] = (
    0, 1, -1, 2, 7, 255, 2**31, 2**32, 2**40, 2**53, 2**59, 2**62, 2**63, 2**64, -(2**63), 10**40, 10**400, 0.5, -0.0,
    1e308, None, True, False, "", "..", "../../x", "/x", "\\x", "a/b", "a..b", "\0", "\x1b[2J", "\u202e", "w" * 600,
    "os:abort", "vgg-19", "conv-2", "lenet-300-100", "float32", "int64", "F64", "0" * 64, [], [0],
    [2**40, 2**40], [0, 2**60],
    [1] * 70, {}, {"a": {}}, [[[[[[]]]]]],
)  # fmt: skip


def linear(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network of one's own."""
    return nn.Sequential(nn.Flatten(), nn.Linear(numpy.prod(input_shape, dtype=int).item(), classes))


def originals() -> dict[str, bytes]:
    """Give small tickets of every kind."""
    generator = torch.Generator().manual_seed(0)
    w, mask = torch.randn(5, 9, generator=generator), torch.rand(5, 9, generator=generator) < 0.3
    before = mask | (torch.rand(5, 9, generator=generator) < 0.2)
    start = {"fc.weight": w, "fc.bias": torch.zeros(5), "half": torch.ones(3, dtype=torch.float16)}
    first = {**start, "fc.weight": -w}
    buffers = {"norm.n": torch.tensor(3), "norm.m": torch.tensor([True, False])}
    masks, parent = {"fc.weight": mask}, {"fc.weight": before}
    about = {"model": "mine:net", "seed": 0, "level": 2, "density": kept(masks) / total(masks), "recipe": {"lr": 0.1}}
    levels = lineage({"fc.weight": torch.ones(5, 9, dtype=torch.bool)}, parent, masks)
    own = models.initial(partial(linear, (6,), 3), Seed(1, 2))
    drawn = {"input_shape": [6], "classes": 3, "seed": 1, "replicate": 2, "model": "mine:linear"}
    half = {"1.weight": torch.arange(18).reshape(3, 6) % 2 == 0}
    lenet = models.initial(partial(models.build, "lenet-300-100", (2,), 2), Seed(4))
    known = {**drawn, "input_shape": [2], "classes": 2, "seed": 4, "replicate": 0, "model": "lenet-300-100"}
    few = {
        name: torch.rand(lenet.params[name].shape, generator=generator) < 0.1 for name in ("fc1.weight", "fc2.weight")
    }
    return {
        "plain": encode(Ticket(start, masks, buffers, about)),
        "whole": encode(Ticket(start, masks, buffers, {**about, "lineage": levels}, first, parent)),
        "parent": encode(Ticket(start, masks, {}, {"lineage": levels}, parent=parent)),
        "initial": encode(Ticket({"w": w}, {"w": mask}, {}, {}, {"w": w / 2})),
        "empty": encode(Ticket({}, {}, parent={})),
        "nothing": encode(Ticket({"w": torch.zeros(0, 4)}, {"w": torch.zeros(0, 4, dtype=torch.bool)}, {}, {}, None,
                                 {"w": torch.zeros(0, 4, dtype=torch.bool)})),
        "own": encode(Ticket(own.params, half, {}, drawn), seed_only=True, build=linear),
        "drawn": encode(Ticket(lenet.params, few, {}, known), seed_only=True),
    }  # fmt: skip


def lineage(*levels: Masks) -> list[dict[str, Any]]:
    """Describe levels as a search does."""
    return [
        {"level": n, "kept": kept(masks), "total": total(masks), "masks": fingerprint(masks)}
        for n, masks in enumerate(levels)
    ]


def opened(data: bytes) -> tuple[Raw, dict[str, Any]]:
    """Take a whole file apart."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    text = header.pop("__metadata__")["ticket"]
    raw = {n: (e["dtype"], e["shape"], body[slice(*e["data_offsets"])]) for n, e in header.items()}
    return raw, json.loads(text)


def closed(raw: Raw, text: str) -> bytes:
    """Put a file together as it is asked for, right or wrong."""
    header: dict[str, Any] = {"__metadata__": {"ticket": text}}
    at = 0
    for name, (dtype, shape, content) in raw.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    written = json.dumps(header, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + b"".join(content for _, _, content in raw.values())


def sealed(raw: Raw, body: dict[str, Any]) -> str:
    """Give the description with digests that fit what is there now."""
    if "seal" not in body:
        body["digest"] = _hash(raw, {key: body[key] for key in body if key != "digest"})
        return canonical.dumps(body)
    if body.get("drawn") is None:
        inner = {key: body[key] for key in body if key in ("schema", "parts", "tensors", "provenance")}
        body["digest"] = _hash({name: _inflated(name, entry) for name, entry in raw.items()}, inner)
    body["seal"] = _hash(raw, {key: body[key] for key in body if key != "seal"})
    return canonical.dumps(body)


def _inflated(name: str, entry: tuple[str, list[int], bytes]) -> tuple[str, list[int], bytes]:
    if not name.startswith("parent/"):
        return entry
    try:
        content = zlib.decompressobj().decompress(entry[2], 1 << 16)
    except zlib.error:
        return entry
    return "U8", [len(content)], content


def _hash(raw: Raw, body: Mapping[str, Any]) -> str:
    whole = hashlib.sha256()
    for name in sorted(raw):
        dtype, shape, content = raw[name]
        whole.update(f"{canonical.dumps([name, _WORDS.get(dtype, dtype), shape])}\n".encode())
        whole.update(content)
    whole.update(canonical.dumps(body).encode())
    return whole.hexdigest()


@final
class Mutator:
    """Random changes, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._originals = originals()
        self._whole = list(self._originals.values())

    def input(self) -> tuple[str, bytes, Factory | None]:
        """Give the name of a kind of change, a file that was changed so, once or a few times, and what to read it with.

        That is the factory where the file is of a ticket of one's own network, and now and then where it is not.
        """
        kinds: tuple[Callable[[bytes], bytes], ...] = (
            self._flip, self._cut, self._splice, self._header, self._describe, self._describe, self._describe,
            self._tensors, self._tensors, self._text,
        )  # fmt: skip
        kind = self._random.choice(kinds)
        name, data = self._random.choice(list(self._originals.items()))
        build = linear if (name == "own") is (self._random.random() < 0.95) else None
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            try:
                data = kind(data)
            except (
                ValueError,
                KeyError,
                TypeError,
                IndexError,
                AttributeError,
                OverflowError,
                RecursionError,
                zlib.error,
            ):
                break  # what was there before this change is an input as well
        return kind.__name__.strip("_"), data, build

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.choice((1, 1, 2, 8))):
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _cut(self, data: bytes) -> bytes:
        at = self._random.randrange(len(data))
        return self._random.choice(
            (data[:at], data[at:], data + data[:at], data + bytes(self._random.randrange(1, 99)), data[:-1])
        )

    def _splice(self, data: bytes) -> bytes:
        other = self._random.choice(self._whole)
        a, b = sorted((self._random.randrange(len(data)), self._random.randrange(len(data))))
        c, d = sorted((self._random.randrange(len(other)), self._random.randrange(len(other))))
        return data[:a] + other[c:d] + data[b if self._random.random() < 0.5 else a + d - c :]

    def _header(self, data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        header = self._edit(json.loads(data[8 : 8 + length]))
        written = json.dumps(header).encode()
        return len(written).to_bytes(8, "little") + written + data[8 + length :]

    def _describe(self, data: bytes) -> bytes:
        raw, body = opened(data)
        return closed(raw, sealed(raw, self._edit(body)))

    def _text(self, data: bytes) -> bytes:
        """Edit JSON as text: keys twice, NaN, white space, depth."""
        raw, body = opened(data)
        text = sealed(raw, body)
        at = self._random.randrange(len(text))
        more = self._random.choice(
            (
                " ",
                "NaN,",
                "1e999",
                '"schema":1,',
                '{"a":1,"a":2},',
                "[" * 5000,
                "9" * 5000,
                "\\u0000",
                "\\ud800",
                "}",
                "]",
            )
        )
        return closed(raw, text[:at] + more + text[at + self._random.choice((0, 0, 1)) :])

    def _tensors(self, data: bytes) -> bytes:
        raw, body = opened(data)
        name = self._random.choice(list(raw))
        dtype, shape, content = raw[name]
        change = self._random.randrange(8)
        if change == 0:
            del raw[name]
        elif change == 1:
            raw[self._random.choice(("start/x", "parent/../x", "theta_0/x", "mask/\0", "x", name + "x"))] = raw.pop(
                name
            )
        elif change == 2:
            raw[name] = (self._random.choice(list(_WORDS)), shape, content)
        elif change == 3:
            raw[name] = (dtype, self._edit(shape), content)
        elif change == 4:
            raw[name] = (dtype, shape, self._flip(content))
        elif change == 5:
            other = self._random.choice(list(raw))
            raw[name], raw[other] = raw[other], raw[name]
        elif change == 6:
            raw[name] = (dtype, shape, bytes([self._random.choice((0, 127, 128, 255))]) * len(content))
        else:
            self._stream(raw)
        return closed(raw, sealed(raw, body))

    def _stream(self, raw: Raw) -> None:
        """Another zlib stream for a parent: bombs, other levels, something before or behind."""
        name = self._random.choice([name for name in raw if name.startswith("parent/")])
        bits = zlib.decompressobj().decompress(raw[name][2], 1 << 16)
        stream = self._random.choice(
            (
                zlib.compress(bytes(1 << 24)),
                zlib.compress(bits, self._random.randrange(10)),
                zlib.compress(bits + b"\0"),
                zlib.compress(bits[:-1]),
                zlib.compress(bits) + b"\0",
                zlib.compress(bits) * 2,
                zlib.compress(bytes(self._random.randrange(256) for _ in bits)),
                zlib.compress(bytes(len(bits))),
                b"\x78\x9c" + b"\0\0\0\xff\xff" * 1000,
                b"",
            )
        )
        raw[name] = ("U8", [len(stream)], stream)

    def _edit(self, value: Any) -> Any:
        """Change one place of a JSON value."""
        places: list[tuple[Any, Any]] = []

        def walk(one: Any) -> None:
            for key in list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ():
                places.append((one, key))
                walk(one[key])

        walk(value)
        if not places:
            return self._random.choice(_VALUES)
        where, key = self._random.choice(places)
        old, change = where[key], self._random.randrange(5)
        if change == 0:
            del where[key]
        elif change == 1 and isinstance(where, dict):
            where[str(self._random.choice(_VALUES))] = where.pop(key)
        elif change == 2 and isinstance(old, int):
            where[key] = self._random.choice((old + 1, old - 1, -old, old * 2, old << 32, float(old)))
        elif change == 2 and isinstance(old, str) and old:
            at = self._random.randrange(len(old))
            where[key] = old[:at] + self._random.choice("0aZ\0/é") + old[at + 1 :]
        elif change == 3:
            other, name = self._random.choice(places)
            where[key] = json.loads(json.dumps(other[name])) if name in other or isinstance(other, list) else None
        else:
            where[key] = self._random.choice(_VALUES)
        return value


@final
@dataclass(frozen=True)
class Outcome:
    """What became of an input.

    Attributes:
        step: the check that refused it, or ``accepted``.
        pattern: the error's class and words without names and numbers, or how it is written again.
        failure: what must not be; ``None`` where all is well.
    """

    step: str
    pattern: str
    failure: str | None = None


def read(data: bytes, build: Factory | None) -> Outcome:
    """Read one input, and see that nothing worse than a refusal comes of it."""
    step = 0
    try:
        steps = stepwise(data, "FILE", build)
        while True:
            try:
                next(steps)
                step += 1
            except StopIteration as end:
                return written_again(data, end.value, build)
    except TombolaError as error:
        bad = f"a message that a terminal should not be shown: {str(error)!r:.300}"
        good = len(str(error)) <= 1200 and str(error).isprintable()
        return Outcome(STEPS[step], f"{type(error).__name__}: {pattern(str(error))}", None if good else bad)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return Outcome(STEPS[min(step, len(STEPS) - 1)], type(error).__name__, f"{type(error).__name__}: {error}"[:300])


def written_again(data: bytes, ticket: Ticket, build: Factory | None) -> Outcome:
    """Compare an accepted file with what the same ticket is written as.

    The library that writes headers, and zlib, may lay the same content out otherwise; nothing else may differ.
    """
    raw, body = opened(data)
    seed_only = body.get("drawn") is not None
    again = encode(ticket, seed_only=seed_only, build=build)
    if again == data:
        return Outcome("accepted", "and written again byte for byte")
    raw_again, body_again = opened(again)
    body.pop("seal", None), body_again.pop("seal", None)
    same = {n: _inflated(n, e) for n, e in raw.items()} == {n: _inflated(n, e) for n, e in raw_again.items()}
    same = same and canonical.dumps(body) == canonical.dumps(body_again)
    back = decode(again, build=build)
    if not same or back != ticket or encode(back, seed_only=seed_only, build=build) != again:
        return Outcome("accepted", "and written otherwise", "a ticket that was accepted is written otherwise")
    return Outcome("accepted", "and written again in another layout")


def pattern(text: str) -> str:
    """Take what came from the file out of a message: its beginning, and what it expects, each up to the first value."""
    found, _, expected = text.partition("; expected")
    if not expected:
        expected = text.partition(". ")[2]
    cut = (re.split(r"\b[0-9a-f]{12,}\b|-?\d|['\"\[{(]|True|False|None", part)[0] for part in (found, expected))
    return " ... ".join(part.strip() for part in cut)


def main() -> None:
    """Fuzz for a while, keep what is new, and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, help="folder for the inputs that ended in a new way")
    parser.add_argument("--most", type=int, default=9000, help="bytes of an input that is kept, at most")
    parser.add_argument("--mended", action="append", default=[], help="what earlier runs found, for the record")
    parser.add_argument("--out", type=Path, help="file for the counts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    mutator = Mutator(arguments.seed)
    for name, data in originals().items():
        assert read(data, linear if name == "own" else None).pattern == "and written again byte for byte"
    _limit()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    classes: Counter[tuple[str, str]] = Counter()
    kinds: Counter[str] = Counter()
    found: dict[tuple[str, str], tuple[bytes, str]] = {}
    failures: list[dict[str, Any]] = []
    slowest, began = 0.0, time.monotonic()
    while time.monotonic() - began < arguments.seconds:
        kind, data, build = mutator.input()
        kinds[kind] += 1
        signal.alarm(60)
        start = time.perf_counter()
        outcome = read(data, build)
        took = time.perf_counter() - start
        signal.alarm(0)
        slowest = max(slowest, took)
        failure = outcome.failure or (f"took {took:.1f} s" if took > SECONDS else None)
        if failure:
            failures.append({"kind": kind, "step": outcome.step, "failure": failure, "sha256": _sha(data)})
            _keep(arguments.corpus, f"failure-{_sha(data)[:12]}", data)
        key = (outcome.step, outcome.pattern)
        classes[key] += 1
        if len(data) <= arguments.most and (key not in found or len(data) < len(found[key][0])):
            found[key] = data, "own" if build else "known"
    seconds = time.monotonic() - began
    for (step, _), (data, whose) in found.items():
        _keep(arguments.corpus, f"{step}-{whose}-{_sha(data)[:12]}", data)
    report = {
        "command": f"python benchmarks/fuzz_tickets.py --seconds {arguments.seconds:g} --seed {arguments.seed}",
        **heading(),
        "safetensors": safetensors.__version__,
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "inputs": sum(kinds.values()),
        "seconds": round(seconds, 1),
        "slowest_input_seconds": round(slowest, 3),
        "memory_growth_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
        "kinds": dict(sorted(kinds.items())),
        "failures": failures,
        "found_and_mended": arguments.mended,
        "outcomes": [
            {"step": step, "pattern": text, "inputs": n} for (step, text), n in sorted(classes.items(), key=_order)
        ],
    }
    if arguments.out:
        write_all({arguments.out: (json.dumps(report, indent=1) + "\n").encode()})
    print(
        f"{report['inputs']} inputs in {report['seconds']} s, {len(classes)} outcomes, {len(failures)} failures, "
        f"slowest {slowest:.3f} s, memory grew by {report['memory_growth_mib']} MiB"
    )
    for one in failures[:10]:
        print(one)
    if failures:
        raise SystemExit(1)


def _order(item: tuple[tuple[str, str], int]) -> tuple[int, str]:
    (step, text), _ = item
    return (STEPS.index(step) if step in STEPS else len(STEPS), text)


def _keep(folder: Path | None, name: str, data: bytes) -> None:
    if folder is not None:
        write_all({folder / name: data})


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _limit() -> None:
    """Bound the address space, and end an input that never ends."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))

    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError("one input took a minute")

    signal.signal(signal.SIGALRM, stop)


if __name__ == "__main__":
    main()
