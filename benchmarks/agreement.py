"""Whether the sparse and the replicas engine do what the plain loop does: in losses, in drift and in accuracy.

``python benchmarks/agreement.py losses|drift|equivalence --out benchmarks/results/NAME.json``. A partial file is
written after each part (a cell of ``losses``, a seed of the others), and the same command goes on where it stopped.

``losses``: LeNet's little sister on the digits, for 50 iterations, under every optimiser, activation, dropout and
schedule, dense and pruned, over ten seeds. A run's number is the largest relative difference of its validation loss,
evaluated after every iteration, from the plain run's; a cell agrees where the median over the seeds is at most 1e-5.

``drift``: LeNet-300-100 on MNIST. How far the sparse engine's weights (L2, relative) and validation losses are from the
plain loop's, and how far the plain loop's are from its own in float64, from the same start values in the same order.
The losses are of the weights, computed in float64 for all, for a loss computed in float32 has rounding of its own.
Of the two distances are given the medians over the seeds, their ratio with the 95 % bootstrap interval (seeds
resampled in pairs) and Wilcoxon's p of the distances being alike; and the same of how many times each distance grew
since the first look. "No faster" is a ratio of at most 1 within its interval: the lower limit does not exceed 1.
Where the upper limit does not either, it is shown outright.

``equivalence``: the iterative search of ``tombola find --data mnist``, each engine with the masks of its own training.
Test accuracies are paired by seed (start values, order and split are shared), and equivalent where two one-sided
t tests reject, each at 5 %, that they differ by 0.2 points: the 90 % interval lies within.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from machine import heading
from torch import Tensor, nn
from torch.nn import functional

from tombola import models
from tombola.data import Split, load
from tombola.files import write_all
from tombola.search.levels import TICKET, search
from tombola.search.named import prepare
from tombola.search.settings import Settings
from tombola.seeds import generator
from tombola.sparse.kernels.library import kernels
from tombola.stats import equivalence, t_test
from tombola.stats.paired import differences
from tombola.train.plain import PlainTrainer
from tombola.train.presets import preset
from tombola.train.recipe import Recipe
from tombola.train.replicas import ReplicaTrainer
from tombola.train.replicas_nets import why_not_stacked
from tombola.train.source import Splits
from tombola.train.sparse import SparseTrainer
from tombola.types import Masks, Seed, Snapshot, TrainJob

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = Mapping[str, Row]

MOST_RELATIVE: Final = 1e-5
ITERATIONS: Final = 50
LOOKS: Final = (50, 100, 200, 500, 1000, 2000)
MARGIN: Final = 0.002
ALPHA: Final = 0.05

WIDTHS: Final = (64, 60, 30, 10)
ACTIVATIONS: Final[dict[str, Callable[[], nn.Module]]] = {
    "relu": nn.ReLU,
    "leaky relu": partial(nn.LeakyReLU, 0.1),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "gelu by tanh": partial(nn.GELU, "tanh"),
}
_SGD: Final = {"optimizer": "sgd", "lr": 0.1}
OPTIMIZERS: Final[dict[str, dict[str, Any]]] = {
    "sgd": _SGD,
    "momentum": {**_SGD, "momentum": 0.9},
    "nesterov": {**_SGD, "momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
}
SCHEDULES: Final[dict[str, dict[str, Any]]] = {
    "constant": {},
    "cosine": {"schedule": "cosine"},
    "step": {"schedule": "step", "milestones": (20, 35)},
    "warmup": {"warmup": 20},
}


@dataclass(frozen=True)
class Study:
    """What a subcommand does.

    Attributes:
        settings: what decides its numbers.
        parts: key -> what makes its row; can be sent to another process.
        claims: rows -> what they bear out.
    """

    settings: Row
    parts: Mapping[str, Callable[[], Row]]
    claims: Callable[[Rows], list[Row]]


# --- losses


def losses(arguments: argparse.Namespace) -> Study:
    """The first iterations under everything that a recipe and a chain may hold."""
    densities = arguments.densities or [1.0, 0.2]
    cells = product(SCHEDULES, (0.0, 0.3), ACTIVATIONS, OPTIMIZERS)
    parts = {
        f"{optimizer}, {activation}, dropout {dropout:g}, {schedule}": partial(
            losses_of_cell, optimizer, activation, dropout, schedule, range(arguments.seeds), densities
        )
        for schedule, dropout, activation, optimizer in cells
    }
    settings = {
        "data": "digits",
        "widths": WIDTHS,
        "iterations": ITERATIONS,
        "batch_size": 60,
        "weight_decay": 1e-2,
        "seeds": arguments.seeds,
        "densities": densities,
    }
    return Study(settings, parts, claims_on_losses)


def chain(activation: str, dropout: float) -> nn.Module:
    """Linear layers with an activation between, and dropout after it."""
    parts: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(WIDTHS):
        parts += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
        parts += [nn.Dropout(dropout)] if dropout else []
    del parts[-2 if dropout else -1 :]
    return nn.Sequential(*parts)


@cache
def splits_of(data: str) -> Splits:
    """A data set's splits, loaded once in each process."""
    return Splits(partial(load, data))


