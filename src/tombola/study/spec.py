"""What a study is: named searches on data sets, as plain values, to and from TOML."""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any, Final, final

import tomli_w

from tombola import canonical
from tombola.errors import InvalidValue, TombolaError, UnknownName
from tombola.prune.catalogue import STRATEGIES
from tombola.search.settings import DEFAULT_RATE, Settings
from tombola.train.presets import default_model, preset
from tombola.train.recipe import Recipe

SCHEMA: Final = 1
_TOP: Final = ("schema", "name", "title", "claims", "common", "searches")
_FRACTIONS: Final = ("round_data", "density", "rate", "densities", "margin", "alpha", "gates")
_WHOLE: Final = ("rounds", "extra", "round_iterations", "replicates", "dense_runs", "min_keep", "seed", "workers")
_WHOLE_RECIPE: Final = ("iterations", "batch_size", "eval_every", "warmup", "milestones")
_NUMBERS: Final = ("lr", "momentum", "weight_decay", "gamma", *_FRACTIONS)
_TEXTS: Final = ("optimizer", "schedule", "loss", "augment")
_LISTS: Final = ("controls", "exclude", "gates", "densities")
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST: Final = 64
"""Characters of a name: a folder is called by it."""
_WRITTEN: Final = re.compile(r"[^eE]{1,32}([eE].{1,4})?")
"""A fraction's text; of 1e-99999999 Fraction makes a number of a hundred million digits."""
_DEEPEST: Final = 8
_BEYOND: Final = 2**63
_SETTINGS: Final = tuple(field.name for field in fields(Settings))
_RECIPE: Final = tuple(field.name for field in fields(Recipe))


@final
@dataclass(frozen=True)
class Spec:
    """A study.

    Attributes:
        name: lower-case words with hyphens, at most 64 characters, as each search's.
        title: for a person.
        searches: name -> settings; each is a search of its own, and they share what they have in common.
        claims: names of published claims to settle; see :mod:`tombola.study.claims`.
    """

    name: str
    searches: Mapping[str, Settings]
    title: str = ""
    claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, word in (("the study", self.name), *(("a search", name) for name in self.searches)):
            if not isinstance(word, str) or not _NAME.fullmatch(word) or len(word) > _LONGEST:
                raise InvalidValue(
                    f"{what} is called {word!r:.80}; expected lower-case words with hyphens, at most {_LONGEST} "
                    "characters in all."
                )
        if "store" in self.searches:
            raise InvalidValue("a search is called 'store', where a study keeps its units. Call it something else.")
        if not self.searches:
            raise InvalidValue(f"the study {self.name!r} has no searches. Write at least [searches.NAME].")
        for name, settings in self.searches.items():
            if not isinstance(settings.criterion, str):
                raise InvalidValue(f"searches.{name}: a study names its criterion; give 'package.module:function'.")

    @property
    def key(self) -> str:
        """Identify what is run: equal for two spellings of one study, and not changed by a new option's default."""
        searches = {name: canonical_settings(settings) for name, settings in sorted(self.searches.items())}
        return hashlib.sha256(canonical.dumps({"schema": SCHEMA, "searches": searches}).encode()).hexdigest()

    def to_toml(self) -> str:
        """Write the study as a file that :func:`from_toml` reads into an equal one."""
        top: dict[str, Any] = {"schema": SCHEMA, "name": self.name, "title": self.title, "claims": list(self.claims)}
        given = {name: _given(settings) for name, settings in self.searches.items()}
        return tomli_w.dumps({**top, "searches": given})


def from_toml(text: str, where: str = "the study") -> Spec:
    """Read a study.

    Args:
        text: TOML: ``name``, ``title``, ``claims``, ``[common]`` and ``[searches.NAME]`` with the fields of
            :class:`~tombola.search.settings.Settings`; a search takes what it does not say from ``common``, and the
            fields of its ``recipe`` one by one. Fractions may be written as ``"20 %"``.
        where: the file, for messages.

    Raises:
        UnknownName: a field that does not exist, with the nearest that does.
        InvalidValue: a value of the wrong type, or out of its range; the message names the field.
    """
    top = _parsed(text, where)
    for name in top:
        if name not in _TOP:
            raise UnknownName.among(f"field of {where}", name, _TOP)
    schema = top.get("schema", SCHEMA)
    if isinstance(schema, bool) or schema != SCHEMA:
        raise InvalidValue(
            f"{where} has schema {schema!r:.20}; this version reads {SCHEMA}. Write that, or update tombola."
        )
    common = _table(top.get("common", {}), "common", where)
    searches = _table(top.get("searches", {}), "searches", where)
    for field in common:
        if field not in _SETTINGS:
            raise UnknownName.among("field of common", field, _SETTINGS)
    for name in ("name", "title"):
        if not isinstance(top.get(name, ""), str):
            raise InvalidValue(f"{where}: {name} is {top[name]!r:.60}; expected text.")
    claims = top.get("claims", [])
    if not isinstance(claims, list) or not all(isinstance(one, str) for one in claims):
        raise InvalidValue(f"{where}: claims is {claims!r:.60}; expected a list of text.")
    if "name" not in top:
        raise InvalidValue(f'{where} has no name. Write name = "my-study" at its top.')
    return Spec(
        name=top["name"],
        title=top.get("title", ""),
        claims=tuple(claims),
        searches={
            name: _settings(name, common, _table(own, f"searches.{name}", where)) for name, own in searches.items()
        },
    )


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        top = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidValue(f"{where} is no TOML: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidValue(
            f"{where} has a number of thousands of digits, or lists in lists by the hundred; no field takes either. "
            "Take them out."
        ) from error
    for name, value in top.items():
        _check_size(name, value)
    return top


