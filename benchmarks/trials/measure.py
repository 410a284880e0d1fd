"""How the parts of the benchmark measure, and what they give back. Knows no part."""

import ctypes
import datetime
import operator
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
APP = ROOT / "tests" / "app" / "app.py"
N_SLOTS = 2  # workers of every sweep and of every peer

OURS = ("hydra/launcher=workers", f"hydra.launcher.cpu_slots={N_SLOTS}")

_PR_SET_CHILD_SUBREAPER = 36
_ORPHANS_S = 60.0
_CHECKS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    repeats: int
    is_quick: bool  # small numbers, to see that everything runs
    optuna_python: str | None
    ray_python: str | None


@dataclass(frozen=True)
class Row:
    """One thing that was measured, once a repeat; `limit` as "<= 0.13", for the median."""

    what: str
    unit: str
    values: Sequence[float]
    limit: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        """Whether the median keeps the limit; None when there is none."""
        if not self.limit:
            return None
        sign, bound = self.limit.split()
        return _CHECKS[sign](self.median, float(bound))

    def as_json(self) -> dict[str, Any]:
        numbers = {"n": len(self.values), "min": min(self.values), "median": self.median}
        head = {"what": self.what, "unit": self.unit, **numbers, "max": max(self.values)}
        return {**head, "limit": self.limit or None, "met": self.is_met}


def ratio(what: str, over: Sequence[float], under: Sequence[float], limit: str = "") -> Row:
    """A row of the quotients of what was measured side by side."""
    return Row(what, "ratio", [a / b for a, b in zip(over, under, strict=True)], limit)


@dataclass(frozen=True)
class Cost:
    """What a command took, all its descendants counted."""

    wall_s: float
    cpu_s: float


def adopt_orphans() -> None:
    """Descendants that lose their parent become children of this process, which waits for them."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def cost(command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Runs a command in a folder to the end of its last descendant.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    before, start = cpu_of_children(), time.perf_counter()
    with tempfile.TemporaryFile() as output:
        code = subprocess.call(
            command, cwd=folder, stdout=output, stderr=output, env={**os.environ, **(env or {})}
        )
        wall_s = time.perf_counter() - start
        wait_for_orphans()
        if code:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {output.read().decode()[-2000:]}")
    return Cost(wall_s, cpu_of_children() - before)


def cpu_of_children() -> float:
    """CPU seconds of all descendants that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wait_for_orphans() -> None:
    """Returns when no descendant is left.

    Raises:
        RuntimeError: some do not end.
    """
    deadline = time.monotonic() + _ORPHANS_S
    while time.monotonic() < deadline:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        time.sleep(0.01)
    raise RuntimeError(f"processes are left {_ORPHANS_S:.0f} s after their command ended")


def sweep_command(script: Path, *overrides: str, python: str = sys.executable) -> list[str]:
    """The command of a sweep into the folder `here`."""
    return [python, str(script), "-m", "hydra.sweep.dir=here", *overrides]


def circumstances(n: int, packages: Sequence[str]) -> dict[str, Any]:
    """What a figure of this script means nothing without; `n` repeats or seeds."""
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "n": n,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def in_turn(repeats: int, measures: Mapping[str, Callable[[Path], Any]]) -> dict[str, list[Any]]:
    """Every measure once a repeat, each in a fresh folder: A B A B, so that all feel one load."""
    found: dict[str, list[Any]] = {name: [] for name in measures}
    for repeat in range(repeats):
        for name, measure in measures.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(measure(Path(folder)))
            print(f"  repeat {repeat + 1}  {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    return found
