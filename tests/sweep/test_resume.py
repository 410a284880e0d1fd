"""The same command continues a sweep that was killed, and ends as if it had not been."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from apps import APP, TRAIN, Run, command, statuses_of, values_of

from hydra_plugins.tune_sweeper.run import _record

SWEEP = ("-m", "hydra.sweeper.seed=7", "hydra.sweeper.n_trials=8", "x=interval(0.0,1.0)", "y=1,2,3")


SLOW = pytest.mark.slow


def kill_after(n_ends: int, folder: Path, *arguments: str) -> None:
    """Starts a sweep and kills it with SIGKILL once so many jobs have ended."""
    process = subprocess.Popen(
        command(APP, *arguments), cwd=folder.parent.parent, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        journal = folder / _record.FILE
        text = journal.read_bytes() if journal.exists() else b""
        starts, ends = (text.count(b'"type": "%s"' % kind) for kind in (b"start", b"end"))
        if starts > ends >= n_ends:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    "strategy", ["bayes", *(pytest.param(name, marks=SLOW) for name in ("random", "grid"))]
)
def test_killed_sweep_ends_as_an_unbroken_one(run: Run, tmp_path: Path, strategy: str) -> None:
    """Killed with kill -9 in the middle and typed again: the same proposals; a third time: new."""
    points = ("hydra.sweeper.points=3",) if strategy == "grid" else ()
    typed = (*SWEEP, f"hydra/sweeper={strategy}", *points, "sleep_s=0.2")
    kill_after(3, tmp_path / "outputs" / f"{strategy}-1", *typed)
    first = tmp_path / "outputs" / f"{strategy}-1"
    n_before = len(_record.read(first).ends)
    done = run(APP, *typed)
    run(APP, *typed, "hydra.sweep.dir=unbroken")
    run(APP, *typed)

    assert 3 <= n_before < 8
    assert f"continues with {n_before} ended jobs" in done.stdout
    assert values_of(first) == values_of(tmp_path / "unbroken")
    assert statuses_of(first) == ["done"] * 8
    assert values_of(tmp_path / "outputs" / f"{strategy}-2") == values_of(first)


def test_killed_training_runs_again_as_second_attempt(run: Run, tmp_path: Path) -> None:
    """A job that was killed keeps its number, values and folder."""
    typed = (*SWEEP, "hydra/sweeper=random", "sleep_s=0.5")
    folder = tmp_path / "outputs" / "random-1"
    kill_after(2, folder, *typed)
    running = set(_record.read(folder).jobs) - set(_record.read(folder).ends)
    run(APP, *typed)
    ends = _record.read(folder).ends

    assert len(running) == 1
    assert [ends[number].attempt for number in running] == [2]
    assert {end.attempt for number, end in ends.items() if number not in running} == {1}


@pytest.mark.slow
def test_killed_population_goes_on_from_its_checkpoints(run: Run, tmp_path: Path) -> None:
    """Real trainings: the members' results equal those of an unbroken sweep."""
    size = ("hydra.sweeper.population_size=3", "hydra.sweeper.seed=3", "epochs=5", "model=mlp")
    typed = ("-m", "hydra/sweeper=pbt", *size, "lr=interval(1e-4,1)")
    folder = tmp_path / "outputs" / "pbt-1"
    process = subprocess.Popen(command(TRAIN, *typed), cwd=tmp_path, stdout=subprocess.DEVNULL)
    while len(list(folder.glob("*/*/result.json"))) < 5:
        time.sleep(0.02)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run(TRAIN, *typed)
    run(TRAIN, *typed, "hydra.sweep.dir=unbroken")
    broken, unbroken = (_record.read(f) for f in (folder, tmp_path / "unbroken"))

    assert [j.proposal for j in broken.jobs.values()] == [
        j.proposal for j in unbroken.jobs.values()
    ]
    assert [broken.ends[n].metrics for n in range(15)] == [
        unbroken.ends[n].metrics for n in range(15)
    ]


