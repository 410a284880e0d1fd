"""The loop, with jobs that really run in this process, and crashes wherever they can happen."""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from headers import header

from hydra_plugins.tune_sweeper.run import _result
from hydra_plugins.tune_sweeper.run._journal import Journal
from hydra_plugins.tune_sweeper.run._loop import Loop, TaskRefused
from hydra_plugins.tune_sweeper.run._objective import Objective
from hydra_plugins.tune_sweeper.run._record import FILE, End, Job, Record, read
from hydra_plugins.tune_sweeper.run._result import DIED, DONE, FAILED, INVALID, Result
from hydra_plugins.tune_sweeper.run._rules import Rules
from hydra_plugins.tune_sweeper.search._asha import Asha
from hydra_plugins.tune_sweeper.search._bayes import Bayes
from hydra_plugins.tune_sweeper.search._grid import Grid
from hydra_plugins.tune_sweeper.search._pbt import Pbt
from hydra_plugins.tune_sweeper.search._random import Random
from hydra_plugins.tune_sweeper.search._space import LOG, Choice, Interval, Space
from hydra_plugins.tune_sweeper.search._trial import Observation, Proposal, Strategy

Task = Callable[[Job, Path, Path | None], Any]  # job, its folder, the checkpoint to continue

LINE = Space((Interval("x", 0, 99, is_integer=True),))
PLANE = Space((Interval("lr", 1e-3, 1.0, scale=LOG), Choice("model", ("cnn", "mlp"))))


class Launcher:
    """Runs the queued jobs one at a wait, the youngest first when `is_reversed`."""

    n_slots = 1

    def __init__(self, task: Task, record: Record, *, is_reversed: bool = False) -> None:
        self._task = task
        self._record = record
        self._is_reversed = is_reversed
        self._queue: list[tuple[Job, str | None]] = []
        self.most = 0  # jobs at once
        self.said: list[str] = []  # what the loop asked for

    def submit(self, job: Job, checkpoint: str | None) -> None:
        self._queue.append((job, checkpoint))
        self.most = max(self.most, len(self._queue))

    def wait(self) -> Sequence[int]:
        job, source = self._queue.pop(-1 if self._is_reversed else 0)
        folder = self._record.folder / job.folder
        checkpoint = None if source is None else self._record.folder / source
        _result.record(lambda: self._task(job, folder, checkpoint), folder, attempt=job.attempt)
        return [job.number]

    def terminate(self) -> None:
        self.said.append("terminate")

    def kill(self) -> None:
        self.said.append("kill")


