"""Limits on running jobs: how long one may take, and how long it may be silent."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ._record import Job
from ._result import STALLED, TIMEOUT

_LOOKS = 4  # at a silent job, within its limit
_LONGEST_S = 3600.0  # between two looks: the system's own waits cannot take a month


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
    state: tuple[int, int] = (0, 0)  # of its files


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
        return min(max(0.0, min(times)), _LONGEST_S) if times else None

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
        state = _state(self._sweep_folder / watched.job.folder)
        if state != watched.state:
            watched.state, watched.last_sign = state, now
        if now - watched.last_sign < limits.silence_s:
            return None
        return STALLED, (
            f"wrote to no file for {limits.silence_s:g} s (hydra.sweeper.stall_timeout_s)"
        )


def _state(folder: Path) -> tuple[int, int]:
    """Total size and sum of the modification times of all files of a job, at any depth.

    Whatever is written changes one of them, also where a clock is wrong or a date was set.
    """
    size = times = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # it was there a moment ago
                stat = os.stat(os.path.join(parent, name))
                size, times = size + stat.st_size, times + stat.st_mtime_ns
    return size, times
