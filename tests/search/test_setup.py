"""Everything that can be refused before training is, with a name and a next step."""

import math
from typing import Any

import pytest
import torch
from small import ITERATIONS, settings

from tombola.errors import (
    DataMissing,
    DataTooSmall,
    EmptiedLayer,
    ImpossibleDensity,
    InvalidValue,
    NothingToPrune,
    TombolaError,
    UnknownName,
)
from tombola.search.named import prepare
from tombola.search.settings import Settings, rewind_step


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"strategy": "impp"}, UnknownName, "Did you mean 'imp'"),
        ({"criterion": "magnitud"}, UnknownName, "Did you mean 'magnitude'"),
        ({"criterion": "no.such:thing"}, InvalidValue, "there is no module 'no.such'"),
        ({"criterion": "small:ITERATIONS"}, InvalidValue, "a criterion is a function"),
        ({"allocation": "globl"}, UnknownName, "Did you mean 'global'"),
        ({"controls": ("reinitt",)}, UnknownName, "Did you mean 'reinit'"),
        ({"data": "digitz"}, UnknownName, "Did you mean 'digits'"),
        ({"data": "no/such/folder"}, DataMissing, "nothing at"),
        ({"model": "lenet-300-10"}, UnknownName, "Did you mean 'lenet-300-100'"),
        ({"model": "small:nett"}, UnknownName, "Did you mean 'net'"),
        ({"model": "no_such_module:net"}, InvalidValue, "no module"),
        ({"model": "small:wrong_input"}, InvalidValue, "does not take"),
        ({"model": "small:wrong_classes"}, InvalidValue, r"expected logits of shape \(2, 10\)"),
        ({"model": "small:a_tuple"}, InvalidValue, "makes tuple of two examples"),
        ({"model": "small:no_weights"}, NothingToPrune, "nothing to prune"),
        ({"rewind": "stepp:3"}, InvalidValue, "Known: init, step:K"),
        ({"rewind": "step"}, InvalidValue, "Known: init, step:K"),
        ({"rewind": "step:-3"}, InvalidValue, "Known: init, step:K"),
        ({"rewind": f"step:{ITERATIONS}"}, InvalidValue, "K is below that"),
        ({"strategy": "finetune", "rewind": "lr"}, InvalidValue, "takes no rewind"),
        ({"density": 0.0, "rate": None}, ImpossibleDensity, "above 0 and below 1"),
        ({"density": 20.0, "rate": None}, ImpossibleDensity, "For 20 % write 0.2"),
        ({"density": 1e-9, "rate": None}, ImpossibleDensity, "least density"),
        ({"density": math.nan, "rate": None}, ImpossibleDensity, "above 0"),
        ({"rounds": 200, "rate": 0.9}, TombolaError, "would be left|keeps none"),
        ({"density": 0.1}, InvalidValue, "Give one of them"),
        ({"rate": 1.0}, InvalidValue, "such as 0.2"),
        ({"rounds": 0}, InvalidValue, "rounds is 0"),
        ({"replicates": 0}, InvalidValue, "replicates is 0"),
        ({"dense_runs": 0}, InvalidValue, "dense-runs is 0"),
        ({"workers": 0}, InvalidValue, "workers is 0"),
        ({"alpha": 0.5}, InvalidValue, "between 0 and 0.5"),
        ({"margin": 0.5}, InvalidValue, "0.002 is 0.2 points"),
        ({"margin": math.nan}, InvalidValue, "fraction of accuracy"),
        ({"seed": -1}, InvalidValue, "seed is -1"),
        ({"gates": (1.5,)}, InvalidValue, "1.5 is no density"),
        ({"gates": (0.5, 0.001)}, InvalidValue, "0.001 lies outside the levels"),
        ({"strategy": "one-shot", "rounds": None, "rate": None, "density": 0.2, "gates": (0.5,)},
         InvalidValue, "0.5 lies outside"),
        ({"gates": ()}, InvalidValue, "at one at least"),
        ({"device": "gpu"}, InvalidValue, "Known: cpu, cuda"),
        ({"device": "meta"}, InvalidValue, "runs on cpu and cuda"),
        ({"recipe": {"lrr": 1.0}}, UnknownName, "Did you mean 'lr'"),
        ({"recipe": {"lr": -1.0}}, InvalidValue, "lr is -1.0"),
        ({"recipe": {"eval_every": 100}}, InvalidValue, "Evaluate more often"),
        ({"recipe": {"batch_size": 989}}, DataTooSmall, "batch size is 989 and there are 988"),
        ({"data": "small:few_examples", "model": None, "recipe": {"batch_size": 41}}, DataTooSmall, "batch size is 41"),
    ],
)  # fmt: skip
def test_it_is_refused_before_training(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        prepare(settings(**changes))


def test_a_layer_that_would_be_emptied_is_refused_before_training() -> None:
    with pytest.raises(EmptiedLayer, match="would empty"):
        prepare(settings(rounds=11, allocation="layer-rates"))
    with pytest.raises(EmptiedLayer, match="would empty"):
        prepare(settings(rounds=None, rate=None, density=0.001, allocation="uniform"))


def test_a_gpu_that_is_not_there_is_refused() -> None:
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(InvalidValue, match=r"Use --device cpu, or install a CUDA build"):
        prepare(settings(device=absent))


def test_preparing_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    setup = prepare(settings())
    assert setup.families
    assert torch.equal(torch.get_rng_state(), before)


def test_the_gates_are_the_levels_nearest_on_a_logarithmic_scale() -> None:
    setup = prepare(settings(rounds=4, gates=(0.6, 0.22)))
    assert [round(d, 3) for d in setup.plan.densities] == [1.0, 0.534, 0.292, 0.165, 0.097]
    assert setup.plan.gates == (1, 2)  # 0.165 is nearer to 0.22 than 0.292 is, but not in ratio.
    assert prepare(settings(rounds=4, gates=(0.08, 0.17, 0.16))).plan.gates == (3, 4)
    assert prepare(settings(rounds=4)).plan.gates == (1, 3, 4)


def test_the_plan_is_the_papers_on_lenet() -> None:
    setup = prepare(Settings(rounds=3))
    assert setup.about["model"] == "lenet-300-100"
    assert [sum(level.values()) for level in setup.plan.levels] == [50_200, 40_260, 32_298, 25_919]
    assert setup.work is not None
    assert setup.work.macs == {"fc1.weight": 19_200, "fc2.weight": 30_000, "output.weight": 1000}
    assert setup.work.uncounted == ()
    assert setup.parameters == 50_610
    assert setup.margin == 0.01


def test_flops_count_weights_that_are_never_pruned() -> None:
    setup = prepare(settings(model="resnet-20", rounds=1))
    assert setup.work is not None
    assert "output.weight" in setup.work.macs
    assert "output.weight" not in setup.plan.scope.prunable


def test_rewinding_is_read() -> None:
    assert [rewind_step(text) for text in ("init", "lr", "step:0", "step:120")] == [None, None, 0, 120]
    names = {text: prepare(settings(rewind=text)).plan.pruner.rewind for text in ("init", "step:0", "step:7", "lr")}
    assert [r.name for r in names.values()] == ["init", "init", "step", "lr"]
    assert names["step:7"].step == 7


def test_what_decides_the_result_is_in_the_settings_json() -> None:
    assert settings(workers=1).as_json() == settings(workers=2).as_json()
    assert settings(seed=1).as_json() != settings(seed=2).as_json()


@pytest.mark.parametrize(("strategy", "levels"), [("imp", 12), ("finetune", 12), ("one-shot", 1)])
def test_a_density_alone_takes_the_strategys_rounds(strategy: str, levels: int) -> None:
    asked = settings(strategy=strategy, rounds=None, rate=None, density=0.1)
    setup = prepare(asked)
    assert len(setup.plan.levels) == levels + 1
    assert setup.plan.densities[-1] == pytest.approx(0.1, abs=0.5 / 1776)


def test_a_control_has_one_spelling_and_one_arm() -> None:
    asked = ("noise:0.50", "reinit", "noise:.5", "noise:3.0", "reinit", "noise:3")
    method = settings(controls=asked)
    assert method.controls == ("noise:0.5", "noise:3", "reinit")
    assert tuple(prepare(method).plan.controls) == method.controls
    with pytest.raises(UnknownName, match="noise:K"):
        prepare(settings(controls=("noisy:1",)))
