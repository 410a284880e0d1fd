"""SLURM's queue by the names of its jobs: squeue and scancel, no accounting. Knows no Hydra."""

import contextlib
import itertools
import logging
import os
import subprocess
import time
from collections.abc import Collection, Iterator

LOOK_EVERY_S = 3.0
_VARIABLES = ("SLURM_", "SBATCH_", "SRUN_")
_KEPT = ("SLURM_CONF", "SLURM_TMPDIR", "SLURM_CPUS_", "SLURM_GPUS", "SLURM_MEM_")
_SUBMIT_S = 60.0  # sbatch may take as long on a busy controller
_TIMEOUT_S = 20.0  # of one call
# The others are over, as the controller still remembers for a while.
_ACTIVE = {
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING"),
    *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT", "STAGE_OUT"),
}

log = logging.getLogger(__name__)


@contextlib.contextmanager
def hidden_from_jobs(launcher: object) -> Iterator[None]:
    """Takes SLURM's variables out of the environment that jobs inherit from this process.

    A training that saw that it is a task of SLURM's would requeue the whole sweep. What it may use
    stays to be seen. Jobs that SLURM itself starts get their own from it.
    """
    names = [n for n in os.environ if n.startswith(_VARIABLES) and not n.startswith(_KEPT)]
    hidden = {} if type(launcher).__name__ == "SlurmLauncher" else {n: os.environ[n] for n in names}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


class Queue:
    """The jobs of one sweep in SLURM's queue."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._submissions = itertools.count()
        self._names: dict[int, str] = {}  # of the latest submission of each job
        self._began: dict[int, float] = {}  # monotonic
        self._seen: set[str] = set()
        self._last_look = 0.0

    def name_of(self, number: int) -> str:
        """The name under which a job is submitted now; no two submissions share one."""
        self._began[number] = time.monotonic()
        self._names[number] = f"{self._prefix}-{number}-{next(self._submissions)}"
        return self._names[number]

    def gone(self, numbers: Collection[int]) -> list[int]:
        """Those of the jobs that were in the queue and are no longer, or never came."""
        now = time.monotonic()
        if not numbers or now - self._last_look < LOOK_EVERY_S:
            return []
        self._last_look = now
        states = _states()
        if states is None:  # the controller does not answer: it says nothing about the jobs
            return []
        self._seen |= states.keys()
        return [n for n in numbers if n in self._names and self._is_gone(n, states, now)]

    def signal(self, name: str) -> None:
        """Sends a signal to what the jobs run, not to the scripts round it."""
        self._cancel(f"--signal={name}")

    def cancel(self) -> None:
        """Takes all jobs out of the queue."""
        self._cancel()

    def _is_gone(self, number: int, states: dict[str, str], now: float) -> bool:
        name = self._names[number]
        was_submitted = name in self._seen or now - self._began[number] > _SUBMIT_S
        return was_submitted and states.get(name) not in _ACTIVE

    def _cancel(self, *options: str) -> None:
        for name, state in (_states() or {}).items():
            if name in self._names.values() and state in _ACTIVE:
                _call(["scancel", *options, f"--name={name}"])


def _states() -> dict[str, str] | None:
    """States of this user's jobs by name; None when SLURM does not answer."""
    answer = _call(["squeue", "--me", "--noheader", "--states=all", "--format=%j %T"])
    if answer is None:
        return None
    rows = (line.rsplit(maxsplit=1) for line in answer.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _call(words: list[str]) -> str | None:
    """What a command of SLURM prints; None when it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("%s: %s", words[0], error)
        return None
    return done.stdout
