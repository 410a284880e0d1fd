"""An append-only journal: one JSON object a line, numbered, dated and check-summed, one writer.

    {"seq": 3, "type": "end", "time": 1763680000.5, ..., "crc": "8d3f00a1"}

`crc` is the CRC-32 of the line without it. NaN and the infinities, which JSON has not, are written
as {"float": "nan"}. What a record means is not known here.

    JournalError            the journal cannot be used (RuntimeError)
    |- JournalDamaged       good records follow a bad one, or one is missing or doubled
    |- JournalTooNew        written by a later version of this program
    |- JournalUnwritable    its place became read-only, broken or occupied
    '- JournalLocked        another process is writing it
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import shlex
import socket
import time
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._garbage import without_collection
from ._whole import open_own, write_whole

FORMAT = 1  # of the records; a larger number in a file means that a later version wrote it
_BALLAST_BYTES = 64 * 1024

Record = dict[str, Any]


class JournalError(RuntimeError):
    """The journal cannot be used."""


class JournalDamaged(JournalError):
    """A record in the middle of the journal is bad, missing or doubled."""


class JournalTooNew(JournalError):
    """The journal has a later format."""


class JournalUnwritable(JournalError):
    """What belongs to the sweep cannot be written any more."""


class JournalLocked(JournalError):
    """Another process is writing the journal."""


def encode(record: Record) -> bytes:
    """The line that holds `record`, with its check sum."""
    body = _STRICT.encode(tagged(record)).encode()
    return b"%b%b%b\n" % (body[:-1], _CRC, _end_of_line(body[:-1]))


def decode(line: bytes) -> Record | None:
    """The record in a line, None when the line is damaged."""
    try:
        body, _, tail = line.rstrip(b"\n").rpartition(_CRC)
        if tail != _end_of_line(body):
            return None
        text = body.decode() + "}"
        record = (_TAGGED if _TAG in text else _PLAIN).decode(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("seq"), int) else None


def _end_of_line(body: bytes) -> bytes:
    """What stands behind `_CRC`; `body` is the record without its closing brace."""
    return b'"%08x"}' % zlib.crc32(b"}", zlib.crc32(body))


def tagged(value: Any) -> Any:
    """`value` with the floats that JSON has not written as {"float": "nan"}."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {str(k): tagged(v) for k, v in value.items()}
    return [tagged(v) for v in value] if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """`value` as it comes back from a journal: tuples as lists, keys as text."""
    return json.loads(json.dumps(tagged(value), default=str), object_hook=untagged)


def untagged(value: dict[str, Any]) -> Any:
    """The inverse of tagged, as json's object_hook."""
    is_tag = value.keys() == {"float"} and value["float"] in ("nan", "inf", "-inf")
    return float(value["float"]) if is_tag else value


# Made once: json.loads and json.dumps make a new one per call as soon as they are told anything.
_STRICT = json.JSONEncoder(allow_nan=False)
_PLAIN, _TAGGED = json.JSONDecoder(), json.JSONDecoder(object_hook=untagged)
_TAG = '{"float": "'  # without it no object of a line is a float
_CRC = b', "crc": '
_RECORD = re.compile(rb'\{"seq": .*?"crc": "[0-9a-f]{8}"\}')


@dataclass(frozen=True)
class Contents:
    """What stands in a journal file."""

    records: list[Record]
    n_bytes: int  # up to the end of the last good record
    tail: bytes  # what a crash left behind it
    lacks_newline: bool


def read(path: Path) -> Contents:
    """The records of the journal at `path`, for readers and writers alike; takes no lock.

    Raises:
        JournalDamaged: a bad, missing or doubled record with good ones behind it.
        JournalTooNew: the header says a format later than ours.
    """
    with _opened(path, "rb") as file:
        data = file.read()
    records, good_end = _records(path, data)
    _check_format(path, records)
    return Contents(records, good_end, data[good_end:], data[good_end - 1 : good_end] != b"\n")


def _opened(path: Path, mode: str, **options: Any) -> Any:
    """A file of ours.

    Raises:
        JournalError: a link, a folder or a device stands in its place.
        OSError: it cannot be opened.
    """
    try:
        return open_own(path, mode, **options)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise JournalDamaged(
                f"{path} is a link, a folder or a device: no sweep left it so"
            ) from error
        raise


@without_collection()
def _records(path: Path, data: bytes) -> tuple[list[Record], int]:
    """All records, and where the last good one ends."""
    records: list[Record] = []
    good_end = 0
    for number, (line, end) in enumerate(_lines(data), start=1):
        record = decode(line)
        if record is None:
            # A crash tears one record: a line that holds a whole one was two before.
            if _has_record(data[end:]) or any(map(decode, pieces(line))):
                raise _damaged(path, number, "is damaged")
            break
        if record["seq"] != len(records):
            raise _damaged(path, number, f"has number {record['seq']}, expected {len(records)}")
        records.append(record)
        good_end = end
    return records, good_end