def random_masks(start: Snapshot, seed: Seed, density: float) -> Masks:
    """Masks of one density in every layer; the output layer is left at five times it, as tickets have it denser."""
    if density == 1:
        return {}
    draw = generator(seed, "prune", "agreement")
    weights = [name for name, value in start.params.items() if value.dim() > 1]
    rates = dict.fromkeys(weights[:-1], density) | {weights[-1]: min(1.0, 5 * density)}
    return {name: torch.rand(start.params[name].shape, generator=draw) < rate for name, rate in rates.items()}


def losses_of_cell(
    optimizer: str, activation: str, dropout: float, schedule: str, seeds: Sequence[int], densities: Sequence[float]
) -> Row:
    """Give each engine's largest relative differences, by density and seed."""
    build, splits = partial(chain, activation, dropout), splits_of("digits")
    changes = {"lr": 1.2e-3, **OPTIMIZERS[optimizer], **SCHEDULES[schedule]}
    how = Recipe(iterations=ITERATIONS, batch_size=60, eval_every=1, weight_decay=1e-2, **changes)
    jobs = []
    for density, number in product(densities, seeds):
        seed = Seed(number)
        start = models.initial(build, seed)
        jobs.append(TrainJob(start, random_masks(start, seed, density), seed, ITERATIONS, with_optimizer=False))
    plain = PlainTrainer(build, splits, how)(jobs)
    row: Row = {}
    refused = why_not_stacked(build(), splits.dataset.train_x[0])
    for engine in ("sparse", "replicas"):
        if engine == "replicas" and refused:
            row[engine] = {"not trained": refused}
            continue
        train = SparseTrainer(build, splits, how) if engine == "sparse" else ReplicaTrainer(build, splits, how)
        apart = []
        for ours, theirs in zip(train(jobs), plain, strict=True):
            if ours.curve.steps != theirs.curve.steps or len(theirs.curve.steps) != ITERATIONS:
                raise RuntimeError(f"{engine}: {ours.sentence}; plain: {theirs.sentence}")
            pairs = zip(ours.curve.loss, theirs.curve.loss, strict=True)
            apart.append(max(abs(a - b) / b for a, b in pairs))
        own = iter(apart)
        row[engine] = {f"{density:g}": [next(own) for _ in seeds] for density in densities}
    return row