class Listed:
    """A strategy that proposes given values in their order, and notes what it is told."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = list(values)
        self._n_asked = 0
        self.told: list[Observation] = []

    def ask(self, n: int) -> list[Proposal]:
        trials = range(self._n_asked, min(self._n_asked + n, len(self._values)))
        self._n_asked += len(trials)
        return [Proposal(t, {"x": self._values[t]}) for t in trials]

    def accept(self, proposals: Sequence[Proposal]) -> None:
        self._n_asked += len(proposals)

    def tell(self, observations: Sequence[Observation]) -> None:
        self.told += observations

    def needed_checkpoints(self) -> set[int]:
        return set()


def give_x(job: Job, folder: Path, checkpoint: Path | None) -> Any:
    """A task that returns the value that was proposed, or raises it."""
    x = job.proposal.values["x"]
    if isinstance(x, str):
        raise ValueError(x)
    return x


class Sweep:
    """A sweep in a folder, run from its beginning or continued."""

    def __init__(
        self,
        folder: Path,
        strategy: Strategy,
        task: Task = give_x,
        *,
        objective: Objective | None = None,
        is_reversed: bool = False,
        n_parallel: int = 1,
        **rules: Any,
    ) -> None:
        self.folder = folder
        self.strategy = strategy
        is_new = not (folder / FILE).exists()
        self.record = Record.create(folder, header()) if is_new else Record.resume(folder)
        self.launcher = Launcher(task, self.record, is_reversed=is_reversed)
        self.calls: list[tuple[str, int]] = []
        self.loop = Loop(
            strategy,
            self.launcher,
            self.record,
            objective=objective or Objective(),
            rules=Rules(n_parallel=n_parallel, **rules),
            on_start=lambda job: self.calls.append(("start", job.number)),
            on_end=lambda job, end, progress: self.calls.append(("end", end.job)),
        )

    def run(self) -> str:
        try:
            return self.loop.run()
        finally:
            self.record.close()

    @property
    def ends(self) -> list[End]:
        return [end for _, end in sorted(self.record.ends.items())]


def events(folder: Path, *left_out: str) -> list[tuple[str, int]]:
    """Type and job of the records about jobs, in the order of the journal."""
    lines = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    return [(r["type"], r["job"]) for r in lines if "job" in r and r["type"] not in left_out]


@pytest.fixture(autouse=True)
def without_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crashes here are those of a process, which the kernel's cache survives."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)


# What is recorded, in which order


def test_job_is_recorded_before_it_runs_and_before_it_is_told(tmp_path: Path) -> None:
    """ask, start, the job itself, end, and only then the strategy."""
    seen: list[tuple[str, int, int]] = []

    def task(job: Job, folder: Path, checkpoint: Path | None) -> float:
        seen.append(("ran", job.number, len(events(tmp_path))))
        return 1.0

    class Noting(Listed):
        def tell(self, observations: Sequence[Observation]) -> None:
            seen.append(("told", observations[0].job, len(events(tmp_path))))

    reason = Sweep(tmp_path, Noting([1, 2]), task).run()

    assert reason == "complete"
    assert seen == [("ran", 0, 2), ("told", 0, 3), ("ran", 1, 5), ("told", 1, 6)]
    order = ["ask", "start", "end"]
    assert events(tmp_path) == [(kind, job) for job in (0, 1) for kind in order]
    assert read(tmp_path).is_over


def test_observers_are_called_once_a_job(tmp_path: Path) -> None:
    """When it starts and when it ended."""
    sweep = Sweep(tmp_path, Listed([1, 2]))
    sweep.run()

    assert sweep.calls == [("start", 0), ("end", 0), ("start", 1), ("end", 1)]


@pytest.mark.parametrize(("n_parallel", "most"), [(1, 1), (3, 3), (99, 7)])
def test_free_slots_are_filled_at_once(tmp_path: Path, n_parallel: int, most: int) -> None:
    """And never more than there are."""
    sweep = Sweep(tmp_path, Listed(range(7)), n_parallel=n_parallel)
    sweep.run()

    assert sweep.launcher.most == most
    assert len(sweep.ends) == 7


def test_jobs_may_end_in_any_order(tmp_path: Path) -> None:
    """Ends are recorded as they come, and belong to their jobs."""
    sweep = Sweep(tmp_path, Listed([5, 6, 7]), n_parallel=3, is_reversed=True)
    sweep.run()

    assert events(tmp_path, "ask", "start") == [("end", 2), ("end", 1), ("end", 0)]
    assert [end.value for end in sweep.ends] == [5.0, 6.0, 7.0]


def test_nothing_to_do_is_complete(tmp_path: Path) -> None:
    """A sweep resumed after its end runs nothing again."""
    Sweep(tmp_path, Listed([1, 2])).run()
    again = Sweep(tmp_path, Listed([1, 2]))

    assert again.run() == "complete"
    assert again.calls == []
    assert len(again.ends) == 2


def test_score_has_the_strategys_sign(tmp_path: Path) -> None:
    """Values stand in the record as the task returned them; strategies minimise."""
    strategy = Listed([1.0, 2.0])
    sweep = Sweep(tmp_path, strategy, objective=Objective(direction="maximize"))
    sweep.run()

    assert [end.value for end in sweep.ends] == [1.0, 2.0]
    assert [o.score for o in strategy.told] == [-1.0, -2.0]
    assert sweep.loop.progress.best == (2.0, 1)


# Repeats


def by_repeat(job: Job, folder: Path, checkpoint: Path | None) -> float:
    """The proposed value plus 0, 1, 2, ... for the repeats; x = 9 fails in its last."""
    if job.proposal.values["x"] == 9 and job.repeat == 2:
        raise ValueError("unlucky seed")
    return float(job.proposal.values["x"] + job.repeat)


@pytest.mark.parametrize("n_parallel", [1, 2, 5])
def test_repeats_are_averaged_and_told_once(tmp_path: Path, n_parallel: int) -> None:
    """When the last of them ended; one that failed fails the configuration."""
    strategy = Listed([0, 9, 30])
    sweep = Sweep(tmp_path, strategy, by_repeat, repeats=3, n_parallel=n_parallel, is_reversed=True)
    sweep.run()
    told = {o.proposal.trial: (o.job, o.score) for o in strategy.told}

    assert len(sweep.ends) == 9
    assert len(strategy.told) == 3
    assert told == {0: (0, 1.0), 1: (3, None), 2: (6, 31.0)}
    assert sweep.loop.progress.best == (1.0, 0)


# Failures


OUTCOMES: list[tuple[Any, str, str]] = [
    ("boom", FAILED, "ValueError: boom"),
    (math.nan, INVALID, "value is nan"),
    (math.inf, INVALID, "value is inf"),
    (None, INVALID, "the task returned None"),
    ({"loss": 1.0}, INVALID, "the task returned the metrics loss"),
    ([], INVALID, "the task returned []"),
]


@pytest.mark.parametrize(("outcome", "status", "error"), OUTCOMES, ids=[o[1] for o in OUTCOMES])
def test_bad_end_is_recorded_and_told(
    tmp_path: Path, outcome: Any, status: str, error: str
) -> None:
    """After a good first trial, whatever comes is one lost trial; the others go on."""
    strategy = Listed([1.0, outcome, 3.0])
    sweep = Sweep(tmp_path, strategy)

    assert sweep.run() == "complete"
    assert [DONE, status, DONE] == [end.status for end in sweep.ends]
    assert [end.value for end in sweep.ends] == [1.0, None, 3.0]
    assert [o.score for o in strategy.told] == [1.0, None, 3.0]
    assert str(sweep.ends[1].error).startswith(error)
    assert sweep.loop.progress.best == (1.0, 0)


@pytest.mark.parametrize("outcome", [None, {"loss": 1.0}, "text", []], ids=str)
def test_mistake_ends_the_sweep_at_its_first_trial(tmp_path: Path, outcome: Any) -> None:
    """It would be the same in all of them; the sentence is the error."""
    sweep = Sweep(tmp_path, Listed([1.0, 2.0]), lambda *_: outcome)
    with pytest.raises(TaskRefused) as caught:
        sweep.run()

    assert "returned" in str(caught.value)
    assert caught.value.has_trained
    assert events(tmp_path) == [("ask", 0), ("start", 0)]
    assert not read(tmp_path).is_over


class Refusal(Exception):
    """The task's word for a configuration that it will not train."""

    is_refusal = True


