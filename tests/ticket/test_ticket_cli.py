"""``tombola ticket`` from the outside: comparing, exporting, training in isolation and checking by retraining."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tombola import models
from tombola.cli import main
from tombola.data import load as load_data
from tombola.data import split
from tombola.search.find import find
from tombola.search.finding import Finding
from tombola.search.isolation import isolate
from tombola.search.settings import Settings
from tombola.ticket import Ticket, load, save
from tombola.train.plain import evaluate
from tombola.types import Seed

Edit = Callable[[Mapping[str, Any]], dict[str, Any]]


def search(**changes: Any) -> Finding:
    recipe = {"iterations": 20, "lr": 0.005}
    tiny: dict[str, Any] = {"rounds": 1, "replicates": 1, "dense_runs": 1, "workers": 1, "controls": (), "seed": 5}
    return find(Settings(**{**tiny, "recipe": recipe, **changes}))


@pytest.fixture(scope="module")
def finding() -> Finding:
    return search()


@pytest.fixture
def path(finding: Finding, tmp_path: Path) -> Path:
    save(finding.chosen.ticket, tmp_path / "ticket.safetensors")
    return tmp_path / "ticket.safetensors"


def on_this_machine(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a ticket says that records everything bits depend on."""
    return {**about, "cpu_capability": torch.backends.cpu.get_cpu_capability()}


def edited(path: Path, edit: Edit) -> Path:
    ticket = load(path)
    save(replace(ticket, provenance=edit(ticket.provenance)), path)
    return path


def tied_network(classes: int) -> nn.Module:
    """Two layers that share their weights."""
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, classes)
    )
    net[3].weight = net[1].weight
    return net


def test_training_again_gives_the_reported_accuracy_and_the_same_network(finding: Finding) -> None:
    chosen = finding.chosen
    done = isolate(chosen.ticket)
    assert done.test_accuracy == done.reported == chosen.ticket.provenance["reported"]["test_accuracy"]
    assert done.drawn is True
    assert done.outcome.end.params.keys() == chosen.trained.keys()
    for name, value in chosen.trained.items():
        assert torch.equal(done.outcome.end.params[name], value)


@pytest.mark.parametrize(
    "changes",
    [
        {"rewind": "step:5"},
        {"rewind": "lr"},
        {"model": f"{__name__}:tied_network"},
        {"recipe": {"iterations": 12, "optimizer": "sgd", "momentum": 0.9, "schedule": "step", "milestones": (6, 9)}},
        {"strategy": "one-shot", "density": 0.3, "rounds": None},
    ],
    ids=lambda changes: "-".join(f"{key} {value}" for key, value in changes.items())[:30],
)
def test_every_kind_of_ticket_can_be_trained_again(changes: dict[str, Any], tmp_path: Path) -> None:
    chosen = search(**changes).chosen
    save(chosen.ticket, tmp_path / "ticket.safetensors")
    done = isolate(load(tmp_path / "ticket.safetensors"), model=changes.get("model"))
    assert done.test_accuracy == done.reported
    assert done.drawn is (None if changes.get("rewind") == "lr" else True)
    for name, value in chosen.trained.items():
        assert torch.equal(done.outcome.end.params[name], value)


