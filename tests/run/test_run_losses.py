"""What the world breaks: attempts that are lost, checkpoints that are gone, requests to stop."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_run_loop import Launcher, Listed, Sweep, give_x, leave, make_pbt, train

from hydra_plugins.tune_sweeper.run import _result
from hydra_plugins.tune_sweeper.run._interrupts import Interrupts
from hydra_plugins.tune_sweeper.run._limits import Limits, Watchman
from hydra_plugins.tune_sweeper.run._objective import Objective
from hydra_plugins.tune_sweeper.run._record import FILE, Job
from hydra_plugins.tune_sweeper.run._result import CHECKPOINT, DIED, INTERRUPTED, Result
from hydra_plugins.tune_sweeper.search._trial import Proposal


class Unlucky(Launcher):
    """Loses the first attempts of some jobs."""

    n_losses: dict[int, int] = {}  # noqa: RUF012 (set by each test on its own object)
    status = DIED
    leaves_checkpoint = False

    def wait(self) -> Any:
        job, _ = self._queue[0]
        if job.attempt > self.n_losses.get(job.number, 0):
            return super().wait()
        self._queue.pop(0)
        folder = self._record.folder / job.folder
        if self.leaves_checkpoint:
            (folder / CHECKPOINT).parent.mkdir(parents=True)
            (folder / CHECKPOINT).write_text("mine")
        _result.write(folder, Result(self.status, error="lost", attempt=job.attempt))
        return [job.number]


def unlucky(tmp_path: Path, losses: dict[int, int], status: str = DIED, **rules: Any) -> Sweep:
    sweep = Sweep(tmp_path, Listed([1.0, 2.0, 3.0]), **rules)
    launcher = Unlucky(give_x, sweep.record)
    launcher.n_losses, launcher.status = losses, status
    sweep.loop._launcher = sweep.launcher = launcher
    return sweep


def kinds(folder: Path) -> list[str]:
    return [json.loads(line)["type"] for line in (folder / FILE).read_text().splitlines()]


@pytest.mark.parametrize("status", [DIED, INTERRUPTED])
@pytest.mark.parametrize(("retries", "attempt", "value"), [(0, 1, None), (1, 2, 2.0), (3, 2, 2.0)])
def test_lost_job_is_tried_again(
    tmp_path: Path, status: str, retries: int, attempt: int, value: float | None
) -> None:
    """As often as the rules say, under the same number; others are not touched."""
    sweep = unlucky(tmp_path, {1: 1}, status, retries=retries)
    sweep.run()

    assert [(e.attempt, e.value) for e in sweep.ends] == [(1, 1.0), (attempt, value), (1, 3.0)]
    assert kinds(tmp_path).count("lost") == attempt - 1


def test_job_that_is_always_lost_ends_as_died(tmp_path: Path) -> None:
    """The strategy is told, once."""
    sweep = unlucky(tmp_path, {0: 99}, retries=2)
    sweep.run()

    assert (sweep.ends[0].status, sweep.ends[0].attempt) == (DIED, 3)
    assert [o.score for o in sweep.strategy.told] == [None, 2.0, 3.0]  # type: ignore[attr-defined]


def test_losses_of_an_earlier_process_count(tmp_path: Path) -> None:
    """Killing the sweep between two attempts wins nobody another retry."""
    first = unlucky(tmp_path, {0: 1}, retries=1)
    first.record.lose = crash_after(first.record.lose)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = unlucky(tmp_path, {0: 2}, retries=1)
    second.run()

    assert (second.ends[0].status, second.ends[0].attempt) == (DIED, 2)
    assert kinds(tmp_path).count("lost") == 1


@pytest.mark.parametrize(("vanish_limit", "status"), [(None, "done"), (2, DIED)])
def test_only_jobs_in_the_sweeps_own_process_can_end_it(
    tmp_path: Path, vanish_limit: int | None, status: str
) -> None:
    """Of one that ran in another it says nothing that the sweep was killed meanwhile."""
    for _ in range(2):
        killed = Sweep(tmp_path, Listed([1.0]), vanish_limit=vanish_limit)
        killed.launcher.wait = crash_after(lambda: None)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            killed.run()
    last = Sweep(tmp_path, Listed([1.0]), vanish_limit=2)
    last.run()

    assert [end.status for end in last.ends] == [status]


def crash_after(write: Any) -> Any:
    def write_and_crash(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    return write_and_crash


# Checkpoints


def test_second_attempt_continues_its_own_checkpoint(tmp_path: Path) -> None:
    """Where the task can; an interrupted training does not begin again."""
    seen: list[Path | None] = []

    def note(job: Job, folder: Path, checkpoint: Path | None) -> float:
        seen.append(checkpoint)
        return leave(job, folder, checkpoint)

    for can_resume in (True, False):
        folder = tmp_path / str(can_resume)
        sweep = unlucky(folder, {0: 1}, retries=1, can_resume=can_resume)
        sweep.launcher._task, sweep.launcher.leaves_checkpoint = note, True  # type: ignore[attr-defined]
        sweep.run()

    own = tmp_path / "True" / "0" / CHECKPOINT
    assert seen == [own, None, None, None, None, None]


def test_unreadable_checkpoint_is_set_aside(tmp_path: Path) -> None:
    """The job is tried again without it, however few retries there are."""
    sweep = Sweep(tmp_path, make_pbt(), choosy, objective=Objective("loss"), retries=0)
    spoil(sweep, lambda file: file.write_text("bad"))
    sweep.run()

    assert {end.status for end in sweep.ends} <= {"done", "failed"}
    assert len(list(tmp_path.glob("*/0/checkpoints/*.unreadable"))) == 1


def choosy(job: Job, folder: Path, checkpoint: Path | None) -> Any:
    """A task that refuses a damaged checkpoint."""
    if checkpoint is not None and checkpoint.read_text() == "bad":
        error = RuntimeError("damaged")
        error.is_unreadable_checkpoint = True  # type: ignore[attr-defined]
        raise error
    return train(job, folder, checkpoint)


def test_unreadable_checkpoint_of_two_children_is_set_aside_once(tmp_path: Path) -> None:
    """Both found it so; the one that is judged later finds no file."""

    def as_its_sibling(job: Job, folder: Path, checkpoint: Path | None) -> Any:
        try:
            return choosy(job, folder, checkpoint)
        except RuntimeError:
            assert checkpoint is not None
            checkpoint.rename(checkpoint.with_name("last.ckpt.unreadable"))
            raise

    sweep = Sweep(tmp_path, make_pbt(), as_its_sibling, objective=Objective("loss"), retries=0)
    spoil(sweep, lambda file: file.write_text("bad"))
    sweep.run()

    assert {end.status for end in sweep.ends} <= {"done", "failed"}


def test_checkpoint_that_vanishes_below_a_job_costs_it_nothing(tmp_path: Path) -> None:
    """A sibling set it aside before the job could read it."""

    def too_late(job: Job, folder: Path, checkpoint: Path | None) -> Any:
        if checkpoint is not None and checkpoint.read_text() == "bad":
            checkpoint.unlink()
            raise FileNotFoundError(checkpoint)
        return train(job, folder, checkpoint)

    sweep = Sweep(tmp_path, make_pbt(), too_late, objective=Objective("loss"), retries=0)
    spoil(sweep, lambda file: file.write_text("bad"))
    sweep.run()

    assert [end.status for end in sweep.ends if end.attempt == 2] == ["done"]


def test_unreadable_checkpoint_that_a_killed_process_found(tmp_path: Path) -> None:
    """The sweep itself gave it to the job, which is no mistake of the user's."""
    first = Sweep(tmp_path, make_pbt(), choosy, objective=Objective("loss"), retries=0)
    spoil(first, lambda file: file.write_text("bad"))
    first.record.lose = crash_after(lambda *fields: None)  # type: ignore[method-assign]
    first.loop._may_try_again = lambda *known: True  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = Sweep(tmp_path, make_pbt(), choosy, objective=Objective("loss"), retries=0)
    second.run()

    assert {end.status for end in second.ends} <= {"done", "failed"}
    assert len(list(tmp_path.glob("*/0/checkpoints/*.unreadable"))) == 1