def refuse(job: Job, folder: Path, checkpoint: Path | None) -> Any:
    raise Refusal("batch_size=4096 is larger than the data")


def test_refusal_of_the_first_trial_ends_the_sweep(tmp_path: Path) -> None:
    """Before anything was trained."""
    with pytest.raises(TaskRefused, match=r"^batch_size=4096 is larger") as caught:
        Sweep(tmp_path, Listed([1.0]), refuse).run()

    assert not caught.value.has_trained


def test_mended_task_runs_the_first_trial_again(tmp_path: Path) -> None:
    """The result of the mistake is not taken for that of the trial."""
    with pytest.raises(TaskRefused):
        Sweep(tmp_path, Listed([1.0, 2.0]), lambda *_: None).run()
    mended = Sweep(tmp_path, Listed([1.0, 2.0]))

    assert mended.run() == "complete"
    assert [(end.value, end.attempt) for end in mended.ends] == [(1.0, 2), (2.0, 1)]


@pytest.mark.parametrize("first", ["boom", math.nan], ids=str)
def test_failing_first_trial_is_no_mistake(tmp_path: Path, first: Any) -> None:
    """It may be the fault of its values."""
    sweep = Sweep(tmp_path, Listed([first, 2.0]))

    assert sweep.run() == "complete"
    assert [end.value for end in sweep.ends] == [None, 2.0]


