"""``tombola ticket``: look at a ticket file, and check it."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from tombola.cli.words import print_json

app = App(name="ticket", help="Look at a ticket file, and check it.")


@app.command
def show(
    path: Path,
    /,
    *,
    json: Annotated[bool, Parameter(help="Print one JSON object and nothing else.", negative="")] = False,
) -> None:
    """Say what a ticket is: its network, density, origin and verdict.

    Args:
        path: The ticket file.
    """
    from tombola import ticket
    from tombola.prune.masks import per_layer

    found = ticket.load(path)
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
    for key in ("model", "data", "strategy", "rewind", "level", "replicate", "seed", "verdict_sentence"):
        if key in about:
            screen.print(f"{key.replace('_', ' ')}: {about[key]}")
    screen.print(f"digest: {found.digest}")


@app.command
def verify(
    path: Path,
    /,
    *,
    json: Annotated[bool, Parameter(help="Print one JSON object and nothing else.", negative="")] = False,
) -> int:
    """Check a ticket file; exit code 0 if everything holds, 1 if not.

    Recomputes the content hash, the counts, the densities and the shapes. Nothing in the file is executed.

    Args:
        path: The ticket file.
    """
    from tombola import ticket

    verification = ticket.verify(path)
    if json:
        print_json({"ok": verification.ok, "checks": [vars(check) for check in verification.checks]})
    else:
        for check in verification.checks:
            print(f"{'ok   ' if check.ok else 'FAIL '} {check.name}: {check.sentence}")
        print(f"{path}: {'everything holds' if verification.ok else 'this ticket cannot be trusted'}")
    return 0 if verification.ok else 1
