"""What only a cluster can do to jobs: real nodes, real kills."""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from apps import APP, Run, command, statuses_of
from pool_jobs import order
from ray_nodes import Nodes

from hydra_plugins.tune_launcher._workers import Ended, PoolBroken
from hydra_plugins.tune_sweeper.run import _record

RAY = ("-m", "hydra/launcher=ray_workers", "hydra.sweep.dir=here")
GRID = (*RAY, "hydra/sweeper=grid", "hydra.sweeper.max_failures=null")
SOON_S = 60.0  # a bound for the tests, not a promise: the machine may be busy


def result(pool: Any, name: str, argument: Any = None) -> Any:
    """What one job gives back."""
    pool.submit(0, order(name, argument))
    return pickle.loads(wait(pool).answer or b"")


def wait(pool: Any) -> Ended:
    """The next job that ends: wait() also returns when one begins."""
    while not (ended := pool.wait(SOON_S)):
        assert pool.n_running
    (one,) = ended
    return one  # type: ignore[no-any-return]


def begin(pool: Any, name: str, argument: Any = None) -> int:
    """A job that runs; gives back the process of its actor."""
    pool.submit(1, order(name, argument))
    while pool.waiting:
        pool.wait(SOON_S)
    wait_until(busy_actors)
    (actor,) = busy_actors()
    return actor


def wait_until(holds: Callable[[], Any], seconds: float = SOON_S) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_alive(pid: int) -> bool:
    return bool(command_of(pid))  # a zombie has none


def busy_actors() -> list[int]:
    """Those of this process's cluster: another one of the suite may have its own."""
    return [
        pid
        for pid in processes("ray::SlotActor.run")
        if os.environ["RAY_ADDRESS"] in command_of(parent_of(pid))
    ]


def processes(text: str, environ: str = "") -> list[int]:
    """Those whose command and first environment have these in them."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if text in command_of(pid) and environ in environ_of(pid)]


def environ_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


# Jobs and their actors


@pytest.fixture
def own_pool(make_ray_pool: Callable[..., Any]) -> Iterator[Any]:
    """A pool whose actors may be killed."""
    pool = make_ray_pool(env={"POOL_OF": str(os.getpid())})
    yield pool
    pool.close()


def test_killed_actor_costs_its_job(own_pool: Any) -> None:
    """Another one comes in its place, and what the job was is gone."""
    os.kill(begin(own_pool, "sleep", 60), signal.SIGKILL)
    ended = wait(own_pool)

    assert (ended.number, ended.answer) == (1, None)
    assert re.match(r"its Ray node or process was lost: \w+", ended.loss or "")
    assert result(own_pool, "echo", 5) == 5


def test_children_of_a_job_end_with_its_actor(own_pool: Any) -> None:
    """Ray itself would leave them."""
    actor = begin(own_pool, "hang_with_child")
    mark = ("import time; time.sleep(60)", f"POOL_OF={os.getpid()}")
    wait_until(lambda: processes(*mark))
    os.kill(actor, signal.SIGKILL)
    wait(own_pool)

    wait_until(lambda: not processes(*mark), 5.0)


def test_job_sees_its_slot_and_nothing_of_slurm(
    make_ray_pool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is the node's, with what env_copy names."""
    pool = make_ray_pool(threads=3, env={"COPIED": "yes", "SLURM_JOB_ID": "17"})
    seen = result(pool, "environment")
    pool.close()

    assert re.fullmatch(r"ray:[\d.]+/cpu", seen["HYDRA_TUNE_SLOT"])
    assert (seen["COPIED"], seen["OMP_NUM_THREADS"]) == ("yes", "3")
    assert seen["CUDA_VISIBLE_DEVICES"] == ""
    assert not [name for name in seen if name.startswith("SLURM_")]


def test_time_of_a_job_begins_after_the_imports(
    make_ray_pool: Callable[..., Any], tmp_path: Path
) -> None:
    """Else a limit would end every first job of every actor."""
    (tmp_path / "slow_import.py").write_text("import time; time.sleep(2)")
    with closing(make_ray_pool(modules=["slow_import"], path=[str(tmp_path), *sys.path])) as pool:
        pool.submit(0, order("echo", 1))
        began = time.monotonic()
        while pool.waiting:
            assert pool.wait(0.05) == []
        seconds = time.monotonic() - began
        ended = wait(pool)

    assert seconds > 2
    assert ended.loss is None


def test_jobs_wait_while_the_cluster_is_full(make_ray_pool: Callable[..., Any]) -> None:
    """They have not begun, can be called off, and begin when there is room."""
    from hydra_plugins.tune_launcher._ray_cluster import Share

    pool = make_ray_pool(Share(3, 0))
    more = make_ray_pool(Share(4, 0))
    assert result(pool, "echo", 1) == 1
    more.submit(1, order("echo", "second"))
    more.submit(2, order("echo", "called off"))
    assert more.wait(0.5) == []
    assert more.waiting == {1, 2}
    more.signal(2, signal.SIGTERM)
    assert wait(more) == Ended(2, None, "it was ended before it began")
    pool.close()
    ended = wait(more)
    more.close()

    assert (ended.number, pickle.loads(ended.answer or b"")) == (1, "second")


