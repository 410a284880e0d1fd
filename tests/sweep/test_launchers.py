"""Hydra's own launchers run our sweeps, with every strategy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from apps import APP, TRAIN, Run, command, statuses_of, values_of

from hydra_plugins.tune_sweeper.run import _record

LAUNCHERS = ["basic", "joblib", "submitit_local", "workers", "ray_workers"]
SPACE = ("x=interval(0.0,1.0)", "y=1,2,3,4")


def settings(strategy: str, launcher: str) -> tuple[str, ...]:
    """A sweep of six jobs, two at a time, in the folder `here`."""
    parallel = ("hydra.sweeper.n_parallel=2", "hydra.sweeper.n_trials=6", "hydra.sweeper.seed=1")
    choice = (f"hydra/sweeper={strategy}", f"hydra/launcher={launcher}")
    return ("-m", *choice, *parallel, "hydra.sweep.dir=here")


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("strategy", ["random", "bayes"])
def test_launcher_runs_a_search(run: Run, tmp_path: Path, strategy: str, launcher: str) -> None:
    """Six jobs, all recorded, all in their own folders."""
    run(APP, *settings(strategy, launcher), *SPACE)

    assert statuses_of(tmp_path / "here") == ["done"] * 6
    for number, values in enumerate(values_of(tmp_path / "here")):
        seen = json.loads((tmp_path / "here" / str(number) / "seen.json").read_text())
        assert {"x": seen["x"], "y": seen["y"]} == values


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launcher_survives_failing_jobs(run: Run, tmp_path: Path, launcher: str) -> None:
    """A job that raises what cannot be pickled or shown is a failed job, and no more."""
    bad = ("bad_above=0.5", "bad=unpicklable", "hydra.sweeper.max_failures=null")
    run(APP, *settings("random", launcher), *SPACE, *bad)
    failed = [values["x"] > 0.5 for values in values_of(tmp_path / "here")]

    assert any(failed) and not all(failed)
    assert statuses_of(tmp_path / "here") == ["failed" if f else "done" for f in failed]


def test_proposals_do_not_depend_on_the_launcher(run: Run, tmp_path: Path) -> None:
    """Random search proposes the same on every launcher and with any number of workers."""
    found = []
    for launcher, n_parallel in (("basic", 1), ("joblib", 2), ("workers", 2)):
        folder = f"{launcher}-{n_parallel}"
        more = (f"hydra.sweeper.n_parallel={n_parallel}", f"hydra.sweep.dir={folder}")
        run(APP, *settings("random", launcher)[:-1], *SPACE, *more)
        found.append(values_of(tmp_path / folder))

    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("basic", marks=pytest.mark.slow),
        pytest.param("joblib", marks=pytest.mark.slow),
        "workers",
    ],
)
def test_population_trains_on_every_launcher(run: Run, tmp_path: Path, launcher: str) -> None:
    """Steps continue checkpoints of other jobs, on real trainings."""
    pbt = ("-m", "hydra/sweeper=pbt", f"hydra/launcher={launcher}", "hydra.sweeper.n_parallel=2")
    small = ("hydra.sweeper.population_size=4", "hydra.sweeper.seed=3", "epochs=5", "model=mlp")
    run(TRAIN, *pbt, *small, "lr=interval(1e-4,1)", "hydra.sweep.dir=here")
    summary = _record.read(tmp_path / "here")

    assert statuses_of(tmp_path / "here") == ["done"] * 20
    children = [j.proposal for j in summary.jobs.values() if j.proposal.parent is not None]
    assert len(children) == 16
    for child in children:
        parent = summary.jobs[child.parent].proposal  # type: ignore[index]
        assert child.step == parent.step + 1
        assert summary.ends[child.parent].epochs_done == child.step  # type: ignore[index]
    assert any(child.info["op"] == "exploit" for child in children)


def most_at_once(folder: Path) -> int:
    """How many jobs of a sweep ran side by side."""
    n_running, most = 0, 0
    for line in (folder / _record.FILE).read_text().splitlines():
        kind = json.loads(line)["type"]
        n_running += {"start": 1, "end": -1}.get(kind, 0)
        most = max(most, n_running)
    return most


@pytest.mark.parametrize(
    "settings",
    [
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=3"),
        ("hydra/launcher=workers", "hydra.launcher.cpu_slots=3"),
        ("hydra/launcher=workers", "hydra.launcher.cpu_slots=9", "hydra.sweeper.n_parallel=3"),
    ],
    ids=["joblib", "slots", "n_parallel"],
)
def test_as_many_run_at_once_as_there_are_slots(
    run: Run, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """Without n_parallel, the launcher's own setting says it."""
    more = ("hydra.sweeper.n_trials=6", "hydra.sweep.dir=here", "sleep_s=0.3")
    run(APP, "-m", "hydra/sweeper=random", *settings, *more, "x=interval(0.0,1.0)")

    assert most_at_once(tmp_path / "here") == 3


