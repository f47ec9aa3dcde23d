"""What a schedule must do: cuts that exist, and never a level denser than the one before it."""

from fractions import Fraction
from typing import Any, Final

from tombola.prune.counting import Cut
from tombola.prune.schedules import Schedule
from tombola.testing.world import left_alone

LEVELS: Final = 50


def check_schedule(schedule: Schedule, *, levels: int = LEVELS) -> None:
    """Hold a schedule to its contract.

    Every level has a cut of exactly one kind, in exact numbers, the same one each time it is asked and in whatever
    order: a rate above 0 and below 1, a density above 0 and at most 1, or a number of weights of at least 1. No level
    keeps more than the one before it.

    Args:
        schedule: ``level -> Cut``.
        levels: how many are asked for, from 1 on; a search may ask for any.

    Raises:
        AssertionError: with a sentence naming what broke.

    Example:
        >>> from tombola.prune.schedules import ladder
        >>> check_schedule(ladder(0.2))
    """
    with left_alone("the schedule", "(levels from 1 on)"):
        cuts = [_asked(schedule, level) for level in range(1, levels + 1)]
        for level in reversed(range(1, levels + 1)):
            again = _asked(schedule, level)
            assert again == cuts[level - 1], f"the schedule gives level {level} another cut when it is asked again"
    left, most = Fraction(1), None
    for level, cut in enumerate(cuts, 1):
        _check_cut(cut, level)
        if cut.rate is not None:
            left *= 1 - cut.rate
        elif cut.density is not None:
            assert cut.density <= left, (
                f"level {level} keeps {float(cut.density):g} of the weights, and {float(left):g} are left before it; "
                "a mask never grows"
            )
            left = cut.density
        else:
            assert cut.keep is not None
            assert most is None or cut.keep <= most, (
                f"level {level} keeps {cut.keep} weights, and a level before it {most}; a mask never grows"
            )
            most = cut.keep


def _asked(schedule: Schedule, level: int) -> Any:
    try:
        return schedule(level)
    except Exception as error:
        raise AssertionError(f"the schedule failed at level {level} with {type(error).__name__}: {error}") from error


def _check_cut(cut: Any, level: int) -> None:
    assert isinstance(cut, Cut), f"the schedule gave level {level} a {type(cut).__name__}, not a Cut"
    given = {name: value for name, value in vars(cut).items() if value is not None}
    assert len(given) == 1, f"the cut of level {level} has {' and '.join(given) or 'nothing'}; it has one of them"
    ((name, value),) = given.items()
    kinds = (int,) if name == "keep" else (int, Fraction)
    assert isinstance(value, kinds), (
        f"the {name} of level {level} is the {type(value).__name__} {value!r}, not exact; write Fraction(1, 5), or "
        "read it with tombola.prune.counting.exact"
    )
    if name == "rate":
        assert 0 < value < 1, f"the rate of level {level} is {float(value):g}; it lies between 0 and 1"
    elif name == "density":
        assert 0 < value <= 1, f"the density of level {level} is {float(value):g}; it is above 0 and at most 1"
    else:
        assert value >= 1, f"level {level} keeps {value} weights; it keeps at least 1"
