"""Any Hydra launcher behind the loop's submit and wait, and the task that writes its own result."""

import logging
import os
from collections.abc import Callable, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.plugins.launcher import Launcher
from hydra.types import TaskFunction
from omegaconf import DictConfig

from ._app import value_of
from .run import _result
from .run._record import Job
from .run._result import DIED, DONE, NUMBER, Result

log = logging.getLogger(__name__)

ATTEMPT = "HYDRA_TUNE_ATTEMPT"  # in a job's environment; absent: the first

Command = Callable[[Job, Job | None], list[str]]  # overrides of a job, given its parent


class TaskFailed(RuntimeError):
    """A task's failure as text: unlike the exception itself it survives any launcher's pickling."""


class RecordedTask:
    """The user's task function, writing `result.json` into the job's folder when it ends."""

    def __init__(self, task: TaskFunction, *, threads_key: str) -> None:
        self._task = task
        self._threads_key = threads_key
        update_wrapper(self, task)

    def __call__(self, config: DictConfig) -> Any:
        """Runs the task.

        Raises:
            TaskFailed: the task raised, left the process, or returned no metric.
        """
        folder = Path(HydraConfig.get().runtime.output_dir)
        attempt = int(os.environ.get(ATTEMPT, "1"))
        threads = value_of(config, self._threads_key)
        result = _result.record(
            lambda: self._task(config), folder, attempt=attempt, threads=threads
        )
        if result.status != DONE:
            log.error(result.traceback or result.error)
            raise TaskFailed(result.error)
        returned = {**result.metrics, **result.histories}
        return returned[NUMBER] if returned.keys() == {NUMBER} else returned


class BatchLauncher:
    """A Hydra launcher, which knows only `launch(batch)`, as submit and wait."""

    def __init__(
        self,
        launcher: Launcher,
        *,
        n_slots: int,
        command: Command,
        sweep_folder: Path,
        config: DictConfig,
    ) -> None:
        self._launcher = launcher
        self._n_slots = n_slots
        self._command = command
        self._sweep_folder = sweep_folder
        self._config = config
        self._queue: list[tuple[Job, list[str]]] = []

    @property
    def n_slots(self) -> int:
        """How many jobs the launcher runs at once."""
        return self._n_slots

    def submit(self, job: Job, parent: Job | None) -> None:
        """Keeps the job for the next batch."""
        self._queue.append((job, self._command(job, parent)))

    def wait(self) -> Sequence[int]:
        """Runs a batch: the queued jobs with consecutive numbers, as launch() numbers them."""
        first = self._queue[0][0].number
        batch = [q for i, q in enumerate(self._queue) if q[0].number == first + i]
        self._queue = self._queue[len(batch) :]
        try:
            self._launch(batch)
        finally:  # a job in this process that was interrupted leaves its own logging behind
            configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        return [job.number for job, _ in batch]

    def _launch(self, batch: list[tuple[Job, list[str]]]) -> None:
        """Launches; when the launcher breaks, halves the rest until the breaking job is alone."""
        try:
            returns = self._launcher.launch(
                [command for _, command in batch], initial_job_idx=batch[0][0].number
            )
        except Exception as error:
            log.debug("The launcher broke", exc_info=True)
            lost = [(job, command) for job, command in batch if not self._has_result(job)]
            if len(batch) == 1 and lost:
                self._note_death(lost[0][0], error)
            for half in (lost[: len(lost) // 2], lost[len(lost) // 2 :]) if len(batch) > 1 else ():
                for part in _consecutive(half):
                    self._launch(part)
        else:
            self._note_broken(batch, returns)

    def _note_broken(
        self, batch: list[tuple[Job, list[str]]], returns: Sequence[JobReturn]
    ) -> None:
        """A job that failed before our wrapper ran (its output folder, say) has no result."""
        for (job, _), returned in zip(batch, returns, strict=False):
            if not self._has_result(job):
                is_done = returned.status == JobStatus.COMPLETED
                lost = FileNotFoundError(f"no result in {job.folder}")
                self._note_death(job, lost if is_done else returned._return_value)

    def _has_result(self, job: Job) -> bool:
        result = _result.read(self._sweep_folder / job.folder)
        return result is not None and result.attempt == job.attempt

    def _note_death(self, job: Job, error: object) -> None:
        line = f"{type(error).__name__}: {error}".split("\n")[0]
        result = Result(DIED, error=f"the launcher lost it: {line}", attempt=job.attempt)
        _result.write(self._sweep_folder / job.folder, result)


def _consecutive(batch: list[tuple[Job, list[str]]]) -> list[list[tuple[Job, list[str]]]]:
    parts: list[list[tuple[Job, list[str]]]] = []
    for item in batch:
        if parts and parts[-1][-1][0].number + 1 == item[0].number:
            parts[-1].append(item)
        else:
            parts.append([item])
    return parts


def count_slots(launcher: Launcher, settings: Any) -> int:
    """How many jobs a Hydra launcher runs at once, as far as its settings tell."""
    if type(launcher).__name__ == "BasicLauncher":
        return 1
    n_cores = os.cpu_count() or 1
    n_jobs = settings.get("n_jobs")  # joblib's: negative ones count down from the cores
    if n_jobs is None:
        return n_cores
    return max(1, int(n_cores + 1 + n_jobs if n_jobs < 0 else n_jobs))
