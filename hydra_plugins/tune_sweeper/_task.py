"""The user's task function, wrapped so that it writes its own result wherever it runs."""

import contextlib
import logging
import os
import signal
from functools import update_wrapper
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig

from ._app import value_of
from .run import _result
from .run._processes import end_with
from .run._result import DONE, NUMBER

log = logging.getLogger(__name__)

ATTEMPT = "HYDRA_TUNE_ATTEMPT"  # in a job's environment; absent: the first


class TaskFailed(RuntimeError):
    """A task's failure as text: unlike the exception itself it survives any launcher's pickling."""


class RecordedTask:
    """The user's task function, writing `result.json` into the job's folder when it ends."""

    def __init__(self, task: TaskFunction, *, threads_key: str) -> None:
        self._task = task
        self._threads_key = threads_key
        self._driver = os.getpid()
        update_wrapper(self, task)

    def __call__(self, config: DictConfig) -> Any:
        """Runs the task.

        Raises:
            TaskFailed: the task raised, left the process, or returned no metric.
        """
        is_driver = os.getpid() == self._driver
        if not is_driver:  # Ctrl-C is the sweep's own process's to decide about
            with contextlib.suppress(ValueError):  # a launcher may run jobs in other threads
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            end_with(self._driver)  # else another attempt would begin beside this one
        folder = Path(HydraConfig.get().runtime.output_dir)
        attempt = int(os.environ.get(ATTEMPT, "1"))
        threads = value_of(config, self._threads_key)
        before = os.getcwd()
        try:
            result = _result.record(
                lambda: self._task(config),
                folder,
                attempt=attempt,
                threads=threads,
                hears_ctrl_c=is_driver,
            )
        finally:
            os.chdir(before)  # relative paths of the next job in this process begin there
        if result.status != DONE:
            log.error(result.traceback or result.error)
            raise TaskFailed(result.error)
        returned = {**result.metrics, **result.histories}
        return returned[NUMBER] if returned.keys() == {NUMBER} else returned
