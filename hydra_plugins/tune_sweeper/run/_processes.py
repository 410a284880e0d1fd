"""The processes below this one, where there is a /proc that tells which they are."""

import contextlib
import os
import signal
from collections.abc import Collection
from pathlib import Path


def end_descendants(*, but: Collection[int]) -> None:
    """Kills all processes below this one, but for these."""
    for pid in descendants():
        if pid not in but:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def descendants() -> list[int]:
    """Parents before their children, so that a killed one cannot be replaced by its parent."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parent = int(stat.read_text().rpartition(") ")[2].split()[1])
            below.setdefault(parent, []).append(int(stat.parent.name))
    found = list(below.get(os.getpid(), ()))
    for pid in found:
        found += below.get(pid, ())
    return found
