"""A journal of which one bit was flipped, anywhere."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from headers import header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_run_loop import history, plain, start

from hydra_plugins.tune_sweeper.run import _journal
from hydra_plugins.tune_sweeper.run._journal import JournalDamaged
from hydra_plugins.tune_sweeper.run._record import FILE, End, Record, read
from hydra_plugins.tune_sweeper.run._repair import repair
from hydra_plugins.tune_sweeper.search._trial import Proposal

N_JOBS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The journal of a sweep of four jobs, one after the other."""
    folder = tmp_path_factory.mktemp("whole")
    record = Record.create(folder, header(fingerprint={"space": {"x": [0.0, 1.0]}}))
    for number in range(N_JOBS):
        job = record.start(record.ask(Proposal(number, {"x": number / 8})))
        record.end(End(job.number, job.attempt, "done", 1.5))
    record.close()
    return (folder / FILE).read_bytes()


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_flipped_bit_costs_no_other_record(
    whole: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    """It is noticed wherever it is; repair loses its own record and what that makes senseless."""
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / FILE).write_bytes(damaged)
    before = [_journal.decode(line) or {} for line in whole.splitlines()]
    touched = before[whole[:place].count(b"\n")]
    is_newline = whole[place : place + 1] == b"\n"

    try:
        kept = _journal.read(tmp_path / FILE).records
        assert kept == before[: len(kept)] and len(before) - len(kept) <= 1
    except JournalDamaged:
        assert repair(tmp_path) is not None
        kept = _journal.read(tmp_path / FILE).records
        lost = [] if is_newline or touched["type"] == "header" else [touched]
        if touched in lost and touched["type"] == "ask":
            lost += [r for r in before if r.get("job") == touched["job"] and r != touched]
        assert [_facts(r) for r in kept] == [_facts(r) for r in before if r not in lost]


@pytest.mark.parametrize(("lost", "trials"), [(4, {0, 2}), (6, {0, 1}), (8, {0, 1, 2})])
def test_configuration_that_lacks_a_repeat_is_lost(
    tmp_path: Path, lost: int, trials: set[int]
) -> None:
    """Its mean could never be told; of the last one the missing repeats are asked for again."""
    record = Record.create(tmp_path, header())
    for number in range(9):
        trial, repeat = divmod(number, 3)
        job = record.start(record.ask(Proposal(trial, {"x": 0.5}), repeat, n_repeats=3))
        record.end(End(job.number, job.attempt, "done", 1.5))
    record.close()
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    asks = [i for i, line in enumerate(lines) if b'"type": "ask"' in line]
    lines[asks[lost]] = lines[asks[lost]].replace(b"0.5", b"0.6")
    (tmp_path / FILE).write_bytes(b"".join(lines))

    assert repair(tmp_path) is not None
    kept = _journal.read(tmp_path / FILE).records
    assert {r["trial"] for r in kept if r["type"] == "ask"} == trials


NAMES = ["random", "bayes", "pbt", "pbt, two at once", "asha", "random, repeats"]


@pytest.mark.parametrize("name", NAMES)
def test_end_that_was_lost_changes_nothing(name: str, tmp_path: Path) -> None:
    """The result lies in the job's folder, and belongs before whatever continued its training."""
    unbroken = start(tmp_path / "unbroken", name)
    unbroken.run()
    for i, folder in _damaged(tmp_path / "unbroken"):
        for _ in range(2):  # the end that is found now stands behind those of its children
            resumed = start(folder, name)
            resumed.run()

            assert plain(history(resumed)) == plain(history(unbroken)), f"without line {i}"
            assert resumed.loop.progress.best == unbroken.loop.progress.best


@pytest.mark.parametrize("name", ["pbt, two at once", "asha"])
def test_end_that_was_lost_with_its_result_ends_the_sweep_all_the_same(
    name: str, tmp_path: Path
) -> None:
    """Where a child began, its parent is not trained again."""
    unbroken = start(tmp_path / "unbroken", name)
    unbroken.run()
    for i, folder in _damaged(tmp_path / "unbroken", is_without_result=True):
        resumed = start(folder, name)

        assert resumed.run() == "complete"
        steps = [(job.proposal.trial, job.proposal.step) for job in resumed.record.jobs.values()]
        assert len(set(steps)) == len(steps), f"without line {i}"


def _damaged(whole: Path, *, is_without_result: bool = False) -> Iterator[tuple[int, Path]]:
    """Copies of a sweep of which most was done, each repaired without the end of one job."""
    lines = (whole / FILE).read_bytes().splitlines(keepends=True)
    lines = lines[: int(len(lines) * 0.7)]
    for i in (i for i, line in enumerate(lines[:-1]) if b'"type": "end"' in line):
        folder = whole.with_name(f"{i}")
        shutil.copytree(whole, folder)
        if is_without_result:
            job = json.loads(lines[i])["job"]
            (ask,) = (r for r in map(json.loads, lines) if r["type"] == "ask" and r["job"] == job)
            (folder / ask["folder"] / "result.json").unlink()
        damaged = [*lines[:i], lines[i].replace(b'"end"', b'"enb"'), *lines[i + 1 :]]
        (folder / FILE).write_bytes(b"".join(damaged))
        assert repair(folder) is not None
        yield i, folder


def _facts(record: dict[str, object]) -> dict[str, object]:
    """All but the number, which a repaired journal counts anew."""
    return {k: v for k, v in record.items() if k != "seq"}


@pytest.mark.parametrize("order", ["swapped", "reversed", "shuffled"])
def test_lines_that_lost_their_order_find_it_again(
    whole: bytes, tmp_path: Path, order: str
) -> None:
    """Each has its number; nothing that was finished runs again."""
    lines = whole.splitlines(keepends=True)
    moved = list(lines)
    if order == "swapped":
        moved[3], moved[4] = moved[4], moved[3]
    elif order == "reversed":
        moved.reverse()
    else:
        random.Random(1).shuffle(moved)
    (tmp_path / FILE).write_bytes(b"".join(moved))
    found = repair(tmp_path)

    assert found is not None and found.kept == len(lines)
    assert (tmp_path / FILE).read_bytes() == whole


def test_records_of_another_sweep_are_left_out(whole: bytes, tmp_path: Path) -> None:
    """Its numbers are those of our jobs, its results are not."""
    other = Record.create(tmp_path / "other", header())
    job = other.start(other.ask(Proposal(N_JOBS, {"x": 0.9})))
    other.end(End(job.number, job.attempt, "done", 7.5))
    other.close()
    (tmp_path / FILE).write_bytes(whole + (tmp_path / "other" / FILE).read_bytes())
    found = repair(tmp_path)

    assert found is not None
    assert len(found.foreign) == 5  # its header and session, and what happened to its job
    assert (tmp_path / FILE).read_bytes() == whole


def test_record_that_no_sweep_writes_is_left_out(whole: bytes, tmp_path: Path) -> None:
    """As one that cannot be read: else the sweep would be refused for ever."""
    lines = whole.splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if b'"type": "end"' in line)
    end = {k: v for k, v in (_journal.decode(lines[place]) or {}).items() if k != "crc"}
    lines[place] = _journal.encode({**end, "checkpoint": "../../x"})
    (tmp_path / FILE).write_bytes(b"".join(lines))
    found = repair(tmp_path)

    assert found is not None and found.damaged == [place + 1]
    assert len(read(tmp_path).ends) == N_JOBS - 1
