"""A pool of worker processes, one per slot. Knows no Hydra and nothing of what the jobs are.

Each worker has one connection of its own and nothing is shared, so nothing breaks together:
whatever a job does to its process costs that job alone.
"""

import contextlib
import itertools
import os
import pickle
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from ._devices import Slot
from ._fork_server import ForkServer, send
from ._guard import kill_group
from ._worker import KEEP

_STDERR = 2


class PoolBroken(RuntimeError):
    """The workers cannot be started at all: no job of this pool can run."""


@dataclass(frozen=True)
class Ended:
    """A job that is over: what its runner sent back, or how its process was lost."""

    number: int
    answer: bytes | None
    loss: str | None = None  # "killed by SIGKILL", "left with exit code 3"


@dataclass
class _Worker:
    """One process; its pid is known once the server has forked it."""

    key: int
    slot: Slot
    connection: Connection
    pid: int | None = None
    job: int | None = None
    n_jobs: int = 0
    signals: list[int] = field(default_factory=list)  # to be sent as soon as the pid is known
    is_mute: bool = False  # its end of the connection is closed


class Pool:
    """Runs jobs in warm processes, at most one per slot.

    `make_runner` is a pickled callable that the server calls once, and that gives the callable
    which runs every job (`_worker.Runner`); `modules` are imported before that. A server that is
    apart is no child of this process, and ends when its connection does.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        *,
        make_runner: bytes,
        modules: Sequence[str],
        threads: int,
        jobs_per_worker: int,
        is_server_apart: bool = False,
    ) -> None:
        plan = {"path": [os.path.abspath(p) for p in sys.path], "modules": list(modules)}
        self._setup = pickle.dumps({**plan, "make_runner": make_runner})
        self._slots = list(slots)
        self._threads = threads
        self._jobs_per_worker = jobs_per_worker
        self._is_server_apart = is_server_apart
        self._keys = itertools.count()
        _open_standard_streams()
        self._idle: dict[int, _Worker] = {}  # by slot
        self._busy: dict[int, _Worker] = {}  # by job
        self._leaving: dict[int, _Worker] = {}  # by key: forked perhaps, of no use any more
        self._server: ForkServer | None = None
        self.start()

    @property
    def n_slots(self) -> int:
        """How many jobs run at once."""
        return len(self._slots)

    @property
    def n_running(self) -> int:
        """How many do now."""
        return len(self._busy)

    @property
    def waiting(self) -> set[int]:
        """Jobs that have not begun: what they need is still imported."""
        return {number for number, worker in self._busy.items() if worker.pid is None}

    def start(self) -> None:
        """Starts the server, whose imports may go on while the caller does other things."""
        if self._server is None:
            self._server = ForkServer(self._setup, self._threads, is_apart=self._is_server_apart)

    def wait_until_ready(self) -> None:
        """Blocks until all that the jobs need is imported.

        Raises:
            PoolBroken: the server could not import it.
        """
        self.start()
        while self._server is not None and not self._server.is_ready:
            self._news()

    def submit(self, number: int, message: bytes) -> str:
        """Runs a job in a free slot; gives back the slot's label.

        Raises:
            PoolBroken: no worker can be started.
        """
        taken = {worker.slot.number for worker in self._busy.values()}
        slot = next(s for s in self._slots if s.number not in taken)
        worker = self._idle.pop(slot.number, None)
        if worker is not None and not send(worker.connection, message):  # killed while idle
            self._retire(worker)
            worker = None
        if worker is None:
            worker = self._new_worker(slot)
            send(worker.connection, message)
        worker.job = number
        worker.n_jobs += 1
        self._busy[number] = worker
        return slot.label

    def wait(self, timeout_s: float | None = None, wake_fd: int | None = None) -> list[Ended]:
        """Blocks until a job ended or began, the time is over, or `wake_fd` can be read.

        Raises:
            PoolBroken: the server could not import what the jobs need.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        waiting = self.waiting
        while self._busy:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait(self._sources(wake_fd), self._patience(left))
            ended = self._take(ready) or self._lose_deaf_server()
            is_woken = wake_fd is not None and wake_fd in ready
            if ended or not ready or is_woken or self.waiting != waiting:
                return ended
        return []

    def signal(self, number: int, signum: int) -> None:
        """Sends a signal to a job's process: SIGTERM asks it to end, SIGKILL takes its group."""
        if number in self._busy:
            self._send_signal(self._busy[number], signum)

    def abandon(self) -> None:
        """Ends the jobs that wait for the server's imports, which may take minutes.

        A server that is through with them has to end what its workers leave.
        """
        if self._server is not None and self.waiting and not self._server.is_ready:
            self._server.kill()

    def close(self) -> None:
        """Ends all workers and their children, and the server."""
        for worker in [*self._idle.values(), *self._busy.values(), *self._leaving.values()]:
            worker.connection.close()
        self._idle, self._busy, self._leaving = {}, {}, {}
        if self._server is not None:
            self._server.close()
            self._server = None

    def _send_signal(self, worker: _Worker, signum: int) -> None:
        if signum == signal.SIGKILL and self._server is not None:
            self._server.ping()  # it has to tell of the end
        if worker.pid is None:
            worker.signals.append(signum)
        else:
            _deliver(worker.pid, signum)

    def _sources(self, wake_fd: int | None) -> list[Any]:
        assert self._server is not None, "a busy worker has a server"
        sources: list[Any] = [self._server.connection]
        sources += [w.connection for w in self._busy.values() if not w.is_mute]
        return sources if wake_fd is None else [*sources, wake_fd]

    def _patience(self, left: float | None) -> float | None:
        """How long to wait: not for ever where the server owes an answer."""
        assert self._server is not None, "a busy worker has a server"
        times = [left, self._server.patience]
        return min((t for t in times if t is not None), default=None)

    def _new_worker(self, slot: Slot) -> _Worker:
        self.start()
        assert self._server is not None
        key = next(self._keys)
        return _Worker(key, slot, self._server.connect(key, slot.env))

    # What arrived

    def _take(self, ready: Sequence[Any]) -> list[Ended]:
        """Answers first: a worker may send its answer and end before we look."""
        ended = []
        for worker in list(self._busy.values()):
            if worker.connection in ready:
                ended += self._answer(worker)
        if self._server is not None and self._server.connection in ready:
            ended += self._news()
        return ended

    def _answer(self, worker: _Worker) -> list[Ended]:
        try:
            answer = worker.connection.recv_bytes()
        except (EOFError, OSError):  # the server will say how it ended, if it did
            worker.is_mute = True
            self._send_signal(worker, signal.SIGKILL)
            return []
        return [self._release(worker, answer)]

    def _release(self, worker: _Worker, answer: bytes) -> Ended:
        assert worker.job is not None
        number, worker.job = worker.job, None
        del self._busy[number]
        if answer[:1] == KEEP and worker.n_jobs < self._jobs_per_worker:
            self._idle[worker.slot.number] = worker
        else:
            self._retire(worker)
        return Ended(number, answer[1:])

    def _retire(self, worker: _Worker) -> None:
        worker.connection.close()
        self._leaving[worker.key] = worker

    def _news(self) -> list[Ended]:
        assert self._server is not None
        news = self._server.read()
        if news is None:
            return self._lose_server()
        if "broken" in news:
            self.close()
            raise PoolBroken(f"the workers cannot import what the jobs need: {news['broken']}")
        if "ready" in news or "pong" in news:
            return []
        if "began" in news:
            return self._began(news["worker"], news["began"])
        if "unborn" in news:
            return self._unborn(news["unborn"], news["error"])
        return self._ended(news["ended"], news["code"])

    def _everyone(self) -> list[_Worker]:
        return [*self._busy.values(), *self._idle.values(), *self._leaving.values()]

    def _began(self, key: int, pid: int) -> list[Ended]:
        # Its answer may have come before, and the worker have been lost since.
        worker = next((w for w in self._everyone() if w.key == key), None)
        if worker is None:
            return []
        worker.pid = pid
        for signum in worker.signals:
            _deliver(pid, signum)
        return []

    def _unborn(self, key: int, error: str) -> list[Ended]:
        lost = [w for w in self._busy.values() if w.key == key]
        self._leaving.pop(key, None)
        return [self._lose(w, f"no process can be made for it: {error}") for w in lost]

    def _ended(self, pid: int, code: int) -> list[Ended]:
        worker = next((w for w in self._everyone() if w.pid == pid), None)
        if worker is None:
            return []
        self._leaving.pop(worker.key, None)
        self._idle = {s: w for s, w in self._idle.items() if w is not worker}
        if worker.job is None:
            return []
        if not worker.is_mute and worker.connection.poll() and (last := self._answer(worker)):
            self._leaving.pop(worker.key, None)
            return last
        return [self._lose(worker, _ending(code))]

    def _lose(self, worker: _Worker, how: str) -> Ended:
        assert worker.job is not None
        worker.connection.close()
        del self._busy[worker.job]
        return Ended(worker.job, None, how)

    def _lose_server(self) -> list[Ended]:
        """The workers die with their server; the next submit starts another one."""
        lost = [self._lose(w, "its fork server was lost") for w in list(self._busy.values())]
        for worker in self._everyone():
            if worker.pid is not None:
                kill_group(worker.pid)
        self.close()
        return lost

    def _lose_deaf_server(self) -> list[Ended]:
        """One that was stopped, or hangs: nothing would ever end."""
        if self._server is None or self._server.patience != 0.0:
            return []
        self._server.kill()
        return self._lose_server()


def _open_standard_streams() -> None:
    """Where the caller closed one, a connection would get its number, and its output."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)


def _deliver(pid: int, signum: int) -> None:
    if signum == signal.SIGKILL:
        kill_group(pid)
    with contextlib.suppress(ProcessLookupError):  # just forked, it may not lead a group yet
        os.kill(pid, signum)


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        known = {number.value: number.name for number in signal.Signals}
        return f"killed by {known.get(-code, f'signal {-code}')}"
    return f"left its process with exit code {code}"
