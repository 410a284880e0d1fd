"""The pools of workers: real processes, and everything that may happen to them."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pool_jobs
import pytest
from pool_jobs import order
from processes import descendants, is_alive, wait_until

from hydra_plugins.tune_launcher import _fork_server
from hydra_plugins.tune_launcher._devices import Slot
from hydra_plugins.tune_launcher._workers import Ended, Pool, PoolBroken

SLOTS = [Slot(0, "cpu:0", {"WHERE": "first"}), Slot(1, "cpu:1", {"WHERE": "second"})]
SOON_S = 60.0  # a bound for the tests, not a promise: the machine may be busy


def make_pool(**changes: Any) -> Pool:
    settings: dict[str, Any] = {
        "slots": SLOTS,
        "make_runner": pickle.dumps(pool_jobs.make),
        "modules": ["pool_jobs", "no_such_module"],
        "threads": 1,
        "jobs_per_worker": 100,
    }
    return Pool(**{**settings, **changes})


@pytest.fixture
def local_pool() -> Iterator[Pool]:
    """Two slots."""
    pool = make_pool()
    yield pool
    pool.close()


@pytest.fixture(params=["workers", "ray_workers"])
def pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Two slots, on this machine or on a cluster."""
    if request.param == "workers":
        yield request.getfixturevalue("local_pool")
        return
    pool = request.getfixturevalue("ray_pool")  # it survives whatever a test does to it
    yield pool
    for number in range(10):
        pool.signal(number, signal.SIGKILL)
    while pool.n_running:
        wait(pool)


def wait(pool: Pool) -> list[Ended]:
    """What ends next; a pool also returns when a job begins."""
    while not (ended := pool.wait(SOON_S)):
        assert pool.n_running, "nothing is left to end"
    return ended


def result(pool: Pool, name: str, argument: Any = None) -> Any:
    """What one job gives back; an Ended when its process was lost."""
    pool.submit(0, order(name, argument))
    (ended,) = wait(pool)
    return ended if ended.answer is None else pickle.loads(ended.answer)


# Good jobs


def test_answers_come_back_to_their_numbers(pool: Pool) -> None:
    """Whatever order the jobs end in."""
    pool.submit(7, order("sleep", 0.2))
    pool.submit(9, order("echo", "nine"))
    first, second = wait(pool), wait(pool)

    assert [e.number for e in (*first, *second)] == [9, 7]
    assert pickle.loads(first[0].answer or b"") == "nine"


def test_warm_worker_takes_the_next_job(pool: Pool) -> None:
    """The same process, as long as its jobs end cleanly."""
    before = result(pool, "calls")
    pids = {result(pool, "pid") for _ in range(5)}

    assert len(pids) == 1
    assert result(pool, "calls") == before + 6


def test_unclean_job_costs_its_process(pool: Pool) -> None:
    """No state of a failed job reaches the next one."""
    bad = result(pool, "unclean")
    good = result(pool, "pid")

    assert bad != good
    wait_until(lambda: not is_alive(bad))


def test_job_does_not_feel_what_another_changed() -> None:
    """The same process with the environment, path, signals and streams that it began with."""
    with closing(make_pool(slots=SLOTS[:1])) as pool:
        pid, before = result(pool, "pid"), result(pool, "state")
        result(pool, "litter")

        assert result(pool, "state") == before
        assert result(pool, "pid") == pid


def test_job_that_takes_the_output_apart_has_an_answer(pool: Pool) -> None:
    """And costs its process, not the next job."""
    assert result(pool, "wrap_output") is None
    assert result(pool, "state")["stdout"]


def test_garbage_of_a_job_costs_that_job(pool: Pool) -> None:
    """Its destructors run before the next job begins, whatever they do."""
    pool.submit(0, order("leave_destructor"))
    (ended,) = wait(pool)

    assert ended.loss == "left its process with exit code 3"
    assert result(pool, "echo", 1) == 1


def test_worker_is_renewed_after_a_number_of_jobs() -> None:
    """Whatever leaks does not leak for ever."""
    pool = make_pool(slots=SLOTS[:1], jobs_per_worker=3)
    pids = [result(pool, "pid") for _ in range(7)]
    pool.close()

    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_all_workers_are_forked_from_one_server(local_pool: Pool) -> None:
    """Which is a process of its own, not the driver."""
    local_pool.submit(0, order("server"))
    local_pool.submit(1, order("server"))
    ended = wait(local_pool)
    ended += wait(local_pool) if local_pool.n_running else []
    parents = {pickle.loads(e.answer or b"") for e in ended}

    assert len(parents) == 1 and os.getpid() not in parents


def test_job_sees_the_environment_of_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the threads that it may use, and nothing of SLURM."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    pool = make_pool(threads=3)
    seen = result(pool, "environment")
    pool.close()

    assert (seen["WHERE"], seen["OMP_NUM_THREADS"]) == ("first", "3")
    assert not [name for name in seen if name.startswith("SLURM_")]


