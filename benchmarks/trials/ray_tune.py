"""Ray Tune's population-based training and successive halving on the same trainings.

Every trial is a process of Ray's that reports after each epoch, or each step of a population, and
leaves a checkpoint. One that diverged goes on reporting a large loss, without training, until its
scheduler stops it or gives it the checkpoint of another. What trials reached stands in a file of
ours: the tables that Ray gives back lack steps of trials that were paused.
"""

import json
import math
import os
import random
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # or each worker makes an environment of its own

import numpy as np
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler

from . import few_images
from .measure import ROOT

N_AT_ONCE = 2  # trials that train at the same time under ASHA
_FIXED = ("data", "epochs", "step", "seed", "file")  # what a trial gets beside its hyperparameters
_DIVERGED = 1e3  # a loss that Ray can compare
_STATE = "state.json"  # in a checkpoint: the epoch that it ends, whether it diverged


def _start() -> None:
    """A cluster of this machine whose workers find all that this process finds."""
    if ray.is_initialized():
        return
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), *filter(None, sys.path)])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
    )


def pbt(
    space: Mapping[str, Any], data: str, seed: int, epochs: int, budget: int
) -> dict[str, float]:
    """A population that waits for all of its members, in steps of a tenth of the training."""
    step = max(1, round(epochs / 10))
    size = budget // epochs
    scheduler = PopulationBasedTraining(
        time_attr="epoch",
        perturbation_interval=step,
        burn_in_period=step,
        hyperparam_mutations=dict(space),
        synch=True,
    )
    return _search(space, scheduler, data, seed, epochs, step=step, n=size, at_once=size)


def asha(
    space: Mapping[str, Any], data: str, seed: int, epochs: int, budget: int
) -> dict[str, float]:
    """Successive halving that stops trials, until the budget is spent."""
    scheduler = ASHAScheduler(time_attr="epoch", max_t=epochs, reduction_factor=3)
    return _search(
        space, scheduler, data, seed, epochs, step=1, n=budget, at_once=N_AT_ONCE, most=budget
    )


def _search(
    space: Mapping[str, Any],
    scheduler: TrialScheduler,
    data: str,
    seed: int,
    epochs: int,
    *,
    step: int,
    n: int,
    at_once: int,
    most: int | None = None,
) -> dict[str, float]:
    """The best report of all trials, and the epochs that they trained."""
    _start()
    random.seed(seed)
    np.random.seed(seed)  # Ray draws from the global generators
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "steps.jsonl"
        known = (data, epochs, step, seed, str(file))
        fixed = dict(zip((f"_{key}" for key in _FIXED), known, strict=True))
        tuner = tune.Tuner(
            tune.with_resources(_trainable, {"cpu": 2 / at_once}),
            param_space={**space, **fixed},
            tune_config=tune.TuneConfig(
                metric="val/loss",
                mode="min",
                scheduler=scheduler,
                num_samples=n,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=folder, verbose=0, stop=None if most is None else _Budget(most)
            ),
        )
        tuner.fit()
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    best: dict[str, float] = min(rows, key=lambda row: row["val/loss"])
    return {**best, "n_epochs": sum(row["n_epochs"] for row in rows), "n_jobs": len(rows)}


def _trainable(values: dict[str, Any]) -> None:
    few_images.prepare()
    settings = dict(values)
    data, epochs, step, seed, file = (settings.pop(f"_{key}") for key in _FIXED)
    settings["momentum"] = 1.0 - settings.pop("one_minus_momentum")
    cfg = few_images.config(data, epochs)
    number = int(tune.get_context().get_trial_name().rpartition("_")[2])
    work = Path(tempfile.mkdtemp())
    source, done, has_diverged = _restored(work)
    while done < epochs:
        until, folder = min(done + step, epochs), work / f"{done}"
        metrics, n_epochs = None, 0
        if not has_diverged:
            metrics, n_epochs = few_images.train(
                cfg, settings, folder, seed=1000 * seed + number, until_epoch=until, source=source
            )
        source, done, has_diverged = folder, until, metrics is None
        folder.mkdir(exist_ok=True)
        (folder / _STATE).write_text(json.dumps([done, has_diverged]))
        row = {**(metrics or {"val/loss": _DIVERGED}), "n_epochs": n_epochs}
        with open(file, "a") as lines:
            lines.write(json.dumps(row) + "\n")
        checkpoint = tune.Checkpoint.from_directory(str(folder))
        tune.report({**row, "epoch": until}, checkpoint=checkpoint)


def _restored(work: Path) -> tuple[Path | None, int, bool]:
    """Where the checkpoint that Ray handed over lies, the epoch that it ends, if it diverged."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None, 0, False
    folder = Path(checkpoint.to_directory(str(work / "restored")))
    done, has_diverged = json.loads((folder / _STATE).read_text())
    return folder, done, has_diverged


class _Budget(tune.Stopper):
    """Ends everything after so many epochs of all trials together."""

    def __init__(self, epochs: int) -> None:
        self._left = float(epochs)

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        self._left -= result["n_epochs"]
        return self.stop_all()

    def stop_all(self) -> bool:
        """Whether the budget is spent."""
        return self._left <= 0 or math.isnan(self._left)
