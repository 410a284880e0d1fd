"""The journal and the driver's own cost a trial, without any process for the trials.

Each figure comes from a fresh process, so that none inherits the memory of another.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from hydra_plugins.tune_sweeper.run import _journal, _result
from hydra_plugins.tune_sweeper.run._journal import Journal
from hydra_plugins.tune_sweeper.run._loop import Loop
from hydra_plugins.tune_sweeper.run._objective import Objective
from hydra_plugins.tune_sweeper.run._record import FILE, Job, Record
from hydra_plugins.tune_sweeper.run._result import DONE, Result
from hydra_plugins.tune_sweeper.run._rules import Rules
from hydra_plugins.tune_sweeper.search._grid import Grid
from hydra_plugins.tune_sweeper.search._random import Random
from hydra_plugins.tune_sweeper.search._space import LOG, Choice, Interval, Space
from hydra_plugins.tune_sweeper.search._trial import Strategy
from hydra_plugins.tune_sweeper.show._watch import Watch

from .measure import Options, Row, in_turn, ratio

_END = {
    "job": 7,
    "attempt": 1,
    "status": DONE,
    "value": 0.25,
    "metrics": {"val/loss": 0.25, "val/acc": 0.9, "test/loss": 0.3, "epochs": 10.0},
    "seconds": 2.0,
    "slot": "cpu:0",
}


def rows(options: Options) -> list[Row]:
    """Costs of the journal, of the driver a trial, and of a resume."""
    shrink = 10 if options.is_quick else 1
    few, many = 1_000 // shrink, 10_000 // shrink
    return [*_journal_rows(options, shrink), *_driver_rows(options, few, many)]


def _journal_rows(options: Options, shrink: int) -> list[Row]:
    n = 100_000 // shrink
    measures = {
        "append": partial(_apart, _append_ms, 1_000 // shrink),
        "read": partial(_apart, _read_cpu_s, n),
    }
    found = in_turn(options.repeats, measures)
    return [
        Row("append + fdatasync", "ms", found["append"], "<= 1"),
        Row(f"read {n} records", "CPU s", found["read"], "<= 2"),
    ]


def _driver_rows(options: Options, few: int, many: int) -> list[Row]:
    kinds = [("random", few), ("grid", few), ("random", many), ("grid", many)]
    names = {kind: f"driver a trial, {kind[0]}, {kind[1]} trials" for kind in kinds}
    found = in_turn(options.repeats, {names[k]: partial(_run_and_resume, *k) for k in kinds})
    shown = in_turn(options.repeats, {"shown": partial(_apart, _driver, "random", few, True)})
    ms = {kind: [f["ms"] for f in found[names[kind]]] for kind in kinds}
    most = found[names["random", many]]
    return [
        *[Row(names[kind], "CPU ms", ms[kind], "<= 2") for kind in kinds],
        *[ratio(f"{k}, {many} / {few}", ms[k, many], ms[k, few], "<= 1.5") for k in _STRATEGIES],
        Row(f"with table and TensorBoard, {few}", "CPU ms", [f["ms"] for f in shown["shown"]]),
        Row(f"memory added by {many} trials", "MB", [f["mb"] for f in most], "<= 50"),
        Row(f"resume of {many} trials", "CPU s", [f["resume_s"] for f in most], "<= 0.5"),
    ]


def _apart(measure: Callable[..., Any], *arguments: Any) -> Any:
    """What `measure` gives in a fresh process; the folder comes last."""
    fresh = multiprocessing.get_context("fork")  # spawn leaves a process for us to wait for
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(measure, *arguments).result()


def _append_ms(n: int, folder: Path) -> float:
    _journal.create(folder / FILE, {})
    journal = Journal(folder / FILE)
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        journal.append("end", **_END)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def _read_cpu_s(n: int, folder: Path) -> float:
    _journal.create(folder / FILE, {})
    journal = Journal(folder / FILE)
    for _ in range(n - 1):
        journal.append("end", is_synced=False, **_END)
    start = time.process_time()
    _journal.read(folder / FILE)
    return time.process_time() - start


# The driver


class _NoJobs:
    """A launcher whose jobs end at once; the time that it takes is a worker's, not the driver's."""

    n_slots = 2

    def __init__(self, record: Record) -> None:
        self._record = record
        self._queue: list[Job] = []
        self.cpu_s = 0.0

    def submit(self, job: Job, checkpoint: str | None) -> None:
        self._queue.append(job)

    def wait(self) -> Sequence[int]:
        start = time.process_time()
        job = self._queue.pop(0)
        result = Result(DONE, _END["metrics"], attempt=job.attempt)
        _result.write(self._record.folder / job.folder, result)
        self.cpu_s += time.process_time() - start
        return [job.number]

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


_OBJECTIVE = Objective("val/loss")
_STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "random": lambda n: Random(_plane(), seed=0, n_trials=n),
    "grid": lambda n: Grid(Space((Interval("x", 0, n - 1, is_integer=True),))),
}


def _header(strategy: str) -> dict[str, Any]:
    return {
        "strategy": strategy,
        "seed": 0,
        "metric": None,
        "direction": "minimize",
        "fingerprint": {},
    }


def _plane() -> Space:
    return Space((Interval("lr", 1e-3, 1.0, scale=LOG), Choice("model", ("cnn", "mlp"))))


def _driver(name: str, n: int, is_shown: bool, folder: Path) -> dict[str, float]:
    """CPU ms a trial, and MB that they added."""
    record = Record.create(folder, _header(name))
    launcher = _NoJobs(record)
    loop = _loop(_STRATEGIES[name](n), launcher, record, is_shown=is_shown)
    before_mb, start = _resident_mb(), time.process_time()
    loop.run()
    cpu_s = time.process_time() - start - launcher.cpu_s
    added_mb = _resident_mb() - before_mb
    record.close()
    assert len(record.ends) == n
    return {"ms": 1000 * cpu_s / n, "mb": added_mb}


def _run_and_resume(name: str, n: int, folder: Path) -> dict[str, float]:
    """What `_driver` gives, and the CPU s that another process takes to replay the record."""
    found: dict[str, float] = _apart(_driver, name, n, False, folder)
    return {**found, "resume_s": _apart(_resume_cpu_s, name, n, folder)}


def _loop(strategy: Strategy, launcher: _NoJobs, record: Record, *, is_shown: bool) -> Loop:
    calls: dict[str, Any] = {}
    if is_shown:
        watch = Watch(record, _plane(), _OBJECTIVE, display="none", n_jobs=None)
        calls = {"on_start": watch.started, "on_end": watch.ended}
    rules = Rules(n_parallel=launcher.n_slots)
    return Loop(strategy, launcher, record, objective=_OBJECTIVE, rules=rules, **calls)


def _resume_cpu_s(name: str, n: int, folder: Path) -> float:
    start = time.process_time()
    record = Record.resume(folder)
    _loop(_STRATEGIES[name](n), _NoJobs(record), record, is_shown=False).run()
    record.close()
    return time.process_time() - start


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20
