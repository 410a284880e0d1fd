"""What every adapter of a launcher has: its surroundings, and results for jobs that left none."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from ._errors import UsageError
from .run import _result
from .run._interrupts import Interrupts
from .run._limits import Limits
from .run._record import Job
from .run._result import DIED, Result

Command = Callable[[Job, str | None], list[str]]  # overrides of a job, given its checkpoint


@dataclass(frozen=True)
class Around:
    """What every adapter needs beside its launcher."""

    command: Command
    sweep_folder: Path
    config: DictConfig
    interrupts: Interrupts
    limits: Limits


class Adapter:
    """What the adapters share: results of jobs that could not write their own."""

    in_batches = False

    def __init__(self, launcher: Any, around: Around) -> None:
        self._launcher = launcher
        self._around = around

    @property
    def n_slots(self) -> int:
        """How many jobs the launcher runs at once, as far as its settings tell."""
        return count_slots(self._launcher, self._around.config.hydra.launcher)

    def submit(self, job: Job, checkpoint: str | None) -> None:
        """Takes a job."""
        raise NotImplementedError

    def wait(self) -> Sequence[int]:
        """Blocks until jobs ended or a signal came."""
        raise NotImplementedError

    def start(self) -> None:
        """Gets ready, where that takes a while."""

    def terminate(self) -> None:
        """Asks the running jobs to end; most launchers know no way to."""

    def kill(self) -> None:
        """Ends the running jobs; most launchers know no way to."""

    def close(self) -> None:
        """Ends what the launcher started."""

    def _has_result(self, job: Job) -> bool:
        result = _result.read(self._around.sweep_folder / job.folder)
        return result is not None and result.attempt == job.attempt

    def _note(self, job: Job, status: str, error: str, seconds: float = 0.0) -> None:
        """Writes the result of a job that left none, as far as its folder lets us."""
        if not self._has_result(job):
            result = Result(status, error=error, attempt=job.attempt, seconds=seconds)
            with contextlib.suppress(OSError):  # the loop takes a job without a result for dead
                _result.write(self._around.sweep_folder / job.folder, result)

    def _note_death(self, job: Job, error: object) -> None:
        line = f"{type(error).__name__}: {error}".split("\n")[0]
        self._note(job, DIED, f"the launcher lost it: {line}")

    def _note_returned(self, job: Job, returned: JobReturn) -> None:
        """A job that failed before our wrapper ran (its output folder, say) has no result."""
        if not self._has_result(job):
            is_done = returned.status == JobStatus.COMPLETED
            lost = FileNotFoundError(f"no result in {job.folder}")
            self._note_death(job, lost if is_done else returned._return_value)


def count_slots(launcher: Launcher, settings: Any) -> int:
    """How many jobs a Hydra launcher runs at once, as far as its settings tell.

    Raises:
        UsageError: the settings say that none does, n_jobs=0.
    """
    if type(launcher).__name__ == "BasicLauncher":
        return 1
    n_jobs = settings.get("n_jobs")
    if n_jobs is None:
        return os.cpu_count() or 1
    if n_jobs == 0:
        raise UsageError("hydra.launcher.n_jobs=0: expected a number of jobs, or -1 for all cores")
    from joblib import effective_n_jobs  # type: ignore[import-untyped]

    return max(1, int(effective_n_jobs(n_jobs)))
