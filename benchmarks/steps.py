"""Population-based training and successive halving against random search, on real trainings.

    python benchmarks/steps.py [--data digits|shapes] [--seeds 10] [--methods random,pbt,asha]
    uv run --with "ray[tune]" python benchmarks/steps.py --methods "pbt,asha,ray pbt,ray asha"

Each method trains as many epochs in all: 400 images train, 400 validate, the others test. The
score of a method is the smallest val/loss at the end of any of its jobs, as a sweep reports it:
full trainings of random search and bayes, also rungs and steps of the others. Ratios are to random
search with the same seed (ours, of a Sobol sequence; `independent` draws each configuration for
itself, as peers do), whose trainings have a cosine schedule like all others.
Jobs run one after the other in this process, Ray Tune's in its own. Prints a table and writes
benchmarks/results/steps.json.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from trials import few_images
from trials.measure import circumstances

from hydra_plugins.tune_sweeper.search._asha import Asha
from hydra_plugins.tune_sweeper.search._bayes import Bayes
from hydra_plugins.tune_sweeper.search._pbt import Pbt
from hydra_plugins.tune_sweeper.search._random import Random
from hydra_plugins.tune_sweeper.search._space import LOG, REVERSE_LOG, Interval, Space
from hydra_plugins.tune_sweeper.search._trial import Observation, Proposal, Strategy

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "steps.json"
SPACE = Space(
    (
        Interval("lr", 1e-4, 1.0, scale=LOG),
        Interval("momentum", 0.5, 0.99, scale=REVERSE_LOG),
        Interval("weight_decay", 1e-6, 1e-1, scale=LOG),
    )
)
Make = Callable[[int, int, int], Strategy]  # of seed, epochs, budget

STRATEGIES: dict[str, Make] = {
    "random": lambda seed, epochs, budget: Random(SPACE, seed=seed, n_trials=budget // epochs),
    "independent": lambda seed, epochs, budget: Random(
        SPACE, seed=seed, n_trials=budget // epochs, sampler="iid"
    ),
    "bayes": lambda seed, epochs, budget: Bayes(SPACE, seed=seed, n_trials=budget // epochs),
    "pbt": lambda seed, epochs, budget: Pbt(
        SPACE, seed=seed, epochs=epochs, population_size=budget // epochs, in_batches=True
    ),
    "pbt candidates": lambda seed, epochs, budget: pbt_of_candidates(seed, epochs, budget),
    "asha": lambda seed, epochs, budget: Asha(
        SPACE, seed=seed, epochs=epochs, n_trials=None, max_epochs_total=budget
    ),
    "asha bayes": lambda seed, epochs, budget: Asha(
        SPACE, seed=seed, epochs=epochs, n_trials=None, max_epochs_total=budget, proposer="bayes"
    ),
}
PEERS = ("ray pbt", "ray asha")


def pbt_of_candidates(seed: int, epochs: int, budget: int) -> Strategy:
    """One member less, whose epochs train as many further candidates for one step."""
    size, step = budget // epochs - 1, epochs // 10
    n_candidates = size + (budget - size * epochs) // step
    return Pbt(
        SPACE,
        seed=seed,
        epochs=epochs,
        population_size=size,
        init_candidates=n_candidates,
        in_batches=True,
    )


class Trainings:
    """Runs jobs in this process, each in a folder of its own."""

    def __init__(self, folder: Path, data: str, epochs: int, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._cfg = few_images.config(data, epochs)
        self.n_epochs = 0

    def run(self, job: int, proposal: Proposal) -> dict[str, float] | None:
        """The last metrics of a job; None when it diverged."""
        parent = proposal.parent
        metrics, n_epochs = few_images.train(
            self._cfg,
            proposal.values,
            self._folder / f"{job}",
            seed=1000 * self._seed + proposal.trial,
            until_epoch=proposal.until_epoch,
            source=None if parent is None else self._folder / f"{parent}",
        )
        self.n_epochs += n_epochs
        return metrics


def best_of(make: Make, data: str, seed: int, epochs: int, budget: int) -> dict[str, float]:
    """The metrics of the best job of a whole search, and the epochs that it trained."""
    strategy = make(seed, epochs, budget)
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        trainings, job = Trainings(Path(folder), data, epochs, seed), 0
        while proposals := strategy.ask(1):
            metrics = trainings.run(job, proposals[0])
            score = None if metrics is None else metrics["val/loss"]
            found += [] if metrics is None else [metrics]
            strategy.tell([Observation(job, proposals[0], score)])
            job += 1
    best = min(found, key=lambda metrics: metrics["val/loss"])
    return {**best, "n_epochs": trainings.n_epochs, "n_jobs": job}


def best_of_peer(name: str, data: str, seed: int, epochs: int, budget: int) -> dict[str, float]:
    """The same of a peer over the same space."""
    from ray import tune
    from trials import ray_tune

    # Ray knows no scale that is dense below 1: its population moves the distance from 1.
    space = {
        "lr": tune.loguniform(1e-4, 1.0),
        "one_minus_momentum": tune.loguniform(0.01, 0.5),
        "weight_decay": tune.loguniform(1e-6, 1e-1),
    }
    search = {"ray pbt": ray_tune.pbt, "ray asha": ray_tune.asha}[name]
    return search(space, data, seed, epochs, budget)


def summary(name: str, rows: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Ratios to random search, paired by seed."""
    report: dict[str, Any] = {}
    for metric in ("val/loss", "test/loss"):
        pairs = zip(rows[name], rows["random"], strict=True)
        ratios = [own[metric] / other[metric] for own, other in pairs]
        report[metric] = {
            "ratio": math.exp(statistics.fmean(map(math.log, ratios))),
            "wins": sum(ratio < 1 for ratio in ratios),
            "median": float(np.median([own[metric] for own in rows[name]])),
            "ratios": ratios,
        }
    report["n_epochs"] = max(row["n_epochs"] for row in rows[name])
    return report


def main() -> None:
    """Runs all seeds of all methods, in turn, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--data", choices=sorted(few_images.MODELS), default="digits")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--budget", type=int, default=160)
    parser.add_argument("--methods", default=",".join(STRATEGIES))
    args = parser.parse_args()
    few_images.prepare()
    names = dict.fromkeys(["random", *args.methods.split(",")])  # random is what others relate to
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name, found in rows.items():
            search = (
                partial(best_of_peer, name) if name in PEERS else partial(best_of, STRATEGIES[name])
            )
            found.append(search(args.data, seed, args.epochs, args.budget))
            best = found[-1]
            print(
                f"seed {seed}  {name:<11} {best['val/loss']:.4f} {best['test/loss']:.4f}",
                flush=True,
            )
    report = {name: summary(name, rows) for name in rows}
    for name, row in report.items():
        val, test = row["val/loss"], row["test/loss"]
        print(
            f"{name:<11} val/loss {val['ratio']:.3f} of random's, better in {val['wins']} of"
            f" {args.seeds}; test/loss {test['ratio']:.3f}, {test['wins']}"
        )
    write(args, report)


def write(args: argparse.Namespace, report: dict[str, Any]) -> None:
    """Each row with what a number means nothing without; those of other methods stay."""
    measured = circumstances(args.seeds, ("torch", "numpy", "scipy", "hydra-core"))
    RESULTS.parent.mkdir(exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known.setdefault(args.data, {}).update({k: {**measured, **row} for k, row in report.items()})
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
