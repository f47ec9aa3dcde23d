"""``tombola ticket``: look at a ticket file, check it, compare two, train one, and take its network elsewhere."""

from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from tombola.cli.words import print_json
from tombola.errors import InvalidValue, UnknownName
from tombola.saying import say

if TYPE_CHECKING:
    from rich.table import Table

    from tombola.prune.masks import Overlap
    from tombola.ticket import Check, Ticket
    from tombola.ticket.replay import Factory

app = App(name="ticket", help="Look at a ticket file, check it, compare two, train one, export its network.")

_FORMATS = ("dense", "seed", "full")
_SHORT = 80

_Own = Annotated[
    str | None,
    Parameter(help="The network, pkg.module:factory; needed only if it is your own and the seed draws the values."),
]


@app.command
def show(
    path: Path,
    /,
    *,
    model: _Own = None,
    json: Annotated[bool, Parameter(help="Print one JSON object and nothing else.", negative="")] = False,
) -> None:
    """Say what a ticket is: its network, density, lineage, origin and verdict.

    Args:
        path: The ticket file.
    """
    from tombola import ticket
    from tombola.prune.masks import kept as kept_of
    from tombola.prune.masks import per_layer
    from tombola.strong.file import is_strong

    if is_strong(path):
        _show_strong(path, json)
        return

    found = _load(path, model)
    seed_only = ticket.stored(path).seed_only
    parent = None if found.parent is None else kept_of(found.parent)
    layers = per_layer(found.masks)
    if json:
        print_json(
            {
                "digest": found.digest,
                "kept": found.kept,
                "total": found.total,
                "density": found.density,
                "density_all_parameters": found.density_all_parameters,
                "layers": {
                    name: {"kept": kept, "total": total, "shape": list(found.masks[name].shape)}
                    for name, (kept, total) in layers.items()
                },
                "start_values": "drawn from the seed" if seed_only else "stored",
                "theta_0": found.theta_0 is not None,
                "parent_kept": parent,
                "provenance": dict(found.provenance),
            }
        )
        return
    from rich.table import Table

    from tombola.cli.verdicts import console

    screen = console()
    about = found.provenance
    table = Table(title=f"{found.kept:,} of {found.total:,} prunable weights, {100 * found.density:.2f} %")
    for heading in ("tensor", "shape", "kept", "density"):
        table.add_column(heading, justify="left" if heading == "tensor" else "right")
    for name, (kept, total) in layers.items():
        shape = " x ".join(map(str, found.masks[name].shape))
        table.add_row(name, shape, f"{kept:,}", f"{100 * kept / total:.2f} %" if total else "")
    screen.print(table)
    if found.lineage:
        screen.print(_lineage(found))
    if seed_only:
        screen.print("start values: drawn from the seed when the file is read, and not stored in it")
    if found.theta_0 is not None:
        screen.print("initial values: theta_0 is stored beside the start values, which are of a later step")
    if parent is not None:
        screen.print(f"parent: its masks are stored, and keep {parent:,}")
    for key in ("model", "data", "strategy", "rewind", "level", "replicate", "seed", "verdict_sentence"):
        if key in about:
            screen.print(f"{key.replace('_', ' ')}: {_plain(about[key])}")
    screen.print(f"digest: {found.digest}")


def _show_strong(path: Path, json: bool) -> None:
    from tombola.strong import file

    found = file.load(path)
    claims = {name: value for name, value in found.claims.items() if name != "layers"}
    network = found.network
    about = {"digest": found.digest, "kept": network.kept, "total": network.total, "seed": network.seed}
    if json:
        print_json({**about, "strong": True, "claims": dict(found.claims)})
        return
    print(
        f"A strong ticket: {network.kept:,} of {network.total:,} random weights of seed {network.seed}, none trained."
    )
    for name, value in claims.items():
        print(f"{name.replace('_', ' ')}: {_plain(value)}")
    print(f"digest: {found.digest}")


