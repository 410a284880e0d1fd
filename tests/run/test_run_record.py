"""The record of a sweep: numbers, folders, resuming, finding the one to continue."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from headers import header

from hydra_plugins.tune_sweeper.run import _journal
from hydra_plugins.tune_sweeper.run._journal import JournalDamaged, JournalError, JournalLocked
from hydra_plugins.tune_sweeper.run._record import (
    COMPLETE,
    FILE,
    TIME_S,
    End,
    Record,
    differences,
    newest_unfinished,
    next_folder,
    read,
)
from hydra_plugins.tune_sweeper.run._whole import write_whole
from hydra_plugins.tune_sweeper.search._trial import Proposal

HEADER = header(seed=3, fingerprint={"space": "a"})


@pytest.fixture
def record(tmp_path: Path) -> Any:
    """A new record, closed after the test."""
    found = Record.create(tmp_path / "sweep", HEADER)
    yield found
    found.close()


def step(trial: int, number: int, parent: int | None = None) -> Proposal:
    return Proposal(trial, {"lr": 0.1}, number, parent, 5 * (number + 1), {"op": "start"})


def test_jobs_are_numbered_in_the_order_of_asking(record: Record) -> None:
    """From zero; steps and repeats of a trial are jobs too."""
    jobs = [record.ask(Proposal(t, {"x": t}), r, n_repeats=2) for t in (0, 1) for r in (0, 1)]

    assert [job.number for job in jobs] == [0, 1, 2, 3]
    assert [job.repeat for job in jobs] == [0, 1, 0, 1]
    assert {0: jobs[0], 1: jobs[1], 2: jobs[2], 3: jobs[3]} == record.jobs


def test_folder_of_a_trial_is_its_number(record: Record) -> None:
    """Where each trial is one job."""
    assert [record.ask(Proposal(t, {})).folder for t in (0, 1)] == ["0", "1"]


def test_folders_of_repeats_lie_below_their_trial(record: Record) -> None:
    """One a repeat."""
    jobs = [record.ask(Proposal(7, {}), r, n_repeats=3) for r in range(3)]

    assert [job.folder for job in jobs] == ["7/0", "7/1", "7/2"]


def test_folders_of_steps_lie_below_their_trial(record: Record) -> None:
    """A step that is taken a second time gets one of its own."""
    jobs = [record.ask(step(2, n)) for n in (0, 0, 0, 1)]

    assert [job.folder for job in jobs] == ["2/0", "2/0.1", "2/0.2", "2/1"]


def end(job: int, value: float | None = 0.5, **fields: Any) -> End:
    return End(job, 1, "done" if value is not None else "failed", value, **fields)


def test_resumed_record_is_what_was_written(tmp_path: Path) -> None:
    """Jobs, ends, attempts and header; only the events of earlier processes are replayed."""
    record = Record.create(tmp_path, HEADER)
    record.ask(step(0, 0))
    record.ask(step(1, 0))
    record.start(record.jobs[0])
    record.start(record.jobs[1], attempt=2)
    record.end(end(0, metrics={"loss": 0.5}, checkpoint="checkpoints/last.ckpt"))
    record.close()
    resumed = Record.resume(tmp_path)
    resumed.close()

    assert (record.jobs, record.ends) == (resumed.jobs, resumed.ends)
    assert [job.attempt for job in resumed.jobs.values()] == [1, 2]
    assert resumed.header["seed"] == 3
    types = [event["type"] for event in resumed.events]
    assert types == ["session", "ask", "ask", "start", "start", "end"]


def test_reader_sees_the_same(record: Record) -> None:
    """While the sweep is running, without a lock."""
    record.ask(Proposal(0, {"x": 1}))
    record.start(record.jobs[0])
    record.end(end(0))
    summary = read(record.folder)

    assert (record.jobs, record.ends) == (summary.jobs, summary.ends)
    assert not summary.is_over


def test_first_end_of_a_job_counts(record: Record) -> None:
    """A late one of an older attempt does not change what was told."""
    record.ask(Proposal(0, {}))
    record.end(end(0, 0.5))
    record.end(end(0, 0.1))

    assert record.ends[0].value == 0.5
    assert read(record.folder).ends[0].value == 0.5


def test_later_fields_of_an_end_are_left_out(ended: Path) -> None:
    """A minor version may add some."""
    rewrite(ended, lambda records: of(records, "end").update(new=2))

    assert read(ended).ends[0].value == 0.5
    Record.resume(ended).close()


def test_changes_are_part_of_the_header(tmp_path: Path) -> None:
    """For the next process and for readers."""
    record = Record.create(tmp_path, HEADER)
    record.change({"n_trials": 40})
    record.close()
    resumed = Record.resume(tmp_path)
    resumed.close()

    assert (resumed.header["n_trials"], resumed.header["seed"]) == (40, 3)
    assert read(tmp_path).header["n_trials"] == 40


def test_record_in_use_is_refused(record: Record) -> None:
    """By pid; and it stays as it is."""
    before = (record.folder / FILE).read_bytes()
    with pytest.raises(JournalLocked, match=str(os.getpid())):
        Record.resume(record.folder)
    with pytest.raises(JournalLocked):
        Record.create(record.folder, HEADER)

    assert before == (record.folder / FILE).read_bytes()


def test_existing_record_is_never_overwritten(tmp_path: Path) -> None:
    """Not even by a process that looked before another one made it."""
    Record.create(tmp_path, HEADER).close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(JournalError, match="holds a sweep already"):
        Record.create(tmp_path, HEADER)

    assert before == (tmp_path / FILE).read_bytes()


def test_refused_record_leaves_no_lock(tmp_path: Path) -> None:
    """What cannot be opened can be opened once it is mended."""
    Record.create(tmp_path, HEADER).close()
    good = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(good[5:])
    with pytest.raises(JournalDamaged) as caught:
        Record.resume(tmp_path)
    (tmp_path / FILE).write_bytes(good)

    assert caught.value  # its traceback is still alive, and must not hold the lock
    Record.resume(tmp_path).close()


Records = list[dict[str, Any]]


def of(records: Records, kind: str) -> dict[str, Any]:
    """The first record of a kind."""
    return next(record for record in records if record["type"] == kind)


def rewrite(folder: Path, change: Callable[[Records], Any]) -> None:
    """Changes a journal as somebody would who knows how it is made."""
    records = _journal.read(folder / FILE).records
    change(records)
    plain = [{k: v for k, v in r.items() if k != "crc"} for r in records]
    lines = [_journal.encode({**record, "seq": seq}) for seq, record in enumerate(plain)]
    (folder / FILE).write_bytes(b"".join(lines))


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """The folder of a sweep in steps: job 0 is done, job 1 continues it."""
    record = Record.create(tmp_path / "sweep", HEADER)
    record.start(record.ask(step(0, 0)))
    record.end(End(0, 1, "done", 0.5, metrics={"loss": 0.5}, seconds=1.0))
    record.start(record.ask(step(0, 1, parent=0)))
    record.close()
    return record.folder


@pytest.mark.parametrize(
    "folder", ["../7", "/tmp", "7/../../x", "", "7/", "a", "7//0", "7\n", "1/0", 7, "0" * 5000]
)
def test_folder_outside_the_sweep_is_refused(ended: Path, folder: Any) -> None:
    """A record from somebody else may not name what is deleted."""
    rewrite(ended, lambda records: of(records, "ask").update(folder=folder))

    with pytest.raises(JournalDamaged, match="folder"):
        Record.resume(ended)


FORGED: dict[str, Callable[[Records], Any]] = {
    "number as text": lambda r: of(r, "ask").update(job="../../x"),
    "negative number": lambda r: of(r, "ask").update(job=-1),
    "huge number": lambda r: of(r, "ask").update(trial=10**30),
    "no values": lambda r: of(r, "ask").pop("values"),
    "values in a list": lambda r: of(r, "ask").update(values=[1]),
    "no info": lambda r: of(r, "ask").update(info=None),
    "unknown parent": lambda r: of(r, "ask").update(parent=99),
    "asked twice": lambda r: r.append(of(r, "ask")),
    "no type": lambda r: of(r, "end").pop("type"),
    "type in a list": lambda r: of(r, "end").update(type=["end"]),
    "value as text": lambda r: of(r, "end").update(value="abc"),
    "no metrics": lambda r: of(r, "end").update(metrics=None),
    "no seconds": lambda r: of(r, "end").update(seconds=None),
    "attempt as text": lambda r: of(r, "end").update(attempt="x"),
    "no status": lambda r: of(r, "end").update(status=None),
    "checkpoint elsewhere": lambda r: of(r, "end").update(checkpoint="../x.ckpt"),
    "continues itself": lambda r: of(r, "start").update(parent=0),
    "start of nobody": lambda r: r.append({"type": "start", "job": 77, "attempt": 1}),
    "deleted nobody": lambda r: r.append({"type": "drop", "jobs": [999]}),
    "deleted nothing": lambda r: r.append({"type": "drop"}),
    "changed to a number": lambda r: r.append({"type": "change", "header": 5}),
    "changed to no seed": lambda r: r.append({"type": "change", "header": {"seed": "x"}}),
    "no fingerprint": lambda r: r[0].pop("fingerprint"),
    "seed as text": lambda r: r[0].update(seed="x"),
    "format from before": lambda r: r[0].update(format=-1),
    "format yes": lambda r: r[0].update(format=True),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=list(FORGED))
def test_record_that_no_sweep_writes_is_damage(
    ended: Path, forged: Callable[[Records], Any]
) -> None:
    """Right check sums, and a content that none of our code expects."""
    rewrite(ended, forged)
    for open_it in (read, Record.resume):
        with pytest.raises(JournalDamaged):
            open_it(ended)


@pytest.mark.parametrize("name", ["lock", FILE, "trials.torn"])
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_of_ours_is_damage(
    ended: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """What a link leads to is not written, and a pipe not waited for."""
    victim = tmp_path / "victim"
    victim.write_bytes((ended / FILE).read_bytes() if name == FILE else b"precious")
    before = victim.read_bytes()
    with open(ended / FILE, "ab") as file:
        file.write(b'{"seq": 9, "ha')
    (ended / name).unlink(missing_ok=True)
    make = {"folder": Path.mkdir, "pipe": os.mkfifo, "link": lambda p: p.symlink_to(victim)}
    make[kind](ended / name)
    with pytest.raises(JournalDamaged, match=name):
        Record.resume(ended)

    assert victim.read_bytes() == before


def test_links_in_the_place_of_passing_files_are_replaced(ended: Path, tmp_path: Path) -> None:
    """The ballast and files under way: nobody else's file is filled with them."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("trials.ballast", "best.yaml.new"):
        (ended / name).symlink_to(victim)
    write_whole(ended / "best.yaml", "lr: 1")
    Record.resume(ended).close()

    assert victim.read_text() == "precious"
    assert not (ended / "best.yaml").is_symlink()


