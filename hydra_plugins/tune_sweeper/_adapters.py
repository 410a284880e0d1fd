"""Any Hydra launcher behind the loop's submit and wait.

DirectLauncher    takes jobs one by one: the launchers of this project
ThreadedLauncher  runs jobs in other processes but only knows launch(batch): a thread a job
BatchLauncher     anything else: whole batches, in this process perhaps
"""

import copy
import logging
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.errors import InstantiationException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ._errors import UsageError
from ._slurm import LOOK_EVERY_S, Queue
from .run import _result
from .run._interrupts import Interrupts
from .run._limits import Limits, Watchman
from .run._record import Job
from .run._result import DIED, INTERRUPTED, Result

log = logging.getLogger(__name__)

Command = Callable[[Job, str | None], list[str]]  # overrides of a job, given its checkpoint

_ASK_AGAIN_S = 1.0  # a training that was not listening yet is asked to end again

# They start a process per job, so that one thread each is all that waiting for them takes.
_OUT_OF_PROCESS = ("hydra_plugins.hydra_joblib_launcher", "hydra_plugins.hydra_submitit_launcher")


@dataclass(frozen=True)
class Around:
    """What every adapter needs beside its launcher."""

    command: Command
    sweep_folder: Path
    config: DictConfig
    interrupts: Interrupts
    limits: Limits


def make_launcher(context: HydraContext, task: TaskFunction, config: DictConfig) -> Launcher:
    """The launcher that the config names.

    Raises:
        UsageError: its settings contradict each other, or ask for what this machine has not.
    """
    try:
        return Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task, config=config
        )
    except (InstantiationException, ValueError) as error:  # Hydra 1.4 lets the cause through
        cause = error.__cause__ if isinstance(error.__cause__, ValueError) else error
        raise UsageError(str(cause).split("\n")[0]) from error


def check_limits(launcher: Launcher, limits: Limits) -> None:
    """Limits are promises, so a launcher that cannot keep them is refused.

    Raises:
        UsageError: the jobs of this launcher cannot be ended from outside.
    """
    if limits != Limits() and not _takes_single_jobs(launcher):
        raise UsageError(
            "hydra.sweeper.trial_timeout_s and stall_timeout_s need a launcher that can end its"
            f" jobs, which {type(launcher).__name__} cannot: type hydra/launcher=workers"
        )


def _takes_single_jobs(launcher: Launcher) -> bool:
    return hasattr(launcher, "submit")


def adapt(launcher: Launcher, around: Around) -> "Adapter":
    """The adapter that fits a launcher."""
    if _takes_single_jobs(launcher):
        return DirectLauncher(launcher, around)
    if type(launcher).__module__.startswith(_OUT_OF_PROCESS):
        is_slurm = type(launcher).__name__ == "SlurmLauncher"
        return (SlurmLauncher if is_slurm else ThreadedLauncher)(launcher, around)
    return BatchLauncher(launcher, around)


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

    def _note(self, job: Job, status: str, error: str) -> None:
        """Writes the result of a job that left none."""
        if not self._has_result(job):
            result = Result(status, error=error, attempt=job.attempt)
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


class DirectLauncher(Adapter):
    """A launcher that takes jobs one by one, and can end them."""

    def __init__(self, launcher: Any, around: Around) -> None:
        super().__init__(launcher, around)
        self._jobs: dict[int, Job] = {}
        self._unwatched: set[int] = set()  # no limit counts before a job has begun
        self._reasons: dict[int, tuple[str, str]] = {}  # of jobs that we ended: status, error
        self._watchman = Watchman(around.limits, around.sweep_folder)

    @property
    def n_slots(self) -> int:
        """How many jobs run at once."""
        return int(self._launcher.n_slots)

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

    def close(self) -> None:
        """No process is left."""
        self._launcher.close()

    def _watch_begun(self) -> None:
        """A cluster may have no room for a job yet; its launcher says so, others have no queue."""
        begun = self._unwatched - getattr(self._launcher, "waiting", set())
        for number in begun:
            self._watchman.add(self._jobs[number])
        self._unwatched -= begun

    def _end(self, job: Job, loss: str | None) -> None:
        self._unwatched.discard(job.number)
        self._watchman.remove(job)
        status, error = self._reasons.pop(job.number, (DIED, loss or "it left no result"))
        self._note(job, status, error)