@app.command
def verify(
    path: Path,
    /,
    *,
    retrain: Annotated[
        bool, Parameter(help="Train it again, and compare with the test accuracy it reports.", negative="")
    ] = False,
    parent: Annotated[
        Path | None, Parameter(help="The ticket of the level before, to compare masks and start values with.")
    ] = None,
    model: Annotated[
        str | None, Parameter(help="The network, pkg.module:factory, if it is your own and has to be built.")
    ] = None,
    data: Annotated[
        str | None,
        Parameter(help="With --retrain: see `tombola ticket train`. Of a strong ticket: the data it was measured on."),
    ] = None,
    target: Annotated[
        str | None,
        Parameter(
            help="Of a strong ticket: the trained network it stands for, as `tombola strong construct` takes it."
        ),
    ] = None,
    device: Annotated[str | None, Parameter(help="With --retrain: cpu, cuda or cuda:N. [default: its own]")] = None,
    json: Annotated[bool, Parameter(help="Print one JSON object and nothing else.", negative="")] = False,
) -> int:
    """Check a ticket file; exit code 0 if everything holds, 1 if not.

    Recomputes the content hash, the counts, the densities and the shapes, and that every kept weight was kept at the
    level before, as far as the file says; nothing in the file is executed. Start values that the file leaves to the
    seed are drawn from it. With --parent the masks of that ticket and its start values are compared as well. With
    --retrain the initial values are drawn from the seed, and the ticket is trained in isolation: the reported accuracy
    must come out exactly with the same versions and CPU capability, and within one test example elsewhere.

    Of a strong ticket the random network is drawn again from the seed and masked; its weights must be those that were
    made, bit for bit, and on the data, where they are here, its predictions and accuracy those reported.

    Args:
        path: The ticket file.
    """
    from tombola.strong.file import is_strong

    if is_strong(path):
        if retrain or any(option is not None for option in (parent, model, device)):
            raise InvalidValue("a strong ticket is not trained and has no parent; give --data or --target, or nothing.")
        return _verify_strong(path, data, target, json)
    if target is not None:
        raise InvalidValue("--target is what a strong ticket stands for, and this is none. Leave it out.")
    if not retrain and any(option is not None for option in (data, device)):
        raise InvalidValue("--data and --device say how to retrain. Add --retrain, or leave them out.")
    from tombola import ticket

    if not path.is_file():
        ticket.load(path)  # says what stands there instead; a wrong path is a wrong call and no failed ticket
    before = None if parent is None else _load(parent, model)
    verification = ticket.verify(path, build=_factory(model))
    checks, ok = verification.checks, verification.ok
    if ok and before is not None:
        checks = (*checks, *ticket.descends(_load(path, model), before))
        ok = all(check.ok for check in checks)
    if ok and retrain:
        from tombola.search.isolation import isolate

        checks = (*checks, *isolate(_load(path, model), model=model, data=data, device=device).checks())
        ok = all(check.ok for check in checks)
    return _told(path, checks, json)


def _verify_strong(path: Path, data: str | None, target: str | None, json: bool) -> int:
    from tombola.cli.trained import open_trained
    from tombola.data import load
    from tombola.errors import DataMissing, TicketError
    from tombola.strong import file
    from tombola.strong.verify import verify as verify_strong

    dataset = None if data is None else load(data)
    try:
        known = file.load(path).claims.get("data")
        # A published name is no code; a dotted path would be, and a file is not trusted to name any.
        if dataset is None and isinstance(known, str) and ":" not in known:
            dataset = load(known)
    except (TicketError, DataMissing):
        pass  # what is wrong with the file is said below; without the data less is checked
    found = None if target is None else open_trained(target)[0]
    checks = verify_strong(path, dataset=dataset, target=found)
    if dataset is None:
        say("The data are not here, so predictions and accuracy are not checked. Add --data.")
    return _told(path, checks, json)


def _told(path: Path, checks: "Sequence[Check]", json: bool) -> int:
    ok = all(check.ok for check in checks)
    if json:
        print_json({"ok": ok, "checks": [vars(check) for check in checks]})
    else:
        for check in checks:
            print(f"{'ok   ' if check.ok else 'FAIL '} {check.name}: {check.sentence}")
        print(f"{path}: {'everything holds' if ok else 'this ticket cannot be trusted'}")
    return 0 if ok else 1