def _check_size(name: str, value: Any, depth: int = 0) -> None:
    """Refuse what is too long or too deep to be shown in a message."""
    if isinstance(value, int) and abs(value) >= _BEYOND:
        raise InvalidValue(f"{name} is a whole number beyond 64 bits; no field takes one. Write a smaller one.")
    if depth > _DEEPEST:
        raise InvalidValue(f"{name} is nested {depth} deep; no field is. Write fewer brackets and dots.")
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        _check_size(f"{name}.{key}", one, depth + 1)


def canonical_settings(settings: Settings) -> dict[str, Any]:
    """Give what decides a search's result, in one spelling: what equals the default is left out.

    Example:
        >>> canonical_settings(Settings(rate=0.2, seed=3, recipe={"iterations": 200}))
        {'seed': 3}
    """
    values = {name: value for name, value in settings.as_json().items() if value != _DEFAULTS[name]}
    model = settings.model or default_model(settings.data)
    if settings.model == default_model(settings.data):
        del values["model"]
    if settings.rate == DEFAULT_RATE:
        del values["rate"]
    if settings.rounds is not None and settings.rounds == replace(settings, rounds=None).levels:
        del values["rounds"]
    for name in _LISTS:
        if name in values:
            values[name] = sorted(set(values[name] or ()))
            if values[name] == sorted(_DEFAULTS[name] or ()):
                del values[name]
    for name in values.keys() & {"density", "rate", "round_data", "margin", "alpha"}:
        values[name] = float(values[name])
    values.pop("recipe", None)
    if recipe := _canonical_recipe(dict(settings.recipe or {}), model, settings.data):
        values["recipe"] = recipe
    return dict(sorted(values.items()))


def _canonical_recipe(changes: dict[str, Any], model: str, data: str) -> dict[str, Any]:
    """Leave out what changes nothing: what the preset says already, or what follows from the rest."""
    base = preset(model, data)
    wanted = base.recipe(**changes)
    for name in sorted(changes):
        without = {other: value for other, value in changes.items() if other != name}
        try:
            same = base.recipe(**without) == wanted
        except InvalidValue:
            same = False
        if same:
            changes = without
    # As the recipe has them: a whole number for a rate is the same rate.
    values = {name: getattr(wanted, name) for name in sorted(changes)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _settings(name: str, common: Mapping[str, Any], own: Mapping[str, Any]) -> Settings:
    where = f"searches.{name}"
    recipe = {**_table(common.get("recipe", {}), "recipe", "common"), **_table(own.get("recipe", {}), "recipe", where)}
    values = {**common, **own, "recipe": recipe or None}
    for field in values:
        if field not in _SETTINGS:
            raise UnknownName.among(f"field of {where}", field, _SETTINGS)
    for field in recipe:
        if field not in _RECIPE:
            raise UnknownName.among(f"field of {where}.recipe", field, _RECIPE)
    try:
        read = {field: _read(field, value) for field, value in values.items() if field != "recipe"}
        inner = {field: _read(field, value) for field, value in recipe.items()}
        settings = Settings(**read, recipe=inner or None)
        # The recipe is made for its checks: a wrong one is said now and not when the study runs.
        preset(settings.model or default_model(settings.data), settings.data).recipe(**inner)
    except UnknownName as error:
        raise UnknownName(f"{where}: {error}") from error
    except TombolaError as error:
        raise InvalidValue(f"{where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{where}: {error}.") from error
    return settings


def _read(field: str, value: Any) -> Any:
    """Bring a value into the unit and the type that settings have."""
    if field in _LISTS or field == "milestones":
        if not isinstance(value, list):
            raise InvalidValue(f"{field} is {value!r:.60}; expected a list.")
        return tuple(_one(field, part) for part in value)
    return _one(field, value)


def _one(field: str, value: Any) -> Any:
    if field in _FRACTIONS and isinstance(value, str):
        number = value.strip().removesuffix("%").strip()
        with suppress(ValueError, ZeroDivisionError, OverflowError):
            if _WRITTEN.fullmatch(number):
                # Exactly, so that "0.7 %" is 0.007 and no neighbour of it.
                return float(Fraction(number) / (100 if value.strip().endswith("%") else 1))
        raise InvalidValue(f'{field} is {value!r:.60}; expected a fraction, such as 0.2 or "20 %".')
    if field in (*_WHOLE, *_WHOLE_RECIPE):
        if isinstance(value, float) and value.is_integer() and abs(value) < _BEYOND:
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidValue(f"{field} is {value!r:.60}; expected a whole number.")
    if field in _NUMBERS:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InvalidValue(f"{field} is {value!r:.60}; expected a number.")
        return float(value)
    if field in _TEXTS and not isinstance(value, str):
        raise InvalidValue(f"{field} is {value!r:.60}; expected text.")
    if field in ("nesterov", "recalibrate", "sequential") and not isinstance(value, bool):
        raise InvalidValue(f"{field} is {value!r:.60}; expected true or false.")
    return value


def _given(settings: Settings) -> dict[str, Any]:
    """Give the fields that differ from their defaults, as TOML has them."""
    found = {}
    for name in _SETTINGS:
        value = getattr(settings, name)
        usual = STRATEGIES[settings.strategy].criterion if name == "criterion" else _DEFAULTS[name]
        if value != usual and value is not None:
            found[name] = list(value) if isinstance(value, tuple) else value
    if settings.recipe:
        found["recipe"] = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.recipe.items()}
    return found


def _table(value: Any, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue(f"{where}: {name} is {value!r:.60}; expected a table, [{name}].")
    return value


_DEFAULTS: Final = {field.name: getattr(Settings(), field.name) for field in fields(Settings)}
