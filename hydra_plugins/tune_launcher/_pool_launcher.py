"""Hydra's launcher interface over a pool of workers, and one that does not wait for whole batches.

    launch(batch)                    any sweeper: returns when all jobs of the batch have ended
    submit / wait / terminate / kill a sweeper that keeps every slot busy

Imported whenever Hydra looks for plugins, so everything else is imported inside the functions.
"""

import pickle
import signal
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from ._workers import Ended


class JobPool(Protocol):
    """Runs messages somewhere, each in a slot; `_workers.Pool` documents the methods."""

    @property
    def n_running(self) -> int: ...

    @property
    def waiting(self) -> set[int]: ...

    def submit(self, number: int, message: bytes) -> str: ...

    def wait(self, timeout_s: float | None = None, wake_fd: int | None = None) -> "list[Ended]": ...

    def signal(self, number: int, signum: int) -> None: ...

    def abandon(self) -> None: ...

    def close(self) -> None: ...


class PoolLauncher(Launcher):
    """What the launchers with a pool share; which pool, and how large, is theirs to say."""

    has_queue = False  # whether it takes more jobs than it has slots

    def __init__(
        self, *, threads: int | None, preload: Sequence[str], jobs_per_worker: int
    ) -> None:
        """Keeps the settings that all of them have.

        Raises:
            ValueError: a number below 1, or a module that is not there.
        """
        check_counts(threads=threads, jobs_per_worker=jobs_per_worker)
        _check_modules(preload)
        self._threads = threads
        self._preload = list(preload)
        self._jobs_per_worker = jobs_per_worker
        self._pool: JobPool | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keeps what Hydra hands over; no process is started before the first job.

        Raises:
            CompactHydraException: the task cannot be sent to another process.
        """
        self._hydra_context = hydra_context
        self._task_function = task_function
        self._config = config
        # Tried out alone: a sweeper may yet change the config, and resolve what it interpolates.
        self._runner()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs a batch; a job whose process was lost is a failed one."""
        waiting = list(enumerate(job_overrides, start=initial_job_idx))
        returns: dict[int, JobReturn] = {}
        while len(returns) < len(job_overrides):
            while waiting and self.n_running < self.n_slots:
                number, overrides = waiting.pop(0)
                self._submit(number, overrides, wants_return=True)
            for ended in self._wait():
                returns[ended.number] = _job_return(
                    ended, job_overrides[ended.number - initial_job_idx]
                )
        return [returns[number] for number in sorted(returns)]

    # Without batches

    @property
    def n_slots(self) -> int:
        """How many jobs run at once."""
        raise NotImplementedError

    @property
    def n_running(self) -> int:
        """How many do now."""
        return self._pool.n_running if self._pool is not None else 0

    @property
    def waiting(self) -> set[int]:
        """Jobs that were submitted and have not begun."""
        return self._pool.waiting if self._pool is not None else set()

    def start(self) -> None:
        """Begins to import what the jobs need, while the caller does other things."""
        self._started()

    def submit(self, job_overrides: Sequence[str], job_idx: int) -> str:
        """Runs a job in a free slot, at once; gives back the slot's label."""
        return self._submit(job_idx, job_overrides, wants_return=False)

    def wait(
        self, timeout_s: float | None = None, wake_fd: int | None = None
    ) -> list[tuple[int, str | None]]:
        """Blocks until jobs ended: their numbers, and how their processes were lost if they were.

        Gives back nothing when a job began, the time is over or `wake_fd` can be read.

        Raises:
            CompactHydraException: the workers cannot be started at all.
        """
        return [(e.number, e.loss) for e in self._wait(timeout_s, wake_fd)]

    def terminate(self, job_idx: int) -> None:
        """Asks a job to end, by SIGTERM."""
        self._started().signal(job_idx, signal.SIGTERM)

    def kill(self, job_idx: int) -> None:
        """Ends a job and all that it started, by SIGKILL."""
        self._started().signal(job_idx, signal.SIGKILL)

    def abandon(self) -> None:
        """Ends the jobs whose processes do not exist yet: what they need is still imported."""
        if self._pool is not None:
            self._pool.abandon()

    def close(self) -> None:
        """Ends all processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _submit(self, number: int, overrides: Sequence[str], *, wants_return: bool) -> str:
        from ._job import Order

        order = Order(number, list(overrides), wants_return)
        return self._started().submit(number, pickle.dumps(order))

    def _wait(self, timeout_s: float | None = None, wake_fd: int | None = None) -> "list[Ended]":
        from ._workers import PoolBroken

        try:
            return self._started().wait(timeout_s, wake_fd)
        except PoolBroken as error:  # no fault of ours: Hydra prints this kind without a traceback
            raise CompactHydraException(str(error)) from error

    def _started(self) -> JobPool:
        if self._pool is None:
            self._pool = self._make_pool()
            # A sweeper of Hydra's does not say when it is done.
            weakref.finalize(self, self._pool.close)
        return self._pool

    def _make_pool(self) -> JobPool:
        raise NotImplementedError

    def _runner(self) -> bytes:
        from ._job import make_runner

        return make_runner(self._hydra_context, self._task_function, self._config)

    def _modules(self, preload: Sequence[str]) -> list[str]:
        from ._job import modules_of

        return [*preload, *modules_of(self._task_function)]


def check_counts(**counts: int | None) -> None:
    """Refuses settings below 1; None is for what the launcher chooses itself.

    Raises:
        ValueError: the message names the setting.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"hydra.launcher.{name}={value}: expected an integer from 1 on")


def _check_modules(names: Sequence[str]) -> None:
    for name in names:
        if find_spec(name.partition(".")[0]) is None:
            raise ValueError(f"hydra.launcher.preload: there is no module {name}")


def _job_return(ended: "Ended", overrides: Sequence[str]) -> JobReturn:
    if ended.answer is not None:
        returned: JobReturn = pickle.loads(ended.answer)
        return returned
    error = RuntimeError(f"job {ended.number} was lost: {ended.loss}")
    empty = OmegaConf.create()
    return JobReturn(list(overrides), empty, empty, status=JobStatus.FAILED, _return_value=error)