def test_large_answer_arrives_whole(pool: Pool) -> None:
    """Larger than any buffer between two processes."""
    assert len(result(pool, "big", 20_000_000)) == 20_000_000


def test_unseeded_jobs_draw_different_numbers(pool: Pool) -> None:
    """A fork copies the state of numpy's generator."""
    pool.submit(0, order("random"))
    pool.submit(1, order("random"))
    ended = list(wait(pool))
    while len(ended) < 2:
        ended += wait(pool)

    assert len({pickle.loads(e.answer or b"") for e in ended}) == 2


def test_wait_returns_when_its_time_is_over_or_it_is_woken(pool: Pool) -> None:
    """So that a driver can look at limits and signals."""
    pool.submit(0, order("sleep", 60))
    wake, ring = os.pipe()
    os.write(ring, b"!")

    assert pool.wait(0.05) == []
    assert pool.wait(None, wake) == []
    os.close(wake)
    os.close(ring)


# Lost processes

ENDINGS = [
    ("exit", 0, "left its process with exit code 0"),
    ("exit", 3, "left its process with exit code 3"),
    ("kill", signal.SIGKILL, "killed by SIGKILL"),
    ("kill_guard", signal.SIGKILL, "killed by SIGKILL"),
    ("segfault", None, "killed by SIGSEGV"),
    ("leave_connection", None, "killed by SIGKILL"),
]


@pytest.mark.parametrize(("name", "argument", "loss"), ENDINGS, ids=lambda v: str(v)[:24])
def test_lost_process_costs_one_job(pool: Pool, name: str, argument: Any, loss: str) -> None:
    """Its slot is of use again, and its neighbour never knew."""
    pool.submit(1, order("sleep", 0.5))
    pool.submit(2, order(name, argument))
    first, second = wait(pool), wait(pool)

    assert first == [Ended(2, None, loss)]
    assert [(e.number, e.loss) for e in second] == [(1, None)]
    assert result(pool, "echo", 5) == 5


HANGS = ["hang_deaf", "hang_in_c", "stop", "stop_guard", "hang_with_child"]


@pytest.mark.parametrize("name", HANGS)
def test_hanging_job_can_be_killed(pool: Pool, name: str) -> None:
    """Deaf to signals, in C with the interpreter's lock, stopped, or with children."""
    pool.submit(0, order(name))
    pool.wait(0.3)
    pool.signal(0, signal.SIGKILL)

    assert wait(pool) == [Ended(0, None, "killed by SIGKILL")]
    assert result(pool, "echo", 1) == 1


def test_job_that_is_killed_before_it_began_is_killed_all_the_same(pool: Pool) -> None:
    """Its process may not have been forked yet."""
    pool.submit(0, order("sleep", 60))
    pool.signal(0, signal.SIGKILL)

    assert wait(pool) == [Ended(0, None, "killed by SIGKILL")]


def test_jobs_that_wait_for_imports_can_be_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops a sweep does not wait until torch is there; the next job starts anew."""
    (tmp_path / "slow_module.py").write_text("import time; time.sleep(60)")
    monkeypatch.syspath_prepend(tmp_path)
    with closing(make_pool(modules=["slow_module"])) as pool:
        pool.submit(1, order("echo", 1))
        began = time.monotonic()
        pool.signal(1, signal.SIGKILL)
        pool.abandon()
        (lost,) = pool.wait(30)

    assert (lost.number, lost.answer, lost.loss) == (1, None, "its fork server was lost")
    assert time.monotonic() - began < 10


def test_abandoning_costs_no_job_that_runs() -> None:
    """Nor one that is forked at this moment: the server must live to end what they leave."""
    with closing(make_pool()) as pool:
        assert result(pool, "echo", 0) == 0
        pool.submit(1, order("sleep", 0.3))
        pool.submit(2, order("echo", 2))
        assert 2 in pool.waiting
        pool.abandon()
        ended = {e.number: e.loss for e in (*wait(pool), *wait(pool))}

    assert ended == {1: None, 2: None}


def test_sigterm_is_for_the_job_to_hear(pool: Pool) -> None:
    """One that does not listen goes on to its end, also when it has hardly begun."""
    pool.submit(0, order("sleep", 0.4))
    pool.wait(0.2)
    pool.signal(0, signal.SIGTERM)
    (ended,) = wait(pool)

    assert ended.loss is None


def test_children_of_a_lost_job_are_ended() -> None:
    """A loader's worker outlives nobody."""
    pool = make_pool(slots=SLOTS[:1], jobs_per_worker=1)
    child = result(pool, "leave_child", 60)

    wait_until(lambda: not is_alive(child))
    pool.close()


def test_idle_worker_that_was_killed_is_replaced(pool: Pool) -> None:
    """As the kernel may do when memory is short."""
    pid = result(pool, "pid")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))

    assert result(pool, "echo", 1) in (1, Ended(0, None, "killed by SIGKILL"))
    assert result(pool, "echo", 2) == 2


