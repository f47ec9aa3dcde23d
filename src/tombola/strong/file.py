"""Strong tickets on the disk: a seed, a law, sizes and a mask; no weight is in the file."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

from tombola import canonical
from tombola.errors import TicketError
from tombola.strong.law import LAW
from tombola.strong.network import MOST_CANDIDATES, Block, StrongNetwork
from tombola.strong.target import Reshape
from tombola.ticket import container
from tombola.ticket.canonical import digest
from tombola.ticket.file import read as read_bytes

KEY: Final = "tombola-strong"
"""The metadata entry that says that a file holds a strong ticket."""

SCHEMA: Final = 1
_PREDICTIONS: Final = "predictions"
_MOST_SIDE: Final = 1 << 24
_MOST_BLOCKS: Final = 1 << 10
_MOST_CONSTANTS: Final = 16


@final
@dataclass(frozen=True)
class StrongTicket:
    """A masked random network, and what was found of it.

    Attributes:
        network: regenerated from seed and mask.
        predictions: uint8 or int32 ``[examples]``: the target's, on the data that it was measured on; ``None`` where
            there were none.
        claims: what was found when it was made, plain JSON values: ``error``, ``max_error``, ``agreement`` and others.
        digest: of everything in the file.
    """

    network: StrongNetwork
    predictions: Tensor | None
    claims: Mapping[str, Any]
    digest: str


def fingerprint(network: StrongNetwork, *, signed: bool = False) -> str:
    """Identify the weights that a strong ticket has in effect: SHA-256 over their bits, the same on every machine."""
    found = hashlib.sha256()
    for number in range(len(network.blocks)):
        for sign in (1, -1) if signed and number == 0 else (1,):
            found.update(network.effective(number, sign)[0].numpy().astype("<f8").tobytes())
    return found.hexdigest()


def encode(network: StrongNetwork, claims: Mapping[str, Any], predictions: Tensor | None = None) -> bytes:
    """Give the bytes of a strong ticket's file: safetensors, with its sizes as JSON.

    Args:
        network: of which the seed, the sizes and the masks are written.
        claims: plain JSON values.
        predictions: the target's classes on the test split, integers.
    """
    tensors = {f"mask_{number}": network.get_buffer(f"mask_{number}") for number in range(len(network.blocks))}
    if predictions is not None:
        tensors[_PREDICTIONS] = predictions.to(torch.uint8 if int(predictions.max()) < 256 else torch.int32)
    body = {
        "schema": SCHEMA,
        "law": LAW,
        "seed": network.seed,
        "factors": list(network.factors),
        "blocks": [asdict(block) for block in network.blocks],
        "claims": dict(claims),
    }
    body["digest"] = digest(tensors, canonical.dumps(body))
    return container.write(tensors, KEY, canonical.dumps(body))


def is_strong(path: Path | str) -> bool:
    """Whether a file says that it holds a strong ticket, by its header alone; false where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            first = file.read(8)
            size = Path(path).stat().st_size
            header = file.read(container.header_size(first, size, str(path)))
        return KEY in container.read_header(header, size - 8 - len(header), str(path))[0]
    except (OSError, TicketError):
        return False


def load(path: Path | str) -> StrongTicket:
    """Read a strong ticket, checking every size and the digest; the weights are drawn when the network runs.

    Raises:
        TicketError: no such file, or a schema or law that this version does not know.
        CorruptTicket: it was cut short or altered, or is no strong ticket.
    """
    return decode(read_bytes(path), str(path))


