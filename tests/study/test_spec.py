"""A study is read from TOML with errors that name the field, and its key says what is run and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.errors import InvalidValue, UnknownName
from tombola.search.settings import Settings
from tombola.study.library import CLAIMS, SIZES, STUDIES, claims_of, named
from tombola.study.spec import Spec, canonical_settings, from_toml

TOML = """
name = "mine"
title = "A study"
claims = ["lenet-21-earlier"]

[common]
data = "mnist"
replicates = 3
[common.recipe]
iterations = 4e3

[searches.iterative]
rounds = 5
density = "20 %"

[searches.one-shot]
strategy = "one-shot"
recipe.lr = 0.001
"""


def test_a_search_takes_from_common_what_it_does_not_say() -> None:
    spec = from_toml(TOML)
    iterative, one_shot = spec.searches["iterative"], spec.searches["one-shot"]
    assert (iterative.data, iterative.replicates, iterative.rounds, iterative.density) == ("mnist", 3, 5, 0.2)
    assert iterative.recipe == {"iterations": 4000}
    assert one_shot.recipe == {"iterations": 4000, "lr": 0.001}
    assert [claim.name for claim in claims_of(spec)] == ["lenet-21-earlier"]


@pytest.mark.parametrize(("text", "value"), [("0.7 %", 0.007), ("20%", 0.2), ("0.1", 0.1), ("1e-1", 0.1)])
def test_a_fraction_is_the_number_that_it_says(text: str, value: float) -> None:
    assert from_toml(TOML.replace("20 %", text)).searches["iterative"].density == value


def test_toml_round_trip() -> None:
    spec = from_toml(TOML)
    again = from_toml(spec.to_toml())
    assert again == spec
    assert again.key == spec.key


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("size", SIZES)
def test_every_named_study_is_one(name: str, size: str) -> None:
    spec = named(name, size)
    assert from_toml(spec.to_toml()) == spec
    assert {claim.name for claim in claims_of(spec)} <= set(CLAIMS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('name = "mine"\nnam = 3', "no field of the study is called 'nam'. Did you mean 'name'?"),
        ("replicates = 3\nreplicats = 3", "no field of common is called 'replicats'.*'replicates'"),
        ("rounds = 5\nroundz = 3", "no field of searches.iterative is called 'roundz'.*'rounds'"),
        ("rounds = 5\nrecipe.lr = 'fast'", "searches.iterative: lr is 'fast'; expected a number"),
        ("rounds = 5\nrecipe.lr = true", "searches.iterative: lr is True; expected a number"),
        ("rounds = 5\nrecipe.optimizer = 3", "searches.iterative: optimizer is 3; expected text"),
        ("rounds = 5\nrecipe.nesterov = 'yes'", "searches.iterative: nesterov is 'yes'; expected true or false"),
        ("rounds = 5\nstrategy = 'imps'", "searches.iterative: no strategy is called 'imps'. Did you mean 'imp'?"),
        ("rounds = 5\nrate = 2.0", "searches.iterative: .*rate"),
        ("rounds = 5.5", "searches.iterative: rounds is 5.5; expected a whole number"),
        ("rounds = true", "searches.iterative: rounds is True; expected a whole number"),
        ("rounds = 5\ncontrols = 'reinit'", "controls is 'reinit'; expected a list"),
        ("rounds = 5\nrecipe.lrr = 1", "no field of searches.iterative.recipe is called 'lrr'. Did you mean 'lr'"),
        ("rounds = 5\nrecipe.lr = -1.0", "searches.iterative: lr is -1.0"),
        ("rounds = 5\nrecipe.iterations = 'many'", "iterations is 'many'; expected a whole number"),
        ("rounds = 5\nmargin = 'some'", "margin is 'some'; expected a fraction"),
        ("rounds = 5\nrecipe = 3", "recipe is 3; expected a table"),
        ("rounds = 5\ndata = 3", "searches.iterative: .*data"),
    ],
)
def test_a_wrong_field_is_named(change: str, words: str) -> None:
    first = change.splitlines()[0].partition(" =")[0]
    line = {"name": 'name = "mine"', "replicates": "replicates = 3", "rounds": "rounds = 5"}[first]
    with pytest.raises(InvalidValue, match=words):
        from_toml(TOML.replace(line, change).replace('density = "20 %"', ""))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "is no TOML"),
        ("searches = {}", "has no name"),
        ('name = "x"', "has no searches"),
        ('name = "Not so"\n[searches.a]', "lower-case words with hyphens"),
        ('name = "x"\n[searches."../b"]', "lower-case words with hyphens"),
        ('name = "x"\nschema = 7\n[searches.a]', "schema 7"),
        ('name = "x"\n[searches.store]', "called 'store'"),
        ('name = "x"\nclaims = "all"\n[searches.a]', "claims is 'all'; expected a list"),
        ('name = "x"\nsearches = 3', "searches is 3; expected a table"),
        ('name = "x"\nschema = true\n[searches.a]', "schema True; this version reads 1"),
        (f'name = "{"a" * 65}"\n[searches.a]', "the study is called .* at most 64 characters"),
        (f'name = "x"\n[searches.{"a" * 65}]', "a search is called .* at most 64 characters"),
        (f"name = {'[' * 3000}{']' * 3000}", "lists in lists"),
        (f'name = "x"\n[searches.a]\ncontrols = {"[" * 40}{"]" * 40}', "controls.* is nested 9 deep"),
        (f'name = "x"\n[searches.{".".join("a" * 3000)}]', "is nested 9 deep"),
        (f'name = "x"\n[searches.a]\nrounds = {"9" * 5000}', "a number of thousands of digits"),
        (f'name = "x"\n[searches.a]\nrounds = 0x{"F" * 6000}', "searches.a.rounds is a whole number beyond 64 bits"),
        (f'name = "x"\n[searches.a]\nrecipe.lr = 0x{"F" * 6000}', "searches.a.recipe.lr is a whole number beyond 64"),
        (f'name = "x"\n[searches.a]\nrecipe.milestones = [1, {2**63}]', "milestones.1 is a whole number beyond 64"),
        ('name = "x"\n[searches.a]\nrecipe.iterations = 1e300', "iterations is 1e.300; expected a whole number"),
        (f'name = "x"\n[searches.a]\nrewind = "step:{"9" * 5000}"', "^searches.a: "),
    ],
)
def test_what_is_no_study_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        from_toml(text)


@pytest.mark.parametrize("text", ["1e400", "1e-99999999", "1e-9_9_9_9_9", "1/0", "nan", "0." + "3" * 40, "1/3/"])
def test_a_fraction_that_is_none_or_absurd_is_refused_at_once(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"searches.a: density is .*; expected a fraction"):
        from_toml(f'name = "x"\n[searches.a]\ndensity = "{text}"')


def test_names_of_64_characters_and_a_byte_order_mark_are_read() -> None:
    name = "a" * 64
    spec = from_toml(f'\ufeffname = "{name}"\n[searches.{name}]\ndensity = "1/3"')
    assert (spec.name, spec.searches[name].density) == (name, 1 / 3)


def test_an_unknown_claim_is_refused() -> None:
    with pytest.raises(UnknownName, match="lenet-21-earlier"):
        claims_of(Spec("x", {"a": Settings()}, claims=("lenet-21-earlie",)))


SPELLINGS = [
    (Settings(), Settings(rate=0.2)),
    (Settings(), Settings(rounds=12)),
    (Settings(), Settings(model="lenet-300-100")),
    (Settings(data="cifar-10"), Settings(data="cifar-10", model="conv-2")),
    (Settings(), Settings(recipe={})),
    (Settings(), Settings(recipe={"iterations": 200, "lr": 4e-3})),
    (Settings(data="mnist"), Settings(data="mnist", recipe={"iterations": 50_000, "eval_every": 100})),
    (Settings(gates=(0.5, 0.2)), Settings(gates=(0.2, 0.5, 0.5))),
    (Settings(controls=("reinit", "shuffle")), Settings(controls=("shuffle", "reinit"))),
    (Settings(), Settings(workers=7)),
    (Settings(recipe={"lr": 1}), Settings(recipe={"lr": 1.0})),
    (Settings(), Settings(recipe={"weight_decay": 0})),
    (Settings(margin=0), Settings(margin=0.0)),
]


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_two_spellings_of_one_run_are_one_run(one: Settings, other: Settings) -> None:
    assert canonical_settings(one) == canonical_settings(other)
    assert Spec("a", {"x": one}).key == Spec("b", {"x": other}, title="another title").key


@pytest.mark.parametrize(
    "other",
    [
        Settings(seed=1),
        Settings(rate=0.3),
        Settings(rounds=11),
        Settings(strategy="one-shot"),
        Settings(recipe={"iterations": 201}),
        Settings(recipe={"eval_every": 7}),
        Settings(gates=(0.5,)),
        Settings(controls=("reinit",)),
        Settings(margin=0.02),
        Settings(data="mnist"),
    ],
)
def test_what_changes_the_result_changes_the_key(other: Settings) -> None:
    assert Spec("a", {"x": Settings()}).key != Spec("a", {"x": other}).key


@given(st.permutations(["reinit", "shuffle", "permute", "sign"]), st.integers(0, 5), st.sampled_from([0.2, 0.1, 0.5]))
def test_canonical_settings_are_json_and_settle(controls: list[str], seed: int, rate: float) -> None:
    settings = Settings(controls=tuple(controls), seed=seed, rate=rate)
    found = canonical_settings(settings)
    assert json.loads(json.dumps(found)) == found


GOLDEN = {
    "lenet-mnist smoke": "660fc6ad35de616f",
    "lenet-mnist small": "c80518f938ef5487",
    "lenet-mnist paper": "a8e59dd7ed22f8a8",
    "pruning-methods smoke": "091299042040eae9",
    "pruning-methods small": "fef4d5ae721f350d",
    "pruning-methods paper": "2dfd088370f369f0",
    "cheaper smoke": "d0159c7353fdcd62",
    "cheaper small": "2b3bcd797f267927",
    "cheaper paper": "3b5499c889bb2375",
    "cheaper-fashion smoke": "bdc5407a0cd1520a",
    "cheaper-fashion small": "1b7f7db9584272f4",
    "cheaper-fashion paper": "3e557c1fc89e0742",
    "cheaper-conv smoke": "4b6777cd14cf9ff3",
    "cheaper-conv small": "4580a073ce280d7b",
    "cheaper-conv paper": "9736af153b2394cb",
    "own": "243cd2f928a6614c",
}
"""Keys of earlier versions: a new option with a default changes none of them."""


def test_old_keys_stay() -> None:
    found = {f"{name} {size}": named(name, size).key[:16] for name in STUDIES for size in SIZES}
    found["own"] = from_toml(TOML).key[:16]
    assert found == GOLDEN