def test_lost_server_costs_the_running_jobs(pool: Pool) -> None:
    """The next job gets another server."""
    server = result(pool, "server")
    pool.submit(0, order("sleep", 60))
    pool.wait(0.2)
    os.kill(server, signal.SIGKILL)
    lost = wait(pool)

    assert [(e.number, e.answer) for e in lost] == [(0, None)]
    assert result(pool, "server") != server


@pytest.fixture
def stopped_server(local_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> int:
    """The pid of the pool's server, stopped while job 1 runs."""
    monkeypatch.setattr(_fork_server, "_DEAF_S", 1.0)
    server: int = result(local_pool, "server")
    local_pool.submit(1, order("sleep", 60))
    local_pool.wait(0.2)
    os.kill(server, signal.SIGSTOP)
    return server


def test_stopped_server_costs_the_running_jobs(local_pool: Pool, stopped_server: int) -> None:
    """A sweep does not wait for ever for an answer that takes milliseconds."""
    local_pool.submit(2, order("echo", 2))
    lost = wait(local_pool)

    assert {(e.number, e.loss) for e in lost} == {(n, "its fork server was lost") for n in (1, 2)}
    assert result(local_pool, "server") != stopped_server


@pytest.mark.usefixtures("stopped_server")
def test_stopped_server_is_noticed_when_a_job_dies(local_pool: Pool) -> None:
    """It is the one to tell how."""
    local_pool.signal(1, signal.SIGKILL)

    assert wait(local_pool) == [Ended(1, None, "its fork server was lost")]
    assert result(local_pool, "echo", 1) == 1


def test_job_for_which_no_process_can_be_made_is_lost_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the number of processes is limited; the server and its workers go on."""
    once = "import os\nfork = os.fork\n"
    once += "def refuse():\n    os.fork = fork\n    raise BlockingIOError(11, 'no more')\n"
    (tmp_path / "forks_once_in_vain.py").write_text(f"{once}os.fork = refuse\n")
    monkeypatch.syspath_prepend(tmp_path)
    with closing(make_pool(modules=["forks_once_in_vain"])) as pool:
        lost = result(pool, "echo", 1)
        good = result(pool, "echo", 2)

    assert lost == Ended(0, None, "no process can be made for it: [Errno 11] no more")
    assert good == 2


def test_orphans_that_end_leave_no_zombies(local_pool: Pool) -> None:
    """A job may start daemons by the dozen, and its worker lives for hundreds of jobs."""
    pids = result(local_pool, "orphans", 20)

    assert len(pids) == 20
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_hundred_deaths_leave_nothing_behind(local_pool: Pool) -> None:
    """Descriptors and processes stay as they were."""
    result(local_pool, "echo")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        assert result(local_pool, "exit", 1) == Ended(0, None, "left its process with exit code 1")
    result(local_pool, "echo")

    assert len(os.listdir("/proc/self/fd")) == before


def test_setup_that_cannot_be_imported_breaks_the_pool() -> None:
    """With the reason, instead of workers that die one after the other."""
    pool = make_pool(make_runner=pickle.dumps(pool_jobs.make_broken))
    pool.submit(0, order("echo"))

    with pytest.raises(PoolBroken, match="no module named torch"):
        wait(pool)


# Orphans

DRIVER = """
import pickle, sys, time
import pool_jobs
from hydra_plugins.tune_launcher._devices import Slot
from hydra_plugins.tune_launcher._workers import Pool

pool = Pool([Slot(0, "a"), Slot(1, "b")], make_runner=pickle.dumps(pool_jobs.make), modules=[],
            threads=1, jobs_per_worker=9)
pool.submit(0, pool_jobs.order("server"))
while not (ended := pool.wait()):
    pass
pool.submit(0, pool_jobs.order(sys.argv[1]))
pool.submit(1, pool_jobs.order("hang_with_child"))
print(pickle.loads(ended[0].answer), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["sleep", "hang_in_c", "hang_deaf", "hang_with_daemon"])
@pytest.mark.parametrize("takes_server", [False, True], ids=["driver", "driver and server"])
def test_killed_driver_leaves_no_process(name: str, takes_server: bool, tmp_path: Path) -> None:
    """kill -9 of the driver, with workers stuck in C or with children of their own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, name],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
    )
    assert driver.stdout is not None
    server = int(driver.stdout.readline())
    wait_until(lambda: len(descendants(driver.pid)) >= 6)
    if name == "hang_with_daemon":
        wait_until(lambda: (tmp_path / "daemon").exists())
    family = descendants(driver.pid)
    driver.kill()
    if takes_server:
        os.kill(server, signal.SIGKILL)
    driver.wait()
    driver.stdout.close()

    wait_until(lambda: not any(map(is_alive, family)), 3.0)
