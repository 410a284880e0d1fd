"""The main command on the shipped digits, and what it leaves behind."""

import csv
import json
import math
import re
import shlex
import statistics
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from apps import BASIC, ROOT, TRAIN, Run, command, progress_of, statuses_of, values_of

from hydra_plugins.tune_sweeper.run import _record

FAST = ("epochs=2", "model=mlp", BASIC)
BAYES = ("-m", "hydra/sweeper=bayes", "lr=interval(1e-4,1e-1)")


@pytest.fixture(scope="module")
def main_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """python train.py -m hydra/sweeper=bayes 'lr=interval(1e-4,1e-1)': its output and folder."""
    cwd = tmp_path_factory.mktemp("main")
    typed = command(TRAIN, *BAYES, "hydra.sweeper.seed=0")
    done = subprocess.run(typed, cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout, cwd / "outputs" / "bayes-1"


def test_main_command_finds_a_better_learning_rate(main_sweep: tuple[str, Path]) -> None:
    """Real trainings, a winner, its test metrics."""
    output, folder = main_sweep
    ends = _record.read(folder).ends
    values = [ends[n].value for n in range(20)]

    assert statuses_of(folder) == ["done"] * 20
    assert min(values) < values[0]  # type: ignore[type-var,operator]  # the first is the default
    assert re.search(r"best val/loss \S+ in trial \d+ \(test/loss \S+, test/acc \S+\)", output)


def test_proposals_live_on_the_natural_scale(main_sweep: tuple[str, Path]) -> None:
    """knobs.yaml says log for lr, and later proposals gather round the best."""
    _, folder = main_sweep
    logs = [math.log10(v["lr"]) for v in values_of(folder)]
    ends = _record.read(folder).ends
    best = logs[min(ends, key=lambda n: ends[n].value or math.inf)]
    early, late = ([abs(x - best) for x in part] for part in (logs[:4], logs[-8:]))

    assert _record.read(folder).header["space"]["parameters"]["lr"]["scale"] == "log"
    assert statistics.median(late) < statistics.median(early) / 2


@pytest.mark.parametrize("strategy", ["random", pytest.param("pbt", marks=pytest.mark.slow)])
def test_printed_command_trains_the_winner_again(run: Run, tmp_path: Path, strategy: str) -> None:
    """Exactly, epoch by epoch; and so does best.yaml.

    Of changed values, the last step alone; a member whose values never changed, from the beginning.
    """
    size = "population_size=3" if strategy == "pbt" else "n_trials=3"
    more = (f"hydra.sweeper.{size}", "lr=interval(1e-3,1)", "model=mlp", "epochs=4", "seed=5")
    done = run(TRAIN, "-m", f"hydra/sweeper={strategy}", *more, BASIC, "flip_probability=0.2")
    lines = dict(re.findall(r"^(train [^:]*|or from a file): +(.*)$", done.stdout, re.MULTILINE))
    best = yaml.safe_load(
        (tmp_path / "outputs" / f"{strategy}-1/optimization_results.yaml").read_text()
    )
    winner = progress_of(tmp_path / "outputs" / f"{strategy}-1" / best["best_dir"])

    lines.pop("train all of it", None)  # test_schedule
    assert len(lines) == 2
    for i, typed in enumerate(lines.values()):
        words = shlex.split(typed)
        script = next(i for i, word in enumerate(words) if word.endswith("train.py"))
        run(TRAIN, *words[script + 1 :], f"hydra.run.dir=again{i}")
        again = progress_of(tmp_path / f"again{i}")
        assert again[-len(winner) :] == winner
        assert len(again) in (len(winner), 4)
    assert best["best_value"] == winner[-1]["val/loss"]


def test_files_for_other_programs_hold_every_trial(run: Run, tmp_path: Path) -> None:
    """trials.csv, optimization_results.yaml, best.yaml, multirun.yaml."""
    run(TRAIN, *BAYES, *FAST, "hydra.sweeper.n_trials=4")
    folder = tmp_path / "outputs" / "bayes-1"
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    results = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    best = yaml.safe_load((folder / "best.yaml").read_text())

    assert sorted(int(row["trial"]) for row in rows) == [0, 1, 2, 3]
    assert min(float(row["value"]) for row in rows) == results["best_value"]
    assert set(results) == {"name", "best_params", "best_value", "best_trial", "best_dir"}
    assert best["lr"] == results["best_params"]["lr"] and best["epochs"] == 2
    assert (folder / "multirun.yaml").exists()


@pytest.mark.slow
def test_result_of_a_training_tells_its_circumstances(run: Run, tmp_path: Path) -> None:
    """Status, metrics, histories, epochs, seconds, checkpoint, device, threads."""
    run(TRAIN, "-m", "hydra/sweeper=random", "hydra.sweeper.n_trials=1", "lr=0.1,0.2", *FAST)
    result: dict[str, Any] = json.loads((tmp_path / "outputs/random-1/0/result.json").read_text())

    assert result["status"] == "done" and result["error"] is None
    assert len(result["histories"]["val/loss"]) == 2
    assert result["metrics"]["val/loss"] == result["histories"]["val/loss"][-1]
    assert (result["epochs_done"], result["device"], result["threads"]) == (2, "cpu", 1)
    assert (tmp_path / "outputs/random-1/0" / result["checkpoint"]).exists()


@pytest.mark.slow
def test_only_the_best_checkpoints_stay(run: Run, tmp_path: Path) -> None:
    """keep_checkpoints bounds what a sweep costs on disk."""
    run(TRAIN, *BAYES, *FAST, "hydra.sweeper.n_trials=6", "hydra.sweeper.keep_checkpoints=2")
    folder = tmp_path / "outputs" / "bayes-1"
    ends = _record.read(folder).ends
    best = sorted(ends, key=lambda n: ends[n].value or 0.0)[:2]

    assert sorted(int(p.parts[-3]) for p in folder.glob("*/checkpoints/last.ckpt")) == sorted(best)


def test_repeats_average_over_seeds(run: Run, tmp_path: Path) -> None:
    """Each configuration is trained with several seeds, and judged by the mean."""
    more = ("hydra.sweeper.repeats=3", "hydra.sweeper.n_trials=2", "seed=10")
    run(TRAIN, *BAYES, *FAST, *more)
    folder = tmp_path / "outputs" / "bayes-1"
    summary = _record.read(folder)
    values = [summary.ends[n].value or 0.0 for n in range(6)]
    results = yaml.safe_load((folder / "optimization_results.yaml").read_text())

    assert [job.folder for job in summary.jobs.values()] == [
        "0/0",
        "0/1",
        "0/2",
        "1/0",
        "1/1",
        "1/2",
    ]
    assert len(set(values)) == 6
    means = [sum(values[:3]) / 3, sum(values[3:]) / 3]
    assert results["best_value"] == pytest.approx(min(means), rel=1e-12)


@pytest.mark.parametrize("setting", ["stop.target=10", "stop.patience=1"])
def test_sweep_stops_early_when_told(run: Run, tmp_path: Path, setting: str) -> None:
    """A target or patience ends a sweep before n_trials, with exit code 0 and a reason."""
    done = run(TRAIN, *BAYES, *FAST, f"hydra.sweeper.{setting}")

    assert len(statuses_of(tmp_path / "outputs" / "bayes-1")) < 20
    assert "stopped: " in done.stdout


def test_display_none_says_nothing(run: Run) -> None:
    """For scripts."""
    done = run(TRAIN, *BAYES, *FAST, "hydra.sweeper.n_trials=2", "hydra.sweeper.display=none")

    assert done.stdout == ""


def test_sweep_of_an_installed_plugin_alone(tmp_path: Path) -> None:
    """The wheel holds the plugin and nothing of the trainer."""
    build = ["uv", "build", "--wheel", "--offline", "--no-build-isolation", "-o", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()

    assert "hydra_plugins/tune_sweeper/plugin.py" in names
    assert not [n for n in names if not n.startswith(("hydra_plugins/", "hydra_tune-"))]
    assert "hydra_plugins/__init__.py" not in names
