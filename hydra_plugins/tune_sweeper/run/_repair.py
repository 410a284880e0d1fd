"""A damaged journal made readable again, at the cost of the records that are lost."""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _journal
from ._journal import JournalDamaged, Lock
from ._record import FILE
from ._whole import write_whole


@dataclass(frozen=True)
class Repaired:
    """What became of a journal."""

    kept: int  # records
    damaged: list[int]  # lines that cannot be read
    orphaned: list[int]  # good records of jobs whose ask is lost: nobody knows their values
    backup: Path


def repair(folder: Path) -> Repaired | None:
    """Keeps every good record of the journal in `folder`; None when nothing is wrong with it.

    The file as it was stays beside it. Runs nothing.

    Raises:
        JournalLocked: a sweep is writing it.
        JournalTooNew: a later version of this program wrote it.
        JournalDamaged: its header is lost, so it cannot be told what it is the record of.
        FileNotFoundError: there is none.
    """
    path = folder / FILE
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no sweep: there is no {FILE}")
    lock = Lock(folder)
    try:
        try:
            _journal.read(path)
        except JournalDamaged:
            return _mend(path)
        return None
    finally:
        lock.release()


def _mend(path: Path) -> Repaired:
    lines = [line for line in path.read_bytes().split(b"\n") if line]
    found = [_journal.decode(line + b"\n") for line in lines]
    if not found or found[0] is None or found[0].get("type") != "header":
        raise JournalDamaged(f"{path}: the header is lost, and with it what the sweep was about")
    damaged = [number for number, record in enumerate(found, start=1) if record is None]
    kept, orphaned = _coherent(found)
    backup = _free_name(path)
    shutil.copy2(path, backup)
    _rewrite(path, kept)
    return Repaired(len(kept), damaged, orphaned, backup)


def _coherent(found: list[dict[str, Any] | None]) -> tuple[list[dict[str, Any]], list[int]]:
    """Good records without doubles, in their order, and the lines of those without an ask.

    A step whose parent, or whose trial's step before it, is lost counts as lost too.
    """
    kept: list[dict[str, Any]] = []
    orphaned, seen = [], set()
    asked: set[int] = set()
    steps: set[tuple[int, int]] = set()  # trial and step
    for line, record in enumerate(found, start=1):
        if record is None or record["seq"] in seen:
            continue
        seen.add(record["seq"])
        if record["type"] == "ask" and _has_ancestors(record, asked, steps):
            asked.add(record["job"])
            steps.add((record["trial"], record["step"]))
        elif "job" in record and record["job"] not in asked:
            orphaned.append(line)
            continue
        if record["type"] == "drop":
            record = {**record, "jobs": [job for job in record["jobs"] if job in asked]}
        kept.append(record)
    return kept, orphaned


def _has_ancestors(
    ask: Mapping[str, Any], asked: Collection[int], steps: Collection[tuple[int, int]]
) -> bool:
    if ask["parent"] is None:
        return True
    return ask["parent"] in asked and (ask["trial"], ask["step"] - 1) in steps


def _free_name(path: Path) -> Path:
    number = 1
    while (backup := path.with_suffix(f".damaged-{number}")).exists():
        number += 1
    return backup


def _rewrite(path: Path, records: list[dict[str, Any]]) -> None:
    """The records under consecutive numbers; readers see the old file or the new one."""
    lines = [_journal.encode({**record, "seq": seq}) for seq, record in enumerate(records)]
    write_whole(path, b"".join(lines), is_durable=True)
    _journal.sync_folder(path.parent)
