"""The loop of every sweep: ask, submit, wait, record, tell.

It knows no strategy and no launcher, only their protocols; all that it decides is when to stop.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ..search._trial import Strategy
from . import _result
from ._checkpoints import Checkpoints
from ._garbage import without_collection
from ._interrupts import Interrupts
from ._journal import JournalUnwritable, is_disk_full, is_unwritable
from ._objective import Objective
from ._record import COMPLETE, FILE, End, Job, Record, is_step
from ._result import (
    CHECKPOINT,
    DIED,
    DONE,
    FAILED,
    INTERRUPTED,
    INVALID,
    LOST,
    REFUSED,
    UNREADABLE,
    Result,
    WrongReturn,
)
from ._rules import Progress, Rules
from ._whole import remove_links_out

_NO_ROOM = "No space left on device"
_NO_CHECKPOINT = (
    f"the task left no {_result.CHECKPOINT} in its output folder, and a strategy that trains in"
    " steps continues from it"
)


def _not_mutable(keys: Sequence[str], error: str | None) -> str:
    """A training refused to go on, and it is plain which keys nobody said may change."""
    frozen = ", ".join(f"{key}=tag(frozen,...)" for key in keys)
    return (
        f"{', '.join(keys)}: changed in mid-training, and the task refused to go on ({error});"
        f" keep what cannot change constant along a training with {frozen}, in a new sweep"
    )


def _unwritable(error: OSError) -> str:
    return (
        f"the sweep cannot write any more ({error}); what ran was let to end, its results lie in"
        " its folders: mend that and type the same"
    )


class Launcher(Protocol):
    """Runs jobs somewhere; each leaves its result in its folder."""

    @property
    def n_slots(self) -> int:
        """How many jobs run at once."""
        ...

    def submit(self, job: Job, checkpoint: str | None) -> None:
        """Takes a job, and the checkpoint below the sweep's folder that it continues.

        It may start now or at the next wait.
        """
        ...

    def wait(self) -> Sequence[int]:
        """Blocks until jobs ended, and gives their numbers; none when a signal came instead."""
        ...

    def terminate(self) -> None:
        """Asks the running jobs to end soon, with a checkpoint if they can."""
        ...

    def kill(self) -> None:
        """Ends the running jobs now; wait() then gives their numbers."""
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
        interrupts: Interrupts | None = None,
        may_be_best: Callable[[Mapping[str, Any]], bool] = lambda values: True,
        on_restored: Callable[[Progress], None] = lambda progress: None,
        on_start: Callable[[Job], None] = lambda job: None,
        on_end: Callable[[Job, End, Progress], None] = lambda job, end, progress: None,
    ) -> None:
        self._strategy = strategy
        self._launcher = launcher
        self._record = record
        self._objective = objective
        self._rules = rules
        self._interrupts = interrupts
        self._may_be_best = may_be_best  # a configuration
        self._on_restored = on_restored
        self._on_start = on_start
        self._on_end = on_end
        self._news: list[Callable[[], None]] = []  # for the observers, once the slots are busy
        self.progress = Progress(rules, objective)
        self._running: set[int] = set()
        self._started: set[int] = set()
        self._ours: set[int] = set()  # jobs that this process started
        self._level = 0  # of the interrupts that were acted upon
        self._left: list[Job] = []  # asked for, not started: of an earlier process, or repeats
        self._noted: set[int] = set()  # jobs whose ends are counted
        self._last: dict[int, int] = {}  # jobs by trial, while the record is read
        self._is_restored = False
        self._values: dict[int, float | None] = {}  # by job, of configurations not yet told
        self._checkpoints = Checkpoints(record, rules)

    def run(self) -> str:
        """Runs until nothing is left or a rule says stop; gives back the reason.

        Raises:
            TaskRefused: the first trial refused its configuration or returned no such metric.
        """
        try:
            self._restore()
            self._on_restored(self.progress)
            return self._run()
        except OSError as error:
            if is_disk_full(error):
                self._let_running_end()
            elif is_unwritable(error) or not (self._record.folder / FILE).exists():
                self._let_running_end()
                raise JournalUnwritable(_unwritable(error)) from error
            raise

    def _run(self) -> str:
        while True:
            reason = self._reason_to_stop()
            if reason is None:
                self._fill()
            self._tell_observers()
            if not self._running:
                self._record.stop(reason or COMPLETE)
                return reason or COMPLETE
            self._interrupt_jobs()
            ended = self._launcher.wait()
            self._running -= set(ended)  # all, before the record of one of them may fail
            for number in ended:
                self._finish(self._record.jobs[number])
            self._checkpoints.delete_all_but(self._needed_checkpoints)

    def _let_running_end(self) -> None:
        """The record takes no more, but what runs writes its own files, read on resume."""
        while self._running:
            self._interrupt_jobs()
            self._running -= set(self._launcher.wait())

    def _reason_to_stop(self) -> str | None:
        if self._is_stopping():
            return INTERRUPTED
        return self.progress.reason_to_stop()

    def _is_stopping(self) -> bool:
        """Whether somebody asked; a launcher in this process hears of it before we pass it on."""
        return self._interrupts is not None and self._interrupts.level > 0

    def _interrupt_jobs(self) -> None:
        """Passes a request to stop on to the jobs, once a level."""
        level = 0 if self._interrupts is None else self._interrupts.level
        if level > self._level:
            self._level = level
            (self._launcher.terminate if level == 1 else self._launcher.kill)()

    def _tell_observers(self) -> None:
        news, self._news = self._news, []
        for tell in news:
            tell()

    # Resume: the strategy sees the recorded asks and ends in their order, as it saw them first.

    @without_collection()
    def _restore(self) -> None:
        for event in self._record.events:
            self._replay(event)
        self._checkpoints.finish_deleting()
        self._complete_repeats()
        for job in list(self._record.jobs.values()):
            if job.number not in self._record.ends:
                self._recover(job)
        self._left.sort(key=lambda job: job.number)
        self._is_restored = True

    def _replay(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "ask" and event["repeat"] == 0:
            job = self._record.jobs[event["job"]]
            if is_step(job):
                self._take_ends_before(job)
            self._strategy.accept([job.proposal])
        elif event["type"] == "start":
            self._started.add(event["job"])
        elif event["type"] == "end" and event["job"] not in self._noted:
            self._note(self._record.ends[event["job"]])
        elif event["type"] == "drop":
            self._checkpoints.note_drop(event["jobs"])

    def _take_ends_before(self, job: Job) -> None:
        """Ends without which a step cannot have begun: a damaged journal has them later, or not."""
        trial = job.proposal.trial
        before = {n for n in (self._last.get(trial), job.proposal.parent) if n is not None}
        for number in sorted(before - self._noted):
            if number in self._record.ends:
                self._note(self._record.ends[number])
            elif number in self._record.jobs:
                earlier = self._record.jobs[number]
                self._end(earlier, self._lost_result(earlier))
        self._last[trial] = job.number

    def _lost_result(self, job: Job) -> Result:
        """The result in the folder of a job that is known to have ended; without one it died."""
        result = _result.read(self._record.folder / job.folder)
        if result is None or result.status in LOST:
            return Result(DIED, error="its end was lost with a part of the journal")
        return result

    def _complete_repeats(self) -> None:
        """Asks for the rest when a process ended between the repeats of one configuration."""
        n = self._rules.repeats
        last = self._record.jobs[max(self._record.jobs)] if self._record.jobs else None
        for repeat in range(last.repeat + 1, n) if last is not None else ():
            assert last is not None
            self._record.ask(last.proposal, repeat, n_repeats=n)

    def _recover(self, job: Job) -> None:
        """A job without an end: its result may lie in its folder, else it runs again."""
        result = _result.read(self._record.folder / job.folder)
        is_its_own = result is not None and result.attempt == job.attempt
        # What ended a sweep at its first trial was a mistake that the user may have mended since.
        is_mistake = result is not None and self._judge(job, result)[1]
        is_lost = job.attempt in self._record.losses.get(job.number, {})
        if job.number in self._started and is_its_own and not is_mistake and not is_lost:
            self._finish(job)
        elif job.number in self._started and self._takes_us_along(job):
            n = len(self._record.in_process[job.number])
            error = f"the sweep's own process ended {n} times while it ran"
            self._end(job, Result(DIED, error=error, attempt=job.attempt))
        else:
            self._left.append(job)

    def _takes_us_along(self, job: Job) -> bool:
        """Whether a job seems to end the sweep itself, as one in this process can."""
        lost = self._record.losses.get(job.number, {})
        vanished = self._record.in_process.get(job.number, set()) - lost.keys()
        limit = self._rules.vanish_limit
        return limit is not None and len(vanished) >= limit

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
        attempt = job.attempt + 1 if is_again else job.attempt
        if job.number not in self._ours:  # else they are its own
            remove_links_out(self._record.folder, job.folder)
        self._ours.add(job.number)
        if not is_again:
            self._clear(job)
        checkpoint, parent = self._checkpoints.give(job, attempt)
        in_process = self._rules.vanish_limit is not None
        job = self._record.start(job, attempt, parent, in_process=in_process)
        self._started.add(job.number)
        self._launcher.submit(job, checkpoint)
        self._running.add(job.number)
        self._news.append(lambda: self._on_start(job))

    def _clear(self, job: Job) -> None:
        """What another sweep left in the same place is none of this job's."""
        for name in (_result.FILE, CHECKPOINT):
            with contextlib.suppress(OSError):
                (self._record.folder / job.folder / name).unlink()

    def _finish(self, job: Job) -> None:
        result, source = self._outcome(job), self._checkpoints.take_back(job)
        if result.status in (FAILED, REFUSED) and self._checkpoints.is_gone(source):
            result = replace(result, status=UNREADABLE)
        elif result.status == UNREADABLE and not source.is_given:  # the user named that checkpoint
            result = replace(result, status=REFUSED)
        if result.status == UNREADABLE:
            self._checkpoints.set_aside(source)
        if result.status in LOST and self._may_try_again(job, result):
            # Only what nobody asked for counts as one of the retries.
            status = INTERRUPTED if self._is_stopping() else result.status
            self._record.lose(job, status, result.error)
            self._left.insert(0, job)
            return
        self._end(job, result)

    def _outcome(self, job: Job) -> Result:
        """What a job left in its folder; `died` where the world was to blame.

        Raises:
            OSError: the disk is full, and may be why it failed.
        """
        result = _result.read(self._record.folder / job.folder)
        if result is None or result.attempt != job.attempt:
            result = Result(DIED, error="the job ended without a result", attempt=job.attempt)
        if result.status in (DIED, FAILED):
            self._record.check_room()
        lacked_room = result.status == FAILED and _NO_ROOM in str(result.error)
        was_ended = result.status == INTERRUPTED and not self._is_stopping()
        return replace(result, status=DIED) if lacked_room or was_ended else result

    def _end(self, job: Job, result: Result) -> None:
        end, fatal = self._judge(job, result)
        if end.status == REFUSED and (keys := self._unproven(job)):
            self._launcher.kill()
            raise TaskRefused(_not_mutable(keys, end.error), has_trained=True)
        if fatal and not self._record.ends:
            self._launcher.kill()
            raise TaskRefused(str(end.error), has_trained=end.status != REFUSED)
        end = self._record.end(end)
        self._note(end)
        # Of an end that is found while the record is read, once all of it is.
        progress = copy.copy(self.progress) if self._is_restored else self.progress
        self._news.append(lambda: self._on_end(job, end, progress))

    def _unproven(self, job: Job) -> list[str]:
        """Keys that changed in mid-training, here for the first time: no other job could do so."""
        done = (self._record.jobs[n] for n, e in self._record.ends.items() if e.status == DONE)
        proven = {key for other in done for key in other.proposal.info.get("unproven", ())}
        return [key for key in job.proposal.info.get("unproven", ()) if key not in proven]

    def _may_try_again(self, job: Job, result: Result) -> bool:
        """What we interrupted or gave a bad checkpoint always, what the world broke at times."""
        losses = self._record.losses.get(job.number, {}).values()
        n_died = sum(status == DIED for status in losses)
        return result.status == UNREADABLE or self._is_stopping() or n_died < self._rules.retries

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
        names = ("metrics", "seconds", "epochs_done", "checkpoint", "device", "threads", "slot")
        facts = {name: getattr(result, name) for name in names}
        return End(job.number, job.attempt, status, value, error=error, **facts), fatal

    def _note(self, end: End) -> None:
        """Counts an end, and tells the strategy once all repeats of its configuration ended."""
        self._noted.add(end.job)
        self.progress.add(end)
        if end.checkpoint:
            self._checkpoints.note_left(end.job)
        self._values[end.job] = end.value
        job = self._record.jobs[end.job]
        first = end.job - job.repeat
        group = range(first, first + self._rules.repeats)
        if all(number in self._values for number in group):
            values = [self._values.pop(number) for number in group]
            observation = self._objective.observe(first, job.proposal, values)
            if observation.score is not None and self._may_be_best(job.proposal.values):
                self.progress.rank(first, observation.score)
            self._strategy.tell([observation])

    def _needed_checkpoints(self) -> set[int]:
        """Those of possible parents, of the best jobs, and what the very best continued."""
        leaders = {job for _, job in self.progress.leaders}
        best = leaders if self.progress.best is None else leaders & {self.progress.best[1]}
        jobs = {*best, *self._running, *(job.number for job in self._left)}
        parents = (self._record.parent(self._record.jobs[number]) for number in jobs)
        needed = leaders | {parent for parent in parents if parent is not None}
        return self._strategy.needed_checkpoints() | needed
