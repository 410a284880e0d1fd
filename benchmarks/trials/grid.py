"""A grid of 100,000 points: when its first trial is done, and what the driver's memory does."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .measure import (
    APP,
    OURS,
    Cost,
    Options,
    Row,
    cpu_of_children,
    in_turn,
    ratio,
    sweep_command,
    wait_for_orphans,
)

_GRID = ("hydra/sweeper=grid", *OURS)
_N_BASIC = 500  # points for Hydra's own sweeper, which makes all jobs before it runs any


def rows(options: Options) -> list[Row]:
    """Seconds to the first trial, and MB of the driver early and late."""
    n = 10_000 if options.is_quick else 100_000
    product = (f"y=range(0,{n // 100})", "zero=range(0,100)")
    early, late = (5, 20) if options.is_quick else (20, 400)
    found = in_turn(
        options.repeats,
        {
            "ours": lambda folder: _first_trial(folder, *_GRID, *product),
            "one key": lambda folder: _first_trial(folder, *_GRID, f"y=range(0,{n})"),
            "basic": lambda folder: _first_trial(folder, f"y=range(0,{_N_BASIC})"),
        },
    )
    wall = {name: [c.wall_s for c in costs] for name, costs in found.items()}
    cpu = {name: [c.cpu_s for c in costs] for name, costs in found.items()}
    memory = in_turn(1, {"memory": lambda folder: _memory_mb(folder, product, (early, late))})[
        "memory"
    ]
    return [
        Row(f"{n} points: first trial done", "s", wall["ours"], "<= 2"),
        Row(f"{n} values of one key: first trial done", "s", wall["one key"], "<= 2"),
        Row(f"basic, {_N_BASIC} points: first job done", "s", wall["basic"]),
        ratio(f"ours, {n} / basic, {_N_BASIC}, wall", wall["ours"], wall["basic"]),
        Row(f"{n} points: until the first trial", "CPU s", cpu["ours"]),
        Row(f"{n} values of one key: until the first trial", "CPU s", cpu["one key"]),
        Row(f"basic, {_N_BASIC} points: until the first job", "CPU s", cpu["basic"]),
        Row(f"driver after {early} trials", "MB", [m[0] for m in memory]),
        Row(f"driver after {late} trials", "MB", [m[1] for m in memory]),
        Row("memory added between", "MB", [m[1] - m[0] for m in memory], "<= 5"),
    ]


@contextmanager
def _sweep(folder: Path, *overrides: str) -> Iterator[subprocess.Popen[bytes]]:
    """A sweep that runs until the caller has seen enough."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(sweep_command(APP, *overrides), cwd=folder, **quiet)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        wait_for_orphans()  # its workers end with it, and must not write into a folder that goes


def _until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not holds():
        if process.poll() is not None:
            raise RuntimeError("the sweep ended before its time")
        time.sleep(0.005)


def _first_trial(folder: Path, *overrides: str) -> Cost:
    """Until the first task has run; the CPU seconds are those of all processes by then."""
    before, start = cpu_of_children(), time.perf_counter()
    with _sweep(folder, *overrides) as process:
        _until((folder / "here" / "0" / "seen.json").exists, process)
        wall_s = time.perf_counter() - start
    return Cost(wall_s, cpu_of_children() - before)


def _memory_mb(folder: Path, typed: tuple[str, ...], moments: tuple[int, ...]) -> list[float]:
    found = []
    with _sweep(folder, *_GRID, *typed) as process:
        for n_ends in moments:
            _until(lambda n_ends=n_ends: _n_ends(folder / "here") >= n_ends, process)  # type: ignore[misc]
            found.append(_resident_mb(process.pid))
    return found


def _n_ends(folder: Path) -> int:
    """trials.csv has a line per ended trial, below its header."""
    file = folder / "trials.csv"
    return file.read_bytes().count(b"\n") - 1 if file.exists() else 0


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
