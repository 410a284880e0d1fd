"""The loop of every sweep: ask, submit, wait, record, tell.

It knows no strategy and no launcher, only their protocols; all that it decides is when to stop.
"""

import math
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from ..search._trial import Strategy
from . import _result
from ._objective import Objective
from ._record import COMPLETE, End, Job, Record, is_step
from ._result import DIED, DONE, INVALID, REFUSED, Result, WrongReturn
from ._rules import Progress, Rules

_NO_CHECKPOINT = (
    f"the task left no {_result.CHECKPOINT} in its output folder, and a strategy that trains in"
    " steps continues from it"
)


class Launcher(Protocol):
    """Runs jobs somewhere; each leaves its result in its folder."""

    @property
    def n_slots(self) -> int:
        """How many jobs run at once."""
        ...

    def submit(self, job: Job, parent: Job | None) -> None:
        """Takes a job; it may start now or at the next wait."""
        ...

    def wait(self) -> Sequence[int]:
        """Blocks until at least one job ended; the numbers of those that did."""
        ...


class TaskRefused(Exception):
    """The very first trial showed that the task cannot work with this sweep."""

    def __init__(self, sentence: str, *, has_trained: bool) -> None:
        super().__init__(sentence)
        self.has_trained = has_trained


class Loop:
    """One process's share of a sweep."""

    def __init__(
        self,
        strategy: Strategy,
        launcher: Launcher,
        record: Record,
        *,
        objective: Objective,
        rules: Rules,
        on_start: Callable[[Job], None] = lambda job: None,
        on_end: Callable[[Job, End], None] = lambda job, end: None,
    ) -> None:
        self._strategy = strategy
        self._launcher = launcher
        self._record = record
        self._objective = objective
        self._rules = rules
        self._on_start = on_start
        self._on_end = on_end
        self.progress = Progress(rules, objective)
        self._running: set[int] = set()
        self._started: set[int] = set()
        self._left: list[Job] = []  # asked for, not started: of an earlier process, or repeats
        self._values: dict[int, float | None] = {}  # by job, of configurations not yet told
        self._kept: set[int] = set()  # ended jobs whose checkpoints are on the disk

    def run(self) -> str:
        """Runs until nothing is left or a rule says stop; gives back the reason.

        Raises:
            TaskRefused: the first trial refused its configuration or returned no such metric.
        """
        self._restore()
        while True:
            reason = self.progress.reason_to_stop()
            if reason is None:
                self._fill()
            if not self._running:
                self._record.stop(reason or COMPLETE)
                return reason or COMPLETE
            for number in self._launcher.wait():
                self._finish(self._record.jobs[number])
            self._delete_checkpoints()

    # Resume: the strategy sees the recorded asks and ends in their order, as it saw them first.

    def _restore(self) -> None:
        for event in self._record.events:
            self._replay(event)
        drops = [event["jobs"] for event in self._record.events if event["type"] == "drop"]
        self._delete(drops[-1] if drops else [])  # a crash may have come in between
        self._complete_repeats()
        for job in list(self._record.jobs.values()):
            if job.number not in self._record.ends:
                self._recover(job)

    def _replay(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "ask" and event["repeat"] == 0:
            self._strategy.accept([self._record.jobs[event["job"]].proposal])
        elif event["type"] == "start":
            self._started.add(event["job"])
        elif event["type"] == "end":
            self._note(self._record.ends[event["job"]])
        elif event["type"] == "drop":
            self._kept -= set(event["jobs"])

    def _complete_repeats(self) -> None:
        """Asks for the rest when a process ended between the repeats of one configuration."""
        n = self._rules.repeats
        last = self._record.jobs[len(self._record.jobs) - 1] if self._record.jobs else None
        for repeat in range(last.repeat + 1, n) if last is not None else ():
            assert last is not None
            self._record.ask(last.proposal, repeat, n_repeats=n)

    def _recover(self, job: Job) -> None:
        """A job without an end: its result may lie in its folder, else it runs again."""
        result = _result.read(self._record.folder / job.folder)
        is_its_own = result is not None and result.attempt == job.attempt
        # What ended a sweep at its first trial was a mistake that the user may have mended since.
        is_mistake = result is not None and self._judge(job, result)[1]
        if job.number in self._started and is_its_own and not is_mistake:
            self._finish(job)
        else:
            self._left.append(job)

    # Work

    def _fill(self) -> None:
        free = self._rules.n_parallel - len(self._running)
        while free > 0:
            if not self._left:
                self._left += self._ask(math.ceil(free / self._rules.repeats))
            if not self._left:
                return
            self._submit(self._left.pop(0))
            free -= 1

    def _ask(self, n: int) -> list[Job]:
        repeats = range(self._rules.repeats)
        proposals = self._strategy.ask(n)
        return [self._record.ask(p, r, n_repeats=len(repeats)) for p in proposals for r in repeats]

    def _submit(self, job: Job) -> None:
        is_again = job.number in self._started
        job = self._record.start(job, job.attempt + 1 if is_again else job.attempt)
        self._started.add(job.number)
        self._running.add(job.number)
        self._on_start(job)
        parent = job.proposal.parent
        self._launcher.submit(job, None if parent is None else self._record.jobs[parent])

    def _finish(self, job: Job) -> None:
        result = _result.read(self._record.folder / job.folder)
        if result is None or result.attempt != job.attempt:
            result = Result(DIED, error="the job ended without a result", attempt=job.attempt)
        end, fatal = self._judge(job, result)
        self._running.discard(job.number)
        if fatal and not self._record.ends:
            raise TaskRefused(str(end.error), has_trained=end.status != REFUSED)
        end = self._record.end(end)
        self._note(end)
        self._on_end(job, end)

    def _judge(self, job: Job, result: Result) -> tuple[End, bool]:
        """The end to record, and whether it shows a mistake that every trial would repeat."""
        status, value, error = result.status, None, result.error
        fatal = status in (INVALID, REFUSED)
        if status == DONE:
            try:
                value = self._objective.value(result)
            except WrongReturn as wrong:
                status, error, fatal = INVALID, str(wrong), True
        if value is not None and not math.isfinite(value):
            status, error, value = INVALID, f"{self._objective.name} is {value}", None
        elif value is not None and is_step(job) and result.checkpoint is None:
            status, error, value, fatal = INVALID, _NO_CHECKPOINT, None, True
        names = ("metrics", "seconds", "epochs_done", "checkpoint", "device", "threads")
        facts = {name: getattr(result, name) for name in names}
        return End(job.number, job.attempt, status, value, error=error, **facts), fatal

    def _note(self, end: End) -> None:
        """Counts an end, and tells the strategy once all repeats of its configuration ended."""
        self.progress.add(end)
        if end.checkpoint:
            self._kept.add(end.job)
        self._values[end.job] = end.value
        job = self._record.jobs[end.job]
        first = end.job - job.repeat
        group = range(first, first + self._rules.repeats)
        if all(number in self._values for number in group):
            values = [self._values.pop(number) for number in group]
            observation = self._objective.observe(first, job.proposal, values)
            if observation.score is not None:
                self.progress.rank(first, observation.score)
            self._strategy.tell([observation])

    def _delete_checkpoints(self) -> None:
        """Deletes the checkpoints that neither the strategy nor the best jobs need any more."""
        if self._rules.keep_checkpoints is None or not self._kept:
            return
        useless = self._kept - self._needed_checkpoints()
        if useless:
            self._record.drop(useless)
            self._delete(useless)

    def _delete(self, jobs: Collection[int]) -> None:
        for number in jobs:
            folder = self._record.folder / self._record.jobs[number].folder
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        self._kept.difference_update(jobs)

    def _needed_checkpoints(self) -> set[int]:
        """Those of possible parents, of the best jobs, and what these were continued from."""
        leaders = {job for _, job in self.progress.leaders}
        jobs = {*leaders, *self._running, *(job.number for job in self._left)}
        parents = (self._record.jobs[number].proposal.parent for number in jobs)
        needed = leaders | {parent for parent in parents if parent is not None}
        return self._strategy.needed_checkpoints() | needed