def test_population_stays_whole_when_a_checkpoint_is_gone(tmp_path: Path) -> None:
    """Its child continues an older ancestor, or trains from the beginning."""
    sweep = Sweep(tmp_path, make_pbt(), train, objective=Objective("loss"))
    spoil(sweep, Path.unlink)
    sweep.run()

    assert {end.status for end in sweep.ends} <= {"done", "failed"}
    assert len(sweep.ends) == len(sweep.strategy)  # type: ignore[arg-type]
    jobs = sweep.record.jobs.values()
    (orphan,) = (job for job in jobs if sweep.record.parent(job) != job.proposal.parent)
    assert sweep.record.parent(orphan) is None, "its parent was a first step"
    resumed = Sweep(tmp_path, make_pbt(), train, objective=Objective("loss"))
    resumed.record.close()
    assert resumed.record.parent(orphan) is None


def spoil(sweep: Sweep, how: Callable[[Path], Any]) -> None:
    """Does something to the first checkpoint that a job would continue, before it begins."""
    checkpoints = sweep.loop._checkpoints
    give, done = checkpoints.give, []

    def spoiled(job: Job, attempt: int) -> tuple[str | None, int | None]:
        file, parent = give(job, attempt)
        if file is not None and not done:
            done.append(how(sweep.folder / file))
            return give(job, attempt)
        return file, parent

    checkpoints.give = spoiled  # type: ignore[method-assign]