def claims_on_losses(rows: Rows) -> list[Row]:
    """For each engine whether the median over the seeds holds in every cell."""
    claims = []
    for engine in ("sparse", "replicas"):
        trained = {cell: row[engine] for cell, row in rows.items() if "not trained" not in row[engine]}
        medians = {(c, density): median(found) for c, row in trained.items() for density, found in row.items()}
        if not medians:
            continue
        worst = max(medians, key=lambda cell: medians[cell])
        by_optimizer = {
            name: max((value for (c, _), value in medians.items() if c.startswith(f"{name},")), default=None)
            for name in OPTIMIZERS
        }
        claims.append(
            {
                "claim": f"{engine}: losses agree with plain to {MOST_RELATIVE:g} over the first {ITERATIONS} "
                "iterations (median over seeds of each run's largest relative difference), in every cell",
                "verdict": all(value <= MOST_RELATIVE for value in medians.values()),
                "cells": len(medians),
                "cells_that_hold": sum(value <= MOST_RELATIVE for value in medians.values()),
                "largest_median": medians[worst],
                "largest_median_in": f"{worst[0]}, density {worst[1]}",
                "median_of_medians": median(medians.values()),
                "largest_median_by_optimizer": by_optimizer,
                "runs": sum(len(found) for row in trained.values() for found in row.values()),
                "runs_above": sum(
                    value > MOST_RELATIVE for row in trained.values() for found in row.values() for value in found
                ),
                "largest_of_all_runs": max(
                    value for row in trained.values() for found in row.values() for value in found
                ),
                "cells_not_trained": len(rows) - len(trained),
            }
        )
    return claims


# --- drift


def drift(arguments: argparse.Namespace) -> Study:
    """How fast rounding drives the engines apart, beside single and double precision."""
    iterations = arguments.iterations or LOOKS[-1]
    densities = arguments.densities or [1.0, 0.2, 0.036]
    looks = [at for at in LOOKS if at <= iterations]
    if not looks:
        raise SystemExit(f"--iterations {iterations} ends before the first look, at {LOOKS[0]}.")
    recipe = preset("lenet-300-100", arguments.data).recipe(iterations=iterations, eval_every=looks[0])
    settings = {
        "data": arguments.data,
        "model": "lenet-300-100",
        "recipe": dict(recipe.as_json()),
        "seeds": arguments.seeds,
        "densities": densities,
        "looks": looks,
    }
    parts = {
        f"seed {seed}": partial(drift_of_seed, seed, arguments.data, recipe, densities, looks)
        for seed in range(arguments.seeds)
    }
    return Study(settings, parts, partial(claims_on_drift, densities=densities, looks=looks))


def doubled(build: Callable[[], nn.Module]) -> nn.Module:
    """A network in float64."""
    return build().double()


def in_double(one: Split) -> Split:
    """A split in float64."""
    return replace(one, train_x=one.train_x.double(), val_x=one.val_x.double(), test_x=one.test_x.double())


def validation_loss(judge: nn.Module, snapshot: Snapshot, split: Split) -> float:
    """Give the loss of a network's weights, computed in float64 whatever trained them."""
    judge.load_state_dict({name: value.double() for name, value in snapshot.params.items()})
    with torch.no_grad():
        return float(functional.cross_entropy(judge(split.val_x), split.val_y))


def drift_of_seed(number: int, data: str, recipe: Recipe, densities: Sequence[float], looks: Sequence[int]) -> Row:
    """Give the distances of one seed's runs by density, measure and pair, at each look."""
    splits, seed, row = splits_of(data), Seed(number), {}
    dataset = splits.dataset
    build = partial(models.build, "lenet-300-100", dataset.input_shape, dataset.classes)
    start, double, judge = models.initial(build, seed), in_double(splits(seed)), doubled(build).eval()
    for density in densities:
        masks = random_masks(start, seed, density)
        job = TrainJob(start, masks, seed, looks[-1], tuple(looks), with_optimizer=False)
        runs = {
            "plain": PlainTrainer(build, splits, recipe).train_one(job),
            "sparse": SparseTrainer(build, splits, recipe).train_one(job),
            # The plain loop itself: it trains what it is given, and start values are float32 numbers in both.
            "float64": PlainTrainer(partial(doubled, build), lambda _: double, recipe).train_one(job),
        }
        assert all(value.dtype == torch.float64 for value in runs["float64"].end.params.values())
        loss = {name: [validation_loss(judge, run.saved[at], double) for at in looks] for name, run in runs.items()}
        row[f"{density:g}"] = {
            "weights": {
                f"{a} from {b}": [_distance(runs[a].saved[at], runs[b].saved[at]) for at in looks] for a, b in PAIRS
            },
            "loss": {f"{a} from {b}": [abs(x - y) for x, y in zip(loss[a], loss[b], strict=True)] for a, b in PAIRS},
            "plain loss": loss["plain"],
        }
    return row


