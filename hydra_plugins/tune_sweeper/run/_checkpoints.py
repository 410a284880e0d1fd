"""The checkpoints that jobs leave: which one a job continues, and which are deleted."""

import contextlib
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ._record import Job, Record
from ._result import CHECKPOINT
from ._rules import Rules
from ._whole import is_inside


@dataclass(frozen=True)
class Source:
    """What the sweep gave a job to continue, as far as this process knows."""

    file: str | None  # below the sweep's folder; an earlier process may have given another
    is_given: bool  # by whichever process


class Checkpoints:
    """Those of one sweep, a file a job, in the jobs' folders."""

    def __init__(self, record: Record, rules: Rules) -> None:
        self._record = record
        self._rules = rules
        self._given: dict[int, str | None] = {}  # by job of this process that has not ended
        self._kept: set[int] = set()  # ended jobs whose checkpoints are on the disk

    def give(self, job: Job, attempt: int) -> tuple[str | None, int | None]:
        """The checkpoint that a job continues, and the job whose training that is.

        Its own of an earlier attempt, or its parent's. Where that is gone, the nearest ancestor's:
        the job then trains what is missing with its own values.
        """
        file, parent = self._find(job, attempt)
        self._given[job.number] = file
        return file, parent

    def take_back(self, job: Job) -> Source:
        """What a job that ended had been given."""
        if job.number in self._given:
            file = self._given.pop(job.number)
            return Source(file, is_given=file is not None)
        is_given = self._record.parent(job) is not None or job.attempt > 1
        return Source(None, is_given=is_given)

    def is_gone(self, source: Source) -> bool:
        """Whether a job's checkpoint vanished below it, as when another child set it aside."""
        return source.file is not None and not (self._record.folder / source.file).exists()

    def set_aside(self, source: Source) -> None:
        """Gives a checkpoint that nobody can read another name.

        Which file an earlier process gave is not known: the next attempt finds it again.
        """
        if source.file is None:
            return
        file = self._record.folder / source.file
        if is_inside(file, self._record.folder):
            with contextlib.suppress(FileNotFoundError):  # another child came first
                file.replace(file.with_name(f"{file.name}.unreadable"))

    def note_left(self, job: int) -> None:
        """A job ended and left one."""
        self._kept.add(job)

    def note_drop(self, jobs: Collection[int]) -> None:
        """The record says that those of these jobs are not needed any more."""
        self._kept.difference_update(jobs)

    def finish_deleting(self) -> None:
        """Deletes what the record dropped last: a crash may have come in between."""
        drops = [event["jobs"] for event in self._record.events if event["type"] == "drop"]
        self._delete(drops[-1] if drops else [])

    def delete_all_but(self, needed: Callable[[], Collection[int]]) -> None:
        """Deletes those that nobody needs any more, unless the rules say that all stay."""
        if self._rules.keep_checkpoints is None or not self._kept:
            return
        if useless := self._kept.difference(needed()):
            self._record.drop(useless)
            self._delete(useless)

    def _delete(self, jobs: Collection[int]) -> None:
        for number in jobs:
            folder = self._record.folder / self._record.jobs[number].folder
            if is_inside(folder, self._record.folder):
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        self.note_drop(jobs)

    def _find(self, job: Job, attempt: int) -> tuple[str | None, int | None]:
        parent = self._record.parent(job)
        if attempt > 1 and self._rules.can_resume and (own := self._file(job)):
            return own, parent
        while parent is not None:
            member = self._record.jobs[parent]
            if file := self._file(member):
                return file, parent
            parent = self._record.parent(member)
        return None, None

    def _file(self, job: Job) -> str | None:
        """Below the sweep's folder, if it is there."""
        file = f"{job.folder}/{CHECKPOINT}"
        return file if (self._record.folder / file).exists() else None
