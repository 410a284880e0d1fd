"""SLURM's queue by the names of its jobs: squeue and scancel, no accounting. Knows no Hydra."""

import logging
import subprocess
import time
from collections.abc import Collection

LOOK_EVERY_S = 3.0
_SUBMIT_S = 30.0  # sbatch may take as long until squeue knows a job
_TIMEOUT_S = 20.0  # of one call, on a busy controller

log = logging.getLogger(__name__)


class Queue:
    """The jobs of one sweep in SLURM's queue."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._began: dict[int, float] = {}  # monotonic, of jobs that squeue has not shown yet
        self._seen: set[int] = set()
        self._last_look = 0.0

    def name_of(self, number: int) -> str:
        """The name under which a job is submitted; a new submission under the same one is new."""
        self._began[number] = time.monotonic()
        self._seen.discard(number)
        return f"{self._prefix}-{number}"

    def gone(self, numbers: Collection[int]) -> list[int]:
        """Those of the jobs that were in the queue and are no longer, or never came."""
        now = time.monotonic()
        if not numbers or now - self._last_look < LOOK_EVERY_S:
            return []
        self._last_look = now
        there = self._there()
        if there is None:  # the controller does not answer: it says nothing about the jobs
            return []
        gone = [n for n in numbers if n not in there and self._was_submitted(n, now)]
        self._seen |= there
        return gone

    def signal(self, name: str) -> None:
        """Sends a signal to the jobs that run."""
        for number in sorted(self._there() or ()):
            _call(["scancel", f"--signal={name}", "--full", f"--name={self._prefix}-{number}"])

    def cancel(self) -> None:
        """Takes all jobs out of the queue."""
        for number in sorted(self._there() or ()):
            _call(["scancel", f"--name={self._prefix}-{number}"])

    def _was_submitted(self, number: int, now: float) -> bool:
        return number in self._seen or now - self._began.get(number, now) > _SUBMIT_S

    def _there(self) -> set[int] | None:
        """Numbers of the jobs that SLURM has; None when it does not answer."""
        answer = _call(["squeue", "--me", "--noheader", "--format=%j %T"])
        if answer is None:
            return None
        rows = [line.split() for line in answer.splitlines()]
        names = [row[0] for row in rows if len(row) == 2 and row[1] != "COMPLETING"]
        ours = (name.removeprefix(f"{self._prefix}-") for name in names)
        return {int(number) for number in ours if number.isdecimal()}


def _call(words: list[str]) -> str | None:
    """What a command of SLURM prints; None when it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("%s: %s", words[0], error)
        return None
    return done.stdout