PAIRS: Final = (("sparse", "plain"), ("plain", "float64"), ("sparse", "float64"))


def _distance(ours: Snapshot, theirs: Snapshot) -> float:
    def flat(snapshot: Snapshot) -> Tensor:
        return torch.cat([snapshot.params[name].double().flatten() for name in theirs.params])

    return float((flat(ours) - flat(theirs)).norm() / flat(theirs).norm())


def claims_on_drift(rows: Rows, densities: Sequence[float], looks: Sequence[int]) -> list[Row]:
    """Compare the two distances, and how they grew, at every look."""
    if len(rows) < 2:
        return []
    claims = []
    for measure in ("weights", "loss"):
        apart: list[Row] = []
        grown: list[Row] = []
        for density in densities:
            found = [row[f"{density:g}"][measure] for row in rows.values()]
            ours, rival, third = (np.array([one[f"{a} from {b}"] for one in found]) for a, b in PAIRS)
            for number, at in enumerate(looks):
                where = {"density": density, "iteration": at}
                extra = {"median sparse from float64": float(np.median(third[:, number]))}
                apart.append({**where, **_compared(ours[:, number], rival[:, number]), **extra})
                if number and measure == "weights":
                    factors = ours[:, number] / ours[:, 0], rival[:, number] / rival[:, 0]
                    grown.append({**where, **_compared(*factors)})
        what = "relative L2 distance of the weights" if measure == "weights" else "difference of the losses"
        claims.append(_claim(f"the {what}, sparse from plain, is no larger than plain's from float64", apart))
        if grown:
            claims.append(_claim(f"the {what} grows by no larger a factor from iteration {looks[0]} on", grown))
    return claims


def _claim(text: str, comparisons: list[Row]) -> Row:
    ratios = [one["ratio"] for one in comparisons if one["ratio"] is not None]
    return {
        "claim": f"{text} (ratio of medians at most 1 within its 95 % interval)",
        "verdict": all(one["no larger within interval"] for one in comparisons),
        "comparisons_that_hold": sum(one["no larger within interval"] for one in comparisons),
        "comparisons_shown_outright": sum(one["shown"] for one in comparisons),
        "largest_ratio": max(ratios, default=None),
        "comparisons": comparisons,
    }