@pytest.mark.parametrize("result", [None, Result(DONE, {"value": 0.1}, attempt=7)])
def test_job_without_a_result_of_its_own_died(tmp_path: Path, result: Result | None) -> None:
    """A launcher lost it, or what lies there is of another attempt."""

    class Losing(Launcher):
        def wait(self) -> Sequence[int]:
            job, _ = self._queue.pop(0)
            if result is not None:
                _result.write(self._record.folder / job.folder, result)
            return [job.number]

    sweep = Sweep(tmp_path, Listed([1.0]))
    sweep.loop._launcher = Losing(give_x, sweep.record)
    sweep.launcher = sweep.loop._launcher
    sweep.loop.run()
    sweep.record.close()

    assert [(end.status, end.value) for end in sweep.ends] == [(DIED, None)]


# Rules


STOPS: list[tuple[list[Any], dict[str, Any], str, int]] = [
    (["a", "b", "c", 1.0], {"fail_fast": 3}, "fail_fast", 3),
    ([1.0, "b", 1.0, "d", "e", "f", 1.0], {"max_failures": 0.5}, "max_failures", 5),
    ([9.0, 2.0, 1.0], {"target": 2.0}, "target", 2),
    ([3.0, 4.0, 5.0, 1.0], {"patience": 2}, "patience", 3),
    ([1.0, 2.0], {"time_s": 1e-9}, "time_s", 0),
]


@pytest.mark.parametrize(
    ("values", "rules", "reason", "n_ended"), STOPS, ids=[stop[2] for stop in STOPS]
)
def test_rule_ends_the_sweep(
    tmp_path: Path, values: list[Any], rules: dict[str, Any], reason: str, n_ended: int
) -> None:
    """Nothing new is asked for, and the reason is recorded."""
    sweep = Sweep(tmp_path, Listed(values), **rules)

    assert sweep.run() == reason
    assert len(sweep.ends) == n_ended
    assert json.loads((tmp_path / FILE).read_text().splitlines()[-1])["reason"] == reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "complete"),
        (-math.inf, "complete"),
        ("boom", "max_failures"),
        (None, "max_failures"),
    ],
    ids=str,
)
def test_dead_members_of_a_population_are_no_failures(
    tmp_path: Path, value: Any, reason: str
) -> None:
    """They are replaced; what raises still counts, and what returns no number at all."""
    rules = {"replaces_dead": True, "fail_fast": 3, "max_failures": 0.5}
    sweep = Sweep(tmp_path, Listed([math.nan, *[value] * 6]), **rules)

    assert sweep.run() == reason
    assert len(sweep.ends) == (7 if reason == "complete" else 5)


def test_running_jobs_end_after_a_rule_said_stop(tmp_path: Path) -> None:
    """They are recorded; only new ones do not start."""
    sweep = Sweep(tmp_path, Listed([1.0, 5.0, 6.0, 7.0]), n_parallel=3, target=2.0)

    assert sweep.run() == "target"
    assert [end.value for end in sweep.ends] == [1.0, 5.0, 6.0]


def test_failures_of_earlier_processes_count(tmp_path: Path) -> None:
    """A sweep that stopped for its failures stops again, without a new trial."""
    Sweep(tmp_path, Listed(["a", "b", "c", "d"]), fail_fast=3).run()
    again = Sweep(tmp_path, Listed(["a", "b", "c", "d"]), fail_fast=3)

    assert again.run() == "fail_fast"
    assert again.calls == []


# Crashes


class Crash(BaseException):
    """The process ends here; nothing may catch it."""


def make_grid() -> Strategy:
    return Grid(PLANE, points=3, shuffle=True, seed=1)


def make_random() -> Strategy:
    return Random(PLANE, seed=1, n_trials=6)


def make_bayes() -> Strategy:
    return Bayes(PLANE, seed=1, n_trials=6, n_initial=3)