def decode(data: bytes, where: str) -> StrongTicket:
    """Read the bytes of a strong ticket's file; raises as :func:`load`."""
    length = container.header_size(data[:8], len(data), where)
    metadata, shapes = container.read_header(data[8 : 8 + length], len(data) - 8 - length, where)
    if KEY not in metadata:
        container.corrupt(where, "holds no strong ticket", f"a file with an entry {KEY!r}, as tombola strong writes")
    body = _body(metadata[KEY], where)
    blocks = tuple(_block(one, where) for one in body["blocks"])
    _check_copies(blocks, where)
    for number, block in enumerate(blocks):
        wanted = (-(-block.groups * block.candidates * block.columns // 8),)
        if shapes.get(f"mask_{number}") != wanted:
            found = shapes.get(f"mask_{number}", "none")
            container.corrupt(where, f"has a mask of shape {found} for block {number}", f"{wanted}, from its sizes")
    tensors = container.read_tensors(data, where)
    _check_types(tensors, len(blocks), where)
    claimed = body.pop("digest")
    if digest(tensors, canonical.dumps(body)) != claimed:
        container.corrupt(where, "does not hold what its digest says", "a file that nobody has altered")
    network = StrongNetwork.packed(body["seed"], blocks, [tensors[f"mask_{n}"] for n in range(len(blocks))],
                                   body["factors"])  # fmt: skip
    return StrongTicket(network, tensors.get(_PREDICTIONS), body["claims"], claimed)


def _body(text: str, where: str) -> dict[str, Any]:
    try:
        body = canonical.loads(text)
    except (ValueError, RecursionError) as error:
        container.corrupt(where, f"describes itself in what is not JSON ({error})"[:200], "a JSON object")
    names = {"schema", "law", "seed", "factors", "blocks", "claims", "digest"}
    if not isinstance(body, dict):
        container.corrupt(where, "describes itself in no JSON object", "one")
    if body.get("schema") != SCHEMA or body.get("law") != LAW:
        raise TicketError(
            f"{where} is a strong ticket of schema {body.get('schema')!s:.20} and law {body.get('law')!s:.40}; "
            f"this version reads schema {SCHEMA} and the law {LAW}. Use the version of tombola that wrote it."
        )
    factors, blocks = body.get("factors"), body.get("blocks")
    good = (
        body.keys() == names
        and type(body["seed"]) is int
        and isinstance(blocks, list)
        and 0 < len(blocks) <= _MOST_BLOCKS
        and isinstance(factors, list)
        and len(factors) == len(blocks)
        and all(_is_factor(one) for one in factors)
        and isinstance(body["claims"], dict)
        and isinstance(body["digest"], str)
    )
    if not good:
        container.corrupt(where, "describes a strong ticket in other words", ", ".join(sorted(names)))
    return dict(body)


def _is_factor(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1e-300 < value < 1e300


def _block(entry: Any, where: str) -> Block:
    names = {one.name for one in fields(Block)}
    if not isinstance(entry, dict) or entry.keys() != names:
        container.corrupt(where, "describes a block in other words", ", ".join(sorted(names)))
    sizes = [entry["inputs"], entry["outputs"], entry["candidates"], entry["copies"]]
    flags = [entry["convolution"], entry["doubled"], entry["relu"]]
    good = all(type(one) is int and 1 <= one <= _MOST_SIDE for one in sizes) and all(type(one) is bool for one in flags)
    good = good and type(entry["constants"]) is int and 0 <= entry["constants"] <= _MOST_CONSTANTS
    good = good and all(_is_pair(entry[one], 1) for one in ("kernel", "stride", "dilation"))
    good = good and _is_pair(entry["padding"], 0) and isinstance(entry["before"], list) and len(entry["before"]) < 64
    good = good and max(entry["candidates"], entry["copies"]) <= MOST_CANDIDATES
    if not good:
        container.corrupt(where, f"has a block of sizes {json.dumps(entry)[:120]}", "sizes that a layer can have")
    pairs = {name: tuple(entry[name]) for name in ("kernel", "stride", "padding", "dilation")}
    block = Block(**{**entry, **pairs, "before": tuple(_reshape(one, where) for one in entry["before"])})
    reach = zip(block.padding, block.kernel, block.dilation, strict=True)
    if not 0 <= block.tap < math.prod(block.kernel) or any(pad > side * far for pad, side, far in reach):
        container.corrupt(where, "has a block whose bias is read outside of its kernel", "a tap on the image")
    return block


def _check_types(tensors: Mapping[str, Tensor], blocks: int, where: str) -> None:
    """Check that masks are bytes, and predictions a list of classes."""
    for number in range(blocks):
        if tensors[f"mask_{number}"].dtype is not torch.uint8:
            container.corrupt(where, f"has a mask of {tensors[f'mask_{number}'].dtype}", "bytes of eight bits of it")
    found = tensors.get(_PREDICTIONS)
    if found is not None and (found.dim() != 1 or found.dtype not in (torch.uint8, torch.int32) or not len(found)):
        container.corrupt(where, f"has predictions {found.dtype} {list(found.shape)}", "a class for each example")


def _check_copies(blocks: Sequence[Block], where: str) -> None:
    """Check that a block has the copies that the next one reads."""
    before = [block.copies for block in blocks[:-1]]
    wanted = [1 if block.doubled else block.candidates for block in blocks[1:]]
    whole = all(after.doubled or after.inputs % block.outputs == 0 for block, after in pairwise(blocks))
    if not blocks[0].doubled or before != wanted or blocks[-1].copies != 1 or not whole:
        container.corrupt(where, f"has outputs in copies {before}", f"{wanted}, as its blocks read them")


def _reshape(entry: Any, where: str) -> Reshape:
    good = isinstance(entry, dict) and entry.keys() == {"kind", "size", "stride", "padding"}
    if not good or entry["kind"] not in ("flatten", "max", "average"):
        container.corrupt(where, f"has a reshaping {json.dumps(entry)[:80]}", "flatten, max or average with its sizes")
    if not (_is_pair(entry["size"], 1) and _is_pair(entry["stride"], 1) and _is_pair(entry["padding"], 0)):
        container.corrupt(where, f"has a pool {json.dumps(entry)[:80]}", "two whole numbers for each of its sizes")
    if any(pad > size // 2 for pad, size in zip(entry["padding"], entry["size"], strict=True)):
        container.corrupt(where, f"has a pool {json.dumps(entry)[:80]}", "padding of no more than half of its size")
    return Reshape(entry["kind"], tuple(entry["size"]), tuple(entry["stride"]), tuple(entry["padding"]))


def _is_pair(value: object, least: int) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(type(one) is int and least <= one <= 4096 for one in value)
    )


def sizes(network: StrongNetwork, target_weights: int) -> dict[str, float]:
    """Say how many bytes the seed and the mask take, beside the plain network.

    Returns:
        ``mask``, a bit for every random weight of both layers; ``mask_second``, of the second layers alone, which the
        file holds (the first's follow from them); ``mask_entropy``, those in an ideal code that knows how many of each
        block are kept; ``network``, the target in float32.
    """
    second = entropy = 0.0
    for number, block in enumerate(network.blocks):
        many, kept = block.groups * block.candidates * block.columns, int(network.mask(number).count_nonzero())
        second += many / 8
        share = kept / many
        bits = 0.0 if share in (0, 1) else -share * math.log2(share) - (1 - share) * math.log2(1 - share)
        entropy += many * bits / 8
    return {
        "mask": network.total / 8,
        "mask_second": second,
        "mask_entropy": entropy,
        "network": 4.0 * target_weights,
    }
