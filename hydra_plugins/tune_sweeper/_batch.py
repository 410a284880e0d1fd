"""Any other launcher: whole batches, in this process perhaps."""

import logging
import os
import signal
from collections.abc import Sequence

from hydra.core.utils import configure_log
from hydra.plugins.launcher import Launcher

from ._adapter import Adapter, Around
from .run import _result
from .run._record import Job
from .run._result import INTERRUPTED

log = logging.getLogger(__name__)


class BatchLauncher(Adapter):
    """A launcher that knows only launch(batch)."""

    in_batches = True

    def __init__(self, launcher: Launcher, around: Around) -> None:
        super().__init__(launcher, around)
        self._queue: list[tuple[Job, list[str]]] = []
        self._is_launching = False
        around.interrupts.in_process = self._interrupt

    def submit(self, job: Job, checkpoint: str | None) -> None:
        """Keeps the job for the next batch."""
        self._queue.append((job, self._around.command(job, checkpoint)))

    def wait(self) -> Sequence[int]:
        """Runs a batch: the queued jobs with consecutive numbers, as launch() numbers them."""
        first = self._queue[0][0].number
        batch = [q for i, q in enumerate(self._queue) if q[0].number == first + i]
        self._queue = self._queue[len(batch) :]
        hydra, cwd = self._around.config.hydra, os.getcwd()
        try:
            self._is_launching = True
            self._launch(batch)
        except KeyboardInterrupt:  # by our own handler; what has no result is interrupted
            log.debug("A batch was interrupted")
        finally:  # a job in this process that was interrupted leaves its own logging behind
            self._is_launching = False
            os.chdir(cwd)  # a task may go elsewhere and stay there
            configure_log(hydra.hydra_logging, hydra.verbose)
        self._pass_on_sigterm(batch)
        return [job.number for job, _ in batch]

    def _interrupt(self, count: int) -> None:
        """A request to stop, while a job may run in this very thread.

        A training that took SIGTERM over ends its epoch; everything else is left where it stands.
        """
        handler = signal.getsignal(signal.SIGTERM)
        is_ours = getattr(handler, "__self__", None) is self._around.interrupts
        if count == 1 and callable(handler) and not is_ours:
            handler(signal.SIGTERM, None)
        elif self._is_launching:
            raise KeyboardInterrupt

    def _pass_on_sigterm(self, batch: list[tuple[Job, list[str]]]) -> None:
        """A training in this process may have taken SIGTERM over, and ended because of it."""
        interrupts = self._around.interrupts
        for job, _ in batch:
            result = _result.read(self._around.sweep_folder / job.folder)
            if result is not None and result.status == INTERRUPTED and not interrupts.level:
                interrupts.request(signal.SIGTERM)

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
            for (job, _), returned in zip(batch, returns, strict=False):
                self._note_returned(job, returned)


def _consecutive(batch: list[tuple[Job, list[str]]]) -> list[list[tuple[Job, list[str]]]]:
    parts: list[list[tuple[Job, list[str]]]] = []
    for item in batch:
        if parts and parts[-1][-1][0].number + 1 == item[0].number:
            parts[-1].append(item)
        else:
            parts.append([item])
    return parts
