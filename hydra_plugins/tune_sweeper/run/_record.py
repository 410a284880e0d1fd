"""The record of a sweep: what was asked for, what started, how it ended. The rest is derived.

Types of records in `trials.jsonl`: header (what the sweep is), session (a process begins, with a
copy of the header), ask (a job is wanted), start, lost (an attempt that the world broke), end, drop
(checkpoints deleted), change (settings), stop (why it ended).
"""

import contextlib
import itertools
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..search._trial import Proposal
from . import _journal
from ._garbage import without_collection
from ._journal import Journal, JournalDamaged, JournalError, Lock
from ._result import CHECKPOINT, INTERRUPTED

FILE = "trials.jsonl"
COMPLETE = "complete"  # the reason in a stop record when nothing was left to do
TIME_S = "time_s"  # the reason when the time of one process was over: the next one may go on
_PASSING = (TIME_S, INTERRUPTED)
_FOLDER = re.compile(r"\d+(/\d+(\.\d+)?)?(\.\d+)?")


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


class Record:
    """A sweep's record, open for writing; made by `create` or `resume`."""

    def __init__(self, folder: Path, lock: Lock) -> None:
        self.folder = folder
        self._lock = lock
        self._journal = Journal(folder / FILE)
        self.header = dict(self._journal.records[0])
        self.events = self._journal.records[1:]  # those of earlier processes, in order
        self.torn = self._journal.torn
        self.jobs: dict[int, Job] = {}
        self.ends: dict[int, End] = {}
        self.losses: dict[int, dict[int, str]] = {}  # by job and attempt: the status
        self._stand_ins: dict[int, int | None] = {}  # whom jobs continued in their parent's place
        self._folders: set[str] = set()
        self._is_ours = False  # nothing stood in the folder before this sweep

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
            self._take_all()
            # A journal that lost its header would be lost as a whole: each session has a copy.
            self._write("session", header=self.header)
        except BaseException:
            self.close()
            raise
        return self

    def ask(self, proposal: Proposal, repeat: int = 0, *, n_repeats: int = 1) -> Job:
        """A new job; it is not durable before the first `start` returned."""
        number = max(self.jobs, default=-1) + 1
        folder = self._folder(proposal, repeat, n_repeats)
        fields = {**asdict(proposal), "repeat": repeat, "folder": folder}
        self._write("ask", is_synced=False, job=number, **fields)
        return self.jobs[number]

    def start(self, job: Job, attempt: int = 1, parent: int | None = None) -> Job:
        """Notes that the job is about to run, and whom it continues if that is not its parent.

        On the disk when this returns.
        """
        fields: dict[str, Any] = {"job": job.number, "attempt": attempt}
        if parent != self.parent(job):
            fields["parent"] = parent
        self._write("start", **fields)
        return self.jobs[job.number]

    def parent(self, job: Job) -> int | None:
        """The job whose checkpoint this one really continued, or will as far as is known."""
        return self._stand_ins.get(job.number, job.proposal.parent)

    def lose(self, job: Job, status: str, error: str | None) -> None:
        """Notes that an attempt was lost, and is to be made again."""
        self._write("lost", job=job.number, attempt=job.attempt, status=status, error=error)

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

    @without_collection()
    def _take_all(self) -> None:
        for event in self.events:
            self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "ask":
            job = _job_of(event)
            self.jobs[job.number] = job
            self._folders.add(job.folder)
        elif event["type"] == "start":
            job = self.jobs[event["job"]]
            if event["attempt"] != job.attempt:
                self.jobs[job.number] = replace(job, attempt=event["attempt"])
            if "parent" in event:
                self._stand_ins[job.number] = event["parent"]
        elif event["type"] == "lost":
            self.losses.setdefault(event["job"], {})[event["attempt"]] = event["status"]
        elif event["type"] == "end":
            end = end_of(event)
            self.ends.setdefault(end.job, end)
        elif event["type"] == "change":
            self.header |= event["header"]

    def _folder(self, proposal: Proposal, repeat: int, n_repeats: int) -> str:
        """`7`, `7/2` for a step or a repeat, `7/2.1` when a step is taken a second time."""
        has_steps = proposal.until_epoch is not None
        part = proposal.step if has_steps else repeat
        name = f"{proposal.trial}/{part}" if has_steps or n_repeats > 1 else f"{proposal.trial}"
        copies = (f"{name}.{i}" for i in itertools.count(1))
        return next(n for n in itertools.chain([name], copies) if n not in self._folders)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Lock]:
    """The right to write in a folder, given back when opening its record fails."""
    lock = Lock(folder)
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def _job_of(event: Mapping[str, Any]) -> Job:
    proposal = Proposal(**{name: event[name] for name in Proposal.__dataclass_fields__})
    if not _FOLDER.fullmatch(event["folder"]):  # its checkpoints may be deleted some day
        raise JournalDamaged(f"job {event['job']} says that its folder is {event['folder']!r}")
    return Job(event["job"], proposal, event["repeat"], event["folder"])


def end_of(event: Mapping[str, Any]) -> End:
    """The End in a record of type end; fields of a later minor version are left out."""
    if event.get("checkpoint") not in (None, CHECKPOINT):
        raise JournalDamaged(f"job {event['job']} has its checkpoint at {event['checkpoint']!r}")
    return End(**{name: event[name] for name in End.__dataclass_fields__ if name in event})


@dataclass(frozen=True)
class Summary:
    """What a reader of a sweep's folder sees without opening it for writing."""

    header: Mapping[str, Any]
    jobs: Mapping[int, Job]
    ends: Mapping[int, End]
    is_over: bool


def read(folder: Path) -> Summary:
    """The record in `folder`, read only; runs nothing and takes no lock.

    Raises:
        JournalError: damaged or of a later format.
        FileNotFoundError: there is none.
    """
    records = _journal.read(folder / FILE).records
    jobs = {job.number: job for job in (_job_of(r) for r in records if r["type"] == "ask")}
    ends: dict[int, End] = {}
    for end in (end_of(r) for r in records if r["type"] == "end"):
        ends.setdefault(end.job, end)
    header = dict(records[0])
    for change in (r for r in records if r["type"] == "change"):
        header |= change["header"]
    return Summary(header, jobs, ends, _is_over(records))


def _is_over(records: list[dict[str, Any]]) -> bool:
    marks = [r for r in records if r["type"] in ("stop", "session")]
    return bool(marks) and marks[-1]["type"] == "stop" and marks[-1]["reason"] not in _PASSING


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
