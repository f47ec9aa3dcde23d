"""Checking a strong ticket: the random network is drawn again, masked, and measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

from tombola.data import Dataset
from tombola.errors import DataError, InvalidValue, TicketError
from tombola.strong.certificate import Certifier
from tombola.strong.file import StrongTicket, fingerprint, load
from tombola.strong.network import Block, StrongNetwork
from tombola.strong.target import Target
from tombola.ticket import Check

_AT_ONCE: Final = 500


@final
@dataclass(frozen=True)
class Measured:
    """What a strong ticket does beside its target, on a test split.

    Attributes:
        predictions: int64 ``[examples]``, the target's in float64.
        agreement: share of the examples that the masked random network predicts alike.
        accuracy: the masked random network's, a fraction.
        target_accuracy: the target's.
        furthest: the largest distance of two logits, in the target's units.
        certified: share of the examples that are certified.
    """

    predictions: Tensor
    agreement: float
    accuracy: float
    target_accuracy: float
    furthest: float
    certified: float


def examples(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Give what a strong ticket is measured on: the test split; where the publisher has none, every example."""
    if dataset.test_x is not None and dataset.test_y is not None:
        return dataset.test_x, dataset.test_y
    return dataset.train_x, dataset.train_y


def classes(network: StrongNetwork, x: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Run a strong ticket: its predictions, int64 ``[examples]``, and its logits in the target's units, float64."""
    with torch.no_grad():
        found = [network(some.to(dtype)).double() / network.scale for some in x.split(_AT_ONCE)]
    logits = torch.cat(found) if found else torch.zeros(0, 1)
    return logits.argmax(1), logits


def measure(network: StrongNetwork, target: Target, x: Tensor, y: Tensor, *, signed: bool = False) -> Measured:
    """Set a strong ticket against its target, both run in plain torch: the ticket in float32, the target in float64.

    Args:
        network: the masked random network.
        target: what it stands for.
        x, y: the examples and their labels; at least one.
        signed: inputs may be negative.

    Raises:
        InvalidValue: a logit is not finite, as after an input that is not.
    """
    predicted, logits = classes(network, x)
    with torch.no_grad():
        wanted = torch.cat([target(some.double()) for some in x.split(_AT_ONCE)])
    if not bool(logits.isfinite().all() and wanted.isfinite().all()):
        raise InvalidValue("a logit is NaN or infinite. Look for such values in the inputs.")
    certificate = Certifier(network, target, signed=signed)(x)
    own = wanted.argmax(1)
    return Measured(
        predictions=own,
        agreement=float((predicted == own).double().mean()),
        accuracy=float((predicted == y).double().mean()),
        target_accuracy=float((own == y).double().mean()),
        furthest=float((logits - wanted).abs().max()),
        certified=certificate.share,
    )


def verify(path: Path | str, *, dataset: Dataset | None = None, target: Target | None = None) -> tuple[Check, ...]:
    """Check a strong ticket's file; the answer says what does not hold.

    The weights that it has in effect are computed from the seed and the mask, and compared bit for bit with those that
    it had when it was made. With the data its predictions are compared with the target's that the file holds, and its
    accuracy with the reported one; with the target the errors of its weights are measured again.

    Args:
        path: the file.
        dataset: the data it was measured on.
        target: what it stands for.
    """
    try:
        ticket = load(path)
    except TicketError as error:
        return (Check("file", False, str(error)),)
    network, claims = ticket.network, ticket.claims
    checks = [Check("file", True, f"whole, seed {network.seed}, {network.kept:,} of {network.total:,} random weights")]
    signed = claims.get("signed") is True
    found = fingerprint(network, signed=signed)
    same = found == claims.get("effective")
    checks.append(
        Check("weights", same, "drawn from the seed and masked, they are those that were made, bit for bit" if same
              else f"drawn from the seed and masked, they have the digest {found:.12}; expected "
                   f"{claims.get('effective')!s:.12}")
    )  # fmt: skip
    if target is not None:
        checks.append(_errors(network, target, claims))
    if dataset is not None:
        checks.extend(_predictions(ticket, dataset))
    return tuple(checks)


def worst_error(network: StrongNetwork, target: Target, *, signed: bool = False) -> float:
    """Give the largest distance of an effective weight or bias from the target's, in the target's units.

    Raises:
        InvalidValue: the target has other layers.
    """
    if len(network.blocks) != len(target.layers):
        raise InvalidValue(
            f"the strong ticket stands for {len(network.blocks)} layers and the network has {len(target.layers)}."
        )
    worst, scale = 0.0, 1.0
    for number, (block, layer) in enumerate(zip(network.blocks, target.layers, strict=True)):
        same = Block.of(layer, block.candidates, doubled=block.doubled, copies=block.copies)
        if same != block:
            raise InvalidValue(f"{layer.name!r} has weights of shape {tuple(layer.weight.shape)}: another network.")
        scale *= network.factors[number]
        alive = network.alive(number)
        if not bool(alive.any()):
            continue
        wanted = layer.weight.repeat_interleave(block.copies, 0)[alive].transpose(0, 1).flatten(1)
        for sign in (1, -1) if signed and number == 0 else (1,):
            own = network.effective(number, sign)[0]
            found = own[: block.inputs].view(block.inputs, len(alive), -1)[:, alive].flatten(1)
            worst = max(worst, float((found / network.factors[number] - wanted).abs().max()))
        if block.constants and layer.bias is not None:
            bias = own[block.inputs :, block.taps[alive]].sum(0) / scale
            worst = max(worst, float((bias - layer.bias.repeat_interleave(block.copies)[alive]).abs().max()))
    return worst


def _errors(network: StrongNetwork, target: Target, claims: Any) -> Check:
    try:
        worst = worst_error(network, target, signed=claims.get("signed") is True)
    except InvalidValue as error:
        return Check("error", False, str(error))
    claimed = claims.get("max_error")
    ok = isinstance(claimed, int | float) and worst <= claimed * (1 + 1e-9)
    return Check("error", ok, f"no weight is further than {worst:.6g} from the target's, reported was {claimed}")


def _predictions(ticket: StrongTicket, dataset: Dataset) -> list[Check]:
    claims = ticket.claims
    if ticket.predictions is None:
        return [Check("predictions", False, "the file holds no predictions to compare with; make it with --data")]
    if claims.get("data_fingerprint") != dataset.fingerprint:
        return [Check("predictions", False, f"the data {dataset.name!r} are not those that it was measured on")]
    x, y = examples(dataset)
    try:
        predicted, _ = classes(ticket.network, x)
    except RuntimeError as error:
        raise DataError(f"the strong ticket does not take these data: {error}") from error
    wanted = ticket.predictions.long()
    if len(wanted) != len(predicted):
        return [Check("predictions", False, f"the file holds {len(wanted)}, and there are {len(predicted)} examples")]
    agreement = float((predicted == wanted).double().mean())
    accuracy = float((predicted == y).double().mean())
    checks = []
    for name, value, key in (("agreement", agreement, "agreement"), ("accuracy", accuracy, "ticket_accuracy")):
        claimed = claims.get(key)
        # One example may fall the other way where another processor adds in another order.
        ok = isinstance(claimed, int | float) and abs(value - claimed) <= 1.000001 / len(wanted)
        checks.append(Check(name, ok, f"{100 * value:.2f} % of {len(wanted):,} examples, reported was {claimed}"))
    return checks
