"""The record of a sweep: what was asked for, what started, how it ended. The rest is derived.

Types of records in `trials.jsonl`: header (what the sweep is), session (a process begins, with a
copy of the header), ask (a job is wanted), start, lost (an attempt that the world broke), end, drop
(checkpoints deleted), change (settings), stop (why it ended).
"""

import contextlib
import itertools
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from ..search._trial import Proposal
from . import _journal
from ._garbage import without_collection
from ._journal import Journal, JournalDamaged, JournalError, Lock
from ._result import INTERRUPTED
from ._shapes import complaint

FILE = "trials.jsonl"
COMPLETE = "complete"  # the reason in a stop record when nothing was left to do
TIME_S = "time_s"  # the reason when the time of one process was over: the next one may go on
_PASSING = (TIME_S, INTERRUPTED)


@dataclass(frozen=True)
class Job:
    """One execution of a proposal; `repeat` tells the seeds of a configuration apart."""

    number: int
    proposal: Proposal
    repeat: int
    folder: str  # below the sweep's folder
    attempt: int = 1


def is_step(job: Job) -> bool:
    """Whether the job is one of several that train the same trial."""
    return job.proposal.until_epoch is not None


@dataclass(frozen=True)
class End:
    """How a job ended; `value` is the objective in the user's direction, None unless it is done."""

    job: int
    attempt: int
    status: str
    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    epochs_done: int | None = None
    error: str | None = None
    checkpoint: str | None = None
    device: str | None = None
    threads: int | None = None
    slot: str | None = None
    time: float = 0.0  # when it was recorded


_of_proposal = itemgetter(*Proposal.__dataclass_fields__)