def test_verify_retrains_and_holds(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ticket", "verify", str(path), "--retrain"]) == 0
    out = capsys.readouterr().out
    assert "reproduced exactly" in out
    assert "everything holds" in out
    assert main(["ticket", "verify", str(path), "--retrain", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"]
    assert [check["name"] for check in shown["checks"]][-2:] == ["start", "retrained"]


@pytest.mark.parametrize(
    ("images", "same_machine", "code", "says"),
    [
        (1, True, 1, "must be equal"),
        (1, False, 0, "within one test example"),
        (2, False, 1, "more than the one that is allowed"),
    ],
)
def test_a_false_report_is_found_out(
    images: int, same_machine: bool, code: int, says: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def edit(about: Mapping[str, Any]) -> dict[str, Any]:
        right = round(about["reported"]["test_accuracy"] * 539)
        other = {**about, "reported": {**about["reported"], "test_accuracy": (right - images) / 539}}
        return on_this_machine(other) if same_machine else {**other, "versions": {"torch": "1.0"}}

    assert main(["ticket", "verify", str(edited(path, edit)), "--retrain"]) == code
    out = capsys.readouterr().out
    assert says in out
    assert ("torch is" in out) is not same_machine
    assert ("cannot be trusted" in out) is (code == 1)


def test_start_values_that_the_seed_does_not_draw_are_found_out(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticket = load(path)
    start = {**ticket.start, "fc1.weight": ticket.start["fc1.weight"] * 1.01}
    save(Ticket(start, ticket.masks, ticket.buffers, ticket.provenance), path)
    assert main(["ticket", "verify", str(path)]) == 0
    assert main(["ticket", "verify", str(path), "--retrain"]) == 1
    assert "FAIL  start" in capsys.readouterr().out


def test_one_flipped_mask_bit_does_not_verify(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    for name in ("fc1.weight", "fc2.weight", "output.weight"):
        begin, end = header[f"mask/{name}"]["data_offsets"]
        for at in (begin, (begin + end) // 2, end - 1):
            content = bytearray(whole)
            content[8 + length + at] ^= 1 << 7
            path.write_bytes(content)
            for more in ([], ["--retrain"]):
                assert main(["ticket", "verify", str(path), *more]) == 1
                captured = capsys.readouterr()
                assert "FAIL" in captured.out
                assert "retrained" not in captured.out
    path.write_bytes(whole)
    assert main(["ticket", "verify", str(path)]) == 0


def test_train_saves_a_network_that_scores_what_is_printed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = path.parent / "new" / "trained.safetensors"
    assert main(["ticket", "train", str(path), "--out", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["test_accuracy"] == shown["reported"]
    assert (shown["test_examples"], shown["iterations"], shown["trained"]) == (539, 20, str(out))
    ticket = load(path)
    assert shown["ticket"] == ticket.digest
    net = models.build("lenet-300-100", (1, 8, 8), 10)
    net.load_state_dict(load_file(out), strict=True)
    for name, mask in ticket.masks.items():
        assert not bool(net.get_parameter(name)[~mask].any())
    parts = split(load_data("digits"), Seed(5))
    assert evaluate(net, parts.test_x, parts.test_y)[1] == pytest.approx(shown["test_accuracy"])
    assert main(["ticket", "train", str(path), "--out", str(out)]) == 0
    percent = f"{100 * shown['reported']:.2f} %"
    assert f"test accuracy: {percent}, reported: {percent}" in capsys.readouterr().out


def test_an_exported_ticket_loads_without_tombola_in_three_lines(path: Path) -> None:
    out = path.parent / "dense.safetensors"
    assert main(["ticket", "export", str(path), "--to", "dense", "--out", str(out)]) == 0
    net = models.build("lenet-300-100", (1, 8, 8), 10)
    ticket = load(path)
    ticket.apply_to(net)
    x = torch.rand(7, 64)
    with torch.no_grad():
        logits = net(x.reshape(7, 1, 8, 8))
    torch.save(x, path.parent / "x.pt")
    code = f"""
import sys, torch
torch.set_num_threads({torch.get_num_threads()})
from torch import nn
from collections import OrderedDict
relu = nn.ReLU()
net = nn.Sequential(OrderedDict(fc1=nn.Linear(64, 300), a=relu, fc2=nn.Linear(300, 100), b=relu,
                                output=nn.Linear(100, 10)))
from safetensors.torch import load_file
state = load_file("dense.safetensors")
net.load_state_dict(state, strict=True)
assert "tombola" not in sys.modules
torch.save(net(torch.load("x.pt")).detach(), "logits.pt")
"""
    subprocess.run([sys.executable, "-c", code], cwd=path.parent, check=True, timeout=120)
    assert torch.equal(torch.load(path.parent / "logits.pt"), logits)
    state = load_file(out)
    assert all(torch.equal(state[name], value) for name, value in ticket.start.items())
    assert all(not bool(state[name][~mask].any()) for name, mask in ticket.masks.items())


def test_a_network_with_tied_parameters_and_buffers_is_exported_whole(tmp_path: Path) -> None:
    name = f"{__name__}:tied_network"
    path, out = tmp_path / "ticket.safetensors", tmp_path / "dense.safetensors"
    save(search(model=name).chosen.ticket, path)
    assert main(["ticket", "export", str(path), "--to", "dense", "--out", str(out)]) == 0
    net, other = tied_network(10), tied_network(10)
    net.load_state_dict(load_file(out), strict=True)
    load(path).apply_to(other)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(net.eval()(x), other.eval()(x))


def test_diff_says_what_two_tickets_share(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = path.parent / "other.safetensors"
    save(search(rounds=2, gates=(0.64,)).chosen.ticket, other)
    assert main(["ticket", "diff", str(path), str(other), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["nested"], shown["same_start"], shown["identical"]) == ("second in first", True, False)
    assert shown["both"] == shown["second"] == load(other).kept
    assert shown["jaccard"] == load(other).kept / load(path).kept
    assert shown["provenance"]["level"] == [1, 2]
    assert "model" not in shown["provenance"]
    assert main(["ticket", "diff", str(path), str(other)]) == 0
    out = capsys.readouterr().out
    assert "fc1.weight" in out
    assert "level: 1 and 2" in out
    assert main(["ticket", "diff", str(path), str(path)]) == 0
    assert "are equal" in capsys.readouterr().out


@pytest.fixture(scope="module")
def deeper() -> Ticket:
    """A ticket of the second level, with its parent and its lineage."""
    return search(rounds=2, gates=(0.64,)).chosen.ticket


def parent_of(ticket: Ticket) -> Ticket:
    """The ticket of the level before, as its search had it."""
    about = dict(ticket.provenance)
    assert ticket.parent is not None
    start = models.initial(lambda: models.build("lenet-300-100", (1, 8, 8), 10), Seed(5, about["replicate"])).params
    kept = sum(int(mask.sum()) for mask in ticket.parent.values())
    about |= {"level": 1, "lineage": about["lineage"][:-1], "density": kept / ticket.total}
    return Ticket(start, ticket.parent, ticket.buffers, about)


def test_verify_compares_with_the_parent(deeper: Ticket, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child, before, other = tmp_path / "child", tmp_path / "before", tmp_path / "other"
    save(deeper, child)
    save(parent_of(deeper), before)
    assert main(["ticket", "verify", str(child), "--parent", str(before)]) == 0
    out = capsys.readouterr().out
    assert "ok    lineage: the mask is a subset of its parent's" in out
    assert "3 levels" in out
    assert "ok    parent masks: fingerprint" in out
    assert "ok    parent values: the start values of all survivors are the parent's, bit for bit" in out
    assert main(["ticket", "verify", str(before), "--parent", str(child)]) == 1
    assert "FAIL  nested: the masks keep" in capsys.readouterr().out
    save(replace(parent_of(deeper), start={n: v * 2 for n, v in parent_of(deeper).start.items()}), other)
    assert main(["ticket", "verify", str(child), "--parent", str(other), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in shown["checks"] if not check["ok"]] == ["parent values"]
    assert main(["ticket", "verify", str(child), "--parent", str(tmp_path / "none")]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_show_and_diff_know_lineage_and_initial_values(
    deeper: Ticket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    theta_0 = {name: value / 2 for name, value in deeper.start.items()}
    save(replace(deeper, theta_0=theta_0), one)
    save(parent_of(deeper), other)
    assert main(["ticket", "show", str(one)]) == 0
    out = capsys.readouterr().out
    assert "lineage" in out
    for entry in deeper.lineage:
        assert f"{entry['kept']:,}" in out
        assert f"{100 * entry['kept'] / entry['total']:.2f} %" in out
    assert "initial values: theta_0 is stored" in out
    assert f"parent: its masks are stored, and keep {deeper.lineage[1]['kept']:,}" in out
    assert main(["ticket", "show", str(one), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["start_values"], shown["theta_0"], shown["parent_kept"]) == (
        "stored",
        True,
        deeper.lineage[1]["kept"],
    )
    assert shown["provenance"]["lineage"] == list(deeper.lineage)
    assert main(["ticket", "diff", str(one), str(other)]) == 0
    out = capsys.readouterr().out
    assert "initial values (theta_0) of common survivors: first only" in out
    assert "lineage: 3 and 2 levels, 2 of them in common" in out
    assert main(["ticket", "diff", str(one), str(other), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["theta_0"], shown["parent"]) == ("first only", "first only")
    assert shown["lineage"] == {"first": 3, "second": 2, "common": 2}


def test_show_prints_no_control_characters(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited(path, lambda about: {**about, "model": "\x1b[2J\ud800", "verdict_sentence": ["[bold]"]})
    assert main(["ticket", "show", str(path)]) == 0
    out = capsys.readouterr().out
    assert '"\\u001b[2J\\ud800"' in out
    assert '["[bold]"]' in out


def test_a_ticket_left_to_its_seed_does_all_that_a_ticket_does(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed, out = path.parent / "seed", path.parent / "out"
    assert main(["ticket", "export", str(path), "--to", "seed", "--out", str(seed)]) == 0
    assert "drawn from the seed when it is read" in capsys.readouterr().out
    ticket = load(path)
    assert seed.stat().st_size < path.stat().st_size - 3 * ticket.kept
    assert load(seed) == ticket
    assert main(["ticket", "show", str(seed)]) == 0
    assert "start values: drawn from the seed" in capsys.readouterr().out
    assert main(["ticket", "show", str(seed), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["start_values"] == "drawn from the seed"
    assert main(["ticket", "verify", str(seed), "--retrain"]) == 0
    assert "reproduced exactly" in capsys.readouterr().out
    assert main(["ticket", "train", str(seed), "--out", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["test_accuracy"] == shown["reported"]
    assert main(["ticket", "diff", str(seed), str(path)]) == 0
    assert "are equal" in capsys.readouterr().out
    for name in (path, seed):
        assert main(["ticket", "export", str(name), "--to", "dense", "--out", f"{out}-{name.name}"]) == 0
    assert Path(f"{out}-seed").read_bytes() == Path(f"{out}-{path.name}").read_bytes()
    assert main(["ticket", "export", str(seed), "--to", "full", "--out", str(out)]) == 0
    assert out.read_bytes() == path.read_bytes()
    assert main(["ticket", "export", str(seed), "--to", "seed", "--out", str(out)]) == 0
    assert out.read_bytes() == seed.read_bytes()


def test_code_of_ones_own_draws_only_where_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{__name__}:own_network"
    path, seed, out = (str(tmp_path / one) for one in ("ticket", "seed", "out"))
    save(search(model=name).chosen.ticket, path)
    assert main(["ticket", "export", path, "--to", "seed", "--out", seed]) == 2
    assert "not trusted to name code" in capsys.readouterr().err
    assert main(["ticket", "export", path, "--to", "seed", "--out", seed, "--model", name]) == 0
    capsys.readouterr()
    for words in (["show", seed], ["diff", seed, path], ["train", seed, "--out", out],
                  ["export", seed, "--to", "dense", "--out", out]):  # fmt: skip
        assert main(["ticket", *words]) == 2
        assert "--model" in capsys.readouterr().err
        assert main(["ticket", *words, "--model", name]) == 0
        capsys.readouterr()
    assert main(["ticket", "verify", seed]) == 1
    assert main(["ticket", "verify", seed, "--model", name]) == 0


def own_network(classes: int) -> nn.Module:
    """A network that is not in the registry."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, classes))


def test_a_rewound_ticket_is_not_left_to_its_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticket = search(rewind="step:5").chosen.ticket
    assert ticket.theta_0 is not None
    for number, one in enumerate((ticket, replace(ticket, theta_0=None))):
        save(one, tmp_path / str(number))
        words = ["ticket", "export", str(tmp_path / str(number)), "--to", "seed", "--out", str(tmp_path / "seed")]
        assert main(words) == 2
        assert "cannot be left out" in capsys.readouterr().err
    assert not (tmp_path / "seed").exists()


UNFIT: dict[str, tuple[Edit, str]] = {
    "other data": (lambda about: {**about, "data_fingerprint": "0" * 64}, "DataError: .* fingerprint"),
    "no recipe": (lambda about: {k: v for k, v in about.items() if k != "recipe"}, "does not say its recipe"),
    "broken recipe": (lambda about: {**about, "recipe": {"iterations": "x"}}, "recipe"),
    "list for recipe": (lambda about: {**about, "recipe": [1]}, "recipe"),
    "recipe of another digest": (lambda about: {**about, "recipe_digest": "x"}, "digest"),
    "unknown recipe field": (lambda about: {**about, "recipe": {**about["recipe"], "cutmix": 1}}, "cutmix"),
    "text for seed": (lambda about: {**about, "seed": "x"}, "seed is 'x'"),
    "endless": (lambda about: {**about, "end_step": 10**12}, "of 20"),
    "other engine": (lambda about: {**about, "engine": "attach"}, "engine 'attach'"),
    "saved optimiser": (lambda about: {**about, "rewind": "finetune: optimiser saved"}, "optimiser's saved state"),
    "code for a model": (lambda about: {**about, "model": "os:abort"}, "--model os:abort"),
    "code for data": (lambda about: {**about, "data": "os:abort"}, "--data"),
    "unknown model": (lambda about: {**about, "model": "lenet"}, "lenet-300-100"),
    "another model": (lambda about: {**about, "model": "conv-2"}, "ShapeMismatch"),
    "no device": (lambda about: {**about, "device": "tpu"}, "tpu"),
}


@pytest.mark.parametrize(("edit", "hint"), UNFIT.values(), ids=UNFIT)
def test_a_ticket_that_cannot_be_trained_is_a_named_error(
    edit: Edit, hint: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    out = path.parent / "trained.safetensors"
    edited(path, edit)
    for words in (["train", str(path), "--out", str(out)], ["verify", str(path), "--retrain"]):
        assert main(["ticket", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert re.search(hint, captured.err), captured.err
    assert not out.exists()


def test_without_a_reported_accuracy_it_trains_but_does_not_verify(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(path, lambda about: {**about, "reported": None})
    assert main(["ticket", "train", str(path), "--out", str(path.parent / "t.safetensors")]) == 0
    assert "reported: none" in capsys.readouterr().out
    assert main(["ticket", "verify", str(path), "--retrain"]) == 2
    assert "reports no test accuracy" in capsys.readouterr().err


def test_a_ticket_that_diverges_is_said_to(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticket = load(path)
    start = {name: value * 1e30 for name, value in ticket.start.items()}
    save(Ticket(start, ticket.masks, ticket.buffers, ticket.provenance), path)
    assert main(["ticket", "train", str(path), "--out", str(path.parent / "t.safetensors")]) == 2
    assert "Diverged" in capsys.readouterr().err
    assert main(["ticket", "verify", str(path), "--retrain"]) == 1
    assert "diverged" in capsys.readouterr().out


WRONG = {
    "folder for export": (["export", "{ticket}", "--to", "dense", "--out", "{folder}"], "folder"),
    "folder for training": (["train", "{ticket}", "--out", "{folder}"], "folder"),
    "the ticket itself": (["export", "{ticket}", "--to", "dense", "--out", "{ticket}"], "the ticket itself"),
    "the ticket trained over": (["train", "{ticket}", "--out", "{ticket}"], "the ticket itself"),
    "unknown format": (["export", "{ticket}", "--to", "onnx", "--out", "{folder}/x"], "dense"),
    "missing ticket": (["train", "{folder}/none", "--out", "{folder}/x"], "no file"),
    "no workers": (["train", "{ticket}", "--out", "{folder}/x", "--workers", "0"], "at least 1"),
    "device without retraining": (["verify", "{ticket}", "--device", "cpu"], "--retrain"),
    "one ticket to compare": (["diff", "{ticket}"], "SECOND"),
}


@pytest.mark.parametrize(("words", "hint"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_changes_nothing(
    words: list[str], hint: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = path.read_bytes()
    places = {"ticket": str(path), "folder": str(path.parent)}
    assert main(["ticket", *(word.format(**places) for word in words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert hint in " ".join(captured.err.split())
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]
