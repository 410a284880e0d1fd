"""The journal: what was acknowledged is there, whatever happens to the process or the disk."""

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_plugins.tune_sweeper.run import _journal
from hydra_plugins.tune_sweeper.run._journal import (
    FORMAT,
    Journal,
    JournalDamaged,
    JournalError,
    JournalLocked,
    JournalTooNew,
    Lock,
    create,
    decode,
    encode,
    read,
)

ROOT = Path(__file__).parents[2]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Equality in which NaN equals itself and 1 is not 1.0."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


# Lines


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(json_values)
def test_record_survives_its_line(value: Any) -> None:
    """Any JSON value, NaN, the infinities, newlines and half surrogates included."""
    record = {"seq": 0, "value": value}
    line = encode(record)
    decoded = decode(line)

    assert line.count(b"\n") == 1
    assert decoded is not None
    assert same(record, decoded)


@pytest.mark.parametrize(
    "value",
    [
        {"float": 0.5},
        {"float": "abc"},
        {"float": None},
        {"float": [1]},
        {"crc": "00000000"},
        {"seq": "x"},
        ', "crc": "12345678"}',
        math.nan,
        [math.inf, -math.inf],
        "line one\nline two\r\n\u2028\x00",
        "\ud800",
        10**400,
        -0.0,
        5e-324,
    ],
)
def test_hostile_value_survives_its_line(value: Any) -> None:
    """A parameter may be named float, and a text may look like our own marks."""
    decoded = decode(encode({"seq": 7, "value": value}))

    assert decoded is not None
    assert same({"seq": 7, "value": value}, decoded)


def test_line_is_strict_json_that_ends_with_its_check_sum() -> None:
    """So it can be read by other tools: no NaN, one object, crc last."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    line = encode({"seq": 1, "type": "end", "value": math.nan, "text": "\n"})
    record = json.loads(line, parse_constant=refuse)

    assert record["value"] == {"float": "nan"}
    assert [*record][-1] == "crc"


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    """In the record, in its check sum, or in its newline."""
    line = bytearray(encode({"seq": 3, "type": "end", "value": 0.123, "text": "ab"}))
    bit = data.draw(st.integers(0, 8 * len(line) - 1))
    line[bit // 8] ^= 1 << bit % 8

    assert decode(bytes(line)) is None


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000 + b', "crc": "0"}',
        b"",
        b"\n",
        b"{}",
        b"null\n",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\xff\xfe\n",
        b"\0",
    ],
)
def test_garbage_is_no_record(line: bytes) -> None:
    """Nor does it raise, however deep it nests."""
    assert decode(line) is None


# Files


def make(folder: Path, n: int = 5) -> Path:
    """A journal with a header and n records, closed."""
    path = folder / "trials.jsonl"
    create(path, {"sweep": "abc"})
    journal = Journal(path)
    for i in range(n):
        journal.append("end", job=i, value=i / 7)
    journal.close()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path)


def numbers(path: Path) -> list[int]:
    return [record["seq"] for record in read(path).records]


def test_journal_keeps_records_in_order(path: Path) -> None:
    """Header first, numbered from zero, each with a type and a time."""
    records = read(path).records

    assert [r["seq"] for r in records] == [0, 1, 2, 3, 4, 5]
    assert ["header", *["end"] * 5] == [r["type"] for r in records]
    assert records[0]["format"] == FORMAT
    assert all(isinstance(r["time"], float) for r in records)


def test_order_is_by_number_not_by_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock may jump back, and two records may have the same time."""
    journal = Journal(path)
    for now in (1000.0, 1000.0, 5.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        journal.append("end")
    journal.close()

    assert list(range(9)) == numbers(path)
    assert [r["time"] for r in read(path).records[-3:]] == [1000.0, 1000.0, 5.0]


def test_header_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before the rename leaves no journal."""

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        create(tmp_path / "trials.jsonl", {})

    assert not (tmp_path / "trials.jsonl").exists()


def last_line(data: bytes) -> bytes:
    return data.splitlines(keepends=True)[-1]


TAILS: dict[str, Callable[[bytes], bytes]] = {
    "half a line": lambda data: data + last_line(data)[:30],
    "one byte": lambda data: data + b"{",
    "NULs": lambda data: data + bytes(4096),
    "half a line and NULs": lambda data: data + last_line(data)[:30] + bytes(100),
    "garbage": lambda data: data + random.Random(0).randbytes(300),
    "bad check sum": lambda data: data + last_line(data).replace(b"end", b"ask"),
}


@pytest.mark.parametrize("damage", TAILS.values(), ids=TAILS)
def test_torn_tail_is_set_aside(path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Good records stay, what follows is copied beside the journal, and writing goes on, twice."""
    whole = path.read_bytes()
    for n_more in (1, 2):
        torn = damage(path.read_bytes())[len(path.read_bytes()) :]
        path.write_bytes(path.read_bytes() + torn)
        journal = Journal(path)
        journal.append("end", job=99)
        journal.close()

        assert torn == journal.torn
        assert list(range(6 + n_more)) == numbers(path)
    assert path.read_bytes().startswith(whole)
    assert path.with_suffix(".torn").read_bytes().endswith(torn)


def test_last_record_without_its_newline_is_kept(path: Path) -> None:
    """It was written whole; the next one starts a new line."""
    path.write_bytes(path.read_bytes()[:-1])
    journal = Journal(path)
    journal.append("end")
    journal.close()

    assert journal.torn == b""
    assert list(range(7)) == numbers(path)


def test_reader_sees_a_torn_tail_and_changes_nothing(path: Path) -> None:
    """`status` of a running sweep may come in the middle of a write."""
    path.write_bytes(path.read_bytes() + b'{"seq": 6, "ty')
    before = path.read_bytes()

    assert list(range(6)) == numbers(path)
    assert before == path.read_bytes()


def flip(lines: list[bytes], index: int) -> list[bytes]:
    line = bytearray(lines[index])
    line[len(line) // 2] ^= 4
    return [*lines[:index], bytes(line), *lines[index + 1 :]]


DAMAGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int, str]] = {
    "bit flip": (lambda lines: flip(lines, 2), 3, "the record is damaged"),
    "bit flip in the header": (lambda lines: flip(lines, 0), 1, "the record is damaged"),
    "missing": (lambda lines: lines[:2] + lines[3:], 3, "has number 3, expected 2"),
    "missing header": (lambda lines: lines[1:], 1, "has number 1, expected 0"),
    "doubled": (lambda lines: lines[:3] + lines[2:], 4, "has number 2, expected 3"),
    "doubled last": (lambda lines: [*lines, lines[-1]], 7, "has number 5, expected 6"),
    "swapped": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3, "has number 3"),
    "empty line": (lambda lines: [*lines[:2], b"\n", *lines[2:]], 3, "the record is damaged"),
}


