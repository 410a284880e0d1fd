"""Launchers that take jobs one by one and can end them: those of this project."""

import time
from collections.abc import Sequence
from typing import Protocol

from ._adapter import Adapter, Around
from .run._limits import Watchman
from .run._record import Job
from .run._result import DIED, INTERRUPTED

_ASK_AGAIN_S = 1.0  # a training that was not listening yet is asked to end again


class JobLauncher(Protocol):
    """What such a launcher has; `tune_launcher/_pool_launcher.py` documents it."""

    has_queue: bool

    @property
    def n_slots(self) -> int: ...

    @property
    def waiting(self) -> set[int]: ...

    def start(self) -> None: ...

    def submit(self, job_overrides: Sequence[str], job_idx: int) -> str: ...

    def wait(
        self, timeout_s: float | None = None, wake_fd: int | None = None
    ) -> list[tuple[int, str | None]]: ...

    def terminate(self, job_idx: int) -> None: ...

    def kill(self, job_idx: int) -> None: ...

    def abandon(self) -> None: ...

    def close(self) -> None: ...


class DirectLauncher(Adapter):
    """A launcher that takes jobs one by one, and can end them."""

    _launcher: JobLauncher

    def __init__(self, launcher: JobLauncher, around: Around) -> None:
        super().__init__(launcher, around)
        self._jobs: dict[int, Job] = {}
        self._began: dict[int, float] = {}  # monotonic
        self._unwatched: set[int] = set()  # no limit counts before a job has begun
        self._reasons: dict[int, tuple[str, str]] = {}  # of jobs that we ended: status, error
        self._watchman = Watchman(around.limits, around.sweep_folder)

    @property
    def n_slots(self) -> int:
        """How many jobs run at once."""
        return self._launcher.n_slots

    def start(self) -> None:
        """The imports begin, in another process."""
        self._launcher.start()

    def submit(self, job: Job, checkpoint: str | None) -> None:
        """Starts the job in a free slot."""
        self._jobs[job.number] = job
        self._unwatched.add(job.number)
        self._launcher.submit(self._around.command(job, checkpoint), job.number)

    def wait(self) -> Sequence[int]:
        """Blocks until jobs ended, a limit is reached, or a signal came."""
        interrupts = self._around.interrupts
        self._watch_begun()
        times = [self._watchman.seconds_left(), interrupts.seconds_left]
        if interrupts.level == 1:
            times.append(_ASK_AGAIN_S)
        timeout_s = min((t for t in times if t is not None), default=None)
        ended = self._launcher.wait(timeout_s, interrupts.wake_fd)
        interrupts.drain()
        if interrupts.level == 1:
            self.terminate()
        for number, loss in ended:
            self._end(self._jobs.pop(number), loss)
        for job, status, error in self._watchman.overdue():
            self._reasons[job.number] = status, error
            self._launcher.kill(job.number)
        return [number for number, _ in ended]

    def terminate(self) -> None:
        """SIGTERM for all."""
        for number in self._jobs:
            self._launcher.terminate(number)

    def kill(self) -> None:
        """SIGKILL for all."""
        for number in self._jobs:
            self._reasons.setdefault(number, (INTERRUPTED, "ended with the sweep"))
            self._launcher.kill(number)
        self._launcher.abandon()

    def close(self) -> None:
        """No process is left."""
        self._launcher.close()

    def _watch_begun(self) -> None:
        """What a job needs may still be imported, or a cluster have no room for it yet."""
        begun = self._unwatched - self._launcher.waiting
        for number in begun:
            self._watchman.add(self._jobs[number])
            self._began[number] = time.monotonic()
        self._unwatched -= begun

    def _end(self, job: Job, loss: str | None) -> None:
        self._unwatched.discard(job.number)
        self._watchman.remove(job)
        status, error = self._reasons.pop(job.number, (DIED, loss or "it left no result"))
        now = time.monotonic()
        self._note(job, status, error, now - self._began.pop(job.number, now))
