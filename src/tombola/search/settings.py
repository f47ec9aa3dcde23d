"""What a search is asked to do: plain values, validated, torch-free."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, final

from tombola.errors import ImpossibleDensity, InvalidValue, UnknownName
from tombola.prune.catalogue import STRATEGIES, Strategy

if TYPE_CHECKING:
    from tombola.prune.evidence import Criterion

DEFAULT_RATE: Final = 0.2
DEFAULT_ROUNDS: Final = 12
DEFAULT_CONTROLS: Final = ("reinit", "shuffle")

_MOST: Final = {
    "replicates": 1000,
    "dense_runs": 1000,
    "rounds": 1000,
    "workers": 1024,
    "extra": 10**9,
    "round_iterations": 10**9,
}
"""Bounds that only a slip of the keyboard exceeds."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How subnetworks are found and judged, whatever the network, the data and the loop.

    Attributes:
        strategy: a key of :data:`tombola.prune.catalogue.STRATEGIES`.
        density: fraction of the prunable weights to keep at the end.
        rounds: levels after the dense one.
        rate: fraction of the survivors pruned in a round; not together with ``density``.
        densities: of each level after the dense one, falling; in place of the three above.
        source: folder of the finished search that ``transfer`` takes masks from.
        criterion: name, dotted path, or the function itself; ``None`` for the strategy's.
        allocation: name or dotted path; ``None`` for what suits the strategy, the criterion and the network.
        structure: what is pruned together: ``none``, ``N:M``, ``block:RxC``, ``neurons`` or ``heads``.
        min_keep: weights kept in every tensor at least; 0 stops with an error where one would be emptied.
        scope: what is pruned, a key of :data:`tombola.prune.scope.PRESETS`.
        exclude: parameters to leave dense, by name or shell pattern.
        rewind: ``init``, ``step:K`` or ``lr``.
        extra: iterations of each fine-tuning; ``None`` for as many as the dense run had.
        recalibrate: take batch norm's statistics anew after a cut whose survivors keep their trained weights.
        round_iterations: of what is trained between two cuts; ``None`` for the strategy's.
        round_data: share of the training examples that it sees; ``None`` for all.
        controls: names; each once and in order, a number in it in one spelling.
        replicates: families; with ``sequential`` at most.
        sequential: add families in looks until the verdict is settled at every gate.
        dense_runs: dense runs per family.
        gates: densities at which the verdict is certified.
        margin: what may be lost, in the score's own unit (accuracy: a fraction); ``None`` for the data set's.
        alpha: error rate of each certificate.
        seed: of everything random.
    """

    strategy: str = "imp"
    density: float | None = None
    rounds: int | None = None
    rate: float | None = None
    densities: tuple[float, ...] | None = None
    source: str | None = None
    criterion: "str | Criterion | None" = None
    allocation: str | None = None
    structure: str = "none"
    min_keep: int = 0
    scope: str = "weights"
    exclude: tuple[str, ...] = ()
    rewind: str = "init"
    extra: int | None = None
    recalibrate: bool = False
    round_iterations: int | None = None
    round_data: float | None = None
    controls: tuple[str, ...] = DEFAULT_CONTROLS
    replicates: int = 5
    sequential: bool = False
    dense_runs: int = 3
    gates: tuple[float, ...] | None = None
    margin: float | None = None
    alpha: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        # An arm draws by its name: noise:0.50 would be another arm than noise:0.5. Their order decides nothing.
        object.__setattr__(self, "controls", tuple(sorted(set(map(_one_spelling, self.controls)))))
        object.__setattr__(self, "exclude", tuple(sorted(set(self.exclude))))
        if self.strategy not in STRATEGIES:
            raise UnknownName.among("strategy", self.strategy, STRATEGIES)
        strategy = STRATEGIES[self.strategy]
        if self.criterion is None:
            object.__setattr__(self, "criterion", strategy.criterion)
        _check_bounds(self, "replicates", "dense_runs", "rounds", "extra", "round_iterations")
        if self.min_keep < 0:
            raise InvalidValue(f"min-keep is {self.min_keep}; it is at least 0.")
        if self.density is not None and not 0 < self.density < 1:
            raise ImpossibleDensity(
                f"the density is {self.density:g}; it is the fraction of weights kept, above 0 and below 1."
                + (f" For {self.density:g} % write {self.density / 100:g}." if 1 < self.density <= 100 else "")
            )
        if self.rate is not None and not 0 < self.rate < 1:
            raise InvalidValue(f"the rate is {self.rate:g}; a round removes a fraction between 0 and 1, such as 0.2.")
        if self.density is not None and self.rate is not None:
            raise InvalidValue(
                "a density and a rate were both given, and a density with a number of rounds sets the rate. "
                "Give one of them."
            )
        _check_densities(self)
        if not 0 < self.alpha < 0.5:
            raise InvalidValue(f"alpha is {self.alpha:g}; an error rate lies between 0 and 0.5.")
        if self.gates is not None and not self.gates:
            raise InvalidValue("there are no gates, and the verdict is certified at one at least; None for the usual.")
        for gate in self.gates or ():
            if not 0 < gate < 1:
                raise InvalidValue(f"the gate {gate:g} is no density; densities lie between 0 and 1.")
        if not 0 <= self.seed < 2**63:
            raise InvalidValue(f"the seed is {self.seed}; it lies between 0 and 2^63 - 1.")
        if self.rewind != "init" and not strategy.rewinds:
            raise InvalidValue(
                f"the strategy {self.strategy} says itself what survivors restart from; it takes no rewind. Those that "
                f"take one: {', '.join(name for name, one in STRATEGIES.items() if one.rewinds)}."
            )
        if self.extra is not None and self.strategy not in FINE_TUNING:
            raise InvalidValue(f"extra is the length of a fine-tuning, and {self.strategy} has none. Leave it out.")
        if self.sequential and self.replicates < _FIRST_LOOK:
            raise InvalidValue(
                f"families are added from {_FIRST_LOOK} on, and at most {self.replicates} are asked for. Give at least "
                f"{_FIRST_LOOK}, or a number of replicates without auto."
            )
        _check_rounds(self, strategy)
        _check_source(self)
        if self.recalibrate and self.strategy not in KEEPING and self.rewind != "lr":
            raise InvalidValue(
                f"recalibrate takes batch norm's statistics anew where survivors keep their trained weights, and under "
                f"{self.strategy} they do not. Leave it out, or use {', '.join(KEEPING)}."
            )
        if self.strategy == "at-init" and self.criterion in _AFTER_TRAINING:
            raise InvalidValue(
                f"{self.criterion} looks at what training did to the weights, and at-init prunes before there is any. "
                "Use snip, grasp, synflow or magnitude, or another strategy."
            )
        if self.strategy in ("set", "rigl") and self.criterion != strategy.criterion:
            raise InvalidValue(
                f"{self.strategy} starts with a random mask and says itself what is dropped and grown; it takes no "
                "criterion. Leave it out."
            )
        if self.strategy == "gem-miner" and self.criterion != strategy.criterion:
            raise InvalidValue(
                f"gem-miner prunes by the scores that it learns; it takes no criterion, and this is "
                f"{self.criterion!r}. Leave it out."
            )
        if (strategy.grows or self.strategy in MOVING) and self.structure != "none":
            raise InvalidValue(
                f"{self.strategy} changes single weights while the network trains; it takes no structure. Use imp, "
                "one-shot, finetune or at-init."
            )
        rewind_step(self.rewind)

    @property
    def _grows(self) -> bool:
        return STRATEGIES[self.strategy].grows

    @property
    def levels(self) -> int:
        """How many cuts follow the dense level."""
        if self.densities is not None:
            return len(self.densities)
        if self.rounds is not None:
            return self.rounds
        if self.density is not None and (self.strategy in AT_ONCE or self._grows):
            return 1
        return DEFAULT_ROUNDS


@final
@dataclass(frozen=True, kw_only=True)
class Settings(Method):
    """A search on a data set with our own trainer; ``None`` leaves the choice to the model and the data.

    Attributes:
        data: a data set's name, a path, or ``package.module:function``.
        model: a network's name, or ``package.module:factory``.
        engine: ``plain``, ``sparse``, ``replicas`` or ``auto``.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        workers: processes.
        recipe: changes to the model's recipe, by field of :class:`~tombola.train.recipe.Recipe`.
    """

    data: str = "digits"
    model: str | None = None
    engine: str = "auto"
    device: str = "cpu"
    workers: int | None = None
    recipe: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds(self, "workers")
        if self.margin is not None and not 0 <= self.margin < 0.5:
            raise InvalidValue(
                f"the margin is {self.margin:g}; it is a fraction of accuracy, at least 0 and below 0.5 "
                "(0.002 is 0.2 points)."
            )

    def as_json(self) -> dict[str, Any]:
        """Give what decides the result as plain values; the number of workers does not."""
        values = asdict(self)
        del values["workers"]
        lists = {name: list(values[name]) if values[name] else None for name in ("gates", "densities")}
        return {**values, **lists}


_KINDS: Final = {
    "text": ("strategy", "scope", "structure", "rewind", "allocation", "data", "model", "engine", "device", "source"),
    "a number": ("density", "rate", "margin", "alpha", "round_data"),
    "a whole number": (
        "rounds",
        "min_keep",
        "extra",
        "round_iterations",
        "replicates",
        "dense_runs",
        "seed",
        "workers",
    ),
    "true or false": ("recalibrate", "sequential"),
    "a list of text": ("exclude", "controls"),
    "a list of numbers": ("gates", "densities"),
}
_OPTIONAL: Final = {
    "allocation",
    "density",
    "rate",
    "densities",
    "margin",
    "rounds",
    "extra",
    "round_iterations",
    "round_data",
    "source",
    "gates",
    "model",
    "workers",
}

KEEPING: Final = ("lr-rewind", "finetune", "one-shot-finetune", "obd")
"""The strategies whose survivors keep their trained weights."""

BESIDE: Final = ("continued", "settled", "early-bird")
"""The strategies whose masks are made beside the tickets, which are trained at the gates alone."""

_AFTER_TRAINING: Final = (
    "movement",
    "magnitude-increase",
    "magnitude-increase-same-sign",
    "magnitude-increase-diff-sign",
    "large-final-diff-sign",
    "movement-pruning",
)
"""The criteria under which all initial weights are alike."""

_FIRST_LOOK: Final = 3
"""Fewer families support no verdict."""

_LAST_LOOK: Final = 12
"""Families at most, where none are asked for."""

MOVING: Final = ("gradual-rewind", "gem-miner")
"""The strategies whose masks come of a run in which they change, and are then rewound."""

AT_ONCE: Final = ("one-shot", "one-shot-finetune", "at-init", "early-bird", *MOVING)
"""The strategies that make every level's mask in one cut, or one run."""