# Requests to stop


@pytest.fixture
def interrupts() -> Any:
    """Without handlers: the tests ask by themselves."""
    interrupts = Interrupts(grace_s=0.05)
    yield interrupts
    interrupts.close()


def test_levels_follow_the_requests(interrupts: Interrupts) -> None:
    """One ends in good order, two at once."""
    levels = [interrupts.level]
    for _ in range(2):
        interrupts.request(signal.SIGINT)
        levels.append(interrupts.level)

    assert levels == [0, 1, 2]
    assert (interrupts.exit_code, interrupts.seconds_left) == (130, None)


def test_schedulers_signals_have_a_deadline(interrupts: Interrupts) -> None:
    """Who sends them will not wait; Ctrl-C has none."""
    interrupts.request(signal.SIGTERM)
    left = interrupts.seconds_left
    levels = [interrupts.level]
    while interrupts.level == 1:
        pass

    assert left is not None and 0 < left <= 0.05
    assert [*levels, interrupts.level, interrupts.exit_code] == [1, 2, 143]


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_schedulers_signals_are_one_request(interrupts: Interrupts, first: int) -> None:
    """Of a terminal that is closed the kernel tells, and the shell too; what runs has its time."""
    interrupts._requests._grace_s = 60.0
    asked: list[int] = []
    interrupts.in_process = asked.append
    interrupts.request(first)
    for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        interrupts.request(signum)

    assert (interrupts.level, interrupts.exit_code, asked) == (1, 128 + first, [1])
    assert interrupts.seconds_left is not None, "who sends them will not wait"


def test_schedulers_signal_after_its_deadline_is_another_request(interrupts: Interrupts) -> None:
    """What runs in this very process can only be ended by one."""
    asked: list[int] = []
    interrupts.in_process = asked.append
    interrupts.request(signal.SIGTERM)
    while interrupts.level == 1:
        pass
    for number in (signal.SIGINT, signal.SIGTERM):  # the third one that counts leaves at once
        interrupts.request(number)

    assert asked == [1, 2]