def make_pbt() -> Strategy:
    return Pbt(PLANE, seed=1, epochs=4, step_epochs=1, population_size=3, in_batches=True)


def make_wide_pbt() -> Strategy:
    settings: dict[str, Any] = {"population_size": 4, "score_window": 2, "in_batches": True}
    return Pbt(PLANE, seed=1, epochs=6, step_epochs=1, **settings)


def make_asha(**settings: Any) -> Strategy:
    return Asha(PLANE, seed=1, epochs=4, n_trials=6, eta=2.0, **settings)


def train(job: Job, folder: Path, checkpoint: Path | None) -> Any:
    """Continues a number in a checkpoint; fails for some values."""
    state = 1.0 if checkpoint is None else float(checkpoint.read_text())
    lr = job.proposal.values["lr"]
    if 0.02 < lr < 0.05:
        raise ValueError("a region that fails")
    state = state * (1 - lr) + 0.01 * job.repeat
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / _result.CHECKPOINT).write_text(repr(state))
    return {"loss": state + (job.proposal.values["model"] == "mlp"), "epochs": 1}


RUNS: dict[str, tuple[Callable[[], Strategy], dict[str, Any]]] = {
    "grid": (make_grid, {}),
    "random": (make_random, {}),
    "bayes": (make_bayes, {}),
    "pbt": (make_pbt, {}),
    "pbt, few checkpoints": (make_pbt, {"keep_checkpoints": 1}),
    "pbt, two at once": (make_wide_pbt, {"n_parallel": 2}),
    "asha": (make_asha, {}),
    "asha, two at once": (make_asha, {"n_parallel": 2, "keep_checkpoints": 1}),
    "asha, model": (lambda: make_asha(proposer="bayes", brackets=2), {}),
    "random, repeats": (make_random, {"repeats": 2}),
    "grid, two at once": (make_grid, {"n_parallel": 2}),
}


def start(folder: Path, name: str, task: Task = train) -> Sweep:
    make, rules = RUNS[name]
    return Sweep(folder, make(), task, objective=Objective("loss"), **rules)


def history(sweep: Sweep) -> list[tuple[Any, ...]]:
    """What was proposed and what came of it, by job; not how often it was tried."""
    jobs = [job for _, job in sorted(sweep.record.jobs.items())]
    return [
        (job.proposal, job.repeat, job.folder, end.status, end.value)
        for job, end in zip(jobs, sweep.ends, strict=True)
    ]


def plain(found: list[tuple[Any, ...]]) -> str:
    return json.dumps([[vars(p), *rest] for p, *rest in found], sort_keys=True)