def test_larger_n_trials_extends_a_named_sweep(run: Run, tmp_path: Path) -> None:
    """n_trials is a total; reached, there is nothing to do."""
    run(APP, *SWEEP, "hydra/sweeper=random", "hydra.sweep.dir=here")
    again = run(APP, *SWEEP, "hydra/sweeper=random", "hydra.sweep.dir=here")
    first = values_of(tmp_path / "here")
    run(APP, *SWEEP, "hydra/sweeper=random", "hydra.sweep.dir=here", "hydra.sweeper.n_trials=12")

    assert len(first) == 8 and "nothing to do" in again.stdout
    assert values_of(tmp_path / "here")[:8] == first
    assert statuses_of(tmp_path / "here") == ["done"] * 12


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("x=interval(0.0,2.0)", "space.parameters.x.high: 1.0 -> 2.0"),
        ("text=other", "text"),
        ("hydra.sweeper.direction=maximize", "direction"),
        ("hydra.sweeper.seed=8", "seed: 7 -> 8"),
        ("hydra.sweeper.sampler=iid", "sampler"),
    ],
)
def test_another_search_is_refused(run: Run, change: str, named: str) -> None:
    """The difference is shown, and nothing is written."""
    run(APP, *SWEEP, "hydra/sweeper=random", "hydra.sweep.dir=here")
    done = run(APP, *SWEEP, "hydra/sweeper=random", "hydra.sweep.dir=here", change, check=False)

    assert done.returncode == 2
    assert named in done.stderr


def test_changed_space_extends_when_asked_to(run: Run, tmp_path: Path) -> None:
    """on_change=extend: old trials stay, those inside the new space are observations."""
    here = ("hydra/sweeper=bayes", "hydra.sweep.dir=here")
    run(APP, *SWEEP, *here)
    wider = ("x=interval(-1.0,1.0)", "hydra.sweeper.on_change=extend", "hydra.sweeper.n_trials=12")
    run(APP, *SWEEP, *here, *wider)
    summary = _record.read(tmp_path / "here")

    assert statuses_of(tmp_path / "here") == ["done"] * 12
    assert summary.header["space"]["parameters"]["x"]["low"] == -1.0


def test_sweep_that_was_killed_is_extended(run: Run, tmp_path: Path) -> None:
    """What had begun in the old space ends there, and no job is lost or doubled."""
    here = (*SWEEP, "hydra/sweeper=random", "hydra.sweep.dir=here", "sleep_s=0.2")
    kill_after(2, tmp_path / "here" / "here", *here, "hydra.sweep.dir=here/here")
    os.rename(tmp_path / "here" / "here", tmp_path / "moved")
    more = ("hydra.sweep.dir=moved", "x=interval(0.0,2.0)", "hydra.sweeper.on_change=extend")
    run(APP, *here, *more)
    summary = _record.read(tmp_path / "moved")

    assert statuses_of(tmp_path / "moved") == ["done"] * 8
    assert sorted(summary.jobs) == list(range(8))
    assert max(end.attempt for end in summary.ends.values()) == 2
    assert summary.header["space"]["parameters"]["x"]["high"] == 2.0


def test_another_task_is_no_other_space(run: Run, tmp_path: Path) -> None:
    """What was measured with y=4 says nothing of y=9, whatever on_change is."""
    here = ("-m", "hydra/sweeper=grid", "hydra.sweep.dir=here")
    run(APP, *here, "x=0.1,0.2", "y=4")
    extend = "hydra.sweeper.on_change=extend"
    done = run(APP, *here, "x=0.1,0.2,0.4", "y=9", extend, check=False)

    assert done.returncode == 2
    assert "config.y: 4 -> 9" in done.stderr


def test_best_of_an_extended_sweep_lies_in_its_space(run: Run, tmp_path: Path) -> None:
    """Also where one that was searched before has one value now."""
    here = ("-m", "hydra/sweeper=grid", "hydra.sweep.dir=here")
    run(APP, *here, "x=0.3,0.6,0.7", "y=4,5")
    done = run(APP, *here, "x=0.6,0.7", "y=5", "hydra.sweeper.on_change=extend")
    best = yaml.safe_load((tmp_path / "here" / "optimization_results.yaml").read_text())

    assert best["best_params"] == {"x": 0.6}
    assert "train it again" in done.stdout and "x=0.6 y=5" in done.stdout