def test_folder_that_a_node_does_not_have_is_said(make_ray_pool: Callable[..., Any]) -> None:
    """Instead of results that nobody finds."""
    pool = make_ray_pool(folder="/no/such/folder")
    pool.submit(0, order("echo"))

    with pytest.raises(PoolBroken, match=r"/no/such/folder cannot be entered.*all nodes share"):
        wait(pool)
    pool.close()


# Room


@pytest.mark.parametrize(
    ("cpus", "gpus", "node", "n"),
    [
        (1, 0, {"CPU": 8.0}, 8),
        (3, 0, {"CPU": 8.0}, 2),
        (1, 0.5, {"CPU": 8.0, "GPU": 2.0}, 4),
        (1, 0.1, {"CPU": 64.0, "GPU": 1.0}, 10),
        (1, 0.4, {"CPU": 8.0, "GPU": 2.0}, 4),  # not five: a job's share lies on one GPU
        (1, 2, {"CPU": 8.0, "GPU": 5.0}, 2),
        (0, 1, {"GPU": 4.0}, 4),
        (1, 1, {"CPU": 8.0}, 0),
    ],
)
def test_room_on_a_node(cpus: float, gpus: float, node: dict[str, float], n: int) -> None:
    """As many as Ray would place."""
    from hydra_plugins.tune_launcher._ray_cluster import Share

    assert Share(cpus, gpus).room(node) == n


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("gpus_per_job=1.5", "expected a part of one GPU"),
        ("cpus_per_job=0", "not both 0"),
        ("max_jobs_at_once=0", "expected an integer from 1 on"),
        ("cpus_per_job=1000", "no node of the Ray cluster has as many"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    ray_cluster: None, setting: str, message: str
) -> None:
    """In words, before any job."""
    from hydra_plugins.tune_launcher._config import RayWorkersConf
    from hydra_plugins.tune_launcher._ray import RayWorkersLauncher

    name, value = setting.split("=")
    settings = {**vars(RayWorkersConf()), name: float(value)}
    del settings["_target_"]
    with pytest.raises(ValueError, match=message) as refused:
        RayWorkersLauncher(**settings)

    assert f"hydra.launcher.{name}=" in str(refused.value)


def test_missing_ray_is_said_in_a_sentence(tmp_path: Path) -> None:
    """Exit code 2 and nothing left behind."""
    probe = "import runpy, sys; sys.modules['ray'] = None; sys.argv = sys.argv[1:]\n"
    probe += "runpy.run_path(sys.argv[0], run_name='__main__')"
    typed = [sys.executable, "-c", probe, str(APP), *GRID, "x=0.1,0.2"]
    done = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 2
    assert "hydra/launcher=ray_workers needs Ray: pip install 'hydra-tune[ray]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_pool_asks_when_ray_does_not_call_back(
    make_ray_pool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Actors that are there and jobs that have ended are found all the same."""
    from hydra_plugins.tune_launcher import _ray_pool

    monkeypatch.setattr(_ray_pool, "_LOOK_AGAIN_S", 0.5)
    pool = make_ray_pool()
    pool._listen = pool._expected.__setitem__

    assert result(pool, "echo", 7) == 7
    pool.close()


# Sweeps


def test_bad_trials_cost_themselves_alone(run: Run, ray_cluster: None, tmp_path: Path) -> None:
    """One that leaves its process, one that is deaf and too slow; the others are done."""
    typed = ("x=0.1,0.9,0.2", "bad_above=0.5", "hydra.sweeper.trial_timeout_s=2")
    run(APP, *GRID, *typed, "bad=hang_deaf")
    run(APP, *GRID, *typed, "bad=leave", "hydra.sweep.dir=again")
    again = _record.read(tmp_path / "again").ends

    assert statuses_of(tmp_path / "here") == ["done", "timeout", "done"]
    assert [again[n].status for n in range(3)] == ["done", "died", "done"]
    assert (again[1].error, again[1].attempt) == ("left its process with exit code 3", 2)


def test_limit_counts_from_the_beginning_of_a_trial(
    run: Run, make_ray_pool: Callable[..., Any], tmp_path: Path
) -> None:
    """Not while it waits for room: here one trial has room, and three of them take longer."""
    from hydra_plugins.tune_launcher._ray_cluster import Share

    pool = make_ray_pool(Share(2, 0))
    assert result(pool, "echo", 1) == 1
    limit = ("hydra.sweeper.trial_timeout_s=3", "hydra.launcher.cpus_per_job=4", "sleep_s=1.5")
    run(APP, *GRID, "x=0.1,0.2,0.3", *limit, "hydra.launcher.max_jobs_at_once=3")
    pool.close()

    assert statuses_of(tmp_path / "here") == ["done"] * 3


def test_killed_worker_loses_only_its_trial(ray_cluster: None, tmp_path: Path) -> None:
    """kill -9 from outside: one retry, and the neighbour's result is kept."""
    typed = (*GRID, "x=0.1,0.2", "sleep_s=1.5")
    process = Popen(command(APP, *typed), cwd=tmp_path, stdout=subprocess.DEVNULL)
    pid = tmp_path / "here" / "0" / "pid"
    wait_until(lambda: pid.exists() and pid.read_text())
    os.kill(int(pid.read_text()), signal.SIGKILL)

    assert process.wait(SOON_S) == 0
    ends = _record.read(tmp_path / "here").ends
    assert [(ends[n].status, ends[n].attempt) for n in (0, 1)] == [("done", 2), ("done", 1)]
    assert all((ends[n].slot or "").startswith("ray:") for n in (0, 1))


