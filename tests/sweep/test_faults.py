"""Faults of trials, of their processes and of the sweep's own, injected for real."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import Popen

import pytest
from apps import APP, TRAIN, Run, command, progress_of, statuses_of, values_of
from processes import descendants, is_alive, wait_until

from hydra_plugins.tune_sweeper.run import _record
from hydra_plugins.tune_sweeper.run._record import End

WORKERS = ("-m", "hydra/launcher=workers", "hydra.launcher.cpu_slots=2", "hydra.sweep.dir=here")
GRID = (*WORKERS, "hydra/sweeper=grid", "hydra.sweeper.max_failures=null")


def ends_of(folder: Path) -> list[End]:
    return [end for _, end in sorted(_record.read(folder).ends.items())]


# Trials

LIMIT = "hydra.sweeper.trial_timeout_s=1"
SILENCE = "hydra.sweeper.stall_timeout_s=1"
TRIALS: list[tuple[str, tuple[str, ...], str, str, int]] = [
    ("raise", (), "failed", "ValueError: x=0.9 is bad", 1),
    ("unpicklable", (), "failed", "Unpicklable: (its message could not be read)", 1),
    ("exit", (), "failed", "SystemExit: 3", 1),
    ("leave", (), "died", "left its process with exit code 3", 2),
    ("leave_well", (), "died", "left its process with exit code 0", 2),
    ("kill", (), "died", "killed by SIGKILL", 2),
    ("kill", ("hydra.sweeper.retries=0",), "died", "killed by SIGKILL", 1),
    ("kill_once", (), "done", "", 2),
    ("segfault", (), "died", "killed by SIGSEGV", 2),
    ("memory", (), "oom", "MemoryError", 1),
    ("hang", (LIMIT,), "timeout", "not done after 1 s", 1),
    ("hang_deaf", (LIMIT,), "timeout", "not done after 1 s", 1),
    ("hang_in_c", (LIMIT,), "timeout", "not done after 1 s", 1),
    ("hang_stopped", (LIMIT,), "timeout", "not done after 1 s", 1),
    ("hang", (SILENCE,), "stalled", "wrote to no file for 1 s", 1),
    ("surrogate", (), "failed", r"ValueError: no file \udcff", 1),
    ("cancelled", (), "failed", "CancelledError: not awaited", 1),
    ("fork", (), "done", "", 1),
    ("fork_and_fail", (), "done", "", 1),
    ("surrogate_name", (), "done", "", 1),
    ("hog", (), "oom", "MemoryError", 1),
    ("move", ("hydra.launcher.cpu_slots=1",), "done", "", 1),
    ("replace_folder", (), "died", "without a result", 2),
    ("occupy_result", (), "died", "without a result", 2),
    ("real_time", (), "died", "killed by signal 40", 2),
    ("nan", (), "invalid", "value is nan", 1),
    ("minus_inf", (), "invalid", "value is -inf", 1),
]


@pytest.mark.parametrize(
    ("bad", "settings", "status", "error", "attempts"),
    TRIALS,
    ids=[f"{t[0]}-{t[2]}-{t[4]}" for t in TRIALS],
)
def test_bad_trial_costs_itself_alone(
    run: Run,
    tmp_path: Path,
    bad: str,
    settings: tuple[str, ...],
    status: str,
    error: str,
    attempts: int,
) -> None:
    """Recorded with its reason, tried again where the world was to blame; the others are done."""
    run(APP, *GRID, "x=0.1,0.9,0.2,0.3", "bad_above=0.5", f"bad='{bad}'", *settings)
    ends = ends_of(tmp_path / "here")

    assert [end.status for end in ends] == ["done", status, "done", "done"]
    assert error in str(ends[1].error or "")
    assert ends[1].attempt == attempts


@pytest.mark.parametrize("behave", ["resolver", "thread", "garbage", "close_output"])
def test_trial_feels_nothing_of_the_one_before(run: Run, tmp_path: Path, behave: str) -> None:
    """What can be done once in a process, what ends or stops the process later, a lost stream."""
    one_slot = ("hydra.launcher.cpu_slots=1", "hydra.sweeper.retries=0", "sleep_s=0.5")
    run(APP, *GRID, "x=0.1,0.2,0.3", f"behave={behave}", *one_slot, "hydra/job_logging=none", LIMIT)

    assert statuses_of(tmp_path / "here") == ["done"] * 3


@pytest.mark.parametrize(
    ("launcher", "bad"), [("basic", "fork_and_fail"), ("basic", "fork"), ("workers", "fork")]
)
def test_forked_child_of_a_task_ends_where_it_comes_back(
    run: Run, tmp_path: Path, launcher: str, bad: str
) -> None:
    """It writes no result, and no journal beside the sweep's own process."""
    chosen = ("-m", "hydra/sweeper=grid", f"hydra/launcher={launcher}", "hydra.sweep.dir=here")
    for _ in range(2):  # the second time reads what the first one wrote
        run(APP, *chosen, "x=0.3,0.9,0.2", "y=4", "bad_above=0.5", f"bad={bad}")

    assert [end.value for end in ends_of(tmp_path / "here")] == pytest.approx([0.0, 0.36, 0.01])


