"""Launchers that run jobs in other processes but only know launch(batch): a thread a job."""

import copy
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait as wait_for
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from ._adapter import Adapter, Around
from ._slurm import LOOK_EVERY_S, Queue
from .run._processes import descendants, end_descendants
from .run._record import Job
from .run._result import DIED, INTERRUPTED

log = logging.getLogger(__name__)


class ThreadedLauncher(Adapter):
    """A launcher that starts processes and blocks: one thread waits for each job.

    When such a launcher breaks, jobs that did nothing wrong break with it. So what broke is run
    again with nothing beside it: who breaks it alone is the one that did. Once the sweep is to stop
    nothing begins any more.
    """

    def __init__(self, launcher: Launcher, around: Around) -> None:
        super().__init__(launcher, around)
        self._waiting: deque[tuple[Job, list[str]]] = deque()
        self._suspects: deque[tuple[Job, list[str]]] = deque()
        self._running: dict[int, Job] = {}
        self._ended: queue.SimpleQueue[tuple[Job, list[str], object]] = queue.SimpleQueue()
        self._bell, self._ring = os.pipe()
        self._is_alone = False  # a suspect runs
        self._not_ours = descendants()  # processes that the user's script started

    def submit(self, job: Job, checkpoint: str | None) -> None:
        """Starts the job, unless suspects have to be heard first."""
        self._waiting.append((job, self._around.command(job, checkpoint)))
        self._start_waiting()

    def wait(self) -> Sequence[int]:
        """Blocks until jobs ended or a signal came."""
        interrupts = self._around.interrupts
        wait_for([self._bell, interrupts.wake_fd], self._timeout_s())
        interrupts.drain()
        ended = []
        while not self._ended.empty():
            os.read(self._bell, 1)
            ended += self._take(*self._ended.get())
        ended += [job.number for job in self._lost()]
        self._is_alone = self._is_alone and bool(self._running)
        if interrupts.level:
            return [*ended, *self._give_up()]
        self._start_waiting()
        return ended

    def _give_up(self) -> list[int]:
        """What has not begun never will; after kill(), nor does anybody wait for the rest."""
        given_up = [*self._waiting, *self._suspects]
        self._waiting.clear()
        self._suspects.clear()
        for job, _ in given_up:
            self._note(job, INTERRUPTED, "the sweep ended before it began")
        numbers = [job.number for job, _ in given_up]
        if self._around.interrupts.level > 1:
            self.kill()
            numbers += self._running
            self._running = {}
        return numbers

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
        """Ends what the launcher started: it would be waited for when this process ends."""
        end_descendants(but=self._not_ours)

    def _start_waiting(self) -> None:
        if self._suspects and not self._running:
            self._is_alone = True
            self._start_thread(*self._suspects.popleft(), is_alone=True)
        while self._waiting and not self._suspects and not self._is_alone:
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
