"""Trainings a minute with two workers: ours, hydra-optuna-sweeper over joblib, a hand-written loop.

All train the same configurations of the digits, in the same order of magnitude of 2 s each, from
the typed line to the end: starting and importing torch are part of it, as they are for a user.
Trainings that differ in lr alone take equally long; those of different batch sizes do not, and
then a sweeper that waits for both of a pair loses what the shorter one saved.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from .measure import N_SLOTS, OURS, ROOT, Options, Row, cost, in_turn, ratio, sweep_command

_HERE = Path(__file__).parent
_TRAIN = ROOT / "train.py"
_SIZES = (16, 32, 64, 128)  # of batches
_OURS_UNEVEN, _OTHER_UNEVEN = "ours, uneven", "optuna + joblib, uneven"
_N_FRESH = 4  # trainings in fresh processes: two after another on each worker


def rows(options: Options) -> list[Row]:
    """Trainings a minute, and ours over each of the others."""
    found = in_turn(options.repeats, _measures(options))
    table = [Row(name, "trainings/min", values) for name, values in found.items()]
    limits = {"optuna + joblib": ">= 1.5", "fresh processes": ">= 8", "hand-written": ">= 0.9"}
    others = [name for name in found if name in limits]
    table += [ratio(f"ours / {n}", found["ours"], found[n], limits[n]) for n in others]
    if _OTHER_UNEVEN in found:
        name = "ours / optuna + joblib, uneven"
        table.append(ratio(name, found[_OURS_UNEVEN], found[_OTHER_UNEVEN]))
    return table


def _measures(options: Options) -> dict[str, Callable[[Path], float]]:
    n, epochs = (4, 4) if options.is_quick else (24, 56)  # 2 s each on a core of 2025
    typed = [f"{0.001 * 1.15**i:.5g}" for i in range(n)]
    measures: dict[str, Callable[[Path], float]] = {"ours": partial(_ours, typed, epochs)}
    if options.optuna_python is not None:
        peer = partial(_optuna, options.optuna_python)
        measures["optuna + joblib"] = partial(peer, typed, epochs)
        few, short = typed[: n // len(_SIZES)], epochs * 2 // 3
        measures[_OURS_UNEVEN] = partial(_ours, few, short, sizes=_SIZES)
        measures[_OTHER_UNEVEN] = partial(peer, few, short, sizes=_SIZES)
    else:
        print("  hydra-optuna-sweeper is left out: give --optuna-python")
    measures["fresh processes"] = partial(_fresh, typed[:_N_FRESH], epochs)
    return {**measures, "hand-written": partial(_by_hand, typed, epochs)}


def _ours(typed: list[str], epochs: int, folder: Path, sizes: Sequence[int] = ()) -> float:
    settings = ["hydra/sweeper=grid", *OURS, f"lr={','.join(typed)}", f"epochs={epochs}"]
    settings += [f"batch_size={_listed(sizes)}"] if sizes else []
    seconds = cost(sweep_command(_TRAIN, *settings), folder).wall_s
    return _a_minute(len(typed) * max(1, len(sizes)), seconds)


def _optuna(
    python: str, typed: list[str], epochs: int, folder: Path, sizes: Sequence[int] = ()
) -> float:
    """The grid sampler runs each configuration once; two at a time, as many as it has workers."""
    n = len(typed) * max(1, len(sizes))
    settings = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra/launcher=joblib"]
    settings += [f"hydra.launcher.n_jobs={N_SLOTS}", f"hydra.sweeper.n_jobs={N_SLOTS}"]
    settings += [f"hydra.sweeper.n_trials={n}", f"epochs={epochs}"]
    settings += [f"lr=choice({','.join(typed)})"]
    settings += [f"batch_size=choice({_listed(sizes)})"] if sizes else []
    script = _beside_the_trainer(folder, "optuna_app.py")
    command = sweep_command(script, *settings, python=python)
    return _a_minute(n, cost(command, folder, {"PYTHONPATH": str(folder)}).wall_s)


def _listed(values: Sequence[int]) -> str:
    return ",".join(map(str, values))


def _by_hand(typed: list[str], epochs: int, folder: Path) -> float:
    script = _beside_the_trainer(folder, "by_hand.py")
    command = [sys.executable, str(script), str(N_SLOTS), str(epochs), *typed]
    return _a_minute(len(typed), cost(command, folder).wall_s)


def _beside_the_trainer(folder: Path, name: str) -> Path:
    """A script in a folder with the trainer and its configs, and without our plugins."""
    for part in ("train", "conf"):
        (folder / part).symlink_to(ROOT / part)
    return Path(shutil.copy(_HERE / name, folder))


def _fresh(typed: list[str], epochs: int, folder: Path) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(N_SLOTS) as pool:
        list(pool.map(partial(_train_once, epochs, folder), typed))
    return _a_minute(len(typed), time.perf_counter() - start)


def _train_once(epochs: int, folder: Path, lr: str) -> None:
    settings = [f"lr={lr}", f"epochs={epochs}", f"hydra.run.dir={lr}"]
    command = [sys.executable, str(_TRAIN), *settings]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def _a_minute(n: int, seconds: float) -> float:
    return 60 * n / seconds