class ThreadedLauncher(Adapter):
    """A launcher that starts processes and blocks: one thread waits for each job.

    When such a launcher breaks, jobs that did nothing wrong break with it. So what broke is run
    again with nothing beside it: who breaks it alone is the one that did.
    """

    def __init__(self, launcher: Launcher, around: Around) -> None:
        super().__init__(launcher, around)
        self._waiting: deque[tuple[Job, list[str]]] = deque()
        self._suspects: deque[tuple[Job, list[str]]] = deque()
        self._running: dict[int, Job] = {}
        self._ended: queue.SimpleQueue[tuple[Job, list[str], object]] = queue.SimpleQueue()
        self._bell, self._ring = os.pipe()
        self._is_killed = False

    def submit(self, job: Job, checkpoint: str | None) -> None:
        """Starts the job, unless suspects have to be heard first."""
        self._waiting.append((job, self._around.command(job, checkpoint)))
        self._start_waiting()

    def wait(self) -> Sequence[int]:
        """Blocks until jobs ended or a signal came."""
        if self._is_killed:
            numbers, self._running = list(self._running), {}
            return numbers
        interrupts = self._around.interrupts
        wait_for([self._bell, interrupts.wake_fd], self._timeout_s())
        interrupts.drain()
        ended = []
        while not self._ended.empty():
            os.read(self._bell, 1)
            ended += self._take(*self._ended.get())
        ended += [job.number for job in self._lost()]
        self._start_waiting()
        return ended

    def _timeout_s(self) -> float | None:
        """When to look again although nothing ended."""
        return self._around.interrupts.seconds_left

    def _lost(self) -> Sequence[Job]:
        """Jobs that ended although their threads still wait for them."""
        return []

    def _launcher_of(self, job: Job) -> Any:
        """What launches a job."""
        return self._launcher

    def kill(self) -> None:
        """They cannot be ended from here; nobody waits for them any more."""
        self._is_killed = True

    def _start_waiting(self) -> None:
        if self._suspects and not self._running:
            self._start_thread(*self._suspects.popleft(), is_alone=True)
        while self._waiting and not self._suspects:
            self._start_thread(*self._waiting.popleft(), is_alone=False)

    def _start_thread(self, job: Job, command: list[str], *, is_alone: bool) -> None:
        self._running[job.number] = job
        arguments = (job, [] if is_alone else command, command)
        threading.Thread(target=self._launch, args=arguments, daemon=True).start()

    def _launch(self, job: Job, again: list[str], command: list[str]) -> None:
        """In a thread; `again` is empty when the job ran with nothing beside it."""
        try:
            (outcome,) = self._launcher_of(job).launch([command], initial_job_idx=job.number)
        except BaseException as error:
            outcome = error
        self._ended.put((job, again, outcome))
        os.write(self._ring, b"!")

    def _take(self, job: Job, again: list[str], outcome: object) -> list[int]:
        if self._running.get(job.number) != job:  # it was given up, and may run again
            return []
        del self._running[job.number]
        if isinstance(outcome, JobReturn):
            self._note_returned(job, outcome)
        elif again and not self._has_result(job):
            log.debug("The launcher broke: %r", outcome)
            self._suspects.append((job, again))
            return []
        else:
            self._note_death(job, outcome)
        return [job.number]


class SlurmLauncher(ThreadedLauncher):
    """SLURM through submitit, which waits for ever for a job that was cancelled or killed.

    Each job has a name of its own in SLURM's queue. One that is no longer there, and left no
    result, is lost. Needs no accounting.
    """

    def __init__(self, launcher: Launcher, around: Around) -> None:
        super().__init__(launcher, around)
        import submitit  # noqa: F401 (it sets the level of its logger when it is imported)

        # It warns at each look that there is no accounting, which is no fault here.
        logging.getLogger("submitit").setLevel(logging.ERROR)
        self._queue = Queue(f"{around.sweep_folder.name}-{os.getpid()}")

    def kill(self) -> None:
        """scancel for all."""
        self._queue.cancel()
        super().kill()

    def terminate(self) -> None:
        """SIGTERM for all; those that wait in the queue go."""
        self._queue.signal("TERM")

    def _timeout_s(self) -> float | None:
        times = [super()._timeout_s(), LOOK_EVERY_S if self._running else None]
        return min((t for t in times if t is not None), default=None)

    def _lost(self) -> Sequence[Job]:
        gone = self._queue.gone({job.number for job in self._running.values()})
        lost = [job for number in gone if (job := self._running.pop(number, None))]
        for job in lost:
            self._note(job, DIED, "SLURM no longer has it (cancelled, killed or preempted)")
        return lost

    def _launcher_of(self, job: Job) -> Any:
        named = copy.copy(self._launcher)
        named.params = {**self._launcher.params, "name": self._queue.name_of(job.number)}
        return named


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


def count_slots(launcher: Launcher, settings: Any) -> int:
    """How many jobs a Hydra launcher runs at once, as far as its settings tell."""
    if type(launcher).__name__ == "BasicLauncher":
        return 1
    n_cores = os.cpu_count() or 1
    n_jobs = settings.get("n_jobs")  # joblib's: negative ones count down from the cores
    if n_jobs is None:
        return n_cores
    return max(1, int(n_cores + 1 + n_jobs if n_jobs < 0 else n_jobs))
