"""The fork server: imports once what all jobs need, then gives a fresh process in milliseconds.

    driver --connection--> server --fork--> guard --fork--> worker, with a connection to the driver

The server never computes: a process that ran a parallel region of OpenMP and forks gives children
that hang. It tells the driver which workers began and how they ended, and takes them all with it
when the driver is gone. It knows no Hydra; what a worker does is a callable that it was sent.
"""

import contextlib
import gc
import importlib
import json
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from . import _guard, _worker


def main(fd: int, *, is_apart: bool) -> NoReturn:
    """Serves the driver at the other end of `fd` until it is gone."""
    if is_apart and os.fork():
        os._exit(0)
    # While it imports; from then on by SIGTERM, which leaves time to end the workers' children.
    if not is_apart:
        _guard.die_with_parent(signal.SIGKILL)
    driver = Connection(fd)
    try:
        runner = _load(driver.recv_bytes())
    except EOFError:
        os._exit(0)
    except BaseException as error:
        traceback.print_exc()
        _send(driver, {"broken": "".join(traceback.format_exception_only(error)).strip()})
        os._exit(1)
    _send(driver, {"ready": True})
    _Server(driver, runner).serve()


def _load(setup: bytes) -> _worker.Runner:
    """Imports what the jobs need and unpickles what runs them."""
    plan = pickle.loads(setup)
    sys.path[:] = plan["path"]
    folder = os.getcwd()
    gc.disable()  # imports make many objects and little garbage: torch's take a sixth less time
    for name in plan["modules"]:
        # The task itself will raise it, where its user sees it.
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    os.chdir(folder)  # a module may go elsewhere; where jobs write must not depend on that
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
        self._workers: dict[int, int] = {}  # by the pids of their guards
        self._helpers = _guard.children()  # what the imports started
        self._wake, self._wake_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._wake_end, False)

    def serve(self) -> NoReturn:
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, lambda number, frame: self._end())
        _guard.die_with_parent(signal.SIGTERM)
        _guard.adopt_orphans()
        while True:
            ready = wait([self._driver, self._wake])
            if self._wake in ready:
                self._reap()
            if self._driver in ready:
                self._take_request()

    def _take_request(self) -> None:
        try:
            request = json.loads(self._driver.recv_bytes())
            if "ping" in request:  # a worker was killed, and its guard may have been stopped
                self._wake_guards()
                return _send(self._driver, {"pong": True})
            fd = reduction.recv_handle(self._driver)
        except (EOFError, OSError):
            self._end()
        try:
            guard, worker = _guard.start(partial(self._become_worker, fd, request["env"]))
        except OSError as error:
            news = {"unborn": request["worker"], "error": str(error)}
        else:
            self._workers[guard] = worker
            news = {"began": worker, "worker": request["worker"]}
        os.close(fd)  # before the news: as long as it is open here, its end is not to be seen
        _send(self._driver, news)

    def _become_worker(self, fd: int, env: dict[str, str]) -> NoReturn:
        self._driver.close()
        os.close(self._wake)
        os.close(self._wake_end)
        os.environ.update(env)
        _worker.work(Connection(fd), self._runner)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        dead = [(pid, status) for pid, status in _dead_children() if pid in self._workers]
        ended = [(self._workers.pop(pid), status) for pid, status in dead]
        for worker, _ in ended:
            _guard.kill_group(worker)  # a job may have killed its guard
        self._kill_orphans()
        for worker, status in ended:
            _send(self._driver, {"ended": worker, "code": os.waitstatus_to_exitcode(status)})

    def _kill_orphans(self) -> None:
        """Ends what a guard that was killed could not."""
        _guard.kill_children(but=self._workers.keys() | self._helpers)

    def _wake_guards(self) -> None:
        for guard in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(guard, signal.SIGCONT)

    def _end(self) -> NoReturn:
        for worker in self._workers.values():
            _guard.kill_group(worker)
        self._wake_guards()
        self._helpers = set()
        with contextlib.suppress(ChildProcessError):
            while True:  # who waits for us is told of their CPU time too
                self._kill_orphans()
                gone = [os.waitpid(-1, 0), *_dead_children()]
                for pid, _ in gone:
                    self._workers.pop(pid, None)
        os._exit(0)


def _dead_children() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found


def _send(driver: Connection, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # its end is noticed where we read
        driver.send_bytes(json.dumps(message).encode())


def environment(environ: Iterable[tuple[str, str]], *, threads: int) -> dict[str, str]:
    """What the server and so its workers inherit.

    Without SLURM's variables: Lightning would requeue the whole sweep when a training is told to
    stop.
    """
    kept = {k: v for k, v in environ if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**kept, **{name: str(threads) for name in names}}