def _lines(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Every line with the place where it ends."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end], end
        start = end


def pieces(line: bytes) -> list[bytes]:
    """What may be whole records in a damaged line: it was several, and lost a newline."""
    return _RECORD.findall(line)


def _has_record(data: bytes) -> bool:
    return any(decode(line) is not None for line, _ in _lines(data))


def _damaged(path: Path, line: int, what: str) -> JournalDamaged:
    command = f"hydra-tune repair {shlex.quote(str(path.parent))}"
    return JournalDamaged(
        f"{path}, line {line}: the record {what}, and good records are behind it. Nothing was"
        f" changed. Put back a copy of the file, or type: {command}"
    )


def _check_format(path: Path, records: list[Record]) -> None:
    found = records[0].get("format") if records else None
    # A journal appears together with its header, so no crash leaves one without.
    if type(found) is not int or found < 1:
        raise JournalDamaged(f"{path} is no sweep's journal: its first line is no header")
    if found > FORMAT:
        raise JournalTooNew(f"{path} has format {found}; this version reads up to {FORMAT}")


def create(path: Path, header: Record) -> None:
    """A new journal with its header, complete or not there at all."""
    record = {"seq": 0, "type": "header", "time": time.time(), "format": FORMAT, **header}
    write_whole(path, encode(record), is_durable=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` as durable as the files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed for want of room: of the disk, of a quota, of a limit on files."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_unwritable(error: OSError) -> bool:
    """Whether a write failed for its place: read-only, forbidden, broken, occupied, gone."""
    forbidden = (errno.EROFS, errno.EACCES, errno.EPERM)
    broken = (errno.EIO, errno.ESTALE, errno.EISDIR, errno.ENOTDIR)
    return error.errno in forbidden + broken


class Lock:
    """The right to write in a sweep's folder; the kernel frees it when its owner dies.

    A process that its owner forks has no part in it.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the lock.

        Raises:
            JournalLocked: another process has it; the message names its pid and host.
        """
        self._file = _opened(folder / "lock", "a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise JournalLocked(f"{folder} is in use by {owner}") from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()
        _locks.add(self)

    def release(self) -> None:
        """Gives the lock back; in a forked process only what that has of it."""
        self._file.close()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _release_in_child() -> None:
    for lock in _locks:
        lock.release()


# A trial that forks in the sweep's own process may leave a child that outlives both.
os.register_at_fork(after_in_child=_release_in_child)


@dataclass
class Journal:
    """The writer of a journal, whose lock the caller holds."""

    path: Path
    records: list[Record] = field(init=False)
    torn: bytes = field(init=False)  # what a crash had left at the end, now in <name>.torn

    def __post_init__(self) -> None:
        contents = read(self.path)
        self.records, self.torn = contents.records, contents.tail
        self._next_seq = len(contents.records)
        self._file = _opened(self.path, "r+b", buffering=0)
        try:
            if self.torn:
                self._cut(contents)
            self._file.seek(0, os.SEEK_END)
            if contents.lacks_newline:
                self._file.write(b"\n")
        except BaseException:
            self._file.close()
            raise
        self._keep_ballast()

    def append(self, kind: str, *, is_synced: bool = True, **fields: Any) -> Record:
        """Writes one record; with `is_synced` it is on the disk when this returns.

        Raises:
            OSError: the disk is full even after the ballast was freed; the journal is as before.
        """
        record = {"seq": self._next_seq, "type": kind, "time": time.time(), **fields}
        line = encode(record)
        try:
            self._write(line, is_synced)
        except OSError:
            self._ballast.unlink(missing_ok=True)
            self._write(line, is_synced)
        self._next_seq += 1
        return record

    def close(self) -> None:
        """Ends the writing."""
        self._file.close()
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.path.with_suffix(".ballast")

    def _keep_ballast(self) -> None:
        with contextlib.suppress(OSError):
            self._ballast.unlink(missing_ok=True)
            with open(self._ballast, "xb") as file:
                file.write(os.urandom(_BALLAST_BYTES))

    def _cut(self, contents: Contents) -> None:
        with _opened(self.path.with_suffix(".torn"), "ab") as file:
            file.write(contents.tail)
        self._file.truncate(contents.n_bytes)

    def check_room(self) -> None:
        """Finds out whether the disk is full, on which small records may still fit.

        Raises:
            OSError: it is.
        """
        probe = self.path.with_suffix(".room")
        try:
            probe.unlink(missing_ok=True)
            with open(probe, "xb") as file:
                file.write(os.urandom(_BALLAST_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)

    def _check_place(self) -> None:
        """Whoever moves or deletes a sweep's folder would find nothing of what is written now."""
        if not os.path.exists(self.path) or not os.path.samefile(self.path, self._file.fileno()):
            raise OSError(errno.ESTALE, "its journal was moved or deleted", str(self.path))

    def _write(self, line: bytes, is_synced: bool) -> None:
        start = self._file.tell()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, "no space left on device")
            if is_synced:
                os.fdatasync(self._file.fileno())
                self._check_place()
        except OSError:  # some file systems find out that they are full when they sync
            self._file.truncate(start)
            self._file.seek(start)
            raise