@contextlib.contextmanager
def sweep(folder: Path, *typed: str) -> "Iterator[Popen[bytes]]":
    """A sweep in a process of its own, once two of its jobs run."""
    process = Popen(command(APP, *GRID, *typed), cwd=folder, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(list(folder.glob("here/*/pid"))) >= 2 or process.poll() is not None)
    assert process.poll() is None
    yield process
    process.kill()
    process.wait()


def test_killed_driver_leaves_no_process(ray_cluster: None, tmp_path: Path) -> None:
    """kill -9 of the sweep: its jobs, their workers and its actors end."""
    with sweep(tmp_path, "x=0.1,0.2", "behave=hang_deaf") as process:
        jobs = [int(file.read_text()) for file in tmp_path.glob("here/*/pid")]
        actors = busy_actors()
        process.kill()
        process.wait()

        assert len(jobs) == len(actors) == 2
        wait_until(lambda: not any(map(is_alive, [*jobs, *actors])), 10.0)


def test_sigterm_ends_the_trials_and_the_sweep(ray_cluster: None, tmp_path: Path) -> None:
    """The sweep's own handler hears it, not Ray's; deaf trials are killed after the grace."""
    with sweep(tmp_path, "x=0.1,0.2,0.3", "behave=hang_deaf", "hydra.sweeper.grace_s=1") as process:
        process.terminate()

        assert process.wait(SOON_S) == 143
        assert _record.read(tmp_path / "here").ends == {}


@pytest.mark.slow
def test_node_that_dies_costs_its_running_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tried again, the others are kept, and a node that is added gives its slots."""
    with Nodes("2", "2") as nodes:
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        typed = ("x=range(0,12)", "y=1", "sleep_s=3", "hydra.sweeper.retries=1")
        with sweep(tmp_path, *typed) as process:
            wait_until(lambda: len(list(tmp_path.glob("here/*/pid"))) >= 4)
            nodes.kill(1)
            wait_until(lambda: len(list(tmp_path.glob("here/*/pid"))) >= 6)
            nodes.add("2")

            assert process.wait(120) == 0
    ends = _record.read(tmp_path / "here").ends

    assert [ends[n].status for n in range(12)] == ["done"] * 12
    assert sorted(end.attempt for end in ends.values()) == [1] * 10 + [2] * 2


@pytest.mark.slow
def test_trials_share_gpus(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two on each, and each sees its own alone."""
    with Nodes("8:2") as nodes:
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        run(APP, *GRID, "hydra.launcher.gpus_per_job=0.5", "x=0.1,0.2,0.3,0.4", "sleep_s=3")
    ends = _record.read(tmp_path / "here").ends

    assert sorted(str(end.slot)[-2:] for end in ends.values()) == ["/0", "/0", "/1", "/1"]


@pytest.mark.slow
def test_slots_follow_the_nodes() -> None:
    """A node more, a node less."""
    probe = (
        "import sys\n"
        "from hydra_plugins.tune_launcher._ray_cluster import Share, connect\n"
        "connect('auto')\n"
        "for line in sys.stdin: print('SLOTS', Share(1, 0).n_slots(), flush=True)\n"
    )
    with Nodes("2", "1") as nodes:
        driver = Popen(
            [sys.executable, "-c", probe],
            env={**os.environ, "RAY_ADDRESS": nodes.address},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def n_slots() -> int:
            assert driver.stdin is not None and driver.stdout is not None
            driver.stdin.write("\n")
            driver.stdin.flush()
            line = next(line for line in driver.stdout if line.startswith("SLOTS"))
            return int(line.split()[1])

        with driver:
            assert n_slots() == 3
            nodes.add("4")
            wait_until(lambda: n_slots() == 7)
            nodes.kill(1)
            wait_until(lambda: n_slots() == 6)
            driver.kill()
