"""How soon a slot is busy again, after a job that ended well and after every other end.

With the pool itself, from the moment of the end to the moment that the next job's code runs; and
with whole sweeps, whose next trial has to be recorded and composed in between.
"""

import json
import os
import pickle
import signal
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from hydra_plugins.tune_launcher._devices import Slot
from hydra_plugins.tune_launcher._workers import Pool

from .measure import APP, Options, Row, cost, in_turn, sweep_command

_TIMEOUT_S = 1.0
_ONE_SLOT = ("hydra/sweeper=grid", "hydra/launcher=workers", "hydra.launcher.cpu_slots=1")
_HANG = ("behave=hang_deaf", f"hydra.sweeper.trial_timeout_s={_TIMEOUT_S}")
_GO_ON = ("hydra.sweeper.fail_fast=null", "hydra.sweeper.max_failures=null")


def rows(options: Options) -> list[Row]:
    """Milliseconds that a slot is idle."""
    n = 5 if options.is_quick else 20
    pool = _pool()
    try:
        table = [Row(f"pool, {w}", "ms", _gaps(pool, end, n), li) for w, end, li in _ENDS]
    finally:
        pool.close()
    sweeps = {"clean": lambda f: _after_clean_ms(f, n), "time-out": lambda f: _after_timeout_ms(f)}
    measured = in_turn(options.repeats, sweeps).items()
    found = {name: list(chain.from_iterable(gaps)) for name, gaps in measured}
    return [
        *table,
        Row("sweep, result written to next start", "ms", found["clean"]),
        Row("sweep, time-out to next task", "ms", found["time-out"], "<= 500"),
    ]


# The pool


def make_runner() -> Callable[[bytes], tuple[bool, bytes]]:
    """What the fork server calls."""
    return _run


def _run(message: bytes) -> tuple[bool, bytes]:
    """Runs until a given time, then ends as told; answers when it began."""
    began = time.time()
    until, signum = json.loads(message)
    time.sleep(max(0.0, until - began))
    if signum:
        os.kill(os.getpid(), signum)
    return True, json.dumps(began).encode()


def _pool() -> Pool:
    slots = [Slot(0, "cpu:0")]
    runner = pickle.dumps(make_runner)
    pool = Pool(slots, make_runner=runner, modules=[], threads=1, jobs_per_worker=1_000)
    _next_begins(pool)
    return pool


def _gaps(pool: Pool, end: Callable[[Pool, float], None], n: int) -> list[float]:
    gaps = []
    for _ in range(n):
        ends_at = time.time() + 0.1
        end(pool, ends_at)
        pool.wait()
        gaps.append(1000 * (_next_begins(pool) - ends_at))
    return gaps


def _next_begins(pool: Pool) -> float:
    pool.submit(0, json.dumps([0, 0]).encode())
    (ended,) = pool.wait()
    assert ended.answer is not None
    return float(json.loads(ended.answer))


def _end_well(pool: Pool, ends_at: float) -> None:
    pool.submit(0, json.dumps([ends_at, 0]).encode())


def _crash(pool: Pool, ends_at: float) -> None:
    pool.submit(0, json.dumps([ends_at, int(signal.SIGSEGV)]).encode())


def _be_killed(pool: Pool, ends_at: float) -> None:
    pool.submit(0, json.dumps([ends_at + 60, 0]).encode())
    pool.wait(max(0.0, ends_at - time.time()))
    pool.signal(0, signal.SIGKILL)


_ENDS = (
    ("clean end to next job", _end_well, "<= 5"),
    ("crash to next job", _crash, "<= 500"),
    ("kill to next job", _be_killed, "<= 500"),
)


# Whole sweeps


def _after_clean_ms(folder: Path, n: int) -> list[float]:
    cost(sweep_command(APP, *_ONE_SLOT, f"y=range(0,{n})"), folder)
    starts = _start_times(folder)
    written = [(folder / f"here/{job}/result.json").stat().st_mtime for job in range(n)]
    return [1000 * (start - w) for w, start in zip(written, starts[1:], strict=False)]


def _after_timeout_ms(folder: Path) -> list[float]:
    n = 3
    command = sweep_command(APP, *_ONE_SLOT, *_HANG, *_GO_ON, f"y=range(0,{n + 1})")
    _run_to_a_failure(command, folder)
    begun = [(folder / f"here/{job}/seen.json").stat().st_mtime for job in range(n + 1)]
    late = zip(_start_times(folder), begun[1:], strict=False)
    return [1000 * (begin - start - _TIMEOUT_S) for start, begin in late]


def _run_to_a_failure(command: list[str], folder: Path) -> None:
    try:
        cost(command, folder)
    except RuntimeError:  # no trial is done, so the sweep's exit code says that it failed
        return
    raise RuntimeError("a sweep of trials that hang was expected to fail")


def _start_times(folder: Path) -> list[float]:
    lines = (folder / "here" / "trials.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [r["time"] for r in records if r["type"] == "start"]
