"""``tombola judge``: the verdict on anyone's numbers."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tombola.cli.words import densities, print_json

_MARGIN = 0.005


def judge(
    results: Path,
    /,
    *,
    score: Annotated[
        str,
        Parameter(
            help="What the test_accuracy columns hold: accuracy, or any score of which more is better; "
            "--score=-loss for a name that begins with a dash."
        ),
    ] = "accuracy",
    margin: Annotated[
        float | None,
        Parameter(
            help="How much of the score may be lost: of accuracy a fraction. "
            f"[default: {_MARGIN:g} for accuracy, none for another score]"
        ),
    ] = None,
    gates: Annotated[
        str | None, Parameter(help="Comma list of densities at which to certify. [default: every density in the file]")
    ] = None,
    alpha: Annotated[float, Parameter(help="Error rate of each certificate.")] = 0.05,
    json: Annotated[bool, Parameter(help="Print one JSON object and nothing else.", negative="")] = False,
) -> None:
    """Judge a table of results: does the ticket match the dense network, and does it beat its controls?

    RESULTS is a CSV with the columns replicate, density, arm, test_accuracy and, if known, early_stop_iteration.
    Accuracies and densities are fractions. The dense network is arm ticket at density 1, one row per dense run.

    Args:
        results: The CSV file.
    """
    from tombola import stats

    scale = stats.Scale(score)
    allowed = scale.check_margin(_MARGIN if margin is None and scale.is_accuracy else margin)
    table = stats.read_csv(results, score=scale)
    chosen = densities(gates) or table.densities
    judgement = stats.judge(table, margin=allowed, gates=chosen, alpha=alpha, score=scale)
    if json:
        print_json(stats.as_json(judgement))
    else:
        from tombola.cli.verdicts import show_judgement

        show_judgement(judgement)