class Summary:
    """What the records of a journal come to."""

    def __init__(self, path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        """Understands the records of the journal at `path`.

        Raises:
            JournalDamaged: one of them says what no sweep writes.
        """
        self.header = dict(records[0])
        self.jobs: dict[int, Job] = {}
        self.ends: dict[int, End] = {}
        self.losses: dict[int, dict[int, str]] = {}  # by job and attempt: the status
        self.in_process: dict[int, set[int]] = {}  # attempts that ran in the sweep's own process
        self.is_over = False
        self.is_extended = False  # to another space, in which its trials may not lie
        self._stand_ins: dict[int, int | None] = {}  # whom jobs continued in their parent's place
        self._folders: set[str] = set()
        self._next_job = 0
        self._understand(path, records)

    def parent(self, job: Job) -> int | None:
        """The job whose checkpoint this one really continued, or will as far as is known."""
        return self._stand_ins.get(job.number, job.proposal.parent)

    @without_collection()
    def _understand(self, path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        for line, event in enumerate(records, start=1):
            if (wrong := complaint(event, self.jobs)) is not None:
                raise JournalDamaged(f"{path}, line {line}: no sweep writes this: a record {wrong}")
            self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind == "ask":
            proposal = Proposal(*_of_proposal(event))
            job = Job(event["job"], proposal, event["repeat"], event["folder"])
            self.jobs[job.number] = job
            self._next_job = max(self._next_job, job.number + 1)
            self._folders.add(job.folder)
        elif kind == "start":
            job = self.jobs[event["job"]]
            if event["attempt"] != job.attempt:
                self.jobs[job.number] = replace(job, attempt=event["attempt"])
            if event.get("in_process"):
                self.in_process.setdefault(job.number, set()).add(event["attempt"])
            if "parent" in event:
                self._stand_ins[job.number] = event["parent"]
        elif kind == "lost":
            self.losses.setdefault(event["job"], {})[event["attempt"]] = event["status"]
        elif kind == "end":
            # Fields of a later minor version are left out.
            end = End(**{name: event[name] for name in End.__dataclass_fields__ if name in event})
            self.ends.setdefault(end.job, end)
        elif kind == "change":
            before = self.header["fingerprint"].get("space")
            self.header |= event["header"]
            self.is_extended |= self.header["fingerprint"].get("space") != before
        elif kind in ("session", "stop"):
            self.is_over = kind == "stop" and event["reason"] not in _PASSING


class Record(Summary):
    """A sweep's record, open for writing; made by `create` or `resume`."""

    def __init__(self, folder: Path, lock: Lock) -> None:
        _refuse_links(folder)
        self.folder = folder
        self._lock = lock
        self._journal = Journal(folder / FILE)
        self._is_ours = False  # nothing stood in the folder before this sweep
        self.events = self._journal.records[1:]  # those of earlier processes, in order
        self.torn = self._journal.torn
        try:
            super().__init__(folder / FILE, self._journal.records)
        except BaseException:
            self._journal.close()
            raise

    @classmethod
    def create(cls, folder: Path, header: Mapping[str, Any]) -> "Record":
        """A new record in `folder`, which must have none.

        Raises:
            JournalLocked: another sweep is being made in the same folder.
            JournalError: it has one, perhaps since a moment ago.
        """
        is_new = not folder.exists() or not any(folder.iterdir())
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder) as lock:
            if (folder / FILE).exists():
                raise JournalError(f"{folder} holds a sweep already: type the command again")
            _journal.create(folder / FILE, {"sweep": uuid.uuid4().hex, **header})
            record = cls(folder, lock)._begin()
            record._is_ours = is_new
            return record

    @classmethod
    def resume(cls, folder: Path) -> "Record":
        """The record that stands in `folder`.

        Raises:
            JournalError: damaged, of a later format, or in use.
        """
        with _locked(folder) as lock:
            return cls(folder, lock)._begin()

    def _begin(self) -> "Record":
        """Takes over what earlier processes wrote, and notes that another one begins."""
        try:
            # A journal that lost its header would be lost as a whole: each session has a copy.
            self._write("session", header=self.header)
        except BaseException:
            self.close()
            raise
        return self

    def ask(self, proposal: Proposal, repeat: int = 0, *, n_repeats: int = 1) -> Job:
        """A new job; it is not durable before the first `start` returned."""
        number = self._next_job
        folder = self._folder(proposal, repeat, n_repeats)
        fields = {**asdict(proposal), "repeat": repeat, "folder": folder}
        self._write("ask", is_synced=False, job=number, **fields)
        return self.jobs[number]

    def start(
        self,
        job: Job,
        attempt: int = 1,
        parent: int | None = None,
        *,
        in_process: bool = False,
    ) -> Job:
        """Notes that the job is about to run, and whom it continues if that is not its parent.

        On the disk when this returns.
        """
        fields: dict[str, Any] = {"job": job.number, "attempt": attempt}
        if in_process:
            fields["in_process"] = True
        if parent != self.parent(job):
            fields["parent"] = parent
        self._write("start", **fields)
        return self.jobs[job.number]

    def lose(self, job: Job, status: str, error: str | None) -> None:
        """Notes that an attempt was lost, and is to be made again."""
        self._write("lost", job=job.number, attempt=job.attempt, status=status, error=error)

    def check_room(self) -> None:
        """Raises OSError where the disk is full: what a job could not write is not its fault."""
        self._journal.check_room()

    def end(self, end: End) -> End:
        """Notes how a job ended; on the disk when this returns."""
        self._write("end", **{**asdict(end), "time": time.time()})
        return self.ends[end.job]

    def drop(self, jobs: set[int]) -> None:
        """Notes that the checkpoints of these jobs are about to be deleted."""
        self._write("drop", jobs=sorted(jobs))

    def change(self, header: Mapping[str, Any]) -> None:
        """Notes what differs from the header from now on."""
        self._write("change", header=dict(header))

    def stop(self, reason: str) -> None:
        """Notes why this process stops."""
        self._write("stop", reason=reason)

    def remove(self) -> None:
        """Takes back a sweep that never ran: its folder, or what it put into the user's."""
        if self._is_ours:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for job in self.jobs.values():
            shutil.rmtree(self.folder / job.folder, ignore_errors=True)
        for name in (FILE, "trials.ballast", "lock", "multirun.yaml"):
            (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Ends the writing and gives the folder free."""
        self._journal.close()
        self._lock.release()

    def _write(self, kind: str, *, is_synced: bool = True, **fields: Any) -> None:
        self._take(self._journal.append(kind, is_synced=is_synced, **fields))

    def _folder(self, proposal: Proposal, repeat: int, n_repeats: int) -> str:
        """`7`, `7/2` for a step or a repeat, `7/2.1` when a step is taken a second time."""
        has_steps = proposal.until_epoch is not None
        part = proposal.step if has_steps else repeat
        name = f"{proposal.trial}/{part}" if has_steps or n_repeats > 1 else f"{proposal.trial}"
        copies = (f"{name}.{i}" for i in itertools.count(1))
        return next(n for n in itertools.chain([name], copies) if n not in self._folders)


def _refuse_links(folder: Path) -> None:
    """A trial's folder that leads elsewhere: what is there would be overwritten or deleted."""
    with os.scandir(folder) as entries:
        links = [e.path for e in entries if e.name.isdecimal() and e.is_symlink()]
    if links:
        raise JournalDamaged(
            f"{links[0]} is a link, and trials are written there: put the folder itself in its"
            " place"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Lock]:
    """The right to write in a folder, given back when opening its record fails."""
    lock = Lock(folder)
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def read(folder: Path) -> Summary:
    """The record in `folder`, read only; runs nothing and takes no lock.

    Raises:
        JournalError: damaged or of a later format.
        FileNotFoundError: there is none.
    """
    return Summary(folder / FILE, _journal.read(folder / FILE).records)


def newest_unfinished(parent: Path, name: str, fingerprint: Mapping[str, Any]) -> Path | None:
    """The newest sweep `<parent>/<name>-<n>` that is not over, has this fingerprint and is free."""
    numbered = sorted(_numbered(parent, name).items(), reverse=True)
    return next((f for _, f in numbered if _can_continue(f, fingerprint)), None)


def next_folder(parent: Path, name: str) -> Path:
    """Makes the next free folder `<parent>/<name>-<n>`; two processes never get the same one."""
    parent.mkdir(parents=True, exist_ok=True)
    number = max(_numbered(parent, name), default=0) + 1
    while True:
        try:
            (parent / f"{name}-{number}").mkdir()
            return parent / f"{name}-{number}"
        except FileExistsError:
            number += 1


def _numbered(parent: Path, name: str) -> dict[int, Path]:
    found = {f.name.removeprefix(f"{name}-"): f for f in parent.glob(f"{name}-*")}
    return {int(n): f for n, f in found.items() if n.isdecimal()}


def _can_continue(folder: Path, fingerprint: Mapping[str, Any]) -> bool:
    try:
        summary = read(folder)
        if summary.is_over or differences(summary.header["fingerprint"], fingerprint):
            return False
        Lock(folder).release()
    except (_journal.JournalError, OSError, KeyError):
        return False
    return True


_BUDGETS = {"settings.max_epochs_total"}  # more or less of it is the same search, as of n_trials


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed, a line a key; a key that only the new one has is younger than the record.

    Among the parameters and the keys that the user added it is a difference: one more of them makes
    another search.
    """
    is_typed = prefix in ("space.parameters.", "added.")
    lines = [f"{prefix}{key}: new" for key in new if is_typed and key not in old]
    for key, before in old.items():
        name = f"{prefix}{key}"
        if name in _BUDGETS:
            continue
        if key not in new:
            lines.append(f"{name}: {before!r} -> gone")
        elif isinstance(before, Mapping) and isinstance(new[key], Mapping):
            lines += differences(before, new[key], f"{name}.")
        elif before != new[key]:
            lines.append(f"{name}: {before!r} -> {new[key]!r}")
    return lines