def test_signal_makes_the_descriptor_readable(interrupts: Interrupts) -> None:
    """So that a launcher that waits returns."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    with interrupts.installed():
        pass
    assert before == {number: signal.getsignal(number) for number in numbers}
    with interrupts.installed():
        os.kill(os.getpid(), signal.SIGUSR1)
        while not interrupts.level:
            pass

    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGINT)}
    for number in numbers:
        signal.signal(number, before[number])

    assert os.read(interrupts.wake_fd, 1) == b"!"
    assert set(handlers.values()) == {signal.SIG_IGN}  # one more would spoil the exit code


@pytest.mark.parametrize(("n_requests", "said"), [(1, ["terminate"]), (2, ["kill"])])
def test_running_jobs_are_asked_to_end(
    tmp_path: Path, interrupts: Interrupts, n_requests: int, said: list[str]
) -> None:
    """What they give is recorded; nothing new begins, and the next process goes on."""

    def ask(job: Job, folder: Path, checkpoint: Path | None) -> float:
        for _ in range(n_requests if job.number == 0 else 0):
            interrupts.request(signal.SIGINT)
        return float(job.proposal.values["x"])

    sweep = Sweep(tmp_path, Listed([1.0, 2.0, 3.0, 4.0]), ask, n_parallel=2)
    sweep.loop._interrupts = interrupts
    reason = sweep.run()
    resumed = Sweep(tmp_path, Listed([1.0, 2.0, 3.0, 4.0]))

    assert (reason, sweep.launcher.said) == ("interrupted", said)
    assert [end.job for end in sweep.ends] == [0, 1]
    assert resumed.run() == "complete"
    assert [end.value for end in resumed.ends] == [1.0, 2.0, 3.0, 4.0]


def test_job_that_an_interrupt_ended_did_not_fail(tmp_path: Path, interrupts: Interrupts) -> None:
    """However few retries there are, it runs again, in the next process."""
    sweep = unlucky(tmp_path, {0: 1, 1: 1}, n_parallel=2, retries=0)
    sweep.loop._interrupts = interrupts
    interrupts.request(signal.SIGINT)
    interrupts.drain()
    sweep.loop._reason_to_stop = stop_after(sweep, interrupts)  # type: ignore[method-assign]
    sweep.run()
    resumed = Sweep(tmp_path, Listed([1.0, 2.0, 3.0]))
    resumed.run()

    assert sweep.ends == []
    assert [(end.attempt, end.value) for end in resumed.ends] == [(2, 1.0), (2, 2.0), (1, 3.0)]


def stop_after(sweep: Sweep, interrupts: Interrupts) -> Any:
    """The request comes when the first two jobs run."""
    return lambda: "interrupted" if sweep.loop._running or sweep.record.losses else None


# Limits


def watched(tmp_path: Path, **limits: float) -> tuple[Watchman, Job]:
    job = Job(0, Proposal(0, {}), 0, "0")
    (tmp_path / "0").mkdir()
    watchman = Watchman(Limits(**limits), tmp_path)
    watchman.add(job)
    return watchman, job


def test_job_is_overdue_once(tmp_path: Path) -> None:
    """At its limit, not before it."""
    watchman, job = watched(tmp_path, job_s=0.05)
    early = list(watchman.overdue())
    while not (found := list(watchman.overdue())):
        pass

    assert early == []
    assert [(j, status) for j, status, _ in found] == [(job, "timeout")]
    assert list(watchman.overdue()) == []
    assert watchman.seconds_left() is None


def test_job_that_writes_is_not_silent(tmp_path: Path) -> None:
    """Whatever the clock says and however deep: any change of any file counts."""
    watchman, _ = watched(tmp_path, silence_s=0.2)
    file = tmp_path / "0" / "logs" / "version_0" / "progress.jsonl"
    file.parent.mkdir(parents=True)
    future = tmp_path / "0" / "future"
    future.touch()
    os.utime(future, (4e9, 4e9))
    for i in range(5):
        file.write_text("x")
        os.utime(file, (1000 - i, 1000 - i))  # the clock goes backwards
        assert list(watchman.overdue()) == []
        time.sleep(0.1)
    while not (found := list(watchman.overdue())):
        pass

    assert [status for _, status, _ in found] == ["stalled"]


def test_no_limit_is_never_reached(tmp_path: Path) -> None:
    """And there is nothing to wake up for."""
    watchman, _ = watched(tmp_path)

    assert (watchman.seconds_left(), list(watchman.overdue())) == (None, [])