def _compared(ours: np.ndarray[Any, Any], rival: np.ndarray[Any, Any]) -> Row:
    """Compare two sets of distances, paired by seed."""
    from scipy.stats import wilcoxon

    draws = np.random.default_rng(0).integers(len(ours), size=(10_000, len(ours)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.median(ours) / np.median(rival))
        spread = np.median(ours[draws], axis=1) / np.median(rival[draws], axis=1)
    # Two distances that are both zero are alike.
    low, high = np.quantile(np.nan_to_num(spread, nan=1.0, posinf=1e300), (0.025, 0.975))
    alike = bool(np.all(ours == rival))
    return {
        "median sparse from plain": float(np.median(ours)),
        "median plain from float64": float(np.median(rival)),
        "ratio": ratio if math.isfinite(ratio) else None,
        "interval": [float(low), float(high)],
        "wilcoxon_p": 1.0 if alike else float(wilcoxon(ours, rival).pvalue),
        "larger in": f"{int(np.sum(ours > rival))} of {len(ours)}",
        "no larger within interval": bool(low <= 1),
        "shown": bool(high <= 1),
    }


# --- equivalence


def equivalent(arguments: argparse.Namespace) -> Study:
    """Test accuracies along the iterative search, each engine on its own ladder."""
    levels = [level for level in arguments.levels if level <= arguments.rounds]
    settings = {
        "command": f"tombola find --data {arguments.data} --rounds {arguments.rounds} --controls none",
        "iterations": arguments.iterations or 4000,
        "seeds": arguments.seeds,
        "rounds": arguments.rounds,
        "levels": levels,
        "margin": MARGIN,
        "alpha": ALPHA,
    }
    one = partial(ladders_of_seed, data=arguments.data, rounds=arguments.rounds, iterations=settings["iterations"])
    parts = {f"seed {seed}": partial(one, seed) for seed in range(arguments.seeds)}
    return Study(settings, parts, partial(claims_on_equivalence, levels=levels))


def ladders_of_seed(seed: int, *, data: str, rounds: int, iterations: int) -> Row:
    """Give what each engine found at every level, and how far their masks overlap."""
    row: Row = {}
    masks: dict[str, list[Masks]] = {}
    for engine in ("plain", "sparse"):
        began = time.perf_counter()
        settings = Settings(
            data=data,
            model="lenet-300-100",
            engine=engine,
            seed=seed,
            rounds=rounds,
            replicates=1,
            dense_runs=1,
            controls=(),
            workers=1,
            recipe={"iterations": iterations},
        )
        setup = prepare(settings)
        plan = setup.plan
        found: Row = {"density": [], "budget": [], "early": [], "early_stop_iteration": [], "censored": []}
        masks[engine] = []
        with setup.trainer(Quiet()) as train:
            for level in search(
                setup.families,
                train,
                plan.pruner,
                plan.scope.prunable,
                iterations=setup.iterations,
                levels=plan.cuts,
            ):
                run = level.arms[TICKET][0]
                found["density"].append(plan.densities[level.level])
                found["budget"].append(run.test_accuracy)
                found["early"].append(run.test_accuracy_at_early_stop)
                found["early_stop_iteration"].append(run.early_stop_iteration)
                found["censored"].append(run.censored)
                masks[engine].append(level.masks[0])
        found["seconds"] = round(time.perf_counter() - began, 1)
        found["recipe"] = dict(setup.about["recipe"])
        row[engine] = found
    row["overlap"] = [_overlap(a, b) for a, b in zip(masks["plain"], masks["sparse"], strict=True)]
    return row


class Quiet:
    """A watcher that shows nothing."""

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:
        """Do nothing."""

    def stop(self) -> bool:
        """Go on."""
        return False


def _overlap(ours: Masks, theirs: Masks) -> float:
    """Give the share of the weights kept that both keep."""
    both = sum(int((mask & theirs[name]).sum()) for name, mask in ours.items())
    return both / sum(int(mask.sum()) for mask in ours.values())


def claims_on_equivalence(rows: Rows, levels: Sequence[int]) -> list[Row]:
    """Two one-sided tests at each level, for both accuracies."""
    if len(rows) < 3:
        return []
    claims = []
    for level, kind in product(levels, ("budget", "early")):
        sparse, plain = ([row[engine][kind][level] for row in rows.values()] for engine in ("sparse", "plain"))
        apart = differences(sparse, plain)
        test, p = t_test(apart, alpha=ALPHA), float(equivalence(apart, MARGIN))
        claims.append(
            {
                "claim": f"level {level}, accuracy {'at the early stop' if kind == 'early' else 'after all iterations'}"
                f": sparse and plain differ by less than {100 * MARGIN:g} points",
                "verdict": p < ALPHA,
                "level": level,
                "kind": kind,
                "n": len(apart),
                "mean_sparse": float(np.mean(sparse)),
                "mean_plain": float(np.mean(plain)),
                "mean_difference": float(test.mean),
                "sd": float(test.sd),
                "interval_90": [float(test.lower), float(test.upper)],
                "p": p,
                "mean_overlap": float(np.mean([row["overlap"][level] for row in rows.values()])),
            }
        )
    return claims


# --- the script


def environment() -> Row:
    """What a result was made with."""
    return {
        **heading(),
        "numpy": np.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels().level,
    }


def go(what: str, study: Study, out: Path, workers: int) -> None:
    """Make the rows that the file does not hold yet, and write it after each."""
    head = {"what": what, "settings": json.loads(json.dumps(study.settings)), **environment()}
    rows: dict[str, Row] = {}
    if out.exists():
        held = json.loads(out.read_text())
        odd = [name for name, value in head.items() if held.get(name) != value]
        if odd:
            raise SystemExit(f"{out} was made with another {' and '.join(odd)}; choose another --out.")
        rows = held["rows"]
    missing = {key: part for key, part in study.parts.items() if key not in rows}
    began = time.perf_counter()
    for number, (key, row, seconds) in enumerate(_made(missing, workers), start=1):
        rows[key] = row
        _write(out, head, study, rows)
        left = (time.perf_counter() - began) / number * (len(missing) - number)
        print(
            f"{key}: {seconds:.1f} s; {len(rows)} of {len(study.parts)}, about {left / 60:.1f} minutes left", flush=True
        )
    for claim in _write(out, head, study, rows):
        print("\n" + ("true:  " if claim["verdict"] else "false: ") + claim["claim"])
        for name, value in claim.items():
            if name not in ("claim", "verdict", "comparisons"):
                print(f"    {name}: {value}")
        for one in claim.get("comparisons", ()):
            low, high = one["interval"]
            ours, rival = one["median sparse from plain"], one["median plain from float64"]
            print(
                f"    density {one['density']:g}, iteration {one['iteration']}: {ours:.3g} and {rival:.3g}, "
                f"ratio {one['ratio'] or math.nan:.3g} [{low:.3g}, {high:.3g}], p {one['wilcoxon_p']:.2g}"
            )


def _write(out: Path, head: Row, study: Study, rows: Rows) -> list[Row]:
    ordered = {key: rows[key] for key in study.parts if key in rows}
    claims = study.claims(ordered)
    report = {
        **head,
        "command": " ".join(["python", *sys.argv]),
        "complete": len(ordered) == len(study.parts),
        "claims": claims,
        "rows": ordered,
    }
    write_all({out: (json.dumps(report, indent=1) + "\n").encode()})
    return claims


def _made(parts: Mapping[str, Callable[[], Row]], workers: int) -> Iterator[tuple[str, Row, float]]:
    """Make rows as they come, in this process or in several."""
    if workers == 1:
        for key, part in parts.items():
            yield _timed(key, part)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as executor:
        futures = [executor.submit(_timed, key, part) for key, part in parts.items()]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            executor.shutdown(cancel_futures=True)


def _timed(key: str, part: Callable[[], Row]) -> tuple[str, Row, float]:
    torch.set_num_threads(1)
    began = time.perf_counter()
    row = part()
    return key, row, time.perf_counter() - began


STUDIES: Final = {"losses": losses, "drift": drift, "equivalence": equivalent}


def main() -> None:
    """Read the command line and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=STUDIES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", default="mnist", help="of drift and equivalence")
    parser.add_argument("--iterations", type=int, help="of drift (2000) and equivalence (4000)")
    parser.add_argument("--densities", type=float, nargs="+", help="of losses (1 0.2) and drift (1 0.2 0.036)")
    parser.add_argument("--rounds", type=int, default=15, help="of equivalence")
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 7, 15], help="of equivalence")
    arguments = parser.parse_args()
    go(arguments.what, STUDIES[arguments.what](arguments), arguments.out, arguments.workers)


if __name__ == "__main__":
    main()
