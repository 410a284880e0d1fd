"""What each type of record in a sweep's journal holds.

Check sums tell what a disk did. A folder may also be somebody else's, who computed them anew: its
numbers become names of folders, and its texts are read by everything that shows a sweep.
"""

import re
from collections.abc import Callable, Collection, Container, Mapping
from types import NoneType
from typing import Any

from ._result import CHECKPOINT, STATUSES

LARGEST = 2**53  # whole numbers below it are understood by every reader of JSON
_FOLDER = re.compile(r"(\d+)(/\d+(\.\d+)?)?(\.\d+)?")


def complaint(event: Mapping[str, Any], jobs: Container[int]) -> str | None:
    """What is wrong with a record that comes after those of these `jobs`; None: nothing."""
    if (wrong := flaw(event)) is not None:
        return wrong
    kind = event["type"]
    if kind == "ask":
        return _misplaced(event, jobs)
    if kind in _OF_JOBS:
        if event["job"] not in jobs:
            return _about(kind, event["job"])
        parent = event.get("parent")
        is_before = type(parent) is int and parent in jobs and parent < event["job"]
        return None if parent is None or is_before else _about(kind, parent)
    unknown = [job for job in event["jobs"] if job not in jobs] if kind == "drop" else []
    return _about(kind, unknown[0]) if unknown else None


def _about(kind: str, job: Any) -> str:
    return f"of type {kind} is about job {job}, never asked for"


def flaw(event: Mapping[str, Any]) -> str | None:
    """What is wrong with a record as such; None: nothing."""
    kind = event.get("type")
    if not isinstance(kind, str):
        return "has no type"
    wrong = _misshapen(event, _SHAPES.get(kind, {}))
    if wrong is None and kind in _FURTHER:
        wrong = _FURTHER[kind](event)
    return None if wrong is None else f"of type {kind} has {wrong}"


def _misshapen(fields: Mapping[str, Any], shape: "_Shape") -> str | None:
    for name, types in shape.items():
        kind = type(fields.get(name, ...))
        if kind not in types or (kind is int and not 0 <= fields[name] < LARGEST):
            return _shown(fields, name)
    return None


def _shown(fields: Mapping[str, Any], name: str) -> str:
    return f"{name}={str(fields[name])[:60]!r}" if name in fields else f"no {name}"


def _misplaced(ask: Mapping[str, Any], jobs: Container[int]) -> str | None:
    """What is wrong with the place of a job among the others."""
    if not _is_place(ask["folder"], str(ask["trial"])):  # checkpoints are deleted there some day
        return f"says that the folder of job {ask['job']} is {ask['folder'][:60]!r}"
    if ask["job"] in jobs:
        return f"asks for job {ask['job']} again"
    if ask["parent"] is not None and ask["parent"] not in jobs:
        return f"lets job {ask['job']} continue job {ask['parent']}, never asked for"
    return None


def _is_place(folder: str, trial: str) -> bool:
    if folder == trial:
        return True
    parts = _FOLDER.fullmatch(folder)
    return parts is not None and parts[1] == trial


def _wrong_end(end: Mapping[str, Any]) -> str | None:
    if end["status"] not in STATUSES:
        return _shown(end, "status")
    if end["checkpoint"] not in (None, CHECKPOINT):
        return _shown(end, "checkpoint")
    return None if all(type(v) is float for v in end["metrics"].values()) else "a metric of text"


def _wrong_loss(loss: Mapping[str, Any]) -> str | None:
    return None if loss["status"] in STATUSES else _shown(loss, "status")


def _wrong_drop(drop: Mapping[str, Any]) -> str | None:
    return None if all(type(job) is int for job in drop["jobs"]) else _shown(drop, "jobs")


def _wrong_change(change: Mapping[str, Any]) -> str | None:
    """Of the header it may hold a part."""
    shape, header = _SHAPES["header"], change["header"]
    return _misshapen(header, {name: shape[name] for name in shape.keys() & header})


_Shape = Mapping[str, Collection[type]]
_WHOLE, _TEXT, _DICT = (int,), (str,), (dict,)  # whole numbers are never negative
_OF_JOBS = ("start", "lost", "end")
_SHAPES: Mapping[str, _Shape] = {
    "header": {
        "strategy": _TEXT,
        "seed": _WHOLE,
        "metric": (str, NoneType),
        "direction": _TEXT,
        "fingerprint": _DICT,
    },
    "ask": {
        "job": _WHOLE,
        "trial": _WHOLE,
        "step": _WHOLE,
        "repeat": _WHOLE,
        "parent": (int, NoneType),
        "until_epoch": (int, NoneType),
        "values": _DICT,
        "info": _DICT,
        "folder": _TEXT,
    },
    "start": {"job": _WHOLE, "attempt": _WHOLE},
    "lost": {"job": _WHOLE, "attempt": _WHOLE, "status": _TEXT},
    "end": {
        "job": _WHOLE,
        "attempt": _WHOLE,
        "status": _TEXT,
        "value": (float, NoneType),
        "metrics": _DICT,
        "seconds": (float,),
        "epochs_done": (int, NoneType),
        "error": (str, NoneType),
        "checkpoint": (str, NoneType),
    },
    "drop": {"jobs": (list,)},
    "change": {"header": _DICT},
    "stop": {"reason": _TEXT},
}
_FURTHER: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    "end": _wrong_end,
    "lost": _wrong_loss,
    "drop": _wrong_drop,
    "change": _wrong_change,
}
