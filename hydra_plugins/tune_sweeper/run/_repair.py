"""A damaged journal made readable again, at the cost of the records that are lost."""

import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _journal
from ._journal import JournalDamaged, Lock
from ._record import FILE, read
from ._shapes import complaint, flaw
from ._whole import write_whole

Line = tuple[int, dict[str, Any] | None]  # its number, and a record in it


@dataclass(frozen=True)
class Repaired:
    """What became of a journal."""

    kept: int  # records
    damaged: list[int]  # lines that cannot be read
    foreign: list[int]  # lines of another sweep, that got into this file
    orphaned: list[int]  # good records of jobs whose ask is lost: nobody knows their values
    backup: Path


def repair(folder: Path) -> Repaired | None:
    """Keeps every good record of the journal in `folder`; None when nothing is wrong with it.

    The file as it was stays beside it. Runs nothing.

    Raises:
        JournalLocked: a sweep is writing it.
        JournalTooNew: a later version of this program wrote it.
        JournalDamaged: its header and all copies of it are lost, so nobody knows what it is about.
        FileNotFoundError: there is none.
        OSError: there is no room for another one; it stays as it is.
    """
    path = folder / FILE
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no sweep: there is no {FILE}")
    lock = Lock(folder)
    try:
        try:
            read(folder)
        except JournalDamaged:
            if path.is_symlink() or not path.is_file():
                raise
            return _mend(path)
        return None
    finally:
        lock.release()


def _mend(path: Path) -> Repaired:
    found = _numbered(path.read_bytes())
    header = _header(record for _, record in found)
    if header is None:
        raise JournalDamaged(f"{path}: the header is lost, and with it what the sweep was about")
    damaged = [line for line, record in found if record is None]
    own, foreign = _own(found, header.get("sweep"))
    kept, orphaned = _coherent([(1, header), *sorted(own, key=_seq)])
    backup = _free_name(path)
    try:
        shutil.copy2(path, backup)
        _rewrite(path, kept)
    except OSError:
        backup.unlink(missing_ok=True)
        raise
    return Repaired(len(kept), damaged, foreign, orphaned, backup)


def _numbered(data: bytes) -> list[Line]:
    """What stands in each line; several records where it was the newline that came to harm."""
    found: list[Line] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        record = _sound(line)
        pieces = _journal.pieces(line) if record is None else []
        found += [(number, _sound(piece)) for piece in pieces]
        if line and not pieces:
            found.append((number, record))
    return found


def _sound(line: bytes) -> dict[str, Any] | None:
    record = _journal.decode(line)
    return None if record is None or flaw(record) is not None else record


def _header(records: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The header, or the copy of it that each session begins with."""
    for record in filter(None, records):
        if record["type"] == "header":
            return record
        copy = record.get("header") if record["type"] == "session" else None
        if isinstance(copy, dict) and flaw({**copy, "type": "header"}) is None:
            return {**copy, "type": "header", "seq": 0}
    return None


def _own(found: Iterable[Line], sweep: Any) -> tuple[list[Line], list[int]]:
    """The readable lines of this sweep, and the numbers of those of others.

    The header and each session say whose records come behind them.
    """
    own: list[Line] = []
    foreign = []
    current = sweep
    for line, record in found:
        if record is None:
            continue
        if record["type"] in ("header", "session"):
            current = record.get("header", record).get("sweep", current)
        if current == sweep:
            own.append((line, record))
        else:
            foreign.append(line)
    return own, foreign


def _seq(line: Line) -> int:
    """Its number, by which lines that lost their order find it again."""
    assert line[1] is not None, "lines without a record were left out"
    return int(line[1]["seq"])


def _coherent(found: Sequence[Line]) -> tuple[list[dict[str, Any]], list[int]]:
    """Good records without doubles, in their order, and the lines of those without an ask.

    A step whose parent, or whose trial's step before it, is lost counts as lost too, and so does a
    configuration of whose repeats one is.
    """
    lame = _lame(record for _, record in found)
    kept: list[dict[str, Any]] = []
    orphaned, seen = [], set()
    asked: set[int] = set()
    steps: set[tuple[int, int]] = set()  # trial and step
    for line, record in found:
        if record is None or record["seq"] in seen:
            continue
        seen.add(record["seq"])
        if record["type"] == "drop":
            record = {**record, "jobs": [job for job in record["jobs"] if job in asked]}
        is_ask = record["type"] == "ask"
        is_lame = is_ask and (record["trial"] in lame or not _has_ancestors(record, asked, steps))
        if is_lame or complaint(record, asked) is not None:
            orphaned.append(line)
            continue
        if is_ask:
            asked.add(record["job"])
            steps.add((record["trial"], record["step"]))
        kept.append(record)
    return kept, orphaned


def _lame(records: Iterable[dict[str, Any] | None]) -> set[int]:
    """Trials that lack a repeat; the last one may have been cut off, and is completed on resume."""
    repeats: dict[int, set[int]] = {}
    for record in filter(None, records):
        if record["type"] == "ask" and record["step"] == 0:
            repeats.setdefault(record["trial"], set()).add(record["repeat"])
    n = max((max(found) + 1 for found in repeats.values()), default=1)
    last = max(repeats, default=0)
    return {
        trial
        for trial, found in repeats.items()
        if found != set(range(len(found) if trial == last else n))
    }


def _has_ancestors(
    ask: Mapping[str, Any], asked: Collection[int], steps: Collection[tuple[int, int]]
) -> bool:
    if ask["parent"] is None:
        return True
    return ask["parent"] in asked and (ask["trial"], ask["step"] - 1) in steps


def _free_name(path: Path) -> Path:
    number = 1
    while os.path.lexists(backup := path.with_suffix(f".damaged-{number}")):
        number += 1
    return backup


def _rewrite(path: Path, records: list[dict[str, Any]]) -> None:
    """The records under consecutive numbers; readers see the old file or the new one."""
    lines = [_journal.encode({**record, "seq": seq}) for seq, record in enumerate(records)]
    write_whole(path, b"".join(lines), is_durable=True)
    _journal.sync_folder(path.parent)