FINE_TUNING: Final = ("finetune", "one-shot-finetune", "obd")
"""The strategies that go on with trained weights at the last learning rate."""


def _one_spelling(control: str) -> str:
    word, colon, number = control.partition(":")
    try:
        return f"{word}{colon}{repr(float(number)).removesuffix('.0')}" if colon else control
    except ValueError:
        return control


def _check_types(method: Method) -> None:
    """Refuse in Python what the command line's types refuse there."""
    for kind, names in _KINDS.items():
        for name in names:
            value = getattr(method, name, None)
            if not (value is None and (name in _OPTIONAL or not hasattr(method, name))) and not _is(kind, value):
                raise InvalidValue(f"{name.replace('_', '-')} is {value!r:.60}; expected {kind}.")
    if method.criterion is not None and not isinstance(method.criterion, str) and not callable(method.criterion):
        raise InvalidValue(
            f"criterion is {method.criterion!r:.60}; expected a name, or a function "
            "(params, masks, evidence) -> scores."
        )


def _is(kind: str, value: object) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind == "true or false":
        return isinstance(value, bool)
    if kind.startswith("a list"):
        inner = "text" if kind.endswith("text") else "a number"
        return isinstance(value, tuple) and all(_is(inner, one) for one in value)
    numbers = int if kind == "a whole number" else (int, float)
    return isinstance(value, numbers) and not isinstance(value, bool)