@app.command
def diff(
    first: Path,
    second: Path,
    /,
    *,
    model: _Own = None,
    json: Annotated[bool, Parameter(help="Print one JSON object and nothing else.", negative="")] = False,
) -> None:
    """Compare two tickets of one network: masks, start values and origin.

    Args:
        first: A ticket file.
        second: Another.
    """
    from tombola import ticket

    found = ticket.diff(_load(first, model), _load(second, model))
    if json:
        print_json(
            {
                "identical": found.identical,
                **_overlap_json(found.overlap),
                "nested": found.nested,
                "same_start": found.same_start,
                "tensors": {
                    name: {
                        **_overlap_json(one.overlap),
                        "masked": one.masked,
                        "nested": one.nested,
                        "same_start": one.same_start,
                        "equal": one.equal,
                        "equal_theta_0": one.equal_theta_0,
                    }
                    for name, one in found.tensors.items()
                },
                "buffers": list(found.buffers),
                "theta_0": found.theta_0,
                "parent": found.parent,
                "lineage": dict(zip(("first", "second", "common"), found.lineage, strict=True)),
                "provenance": {key: list(values) for key, values in found.provenance.items()},
            }
        )
        return
    from rich.table import Table

    from tombola.cli.verdicts import console

    screen = console()
    table = Table(title=f"{first} and {second}")
    for heading in ("tensor", "first", "second", "both", "of", "Jaccard", "nested", "start values"):
        table.add_column(heading, justify="left" if heading in ("tensor", "nested", "start values") else "right")
    for name, one in found.tensors.items():
        counts = (one.overlap.first, one.overlap.second, one.overlap.shared, one.overlap.size)
        start = "equal" if one.same_start else f"{one.equal:,} of {one.overlap.shared:,} equal"
        table.add_row(name, *(f"{n:,}" for n in counts), f"{one.overlap.jaccard:.4f}", one.nested, start)
    screen.print(table)
    every = found.overlap
    screen.print(
        f"masked weights: {every.first:,} and {every.second:,} kept, {every.shared:,} by both; by chance alone "
        f"{every.expected:,.1f} (standard deviation {every.deviation:,.1f}). Nested: {found.nested}."
    )
    screen.print(f"start values of common survivors: {'equal' if found.same_start else 'they differ'}")
    if found.buffers:
        screen.print(f"buffers that differ: {', '.join(found.buffers)}")
    if found.theta_0 != "neither":
        screen.print(f"initial values (theta_0) of common survivors: {found.theta_0}")
    if found.parent != "neither":
        screen.print(f"masks of the parents: {found.parent}")
    if any(found.lineage):
        here, there, common = found.lineage
        screen.print(f"lineage: {here} and {there} levels, {common} of them in common")
    for key, values in found.provenance.items():
        if key == "lineage":
            continue
        screen.print(f"{key.replace('_', ' ')}: {_short(values[0])} and {_short(values[1])}")
    if found.identical:
        screen.print("The two tickets are equal.")


@app.command
def export(
    path: Path,
    /,
    *,
    to: Annotated[
        str,
        Parameter(
            help="Format: dense, plain safetensors with zeros where pruned; seed, a ticket without its start values; "
            "full, a ticket with them."
        ),
    ],
    out: Annotated[Path, Parameter(help="The file to write.")],
    model: Annotated[
        str | None,
        Parameter(help="The network, pkg.module:factory; needed if it has tied parameters, or is your own and drawn."),
    ] = None,
) -> None:
    """Write the network that a ticket starts from, for programs that do not know tombola; or the ticket anew.

    A dense file has the names of the state dict: load_state_dict(safetensors.torch.load_file(FILE)) takes it. A seed
    file is a ticket whose start values are drawn from the seed when it is read, by the same torch on a like CPU; only
    values that the seed draws bit for bit can be left out.

    Args:
        path: The ticket file.
    """
    if to not in _FORMATS:
        raise UnknownName.among("export format", to, _FORMATS)
    _check_other(path, out)
    from tombola import ticket
    from tombola.files import write_all

    found = _load(path, model)
    if to != "dense":
        ticket.save(found, out, seed_only=to == "seed", build=_factory(model))
        start = "drawn from the seed when it is read" if to == "seed" else "in the file"
        print(f"{out}: the ticket {found.digest}, its start values {start}")
        return
    tied = _tied(found.provenance, model) if model else _recorded(found.provenance)
    metadata = {"ticket": found.digest, "density": str(found.density), "values": "start"}
    write_all({out: ticket.encode_network(found.start, found.masks, found.buffers, metadata, tied=tied)})
    print(
        f"{out}: the network that the ticket starts from, {found.kept:,} of {found.total:,} prunable weights not zero"
    )


