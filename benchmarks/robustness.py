"""Bayesian search where it is hard: noise, failures, a cliff, many dimensions, false friends.

    python benchmarks/robustness.py [--seeds 40] [--parts robust,warm]

`robust`: the regret of the best trial (judged by the score that the search saw, given without its
noise) beside that of Sobol random search, median and p90 over seeds. `warm`: the p90 of the regret
with 30 trials of an earlier sweep as `warm_start`, relative to a cold start. Prints tables and
writes benchmarks/results/robustness.json.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from trials.measure import circumstances

from hydra_plugins.tune_sweeper.search._bayes import Bayes, Ended
from hydra_plugins.tune_sweeper.search._random import Random
from hydra_plugins.tune_sweeper.search._space import LOG, Choice, Interval, Space
from hydra_plugins.tune_sweeper.search._trial import Observation, Strategy

RESULTS = Path(__file__).parent / "results" / "robustness.json"
RANDOM_SEEDS = 5  # seeds of random search for each of ours: it costs nothing
MOMENTS = (3, 6, 10, 15, 25)  # trials after which a warm start is compared
N_EARLIER = 30

Values = Mapping[str, Any]
Function = Callable[[Values], float]


def _unit_space(d: int) -> Space:
    return Space(tuple(Interval(f"x{i}", 0.0, 1.0) for i in range(d)))


def _point(values: Values) -> np.ndarray:
    return np.array([values[f"x{i}"] for i in range(len(values))])


def branin(values: Values) -> float:
    """Three equal minima; 0 to 308."""
    a, b = values["a"], values["b"]
    valley = b - 5.1 / (4 * math.pi**2) * a**2 + 5 / math.pi * a - 6
    return float(valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) + 10 - 0.397887)


_A = np.array([[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14]])
_A = np.vstack([_A, [[3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]])
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann(values: Values) -> float:
    """Six dimensions, one deep minimum and others; 0 to 3.32."""
    inner = (_A * (_point(values) - _P) ** 2).sum(axis=1)
    return float(3.32237 - np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-inner))


def training(values: Values) -> float:
    """Like an error after a training: a valley in lr that moves with the batch size; 0 to 2.3."""
    lr = math.log10(values["lr"]) - 0.5 * math.log2(values["batch_size"] / 64) * math.log10(2)
    away = (lr + 1.3) / 0.9
    depth = 0.25 * (values["depth"] - 4) ** 2 / 16
    model = {"mlp": 0.12, "cnn": 0.0, "linear": 0.4}[values["model"]]
    decay = 0.05 * abs(math.log10(values["weight_decay"]) + 3.5)
    return float(2.3 * (1 - math.exp(-0.5 * (away**2 + depth + model + decay))))


def bowl(values: Values) -> float:
    """A weight for each dimension; 0 to about 0.4 * sum(1 / (1 + i))."""
    x = _point(values)
    return float(((x - 0.35) ** 2 / (1 + np.arange(len(x)))).sum())


def wave(values: Values) -> float:
    """One dimension with four local minima; 0 to 2.2."""
    x = values["x0"]
    return float((x - 0.62) ** 2 * 3 + 0.5 * (1 - math.cos(25 * (x - 0.62))))


PLANE = Space((Interval("a", -5.0, 10.0), Interval("b", 0.0, 15.0)))
TRAINING = Space(
    (
        Interval("lr", 1e-4, 1.0, scale=LOG),
        Interval("batch_size", 8, 512, scale=LOG, is_integer=True),
        Interval("depth", 1, 8, is_integer=True),
        Choice("model", ("mlp", "cnn", "linear")),
        Interval("weight_decay", 1e-6, 1e-1, scale=LOG),
    )
)
SMALL = Space(
    (
        Interval("x0", 0.0, 1.0, step=0.2),
        Choice("model", ("mlp", "cnn", "linear", "vit"), is_ordered=False),
    )
)


def small(values: Values) -> float:
    """24 configurations."""
    return (
        abs(values["x0"] - 0.6)
        + {"mlp": 0.2, "cnn": 0.0, "linear": 0.5, "vit": 0.1}[values["model"]]
    )


@dataclass(frozen=True)
class Case:
    """A function and what disturbs it."""

    name: str
    space: Space
    function: Function
    n_trials: int
    noise: float = 0.0  # standard deviation
    fails: float = 0.0  # share of the trials
    cliff: Callable[[Values], bool] | None = None  # where trainings diverge to 1e6

    def seen(self, values: Values, rng: np.random.Generator) -> float | None:
        """What a trial reports; None: it failed."""
        draws = rng.random(), rng.standard_normal()
        if draws[0] < self.fails:
            return None
        if self.cliff is not None and self.cliff(values):
            return 1e6
        return self.function(values) + self.noise * draws[1]


FUNCTIONS = {
    "branin": (PLANE, branin, 308.0, lambda v: v["a"] > 2.5),
    "hartmann": (_unit_space(6), hartmann, 3.32, lambda v: v["x0"] > 0.5),
    "training": (TRAINING, training, 2.3, lambda v: v["lr"] > 1e-2),
}


def cases() -> list[Case]:
    """All of them."""
    found = []
    for name, (space, function, height, cliff) in FUNCTIONS.items():
        found += [
            Case(f"{name}, noise of a tenth of its range", space, function, 30, noise=height / 10),
            Case(f"{name}, a fifth fails", space, function, 30, fails=0.2),
            Case(f"{name}, half of it diverges", space, function, 30, cliff=cliff),
        ]
    return [
        *found,
        Case("24 configurations, 12 trials", SMALL, small, 12),
        Case("24 configurations, 40 trials asked for", SMALL, small, 40),
        Case("1 dimension, 15 trials", _unit_space(1), wave, 15),
        Case("20 dimensions, 40 trials", _unit_space(20), bowl, 40),
    ]


def regrets(strategy: Strategy, case: Case, seed: int) -> list[float]:
    """After each trial, the true regret of the best that was seen."""
    rng = np.random.default_rng([seed, 1])
    best, so_far, found = math.inf, math.inf, []
    for job in range(case.n_trials):
        asked = strategy.ask(1)
        if not asked:
            break
        (proposal,) = asked
        score = case.seen(proposal.values, rng)
        if score is not None and score < best:
            best, so_far = score, case.function(proposal.values)
        found.append(so_far)
        strategy.tell([Observation(job, proposal, score)])
    return found


def robust(case: Case, n_seeds: int) -> dict[str, Any]:
    """Final regrets of ours and of random search."""
    n = case.n_trials
    ours = [regrets(Bayes(case.space, seed=s, n_trials=n), case, s)[-1] for s in range(n_seeds)]
    seeds = range(RANDOM_SEEDS * n_seeds)
    random = [regrets(Random(case.space, seed=s, n_trials=n), case, s)[-1] for s in seeds]
    return {"bayes": _quantiles(ours), "random": _quantiles(random)}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "p90": float(np.quantile(values, 0.9))}


def _moved(by: np.ndarray, factor: float = 1.0, offset: float = 0.0) -> Function:
    return lambda v: offset + factor * slope({f"x{i}": x for i, x in enumerate(_point(v) - by)})


_CENTRE = np.array([0.3, 0.6, 0.45, 0.7])
_SLOPES = np.array([3.0, 2.0, 1.0, 0.5])


def slope(values: Values) -> float:
    """Four dimensions that matter unequally, ripples in the first."""
    away = _point(values) - _CENTRE
    return float((_SLOPES * away**2).sum() + 0.3 * (1 - math.cos(6 * away[0])))


def _mirrored(values: Values) -> float:
    return slope({name: 1 - x for name, x in values.items()})


EARLIER: dict[str, Function] = {
    "the same": slope,
    "optimum moved by 0.07": _moved(np.full(4, 0.07)),
    "moved, other offset and factor": _moved(np.full(4, -0.1), factor=30.0, offset=5.0),
    "unrelated": lambda v: hartmann({**v, "x4": 0.3, "x5": 0.6}),
    "optimum mirrored": _mirrored,
}


def warm(n_seeds: int) -> dict[str, Any]:
    """Quantiles of the regret after some trials, for each earlier sweep and for none."""
    present = Case("present", _unit_space(4), slope, max(MOMENTS), noise=0.02)
    found: dict[str, Any] = {}
    cold = None
    for name, function in {"none": None, **EARLIER}.items():
        runs = [_started(present, function, seed) for seed in range(n_seeds)]
        at = np.array(runs)[:, [m - 1 for m in MOMENTS]]
        cold = at if cold is None else cold
        found[name] = {
            "median": np.median(at, axis=0).tolist(),
            "p90": np.quantile(at, 0.9, axis=0).tolist(),
            "worse": _share_worse(at, cold).tolist(),
        }
        print(name, found[name]["p90"], found[name]["worse"], flush=True)
    return found


def _share_worse(at: np.ndarray, cold: np.ndarray) -> np.ndarray:
    """The share of 2000 bootstrap samples in which the p90 is above that of cold starts."""
    rng = np.random.default_rng(0)
    above = np.zeros(at.shape[1])
    for _ in range(2000):
        drawn = rng.integers(len(at), size=len(at))  # the same seeds of both
        above += np.quantile(at[drawn], 0.9, axis=0) > np.quantile(cold[drawn], 0.9, axis=0)
    return above / 2000


def _started(case: Case, function: Function | None, seed: int) -> list[float]:
    earlier = [] if function is None else [_sweep(case, function, seed)]
    return regrets(
        Bayes(case.space, seed=seed, n_trials=case.n_trials, warm_start=earlier), case, seed
    )


def _sweep(case: Case, function: Function, seed: int) -> list[Ended]:
    """The trials of a finished sweep over another function."""
    rng = np.random.default_rng([seed, 2])
    strategy = Bayes(case.space, seed=1000 + seed, n_trials=N_EARLIER)
    ended: list[Ended] = []
    for job in range(N_EARLIER):
        (proposal,) = strategy.ask(1)
        score = function(proposal.values) + case.noise * rng.standard_normal()
        ended.append((proposal.values, score))
        strategy.tell([Observation(job, proposal, score)])
    return ended


def main() -> None:
    """Runs the parts and writes what they found beside what is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--parts", default="robust,warm")
    args = parser.parse_args()
    for part in args.parts.split(","):
        found = warm(args.seeds) if part == "warm" else _all_robust(args.seeds)
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        known[part] = {**circumstances(args.seeds, ("numpy", "scipy")), "found": found}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")


def _all_robust(n_seeds: int) -> dict[str, Any]:
    found = {}
    for case in cases():
        found[case.name] = row = robust(case, n_seeds)
        ours, random = row["bayes"], row["random"]
        print(
            f"{case.name:<42} {ours['median']:.3g}, {ours['p90']:.3g}"
            f"  random {random['median']:.3g}, {random['p90']:.3g}",
            flush=True,
        )
    return found


if __name__ == "__main__":
    main()