def _check_source(method: Method) -> None:
    if (method.strategy == "transfer") != (method.source is not None):
        raise InvalidValue(
            "transfer takes the masks of a finished search: give --source FOLDER, what its --out was."
            if method.source is None
            else f"source is where transfer takes masks from, and the strategy is {method.strategy}. Leave it out, or "
            "use --strategy transfer."
        )
    given = [name for name in ("density", "rounds", "rate", "densities", "allocation") if getattr(method, name)]
    if method.strategy == "transfer" and (given or method.structure != "none" or method.criterion != "magnitude"):
        raise InvalidValue(
            "transfer takes its masks as they are, so nothing is said of how they are made: leave out density, rounds, "
            "rate, densities, criterion, allocation and structure."
        )


def _check_rounds(method: Method, strategy: Strategy) -> None:
    given = [name for name in ("round_iterations", "round_data") if getattr(method, name) is not None]
    if given and not strategy.rounds:
        raise InvalidValue(
            f"{' and '.join(given).replace('_', '-')} {'is' if len(given) == 1 else 'are'} of the rounds that only the "
            f"search trains, and {method.strategy} has none of its own. Those that have: "
            f"{', '.join(name for name, one in STRATEGIES.items() if one.rounds)}."
        )
    if method.round_data is not None and not 0 < method.round_data <= 1:
        raise InvalidValue(f"round-data is {method.round_data:g}; it is a share of the examples, above 0 and up to 1.")
    if method.rewind == "lr" and (given or method.strategy in BESIDE):
        raise InvalidValue(
            f"{method.strategy} makes its masks apart from the tickets, which start from early values; rewind lr keeps "
            "the trained ones. Use --rewind init or step:K, or the strategy lr-rewind."
        )