def test_folder_of_a_trial_that_leads_elsewhere_is_refused(ended: Path, tmp_path: Path) -> None:
    """Trials are written there, and deleted."""
    (ended / "5").symlink_to(tmp_path)

    with pytest.raises(JournalDamaged, match="is a link, and trials are written there"):
        Record.resume(ended)


# Which sweep a command continues


def sweep(parent: Path, name: str, stop: str | None = None, **fingerprint: Any) -> Path:
    record = Record.create(parent / name, header(fingerprint=fingerprint or {"space": "a"}))
    if stop is not None:
        record.stop(stop)
    record.close()
    return parent / name


def found(parent: Path) -> str | None:
    folder = newest_unfinished(parent, "bayes", {"space": "a"})
    return None if folder is None else folder.name


def test_newest_unfinished_sweep_is_found_by_number(tmp_path: Path) -> None:
    """10 is newer than 9."""
    for name in ("bayes-9", "bayes-10", "bayes-2"):
        sweep(tmp_path, name)

    assert found(tmp_path) == "bayes-10"


@pytest.mark.parametrize(
    ("stop", "is_over"),
    [(COMPLETE, True), ("fail_fast", True), ("target", True), (TIME_S, False), (None, False)],
)
def test_finished_sweep_is_not_continued(tmp_path: Path, stop: str | None, is_over: bool) -> None:
    """One whose time was over is; it has more of it now."""
    sweep(tmp_path, "bayes-1")
    sweep(tmp_path, "bayes-2", stop=stop)

    assert found(tmp_path) == ("bayes-1" if is_over else "bayes-2")


