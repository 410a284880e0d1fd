"""The processes below and above this one, where there is a /proc that tells which they are."""

import contextlib
import ctypes
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

_PR_GET_PDEATHSIG = 2
_LOOK_EVERY_S = 0.5


def end_descendants(*, but: Collection[int]) -> None:
    """Kills all processes below this one, but for these, and those that clean up at the end."""
    spared = {*but, *_trackers()}
    for pid in descendants():
        if pid not in spared:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def descendants() -> list[int]:
    """Parents before their children, so that a killed one cannot be replaced by its parent."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # there are others to look at
            below.setdefault(_parent(stat), []).append(int(stat.parent.name))
    found = list(below.get(os.getpid(), ()))
    for pid in found:
        found += below.get(pid, ())
    return found


def _trackers() -> set[int | None]:
    """Python's and joblib's own, which delete shared memory that nobody uses any more, and end."""
    names = ("multiprocessing.resource_tracker", "joblib.externals.loky.backend.resource_tracker")
    modules = [sys.modules[name] for name in names if name in sys.modules]
    return {module._resource_tracker._pid for module in modules}


@functools.cache  # once is enough in a process that runs many jobs
def end_with(ancestor: int) -> None:
    """Lets this process and all below it end soon after `ancestor` did, if it is one.

    Nothing is done where the kernel ends this process with its parent anyway.
    """
    if not _ends_with_parent() and _is_above(ancestor):
        threading.Thread(target=_wait_for_end, args=(ancestor,), daemon=True).start()


def _wait_for_end(ancestor: int) -> NoReturn:
    while _is_above(ancestor):
        time.sleep(_LOOK_EVERY_S)
    end_descendants(but=())
    os._exit(128 + signal.SIGKILL)


def _ends_with_parent() -> bool:
    number = ctypes.c_int(0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
    return number.value != 0


def _is_above(ancestor: int) -> bool:
    """Whether it is an ancestor of this process, as far as can be seen."""
    pid = os.getppid()
    try:
        while pid not in (0, ancestor):
            pid = _parent(Path(f"/proc/{pid}/stat"))
    except OSError:  # as when too many files are open
        return True
    return pid == ancestor


def _parent(stat: Path) -> int:
    """0: the process has none, or it ended meanwhile.

    Raises:
        OSError: it cannot be read now.
    """
    try:  # in bytes: whoever named a process need not have known UTF-8
        return int(stat.read_bytes().rpartition(b") ")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