@pytest.mark.parametrize("name", RUNS)
def test_crash_after_any_record_changes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed, the sweep ends with the proposals and the values of the unbroken one."""
    unbroken = start(tmp_path / "unbroken", name)
    unbroken.run()
    append = Journal.append
    n_records = len((tmp_path / "unbroken" / FILE).read_text().splitlines())

    for crash_at in range(2, n_records):
        folder = tmp_path / str(crash_at)
        n_left = crash_at - 1

        def crashing(self: Journal, kind: str, **fields: Any) -> Any:
            nonlocal n_left
            record = append(self, kind, **fields)
            n_left -= 1
            if n_left == 0:
                raise Crash
            return record

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", crashing)
            with pytest.raises(Crash):
                start(folder, name).run()
        resumed = start(folder, name)

        assert resumed.run() == "complete"
        assert plain(history(resumed)) == plain(history(unbroken)), f"crash after {crash_at}"


@pytest.mark.parametrize("name", ["grid", "random", "bayes", "random, repeats"])
def test_journal_cut_after_any_line_is_continued(name: str, tmp_path: Path) -> None:
    """The rest of the folder is lost too: what had not ended runs again, as a new attempt."""
    unbroken = start(tmp_path / "unbroken", name)
    unbroken.run()
    lines = (tmp_path / "unbroken" / FILE).read_bytes().splitlines(keepends=True)

    for cut in range(1, len(lines)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / FILE).write_bytes(b"".join(lines[:cut]))
        resumed = start(folder, name)
        resumed.run()
        kinds = [json.loads(line)["type"] for line in lines[:cut]]
        n_lost = kinds.count("start") - kinds.count("end")

        assert plain(history(resumed)) == plain(history(unbroken)), f"cut after {cut}"
        assert sum(end.attempt - 1 for end in resumed.ends) == n_lost


def test_crash_in_a_job_runs_it_again_as_second_attempt(tmp_path: Path) -> None:
    """With the same number, values and folder."""

    def crash(job: Job, folder: Path, checkpoint: Path | None) -> float:
        if job.number == 1:
            raise KeyboardInterrupt
        return give_x(job, folder, checkpoint)  # type: ignore[no-any-return]

    with pytest.raises(KeyboardInterrupt):
        Sweep(tmp_path, Listed([1.0, 2.0, 3.0]), crash).run()
    resumed = Sweep(tmp_path, Listed([1.0, 2.0, 3.0]))
    resumed.run()

    assert [end.attempt for end in resumed.ends] == [1, 2, 1]
    assert [end.value for end in resumed.ends] == [1.0, 2.0, 3.0]
    assert resumed.calls[:2] == [("start", 1), ("end", 1)]


def test_finished_job_of_a_crashed_process_is_not_run_again(tmp_path: Path) -> None:
    """Its result lies in its folder."""
    ran: list[int] = []

    def count(job: Job, folder: Path, checkpoint: Path | None) -> float:
        ran.append(job.number)
        return give_x(job, folder, checkpoint)  # type: ignore[no-any-return]

    sweep = Sweep(tmp_path, Listed([1.0, 2.0]), count)
    sweep.loop._finish = crash_in_finish  # type: ignore[method-assign]
    with pytest.raises(Crash):
        sweep.run()
    resumed = Sweep(tmp_path, Listed([1.0, 2.0]), count)
    resumed.run()

    assert ran == [0, 1]
    assert [(end.value, end.attempt) for end in resumed.ends] == [(1.0, 1), (2.0, 1)]


def crash_in_finish(job: Job) -> None:
    raise Crash


def test_late_result_of_an_older_attempt_is_dropped(tmp_path: Path) -> None:
    """The job was lost, began again, and then the first one wrote its result."""

    def crash(job: Job, folder: Path, checkpoint: Path | None) -> float:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Sweep(tmp_path, Listed([5.0]), crash).run()
    _result.write(tmp_path / "0", Result(DONE, {"value": 0.1}, attempt=1))
    resumed = Sweep(tmp_path, Listed([5.0]))
    resumed.run()

    assert [(end.value, end.attempt) for end in resumed.ends] == [(5.0, 3)]


def test_stale_result_of_a_job_that_never_started_is_not_taken(tmp_path: Path) -> None:
    """A folder may hold something from elsewhere."""
    _result.write(tmp_path / "0", Result(DONE, {"value": 0.1}))
    sweep = Sweep(tmp_path, Listed([5.0]))
    sweep.run()

    assert [end.value for end in sweep.ends] == [5.0]


# Checkpoints


def kept(folder: Path) -> set[str]:
    """Folders of the jobs whose checkpoints are still there."""
    return {str(f.parent.relative_to(folder)) for f in folder.glob("**/checkpoints")}


def leave(job: Job, folder: Path, checkpoint: Path | None) -> float:
    """Returns the proposed value and leaves a checkpoint."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / _result.CHECKPOINT).touch()
    return give_x(job, folder, checkpoint)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(None, {"0", "1", "2", "3", "4"}), (2, {"1", "3"}), (1, {"3"}), (0, set())],
)
def test_checkpoints_of_the_best_are_kept(
    tmp_path: Path, keep: int | None, expected: set[str]
) -> None:
    """As many as asked for; None deletes nothing."""
    Sweep(tmp_path, Listed([5.0, 2.0, 4.0, 1.0, 3.0]), leave, keep_checkpoints=keep).run()

    assert expected == kept(tmp_path)