@pytest.mark.parametrize(("damage", "line", "what"), DAMAGES.values(), ids=DAMAGES)
def test_damage_in_the_middle_is_refused(
    path: Path, damage: Callable[[list[bytes]], list[bytes]], line: int, what: str
) -> None:
    """With the file, the line, and what is wrong; nothing is changed."""
    data = b"".join(damage(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(data)
    with pytest.raises(JournalDamaged) as caught:
        Journal(path)

    assert f"{path}, line {line}: " in str(caught.value)
    assert what in str(caught.value)
    assert data == path.read_bytes()


def test_newer_format_is_refused(path: Path) -> None:
    """Both versions are named; nothing is changed."""
    lines = path.read_bytes().splitlines(keepends=True)
    record = decode(lines[0]) or {}
    data = b"".join([encode({**record, "format": FORMAT + 1}), *lines[1:]])
    path.write_bytes(data)
    with pytest.raises(JournalTooNew, match=f"format {FORMAT + 1}; .* up to {FORMAT}"):
        Journal(path)

    assert data == path.read_bytes()


FOREIGN = {
    "empty": b"",
    "text": b"my notes\nsecond line\n",
    "no newline": b"my notes",
    "json lines": b'{"loss": 1.0}\n{"loss": 0.5}\n',
    "binary": bytes(range(256)),
    "other journal": encode({"seq": 0, "type": "begin"}) + encode({"seq": 1, "type": "end"}),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_foreign_file_is_refused_not_repaired(tmp_path: Path, data: bytes) -> None:
    """Somebody's own trials.jsonl stays as it is."""
    path = tmp_path / "trials.jsonl"
    path.write_bytes(data)
    with pytest.raises(JournalError, match="is no sweep's journal"):
        Journal(path)

    assert data == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


# Full disks


class Disk:
    """Stands before a journal's file and fails its writes, after a few bytes."""

    def __init__(self, journal: Journal, fails: Callable[[], bool]) -> None:
        self._file = journal._file
        self._fails = fails
        journal._file = self  # type: ignore[assignment]

    def write(self, data: bytes) -> int:
        if self._fails():
            self._file.write(data[:10])
            raise OSError(errno.ENOSPC, "no space left on device")
        return self._file.write(data) or 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_ballast_is_freed_for_one_more_write(path: Path) -> None:
    """The record that says why the sweep stops still finds room."""
    journal = Journal(path)
    ballast = path.with_suffix(".ballast")
    n_bytes = ballast.stat().st_size
    Disk(journal, fails=ballast.exists)
    journal.append("stop", reason="disk full")
    journal.close()

    assert n_bytes == 64 * 1024
    assert read(path).records[-1]["reason"] == "disk full"


def test_failed_write_leaves_the_journal_whole(path: Path) -> None:
    """Half a record is taken back; when there is room again, the numbers go on."""
    journal = Journal(path)
    is_full = True
    Disk(journal, fails=lambda: is_full)
    with pytest.raises(OSError, match="no space left"):
        journal.append("end")

    assert list(range(6)) == numbers(path)
    assert not read(path).tail
    is_full = False
    journal.append("end")
    journal.close()
    assert list(range(7)) == numbers(path)


def test_failed_sync_leaves_the_journal_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system reports a full disk only there: the record does not count."""
    journal = Journal(path)

    def fail(_: int) -> None:
        raise OSError(errno.EDQUOT, "disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="quota"):
            journal.append("end", job="lost")
    journal.append("end", job="kept")
    journal.close()

    assert list(range(7)) == numbers(path)
    assert read(path).records[-1]["job"] == "kept"


def script(code: str, *arguments: object) -> list[str]:
    """A command that runs code which knows the journal."""
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    head += "from pathlib import Path\n"
    head += "from hydra_plugins.tune_sweeper.run._journal import *\n"
    return [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)]


def test_full_disk_tears_no_record(path: Path) -> None:
    """A real limit of the kernel: every record that fitted is there, and resuming works."""
    code = """
        import resource
        path = Path(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
        journal = Journal(path)
        try:
            while True:
                print(journal.append("end", text="x" * 90)["seq"], flush=True)
        except OSError as error:
            print(type(error).__name__, flush=True)
    """
    done = subprocess.run(script(code, path), capture_output=True, text=True, check=True)
    *acknowledged, error = done.stdout.split()
    contents = read(path)

    assert error == "OSError"
    assert len(acknowledged) > 30
    assert int(acknowledged[-1]) == contents.records[-1]["seq"]
    assert contents.tail == b""
    journal = Journal(path)
    journal.append("session")
    journal.close()
    assert numbers(path) == list(range(int(acknowledged[-1]) + 2))


# Kills


def test_killed_writer_loses_no_acknowledged_record(tmp_path: Path) -> None:
    """30 times kill -9 at a random moment: all that append returned for can be read, in order."""
    path = make(tmp_path, n=0)
    code = """
        import os
        journal = Journal(Path(sys.argv[1]))
        os.write(1, b"%d\\n" % (len(journal.records) - 1))
        while True:
            record = journal.append("end", text="x" * 500)
            os.write(1, b"%d\\n" % record["seq"])
    """
    rng = random.Random(0)
    for _ in range(30):
        writer = subprocess.Popen(script(code, path), stdout=subprocess.PIPE)
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(rng.random() * 0.02)
        writer.kill()
        acknowledged = first + writer.communicate()[0]
        last = int(acknowledged.splitlines()[-1]) if acknowledged.endswith(b"\n") else 0

        found = numbers(path)
        assert found == list(range(len(found)))
        assert len(found) > last


# The lock


def test_second_writer_is_refused(tmp_path: Path) -> None:
    """At once, naming the folder, the process and the host; the first one goes on."""
    lock = Lock(tmp_path)
    with pytest.raises(JournalLocked, match=f"process {os.getpid()} on ") as caught:
        Lock(tmp_path)
    lock.release()

    assert str(tmp_path) in str(caught.value)
    Lock(tmp_path).release()


def test_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    """No stale lock, no grace period."""
    code = "lock = Lock(Path(sys.argv[1])); print('taken', flush=True); sys.stdin.read()"
    owner = subprocess.Popen(
        script(code, tmp_path), stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "taken\n"
    with pytest.raises(JournalLocked, match=f"process {owner.pid} on "):
        Lock(tmp_path)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()

    Lock(tmp_path).release()


def test_lock_is_not_held_by_a_child_of_its_owner(tmp_path: Path) -> None:
    """As a trial in the sweep's own process may leave one behind."""
    code = """
lock = Lock(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(60)
print(child, flush=True)
os._exit(0)
"""
    owner = subprocess.run(script(code, tmp_path), stdout=subprocess.PIPE, text=True)
    child = int(owner.stdout)

    Lock(tmp_path).release()
    os.kill(child, signal.SIGKILL)


def test_lock_without_a_readable_owner_is_still_a_lock(tmp_path: Path) -> None:
    """Between taking it and writing the name."""
    lock = Lock(tmp_path)
    (tmp_path / "lock").write_text("")
    with pytest.raises(JournalLocked, match="in use by another process"):
        Lock(tmp_path)
    lock.release()


# Costs


def test_reading_costs_little(tmp_path: Path) -> None:
    """20,000 records in well under a second of CPU (2 s are allowed for 100,000)."""
    path = tmp_path / "trials.jsonl"
    create(path, {})
    with open(path, "ab") as file:
        file.writelines(
            encode({"seq": i, "type": "end", "time": 1.0, "job": i, "metrics": {"loss": i / 7}})
            for i in range(1, 20_001)
        )
    start = time.process_time()
    n = len(_journal.read(path).records)

    assert n == 20_001
    assert time.process_time() - start < 1.0
