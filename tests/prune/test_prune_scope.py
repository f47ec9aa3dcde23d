"""What may be pruned: never more than asked, and nothing left out in silence."""

import pytest
import torch
from torch import nn

from tombola.errors import InvalidValue, NothingToPrune, UnknownName
from tombola.models import kinds
from tombola.prune.scope import PRESETS, Scope, choose


class Zoo(nn.Module):
    """One of each kind of layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.table = nn.Embedding(5, 4)
        self.lstm = nn.LSTM(4, 3)
        self.attention = nn.MultiheadAttention(4, 2)
        self.layer_norm = nn.LayerNorm(4)
        self.theta = nn.Parameter(torch.zeros(2, 2))
        self.out = nn.Linear(4, 2)


BY_KIND = {
    "conv": {"conv.weight"},
    "linear": {"out.weight"},
    "attention": {"attention.in_proj_weight", "attention.out_proj.weight"},
    "recurrent": {"lstm.weight_ih_l0", "lstm.weight_hh_l0"},
    "embedding": {"table.weight"},
    "norm": {"norm.weight", "layer_norm.weight"},
    "bias": {
        "conv.bias", "norm.bias", "lstm.bias_ih_l0", "lstm.bias_hh_l0", "attention.in_proj_bias",
        "attention.out_proj.bias", "layer_norm.bias", "out.bias",
    },
    "other": {"theta"},
}  # fmt: skip


def scope_of(module: nn.Module, **how: object) -> Scope:
    """Choose over a module's parameters."""
    return choose(dict(module.named_parameters()), kinds(module), **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_prunes_its_kinds_and_lists_the_rest(preset: str) -> None:
    found = scope_of(Zoo(), preset=preset)
    names = [name for name, _ in Zoo().named_parameters()]
    assert set(found.prunable) == set().union(*(BY_KIND[kind] for kind in PRESETS[preset]))
    assert list(found.prunable) == [name for name in names if name in found.prunable], "the network's order"
    assert set(found.skipped) == set(names) - set(found.prunable)
    assert all(found.skipped.values()), "each with a reason"


def test_the_default_prunes_weights_and_says_why_the_rest_stays() -> None:
    found = scope_of(Zoo())
    assert not set(found.prunable) & (BY_KIND["bias"] | BY_KIND["norm"] | BY_KIND["embedding"])
    assert found.skipped["theta"] == "of a layer type that is not known"
    assert found.skipped["table.weight"] == "of kind embedding"
    assert found.skipped["norm.weight"] == "of kind norm"
    assert found.skipped["out.bias"] == "of kind bias"


def test_the_kinds_of_the_presets_are_those_that_models_gives() -> None:
    known = {"linear", "conv", "attention", "recurrent", "norm", "embedding", "bias", "other"}
    assert set().union(*PRESETS.values()) == known == set(BY_KIND)
    assert {kind: {n for n, k in kinds(Zoo()).items() if k == kind} for kind in known} == BY_KIND


def test_exclusions_are_honoured_and_listed() -> None:
    found = scope_of(Zoo(), exclude=["attention.*", "out.weight"])
    assert set(found.prunable) == BY_KIND["conv"] | BY_KIND["recurrent"]
    assert found.skipped["out.weight"] == "excluded by name"
    assert found.skipped["attention.in_proj_weight"] == "excluded by name"


def test_a_name_with_brackets_excludes_itself() -> None:
    params = {"heads.a[0]": torch.zeros(2), "heads.b": torch.zeros(2)}
    assert choose(params, dict.fromkeys(params, "linear"), exclude=["heads.a[0]"]).prunable == ("heads.b",)


def test_an_exclusion_that_matches_nothing_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"'conv9.\*' matches no parameter. There are: theta, conv.weight"):
        scope_of(Zoo(), exclude=["conv9.*"])
    with pytest.raises(InvalidValue, match="matches no parameter"):
        scope_of(Zoo(), exclude=["CONV.weight"])


def test_what_cannot_be_pruned_is_listed_with_its_reason() -> None:
    params = {
        "whole": torch.zeros(2, dtype=torch.int64),
        "none": torch.zeros(0, 3),
        "phase": torch.zeros(2, dtype=torch.complex64),
        "w": torch.zeros(2),
    }
    found = choose(params, dict.fromkeys(params, "linear"))
    assert found.prunable == ("w",)
    assert found.skipped == {
        "whole": "not a floating-point tensor (torch.int64)",
        "none": "empty",
        "phase": "not a floating-point tensor (torch.complex64)",
    }


def test_a_parameter_without_a_kind_is_not_pruned_in_silence() -> None:
    found = choose({"w": torch.zeros(2), "x": torch.zeros(2)}, {"w": "linear"})
    assert found.skipped == {"x": "of a layer type that is not known"}


def test_nothing_to_prune_says_what_there_is() -> None:
    with pytest.raises(NothingToPrune, match=r"it has weight: of kind norm; bias: of kind bias. Choose a wider scope"):
        scope_of(nn.BatchNorm1d(2))
    with pytest.raises(NothingToPrune, match="it has no parameters"):
        scope_of(nn.ReLU())
    with pytest.raises(NothingToPrune, match="excluded by name"):
        scope_of(nn.Linear(2, 2), exclude=["weight"])


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'weights'"):
        scope_of(Zoo(), preset="weight")
