"""Bayesian against random search on real trainings: best val/loss on digits after 20 trials.

    python benchmarks/digits.py [--seeds 10] [--n-trials 20] [override ...]

Both count the default configuration among their trials. Prints a table and writes
benchmarks/results/digits.json. Each seed is one command of a user, run in a fresh process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from trials.measure import circumstances

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "digits.json"


def best_value(sweeper: str, seed: int, n_trials: int, overrides: list[str]) -> float:
    """The best val/loss that one sweep finds."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"hydra/sweeper={sweeper}", f"hydra.sweeper.n_trials={n_trials}"]
        settings += [f"hydra.sweeper.seed={seed}", "hydra.sweep.dir=here"]
        typed = [sys.executable, str(ROOT / "train.py"), "-m", *settings, *overrides]
        subprocess.run(typed, cwd=folder, check=True, capture_output=True)
        text = (Path(folder) / "here" / "optimization_results.yaml").read_text()
    return float(yaml.safe_load(text)["best_value"])


def summary(values: list[float]) -> dict[str, Any]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "quartiles": [low, high], "values": values}


def main() -> None:
    """Runs all seeds of all sweepers, in turn, and writes the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--n-trials", type=int, default=20)
    parser.add_argument("--sweepers", default="bayes,random")
    parser.add_argument("overrides", nargs="*", default=["lr=interval(1e-4,1e-1)"])
    args = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in args.sweepers.split(",")}
    for seed in range(args.seeds):
        for sweeper, values in found.items():
            values.append(best_value(sweeper, seed, args.n_trials, args.overrides))
            print(f"seed {seed}  {sweeper:<7} {values[-1]:.5f}", flush=True)
    report = {name: summary(values) for name, values in found.items()}
    for name, row in report.items():
        print(f"{name:<7} median {row['median']:.5f}  quartiles {row['quartiles']}")
    told = {
        **circumstances(args.seeds, ("torch", "numpy", "scipy", "hydra-core")),
        "overrides": args.overrides,
        "n_trials": args.n_trials,
    }
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[" ".join(args.overrides)] = {**told, **report}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