@pytest.mark.parametrize("closed", [(1,), (0, 1), (0, 1, 2)])
def test_sweep_whose_output_is_closed_is_a_sweep(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """As with >&- in a shell: no connection to a worker gets a number of the standard streams."""
    closing = (
        f"import os, sys; [os.close(n) for n in {closed}]; os.execv(sys.argv[1], sys.argv[1:])"
    )
    typed = [sys.executable, "-c", closing, *command(APP, *GRID, "x=0.1,0.2,0.3")]

    assert subprocess.call(typed, cwd=tmp_path) == 0
    assert statuses_of(tmp_path / "here") == ["done"] * 3


def test_timeout_comes_in_time(run: Run, tmp_path: Path) -> None:
    """Half a second after the limit, and the slot is of use again."""
    run(APP, *GRID, "x=0.9,0.1", "bad_above=0.5", "bad=hang_deaf", LIMIT)
    lines = (tmp_path / "here" / _record.FILE).read_text().splitlines()
    events = [json.loads(line) for line in lines]
    start = next(e["time"] for e in events if e["type"] == "start" and e["job"] == 0)
    end = next(e["time"] for e in events if e["type"] == "end" and e["job"] == 0)

    assert 1.0 <= end - start < 2.5  # the machine may be busy; on an idle one it is 1.02
    assert 1.0 <= ends_of(tmp_path / "here")[0].seconds < 2.5


def test_limit_begins_with_the_trial(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the imports that go before the first one, which may take a minute."""
    (tmp_path / "imported_slowly.py").write_text("import time; time.sleep(2)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run(APP, *GRID, "x=0.1,0.2,0.3", LIMIT, "hydra.launcher.preload=[imported_slowly]")

    assert statuses_of(tmp_path / "here") == ["done"] * 3


@pytest.mark.slow
def test_hang_in_a_loader_leaves_no_process(run: Run, tmp_path: Path) -> None:
    """The loader's worker goes with its trial."""
    bad = ("bad_above=0.5", "bad=hang_loading", "hydra.sweeper.trial_timeout_s=20")
    run(APP, *GRID, "x=0.9,0.1", *bad)
    loader = int((tmp_path / "here" / "0" / "loader_pid").read_text())

    assert statuses_of(tmp_path / "here") == ["timeout", "done"]
    wait_until(lambda: not is_alive(loader), 2.0)


@pytest.mark.parametrize("bad", ["hang_with_daemon", "leave_daemon"])
def test_daemon_ends_with_its_worker(run: Run, tmp_path: Path, bad: str) -> None:
    """Whether the trial was killed or done, though no signal to its group reaches a daemon."""
    run(APP, *GRID, "x=0.9,0.1", "bad_above=0.5", f"bad={bad}", LIMIT)
    daemon = int((tmp_path / "here" / "0" / "daemon_pid").read_text())

    assert statuses_of(tmp_path / "here")[1] == "done"
    wait_until(lambda: not is_alive(daemon), 2.0)


def test_killed_worker_loses_only_its_trial(tmp_path: Path) -> None:
    """kill -9 from outside: one retry, and the neighbour's result is kept."""
    typed = (*GRID, "x=0.1,0.2,0.3", "sleep_s=1.5")
    process = Popen(command(APP, *typed), cwd=tmp_path, stdout=subprocess.DEVNULL)
    pid = tmp_path / "here" / "0" / "pid"
    wait_until(lambda: pid.exists() and pid.read_text())
    os.kill(int(pid.read_text()), signal.SIGKILL)

    assert process.wait(60) == 0
    assert [(end.status, end.attempt) for end in ends_of(tmp_path / "here")] == [
        ("done", 2),
        ("done", 1),
        ("done", 1),
    ]


def test_output_of_a_trial_goes_to_its_log(run: Run, tmp_path: Path) -> None:
    """Also what is printed; the sweep's own lines stay readable."""
    done = run(APP, *GRID, "x=0.1,0.2")

    assert "said by the task" not in done.stdout + done.stderr
    log = tmp_path / "here" / "0" / "app.log"
    assert "said by the task" in log.read_text()
    assert not log.stat().st_mode & 0o111, "no program"


def test_trial_knows_nothing_of_slurm(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would requeue the whole sweep; scontrol is never called."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    for name, value in {"JOB_ID": "17", "NTASKS": "2", "PROCID": "0", "JOB_NAME": "x"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    run(APP, *GRID, "x=0.1,0.2", "behave=environment")
    small = ("epochs=1", "model=mlp", "hydra.sweeper.n_trials=2", "lr=interval(1e-3,1e-1)")
    run(TRAIN, "-m", "hydra/sweeper=random", *small)

    assert [end.metrics for end in ends_of(tmp_path / "here")] == [{"value": 0.0}] * 2
    assert statuses_of(tmp_path / "outputs" / "random-1") == ["done"] * 2
    assert not (tmp_path / "called").exists()


def test_slots_of_gpus_are_told_by_the_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two slots on one GPU and one on another, also after a worker was replaced."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    slots = ("hydra.launcher.devices=[0,0,1]", "hydra.launcher.cpu_slots=null")
    run(APP, *GRID, *slots, "x=0.1,0.9,0.2,0.3,0.4,0.5", "bad_above=0.8", "bad=kill", "sleep_s=0.3")
    ends = ends_of(tmp_path / "here")

    assert {end.slot for end in ends if end.slot} == {"cuda:0", "cuda:1"}
    assert [end.status for end in ends] == ["done", "died", "done", "done", "done", "done"]


# The sweep's own process

SLOW = ("hydra/sweeper=random", "hydra.sweeper.n_trials=40", "x=interval(0.0,1.0)")


def start(folder: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> "Popen[str]":
    """A sweep in a process of its own, once two of its jobs run."""
    process = Popen(
        [*prefix, *command(APP, *WORKERS, *SLOW, "hydra.sweeper.seed=3", *arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: len(list(folder.glob("here/*/pid"))) >= 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process


def finish(process: "Popen[str]", seconds: float = 30.0) -> tuple[int, str]:
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def test_ctrl_c_once_lets_running_trials_end(tmp_path: Path) -> None:
    """No new ones begin; exit code 130."""
    process = start(tmp_path, "sleep_s=1.5")
    process.send_signal(signal.SIGINT)
    code, output = finish(process)

    assert (code, statuses_of(tmp_path / "here")) == (130, ["done", "done"])
    assert len(_record.read(tmp_path / "here").jobs) == 2
    assert "type the same command to go on" in output


def test_ctrl_c_twice_ends_running_trials(tmp_path: Path) -> None:
    """They are interrupted, not failed, and run again later."""
    process = start(tmp_path, "sleep_s=100")
    workers = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    code, _ = finish(process)

    assert (code, ends_of(tmp_path / "here")) == (130, [])
    assert not [pid for pid in workers if is_alive(pid)]


def test_ctrl_c_three_times_leaves_at_once(tmp_path: Path) -> None:
    """Whatever the trials do, and without leaving one behind."""
    process = start(tmp_path, "behave=hang_deaf")
    workers = descendants(process.pid)
    process.send_signal(signal.SIGSTOP)  # so that all three arrive together
    for _ in range(3):
        process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    for _ in range(2):
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
    code, _ = finish(process)

    assert code == 130
    wait_until(lambda: not [pid for pid in workers if is_alive(pid)], 3.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signal_of_a_scheduler_ends_within_its_grace(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Trials that do not end are killed when it is over; exit code 128 + n."""
    process = start(tmp_path, "sleep_s=100", "hydra.sweeper.grace_s=1")
    workers, began = descendants(process.pid), time.monotonic()
    process.send_signal(number)
    code, _ = finish(process)

    assert (code, ends_of(tmp_path / "here")) == (128 + number, [])
    assert 0.9 < time.monotonic() - began < 10
    assert not [pid for pid in workers if is_alive(pid)]


def test_sweep_in_the_background_can_be_stopped(tmp_path: Path) -> None:
    """A shell's & starts it with SIGINT ignored; SIGTERM works all the same."""
    ignoring = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    ignoring += "os.execv(sys.argv[1], sys.argv[1:])"
    process = start(tmp_path, "sleep_s=0.5", prefix=(sys.executable, "-c", ignoring))
    process.terminate()
    code, _ = finish(process)

    assert code == 143


def test_killed_sweep_leaves_no_process_and_goes_on(run: Run, tmp_path: Path) -> None:
    """kill -9 of the driver with trials that hang in C, then the same command."""
    process = start(tmp_path, "bad_above=0.5", "bad=hang_in_c", "sleep_s=0.2")
    workers = descendants(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: not [pid for pid in workers if is_alive(pid)], 3.0)
    n_started = len(_record.read(tmp_path / "here").jobs)
    more = ("bad_above=0.5", "bad=hang_in_c", "sleep_s=0.2", "hydra.sweeper.seed=3")
    limit = ("hydra.sweeper.trial_timeout_s=1.5", "hydra.sweeper.stop.patience=2")
    run(APP, *WORKERS, *SLOW, *more, *limit, "hydra.sweeper.max_failures=null", check=False)

    assert {end.attempt for end in ends_of(tmp_path / "here")[:n_started]} >= {2}


def test_preempted_training_goes_on_from_its_checkpoint(run: Run, tmp_path: Path) -> None:
    """SIGTERM: the epoch ends, a checkpoint is written, the same command continues it, exactly."""
    more = ("hydra/sweeper=random", "hydra.sweeper.n_trials=2", "hydra.sweeper.seed=1")
    typed = (*more, "lr=interval(1e-3,1e-1)", "epochs=30", "early_stop_patience=29", "model=mlp")
    process = Popen(command(TRAIN, *WORKERS, *typed), cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_until(lambda: (tmp_path / "here" / "0" / "progress.jsonl").exists())
    process.terminate()

    assert process.wait(60) == 143
    n_before = len(progress_of(tmp_path / "here" / "0"))
    assert 0 < n_before < 30
    run(TRAIN, *WORKERS, *typed)
    run(TRAIN, *WORKERS, *typed, "hydra.sweep.dir=unbroken")
    broken, unbroken = (_record.read(tmp_path / f).ends for f in ("here", "unbroken"))
    results = [
        json.loads((tmp_path / f / "0/result.json").read_text()) for f in ("here", "unbroken")
    ]

    assert broken[0].attempt == 2
    assert [broken[n].metrics for n in (0, 1)] == [unbroken[n].metrics for n in (0, 1)]
    assert results[0]["histories"] == results[1]["histories"]
    assert progress_of(tmp_path / "here" / "0") == progress_of(tmp_path / "unbroken" / "0")


def test_unreadable_checkpoint_starts_the_training_over(run: Run, tmp_path: Path) -> None:
    """Cut short or malicious: set aside, nothing of it is run."""
    more = ("hydra/sweeper=random", "hydra.sweeper.n_trials=1", "hydra.sweeper.seed=1")
    typed = (*more, "lr=interval(1e-3,1e-1)", "epochs=30", "model=mlp")
    process = Popen(command(TRAIN, *WORKERS, *typed), cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_until(lambda: (tmp_path / "here" / "0" / "progress.jsonl").exists())
    process.terminate()
    process.wait(60)
    checkpoint = tmp_path / "here" / "0" / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    run(TRAIN, *WORKERS, *typed)
    (end,) = ends_of(tmp_path / "here")

    assert (end.status, end.attempt, end.epochs_done) == ("done", 3, 30)
    assert (checkpoint.parent / "last.ckpt.unreadable").stat().st_size == 5000
    assert len(progress_of(tmp_path / "here" / "0")) == 30


# Many failures


def test_failing_sweep_stops_early_with_its_reason(run: Run, tmp_path: Path) -> None:
    """The first three all fail: each error once, the first traceback, exit code 3."""
    done = run(APP, *WORKERS, *SLOW, "behave=raise", check=False)
    lines = done.stdout.splitlines()

    assert done.returncode == 3
    assert 3 <= len(ends_of(tmp_path / "here")) <= 4  # one more may run when the third one fails
    assert sum("Traceback" in line or "in fail" in line for line in lines) >= 1
    assert any("the first jobs all failed" in line for line in lines)


def test_some_failures_are_survived(run: Run, tmp_path: Path) -> None:
    """Three in ten fail; the best of the others is right."""
    run(APP, *WORKERS, *SLOW, "bad_above=0.7", "hydra.sweeper.seed=3")
    ends, values = ends_of(tmp_path / "here"), values_of(tmp_path / "here")
    best = min(range(40), key=lambda n: abs(values[n]["x"] - 0.3))

    assert {end.status for end in ends} == {"done", "failed"}
    assert f"best_trial: {best}\n" in (tmp_path / "here/optimization_results.yaml").read_text()


def test_sweep_without_a_best_says_so(run: Run, tmp_path: Path) -> None:
    """Every trial invalid and no rule to stop: exit code 3, no crash."""
    no_rules = ("hydra.sweeper.fail_fast=null", "hydra.sweeper.max_failures=null")
    done = run(APP, *WORKERS, *SLOW, *no_rules, "behave='nan'", check=False)

    assert done.returncode == 3
    assert "no best: none of 40 jobs is done" in done.stdout