def _check_densities(method: Method) -> None:
    if method.densities is None:
        return
    given = [name for name in ("density", "rate", "rounds") if getattr(method, name) is not None]
    if given:
        raise InvalidValue(f"densities say every level, so {' and '.join(given)} cannot be given beside them.")
    falling = all(after < before for before, after in pairwise(method.densities))
    if not method.densities or not falling or not all(0 < one < 1 for one in method.densities):
        raise ImpossibleDensity(
            f"the densities are {', '.join(f'{one:g}' for one in method.densities) or 'none'}; each is the fraction of "
            "weights kept, between 0 and 1, and below the one before it."
        )


def _check_bounds(method: Method, *names: str) -> None:
    for name in names:
        value = getattr(method, name)
        if value is not None and not 1 <= value <= _MOST[name]:
            raise InvalidValue(f"{name.replace('_', '-')} is {value}; it is at least 1 and at most {_MOST[name]:,}.")


def how_many(replicates: str | int) -> tuple[int, bool]:
    """Read a number of families, and whether they are added until the verdict is settled: ``auto`` or ``auto:N``.

    Raises:
        InvalidValue: anything else.

    Example:
        >>> how_many("5"), how_many("auto"), how_many("auto:8")
        ((5, False), (12, True), (8, True))
    """
    word, colon, number = str(replicates).partition(":")
    digits = (number if colon else str(_LAST_LOOK)) if word == "auto" else str(replicates)
    if not (digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= 18):
        raise InvalidValue(f"{replicates!r} is no number of replicates. Write a whole number, auto or auto:N.")
    return int(digits), word == "auto"


def rewind_step(text: str) -> int | None:
    """Read ``init``, ``lr`` (both ``None``) or ``step:K``.

    Raises:
        InvalidValue: anything else.
    """
    word, colon, number = text.partition(":")
    if word in ("init", "lr") and not colon:
        return None
    if word == "step" and number.isascii() and number.isdigit() and len(number) <= 18:
        return int(number)
    raise InvalidValue(f"{text!r} is no rewind. Known: init, step:K (such as step:100), lr.")