SLOW = pytest.mark.slow
SLOW_SUBMITIT = pytest.param("submitit_local", marks=SLOW)  # it notices a death after 20 s


@pytest.mark.parametrize("launcher", ["joblib", SLOW_SUBMITIT, "workers"])
def test_job_that_kills_its_worker_is_the_only_one_lost(
    run: Run, tmp_path: Path, launcher: str
) -> None:
    """Others that broke with it are run again; it is told apart by running alone."""
    chosen = (f"hydra/launcher={launcher}", "hydra.sweeper.n_parallel=2", "hydra.sweep.dir=here")
    bad = ("bad_above=0.5", "bad=kill", "hydra.sweeper.max_failures=null", "sleep_s=0.3")
    run(APP, "-m", "hydra/sweeper=grid", *chosen, "x=0.1,0.2,0.9,0.3,0.4,0.45", *bad)

    assert statuses_of(tmp_path / "here") == ["done", "done", "died", "done", "done", "done"]


def test_joblib_with_one_core_keeps_jobs_apart(tmp_path: Path) -> None:
    """It then runs them in the sweep's own process, which has one working directory."""
    one_core = "import os, sys; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]);"
    one_core += "os.execv(sys.argv[1], sys.argv[1:])"
    typed = command(APP, *settings("random", "joblib"), *SPACE, "hydra.job.chdir=true")
    subprocess.run([sys.executable, "-c", one_core, *typed], cwd=tmp_path, check=True)

    assert statuses_of(tmp_path / "here") == ["done"] * 6
    for number, values in enumerate(values_of(tmp_path / "here")):
        seen = json.loads((tmp_path / "here" / str(number) / "seen.json").read_text())
        assert {"x": seen["x"], "y": seen["y"]} == values


def test_limit_that_a_launcher_cannot_keep_is_refused(run: Run, tmp_path: Path) -> None:
    """Promises are kept or not made."""
    limit = ("hydra/launcher=joblib", "hydra.sweeper.trial_timeout_s=5")
    done = run(APP, "-m", "hydra/sweeper=grid", *limit, "x=1,2", check=False)

    assert done.returncode == 2
    assert "hydra/launcher=workers" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("devices=[0,7]", "there is no GPU 7"),
        ("devices=gpu", "expected auto, cpu, or numbers of GPUs"),
        ("devices=true", "devices=True: expected auto, cpu, or numbers of GPUs"),
        ("slots_per_device=0", "expected an integer from 1 on"),
        ("cpu_slots=-1", "expected an integer from 1 on"),
        ("threads=0", "threads=0: expected an integer from 1 on"),
        ("jobs_per_worker=-5", "jobs_per_worker=-5: expected an integer from 1 on"),
        ("preload=[no_such_module]", "there is no module no_such_module"),
    ],
)
def test_wrong_slots_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, sentence: str
) -> None:
    """Before anything is launched or written."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    chosen = ("hydra/launcher=workers", f"hydra.launcher.{setting}")
    done = run(APP, "-m", "hydra/sweeper=grid", *chosen, "x=1,2", check=False)

    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_job_of_any_launcher_knows_nothing_of_slurm(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    """Only those that SLURM itself starts do."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    chosen = (f"hydra/launcher={launcher}", "hydra.sweep.dir=here", "behave=environment")
    run(APP, "-m", "hydra/sweeper=grid", *chosen, "x=0.1,0.2")
    ends = _record.read(tmp_path / "here").ends.values()

    assert [end.metrics for end in ends] == [{"value": 0.0}] * 2


def test_module_that_goes_elsewhere_takes_no_job_along(tmp_path: Path) -> None:
    """The folders of a sweep are where it began, whatever is imported."""
    (tmp_path / "goes_away.py").write_text("import os; os.chdir('/')")
    chosen = ("hydra/launcher=workers", "hydra.launcher.preload=[goes_away]")
    subprocess.run(
        command(APP, "-m", "hydra/sweeper=grid", *chosen, "hydra.sweep.dir=here", "x=0.1,0.2"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
    )

    assert statuses_of(tmp_path / "here") == ["done"] * 2