def test_resumed_sweep_is_unfinished_again(tmp_path: Path) -> None:
    """A larger n_trials went on and was killed."""
    folder = sweep(tmp_path, "bayes-1", stop=COMPLETE)
    Record.resume(folder).close()

    assert found(tmp_path) == "bayes-1"


def damaged(folder: Path) -> None:
    (folder / FILE).write_bytes(b"my notes\n")


def gone(folder: Path) -> None:
    (folder / FILE).unlink()


@pytest.mark.parametrize("spoil", [damaged, gone])
def test_unreadable_sweep_is_not_continued(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Nor does it stand in the way of an older one."""
    sweep(tmp_path, "bayes-1")
    spoil(sweep(tmp_path, "bayes-2"))

    assert found(tmp_path) == "bayes-1"


def test_other_searches_are_not_continued(tmp_path: Path) -> None:
    """Another fingerprint, another strategy, a name that only begins or ends alike."""
    sweep(tmp_path, "bayes-1")
    sweep(tmp_path, "bayes-2", space="b")
    sweep(tmp_path, "random-3")
    sweep(tmp_path, "bayes-old-4")
    sweep(tmp_path, "bayes-5-old")
    sweep(tmp_path, "bayes-old-1")

    assert found(tmp_path) == "bayes-1"


def test_sweep_in_use_is_not_continued(tmp_path: Path) -> None:
    """The command then starts a new one."""
    sweep(tmp_path, "bayes-1")
    running = Record.create(tmp_path / "bayes-2", HEADER)

    assert found(tmp_path) == "bayes-1"
    running.close()


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    """The first sweep of all."""
    assert found(tmp_path / "outputs") is None


def test_next_folder_follows_the_largest_number(tmp_path: Path) -> None:
    """It is made at once, so that it is taken."""
    for name in ("bayes-9", "bayes-10", "random-20", "bayes-x", "bayes-old-30"):
        (tmp_path / name).mkdir()

    assert next_folder(tmp_path, "bayes") == tmp_path / "bayes-11"
    assert next_folder(tmp_path, "bayes") == tmp_path / "bayes-12"
    assert next_folder(tmp_path, "pbt") == tmp_path / "pbt-1"
    assert (tmp_path / "bayes-12").is_dir()


def _take(parent: Path, n: int, taken: Any) -> None:
    for _ in range(n):
        taken.put(next_folder(parent, "grid").name)


def test_processes_never_share_a_folder(tmp_path: Path) -> None:
    """Four that ask at the same time, 25 times each."""
    context = multiprocessing.get_context("fork")
    taken: Any = context.SimpleQueue()
    processes = [context.Process(target=_take, args=(tmp_path, 25, taken)) for _ in range(4)]
    for process in processes:
        process.start()
    names = [taken.get() for _ in range(100)]
    for process in processes:
        process.join()

    assert len(set(names)) == 100


# Differences


def searched(*names: str) -> dict[str, Any]:
    return {"space": {"parameters": {name: {"low": 0.0} for name in names}, "where": None}}


LR_GONE = "space.parameters.lr: {'low': 0.0} -> gone"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 -> 2"]),
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": 1, "b": 2}, {"a": 1}, ["b: 2 -> gone"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c: 2 -> 3"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a: {'b': 1} -> 1"]),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a: [1, 2] -> [1, 3]"]),
        ({"a": None}, {"a": 0}, ["a: None -> 0"]),
        ({}, {"a": 1}, []),
        (searched("lr"), searched("lr", "momentum"), ["space.parameters.momentum: new"]),
        (searched("lr"), searched("momentum"), ["space.parameters.momentum: new", LR_GONE]),
    ],
)
def test_differences_are_named(
    old: dict[str, Any], new: dict[str, Any], expected: list[str]
) -> None:
    """A line a key; what only a later version writes is none, but one more parameter is."""
    assert expected == differences(old, new)