def test_deletions_are_recorded_before_they_happen(tmp_path: Path) -> None:
    """So no record speaks of a file that is gone."""
    Sweep(tmp_path, Listed([1.0, 2.0, 3.0]), leave, keep_checkpoints=1).run()
    records = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]

    assert [r["jobs"] for r in records if r["type"] == "drop"] == [[1], [2]]


def test_deleted_checkpoints_stay_deleted_after_a_resume(tmp_path: Path) -> None:
    """A resumed process knows which are gone, and deletes what is no longer among the best."""
    Sweep(tmp_path, Listed([4.0, 3.0, 2.0]), leave, keep_checkpoints=1).run()
    resumed = Sweep(tmp_path, Listed([4.0, 3.0, 2.0, 1.0]), leave, keep_checkpoints=1)
    resumed.run()
    records = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]

    assert kept(tmp_path) == {"3"}
    assert [r["jobs"] for r in records if r["type"] == "drop"] == [[0], [1], [2]]


def test_deletion_that_a_crash_cut_short_is_finished(tmp_path: Path) -> None:
    """Recorded and not done: the next process does it."""
    Sweep(tmp_path, Listed([1.0, 2.0]), leave, keep_checkpoints=1).run()
    (tmp_path / "1" / "checkpoints").mkdir()
    Sweep(tmp_path, Listed([1.0, 2.0]), leave, keep_checkpoints=1).run()

    assert kept(tmp_path) == {"0"}


@pytest.mark.parametrize("keep", [0, 1, 3])
@pytest.mark.parametrize("n_parallel", [1, 3, 8])
def test_parents_are_there_when_their_children_start(
    tmp_path: Path, keep: int, n_parallel: int
) -> None:
    """Whatever is deleted: the task of a continued training always finds its checkpoint."""
    strategy = Pbt(
        PLANE, seed=3, epochs=8, step_epochs=1, population_size=8, in_batches=False, min_peers=0.5
    )
    sweep = Sweep(
        tmp_path,
        strategy,
        train,
        objective=Objective("loss"),
        n_parallel=n_parallel,
        is_reversed=True,
        keep_checkpoints=keep,
    )
    sweep.run()

    assert {end.error for end in sweep.ends} <= {None, "ValueError: a region that fails"}
    assert len(kept(tmp_path)) <= keep + bool(keep)  # the best, and what the very best continued


class AtOnce(Launcher):
    """All that is queued ends in one wait."""

    def wait(self) -> Sequence[int]:
        return [number for _ in list(self._queue) for number in Launcher.wait(self)]


def test_full_disk_ends_a_sweep_of_which_two_jobs_ended_at_once(tmp_path: Path) -> None:
    """The second one is not waited for: it runs no more, and its result is in its folder."""
    sweep = Sweep(tmp_path, Listed([1.0, 2.0]), n_parallel=2)
    sweep.loop._launcher = AtOnce(give_x, sweep.record)

    def full(end: End) -> End:
        raise OSError(errno.ENOSPC, "no space left on device")

    sweep.record.end = full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no space left"):
        sweep.run()

    assert len(list(tmp_path.glob("*/result.json"))) == 2


def test_step_without_a_checkpoint_is_a_mistake(tmp_path: Path) -> None:
    """The population could not go on from it; said at the first trial."""
    with pytest.raises(TaskRefused, match=r"left no checkpoints/last\.ckpt"):
        Sweep(tmp_path, make_pbt(), lambda *_: 1.0).run()


def test_folder_may_be_moved_between_processes(tmp_path: Path) -> None:
    """Paths in the record are relative to it."""
    crash = tmp_path / "before"
    with pytest.raises(KeyboardInterrupt):
        Sweep(crash, Listed([1.0, 2.0]), interrupt_second).run()
    shutil.move(crash, tmp_path / "after")
    resumed = Sweep(tmp_path / "after", Listed([1.0, 2.0]))
    resumed.run()

    assert [end.value for end in resumed.ends] == [1.0, 2.0]


def interrupt_second(job: Job, folder: Path, checkpoint: Path | None) -> Any:
    if job.number == 1:
        raise KeyboardInterrupt
    return give_x(job, folder, checkpoint)
