"""Limits on running jobs: how long one may take, and how long it may be silent."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ._record import Job
from ._result import STALLED, TIMEOUT

_LOOKS = 4  # at a silent job, within its limit


@dataclass(frozen=True)
class Limits:
    """Seconds; None: no limit."""

    job_s: float | None = None
    silence_s: float | None = None  # without a write to any file of the job's folder


@dataclass
class _Watched:
    job: Job
    started: float  # monotonic: clocks may be set back
    last_sign: float
    newest: int = 0  # modification time of the newest file, whatever the clock says


class Watchman:
    """Knows which running jobs are overdue, and when to look again."""

    def __init__(self, limits: Limits, sweep_folder: Path) -> None:
        self._limits = limits
        self._sweep_folder = sweep_folder
        self._watched: dict[int, _Watched] = {}

    def add(self, job: Job) -> None:
        """The job starts now."""
        now = time.monotonic()
        self._watched[job.number] = _Watched(job, now, now)

    def remove(self, job: Job) -> None:
        """The job is over."""
        self._watched.pop(job.number, None)

    def seconds_left(self) -> float | None:
        """Until the next look; None: nothing to look at."""
        limits, now = self._limits, time.monotonic()
        times = []
        if limits.job_s is not None:
            times += [w.started + limits.job_s - now for w in self._watched.values()]
        if limits.silence_s is not None and self._watched:
            times.append(limits.silence_s / _LOOKS)
        return max(0.0, min(times)) if times else None

    def overdue(self) -> Iterator[tuple[Job, str, str]]:
        """Jobs to be ended, each once, with status and sentence."""
        for watched in list(self._watched.values()):
            reason = self._reason(watched, time.monotonic())
            if reason is not None:
                self.remove(watched.job)
                yield watched.job, *reason

    def _reason(self, watched: _Watched, now: float) -> tuple[str, str] | None:
        limits = self._limits
        if limits.job_s is not None and now - watched.started >= limits.job_s:
            return TIMEOUT, f"not done after {limits.job_s:g} s (hydra.sweeper.trial_timeout_s)"
        if limits.silence_s is None:
            return None
        newest = _newest(self._sweep_folder / watched.job.folder)
        if newest != watched.newest:
            watched.newest, watched.last_sign = newest, now
        if now - watched.last_sign < limits.silence_s:
            return None
        return STALLED, (
            f"wrote to no file for {limits.silence_s:g} s (hydra.sweeper.stall_timeout_s)"
        )


def _newest(folder: Path) -> int:
    """Modification time of the newest file in a job's folder; 0 while there is none."""
    try:
        return max((file.stat().st_mtime_ns for file in folder.iterdir()), default=0)
    except OSError:
        return 0
