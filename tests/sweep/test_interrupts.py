"""Requests to stop a sweep whose launcher is not ours."""

import os
import signal
import subprocess
import time
from pathlib import Path
from subprocess import Popen

import pytest
from apps import APP, command, statuses_of
from processes import descendants, is_alive, wait_until

from hydra_plugins.tune_sweeper.run import _journal, _record

SWEEP = ("-m", "hydra/sweeper=random", "hydra.sweeper.n_trials=40", "hydra.sweeper.seed=3")
SPACE = ("x=interval(0.0,1.0)", "hydra.sweep.dir=here", "hydra.sweeper.n_parallel=2")
LAUNCHERS = ["basic", "joblib", pytest.param("submitit_local", marks=pytest.mark.slow)]


def start(folder: Path, launcher: str, *typed: str, app: Path = APP) -> "Popen[bytes]":
    """A sweep in a session of its own, once all that it may run at once runs."""
    words = command(app, *SWEEP, *SPACE, f"hydra/launcher={launcher}", *typed)
    with open(folder / "errors", "w") as errors:
        process = Popen(
            words, cwd=folder, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    n_begun = 1 if launcher == "basic" else 2
    wait_until(lambda: len(list(folder.glob("here/*/pid"))) >= n_begun)
    assert process.poll() is None
    return process


def losses(folder: Path) -> list[str]:
    """The statuses of attempts that are to be made again."""
    records = _journal.read(folder / _record.FILE).records
    return [record["status"] for record in records if record["type"] == "lost"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_sigterm_ends_any_sweep_within_its_grace(tmp_path: Path, launcher: str) -> None:
    """What ran, or was to run in the same batch, is interrupted and not dead; nothing stays."""
    process = start(tmp_path, launcher, "sleep_s=60", "hydra.sweeper.grace_s=1")
    family, began = descendants(process.pid), time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)

    assert process.returncode == 143
    assert time.monotonic() - began < 10
    assert losses(tmp_path / "here") == ["interrupted"] * 2
    wait_until(lambda: not any(map(is_alive, family)), 3.0)


@pytest.mark.parametrize("bad", ["compute", "hear_and_go_on"])
@pytest.mark.parametrize(
    ("numbers", "code"), [([signal.SIGTERM], 143), ([signal.SIGINT] * 2, 130)], ids=["term", "int"]
)
def test_job_in_the_sweeps_own_process_does_not_hold_it_up(
    tmp_path: Path, bad: str, numbers: list[int], code: int
) -> None:
    """One that computes in C, where no handler runs, or that would go on for long."""
    process = start(tmp_path, "basic", f"behave={bad}", "hydra.sweeper.grace_s=1")
    began = time.monotonic()
    for number in numbers:
        time.sleep(0.3)
        process.send_signal(number)
    process.communicate(timeout=30)
    summary = _record.read(tmp_path / "here")

    assert process.returncode == code
    assert time.monotonic() - began < 10
    assert (len(summary.jobs), summary.ends) == (2, {})  # a batch, of which one had begun


def test_ctrl_c_while_processes_are_ended_spoils_nothing(tmp_path: Path) -> None:
    """All jobs are done, so the winner is told."""
    script = tmp_path / "slow_to_close.py"
    script.write_text(
        "import runpy, time\n"
        "from hydra_plugins.tune_launcher._pool_launcher import PoolLauncher\n"
        "close = PoolLauncher.close\n"
        "PoolLauncher.close = lambda self: (time.sleep(0.5), close(self))\n"
        f"runpy.run_path({str(APP)!r}, run_name='__main__')\n"
    )
    chosen = ("-m", "hydra/sweeper=grid", "hydra/launcher=workers", "hydra.sweep.dir=here")
    process = Popen(
        command(script, *chosen, "x=0.1,0.2"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "here" / _record.FILE
    wait_until(lambda: journal.exists() and '"type": "stop"' in journal.read_text())
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)

    assert (process.returncode, errors) == (0, "")
    assert "best value" in output


@pytest.mark.parametrize("bad", ["pool", "leave_child"])
def test_children_that_a_job_forks_are_not_the_sweeps(tmp_path: Path, bad: str) -> None:
    """What ends them ends no sweep in the same process, nor is one waited for that stays."""
    chosen = ("-m", "hydra/sweeper=grid", "hydra/launcher=basic", "hydra.sweep.dir=here")
    typed = command(APP, *chosen, "x=0.1,0.2", f"behave={bad}", "hydra.sweeper.grace_s=0.1")
    done = subprocess.run(typed, cwd=tmp_path, stdout=subprocess.DEVNULL, timeout=30)
    for child in tmp_path.glob("here/*/child_pid"):
        os.kill(int(child.read_text()), signal.SIGKILL)

    assert done.returncode == 0
    assert statuses_of(tmp_path / "here") == ["done"] * 2


@pytest.mark.parametrize("launcher", LAUNCHERS[1:])
def test_killed_sweep_takes_its_jobs_along(tmp_path: Path, launcher: str) -> None:
    """Who types the same command again does not train beside them, in the same folders."""
    process = start(tmp_path, launcher, "sleep_s=60")
    family = descendants(process.pid)
    assert family
    process.kill()
    process.communicate()

    wait_until(lambda: not any(map(is_alive, family)), 3.0)


def test_ctrl_c_at_a_terminal_is_not_for_the_jobs_of_joblib(tmp_path: Path) -> None:
    """It reaches all processes there; those jobs end, and nothing begins any more."""
    process = start(tmp_path, "joblib", "sleep_s=2")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)

    assert process.returncode == 130
    assert statuses_of(tmp_path / "here") == ["done", "done"]


def test_ctrl_c_twice_ends_the_jobs_of_joblib(tmp_path: Path) -> None:
    """Whoever types it twice does not wait for them."""
    process = start(tmp_path, "joblib", "sleep_s=60")
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
    process.communicate(timeout=30)

    assert process.returncode == 130
    assert losses(tmp_path / "here") == ["interrupted"] * 2
    # The process that cleans up after joblib lives; now and then it is told of a folder twice.
    assert "died unexpectedly" not in (tmp_path / "errors").read_text()


def test_ctrl_c_twice_ends_nothing_that_the_script_started(tmp_path: Path) -> None:
    """A server of the user's own may be there for others too."""
    script = tmp_path / "with_server.py"
    script.write_text(
        "import runpy, subprocess\n"
        "server = subprocess.Popen(['setsid', 'sleep', '60'], stdout=subprocess.DEVNULL)\n"
        "open('server_pid', 'w').write(str(server.pid))\n"
        f"runpy.run_path({str(APP)!r}, run_name='__main__')\n"
    )
    process = start(tmp_path, "joblib", "sleep_s=60", app=script)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
    process.communicate(timeout=30)
    server = int((tmp_path / "server_pid").read_text())

    assert process.returncode == 130
    assert is_alive(server)
    os.kill(server, signal.SIGKILL)


def test_job_that_breaks_joblib_runs_alone_when_it_is_the_last_suspect(tmp_path: Path) -> None:
    """Those that wait for its turn to be over are not taken along, nor called dead."""
    xs = "x=0.9,0.1,0.95,0.2,0.3"
    chosen = ("hydra/launcher=joblib", "hydra.sweeper.n_parallel=2", "hydra.sweep.dir=here")
    rules = ("hydra.sweeper.retries=0", "hydra.sweeper.max_failures=null")
    bad = ("bad_above=0.5", "bad=segfault", "sleep_s=1", "hydra.sweeper.fail_fast=null")
    subprocess.run(
        command(APP, "-m", "hydra/sweeper=grid", *chosen, *rules, *bad, xs),
        cwd=tmp_path,
        check=True,
    )

    assert statuses_of(tmp_path / "here") == ["died", "done", "died", "done", "done"]