@app.command
def train(
    path: Path,
    /,
    *,
    out: Annotated[Path, Parameter(help="File for the trained sparse network, plain safetensors.")],
    model: Annotated[
        str | None,
        Parameter(help="The network, pkg.module:factory; code that a ticket names is called only if given here."),
    ] = None,
    data: Annotated[
        str | None, Parameter(help="The data, if not digits, mnist, fashion-mnist or cifar-10; see `tombola find`.")
    ] = None,
    device: Annotated[str | None, Parameter(help="cpu, cuda or cuda:N. [default: its own]")] = None,
    workers: Annotated[int, Parameter(help="Processes; one network keeps one busy.")] = 1,
    json: Annotated[bool, Parameter(help="Print one JSON object and nothing else.", negative="")] = False,
) -> None:
    """Train a ticket in isolation from its file, and save the trained sparse network.

    Network, data, recipe, seed and replicate are those of its search; the data must have the same fingerprint.

    Args:
        path: The ticket file.
    """
    _check_other(path, out)
    from tombola.errors import CannotWrite
    from tombola.files import check_writable, write_all
    from tombola.search.isolation import isolate

    found = _load(path, model)
    if out.is_dir():
        raise CannotWrite(f"{out} is a folder, and a file should be written there. Choose another path.")
    check_writable(out.parent)
    done = isolate(found, model=model, data=data, device=device, workers=workers)
    write_all({out: done.encoded()})
    if json:
        print_json(
            {
                "test_accuracy": done.test_accuracy,
                "reported": done.reported,
                "test_examples": done.test_examples,
                "iterations": done.outcome.iterations,
                "unlike": list(done.unlike),
                "ticket": found.digest,
                "trained": str(out),
            }
        )
        return
    reported = "none" if done.reported is None else f"{100 * done.reported:.2f} %"
    print(f"test accuracy: {100 * done.test_accuracy:.2f} %, reported: {reported}")
    print(f"trained: {out}")


def _load(path: Path, model: str | None) -> "Ticket":
    from tombola import ticket

    return ticket.load(path, build=_factory(model))


def _factory(model: str | None) -> "Factory | None":
    """Give what builds the network that the caller names, for start values that the seed draws."""
    if model is None:
        return None
    from functools import partial

    from tombola import models

    return models.from_path(model) if ":" in model else partial(models.build, model)


def _lineage(found: "Ticket") -> "Table":
    from rich.table import Table

    table = Table(title="lineage")
    for heading in ("level", "kept", "density"):
        table.add_column(heading, justify="right")
    for entry in found.lineage:
        density = f"{100 * entry['kept'] / entry['total']:.2f} %" if entry["total"] else ""
        table.add_row(str(entry["level"]), f"{entry['kept']:,}", density)
    return table


def _check_other(path: Path, out: Path) -> None:
    """Refuse to write over the ticket itself."""
    if out.exists() and path.exists() and out.samefile(path):
        raise InvalidValue(f"{out} is the ticket itself, and would be lost. Choose another file for --out.")


def _recorded(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Give the tied names that the search wrote down; anything else in their place counts as none."""
    tied = provenance.get("tied")
    return {str(name): str(other) for name, other in tied.items()} if isinstance(tied, Mapping) else {}


def _tied(provenance: Mapping[str, Any], model: str) -> dict[str, str]:
    """Give the further names of tied parameters, which only the network knows."""
    from tombola import models

    shape, classes = provenance.get("input_shape"), provenance.get("classes")
    if ":" in model and shape is None and classes is None:
        # Found in a loop of the user's own; a factory that asks for neither can be called all the same.
        shape, classes = [], 0
    if not isinstance(shape, list) or not all(type(n) is int for n in shape) or type(classes) is not int:
        raise InvalidValue(
            "the ticket does not say the shape of its inputs and the number of classes, without which its network "
            "cannot be built. Leave --model out, and load the file with strict=False."
        )
    if ":" in model:
        return models.tied_names(models.call_factory(models.from_path(model), tuple(shape), classes))
    return models.tied_names(models.build(model, tuple(shape), classes))


def _overlap_json(one: "Overlap") -> dict[str, Any]:
    return {"first": one.first, "second": one.second, "both": one.shared, "size": one.size, "jaccard": one.jaccard}


def _plain(value: Any) -> str:
    """Give text as it is where a terminal may be shown it, and as JSON where it holds control characters."""
    return value if isinstance(value, str) and value.isprintable() else dumps(value)


def _short(value: Any) -> str:
    text = dumps(value)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."
