"""The fork server: imports once what all jobs need, then gives a fresh process in milliseconds.

    driver --connection--> server --fork--> workers, each with a connection of its own to the driver

The server never computes: a process that ran a parallel region of OpenMP and forks gives children
that hang. It tells the driver which workers began and how they ended, and takes them all with it
when the driver is gone. It knows no Hydra; what a worker does is a callable that it was sent.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

from . import _worker

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(fd: int, *, is_apart: bool) -> NoReturn:
    """Serves the driver at the other end of `fd` until it is gone."""
    if is_apart and os.fork():
        os._exit(0)
    # Later than the imports, so that a driver which dies during these takes us with it at once.
    if not is_apart:
        die_with_parent(signal.SIGKILL)
    driver = Connection(fd)
    try:
        runner = _load(driver.recv_bytes())
    except EOFError:
        os._exit(0)
    except BaseException as error:
        traceback.print_exc()
        _send(driver, {"broken": "".join(traceback.format_exception_only(error)).strip()})
        os._exit(1)
    _Server(driver, runner).serve()


def _load(setup: bytes) -> _worker.Runner:
    """Imports what the jobs need and unpickles what runs them."""
    plan = pickle.loads(setup)
    sys.path[:] = plan["path"]
    gc.disable()  # imports make many objects and little garbage: torch's take a sixth less time
    for name in plan["modules"]:
        # The task itself will raise it, where its user sees it.
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    make: Callable[[], _worker.Runner] = pickle.loads(plan["make_runner"])
    runner = make()
    gc.collect()
    gc.freeze()  # makes the collection after each job cheap: it skips what was imported
    gc.enable()
    return runner


class _Server:
    """Forks on request, reaps, and reports both."""

    def __init__(self, driver: Connection, runner: _worker.Runner) -> None:
        self._driver = driver
        self._runner = runner
        self._pids: set[int] = set()
        self._helpers = _children()  # what the imports started
        self._wake, self._wake_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._wake_end, False)

    def serve(self) -> NoReturn:
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, lambda number, frame: self._end())
        # From now on there is time to end the workers' own children too.
        die_with_parent(signal.SIGTERM)
        adopt_orphans()
        while True:
            ready = wait([self._driver, self._wake])
            if self._wake in ready:
                self._reap()
            if self._driver in ready:
                self._take_request()

    def _take_request(self) -> None:
        try:
            request = json.loads(self._driver.recv_bytes())
            fd = reduction.recv_handle(self._driver)
        except (EOFError, OSError):
            self._end()
        # What SIGTERM means here is not for a child that has not set its own handler yet.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = _fork()
        if pid == 0:
            self._become_worker(fd, request["env"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.close(fd)
        self._pids.add(pid)
        _send(self._driver, {"began": pid, "worker": request["worker"]})

    def _become_worker(self, fd: int, env: dict[str, str]) -> NoReturn:
        server = os.getppid()
        os.setsid()  # so that killpg also ends what the job starts
        die_with_parent(signal.SIGKILL)
        adopt_orphans()  # they stay below their own worker as long as that lives
        if os.getppid() != server:  # it died before the line above
            os._exit(0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._driver.close()
        os.close(self._wake)
        os.close(self._wake_end)
        os.environ.update(env)
        _worker.work(Connection(fd), self._runner)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        ended = [(pid, status) for pid, status in _dead_children() if pid in self._pids]
        for pid, _ in ended:
            self._pids.remove(pid)
            kill_group(pid)  # what the job left behind
        self._kill_orphans()
        for pid, status in ended:
            _send(self._driver, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})

    def _kill_orphans(self) -> None:
        """Ends what a dead worker's jobs left in sessions of their own; its children come next."""
        for pid in _children() - self._pids - self._helpers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _end(self) -> NoReturn:
        for pid in self._pids:
            kill_group(pid)
        self._helpers = set()
        with contextlib.suppress(ChildProcessError):
            while True:  # who waits for us is told of their CPU time too
                self._kill_orphans()
                gone = [os.waitpid(-1, 0), *_dead_children()]
                self._pids -= {pid for pid, _ in gone}
        os._exit(0)


def _fork() -> int:
    with warnings.catch_warnings():  # Python 3.12 warns of threads, which an import may have made
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _dead_children() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found


def _children() -> set[int]:
    """This process's own, adopted ones among them, where there is a /proc that tells."""
    found, own = set(), str(os.getpid())
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            _, parent, *_ = (folder / "stat").read_text().rpartition(") ")[2].split()
            if parent == own:
                found.add(int(folder.name))
    return found


def _send(driver: Connection, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # its end is noticed where we read
        driver.send_bytes(json.dumps(message).encode())


def kill_group(pid: int) -> None:
    """Ends a worker and all that it started; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def die_with_parent(number: signal.Signals) -> None:
    """Linux sends this process `number` when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def adopt_orphans() -> None:
    """Linux makes this process the parent of all descendants that lose theirs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def environment(environ: Iterable[tuple[str, str]], *, threads: int) -> dict[str, str]:
    """What the server and so its workers inherit.

    Without SLURM's variables: Lightning would requeue the whole sweep when a training is told to
    stop.
    """
    kept = {k: v for k, v in environ if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**kept, **{name: str(threads) for name in names}}