def test_folder_in_use_is_refused(run: Run, tmp_path: Path) -> None:
    """A second sweeper on the folder ends with 4 at once and names the first."""
    typed = (*SWEEP, "hydra/sweeper=random", "hydra.sweep.dir=here", "sleep_s=0.5")
    first = subprocess.Popen(command(APP, *typed), cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not (tmp_path / "here" / _record.FILE).exists():
        time.sleep(0.01)
    second = run(APP, *typed, check=False)
    first.kill()
    first.wait()

    assert second.returncode == 4
    assert str(first.pid) in second.stderr


def test_ctrl_c_leaves_a_sweep_to_be_continued(run: Run, tmp_path: Path) -> None:
    """SIGINT ends with 130, and the same command goes on."""
    typed = (*SWEEP, "hydra/sweeper=random", "sleep_s=0.5")
    process = subprocess.Popen(
        command(APP, *typed), cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    folder = tmp_path / "outputs" / "random-1"
    while not (folder / "1" / ".hydra").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "type the same command to go on" in output
    assert "continues with" in run(APP, *typed).stdout


@pytest.mark.slow
def test_sigterm_loses_no_training_to_failure(run: Run, tmp_path: Path) -> None:
    """The running training ends its epoch and is no failed trial; exit code 143."""
    typed = ("-m", "hydra/sweeper=random", "hydra.sweeper.n_trials=1", "epochs=40", "model=mlp")
    typed = (*typed, "lr=interval(1e-3,1)", "hydra.sweeper.seed=1")
    process = subprocess.Popen(command(TRAIN, *typed), cwd=tmp_path, stdout=subprocess.DEVNULL)
    folder = tmp_path / "outputs" / "random-1"
    while not (folder / "0" / "progress.jsonl").exists():
        time.sleep(0.005)
    process.terminate()

    assert process.wait(timeout=30) == 143
    assert _record.read(folder).ends == {}
    run(TRAIN, *typed)
    assert statuses_of(folder) == ["done"]


@pytest.mark.slow
def test_sweeps_started_together_get_folders_of_their_own(tmp_path: Path) -> None:
    """Two sweeps in the same second must not share a folder."""
    typed = command(APP, *SWEEP, "hydra/sweeper=random", "hydra.sweeper.resume=never")
    processes = [subprocess.Popen(typed, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(3)]

    assert [p.wait() for p in processes] == [0, 0, 0]
    assert sorted(f.name for f in (tmp_path / "outputs").iterdir()) == [
        "random-1",
        "random-2",
        "random-3",
    ]


def test_added_key_makes_another_search(run: Run, tmp_path: Path) -> None:
    """+key=value changes what the task computes, so it is not continued in silence."""
    here = (*SWEEP, "hydra/sweeper=random", "hydra.sweep.dir=here")
    run(APP, *here)
    done = run(APP, *here, "+bonus=-100", "hydra.sweeper.n_trials=12", check=False)
    run(APP, *here[:-1], "hydra.sweep.dir=there", "+bonus=1")
    other = run(APP, *here[:-1], "hydra.sweep.dir=there", "+bonus=2", check=False)

    assert (done.returncode, other.returncode) == (2, 2)
    assert "added.+bonus" in done.stderr and "bonus" in other.stderr


def test_job_that_ends_the_sweep_itself_is_not_run_for_ever(run: Run, tmp_path: Path) -> None:
    """In one process with it, it takes the sweep along; after three times the sweep goes past."""
    here = ("-m", "hydra/sweeper=grid", "hydra.sweep.dir=here", "x=0.1,0.9,0.2")
    codes = [
        run(APP, *here, "bad_above=0.5", "bad=leave", check=False).returncode for _ in range(4)
    ]
    ends = _record.read(tmp_path / "here").ends

    assert codes == [3, 3, 3, 0]
    assert [ends[n].status for n in range(3)] == ["done", "died", "done"]
    assert "ended 3 times while it ran" in str(ends[1].error)
