"""What a task may return or raise, and the file that tells it."""

import decimal
import errno
import json
import math
import os
import sys
import types
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_plugins.tune_sweeper.run import _result
from hydra_plugins.tune_sweeper.run._result import (
    CHECKPOINT,
    DONE,
    FAILED,
    FILE,
    INTERRUPTED,
    INVALID,
    OOM,
    REFUSED,
    UNREADABLE,
    Result,
    WrongReturn,
    read,
    record,
    split,
    write,
)


class Scalar:
    """As torch's: a number with dimensions, of which there are none."""

    ndim = 0

    def __repr__(self) -> str:  # names a test, so it must hold no address
        return type(self).__name__

    def __float__(self) -> float:
        return 1.5


class Vector(Scalar):
    """As a tensor of one element, which float() would take."""

    ndim = 1


NUMBERS: list[tuple[Any, float]] = [
    (3, 3.0),
    (0.5, 0.5),
    (np.float32(0.5), 0.5),
    (np.int64(7), 7.0),
    (np.array(2.5), 2.5),
    (Scalar(), 1.5),
    (Fraction(1, 4), 0.25),
    (math.inf, math.inf),
]


@pytest.mark.parametrize(("value", "expected"), NUMBERS, ids=[repr(v) for v, _ in NUMBERS])
def test_numbers_of_all_kinds_are_metrics(value: Any, expected: float) -> None:
    """Alone, by name, and in a history; what comes out is a plain float."""
    alone, _ = split(value)
    named, histories = split({"loss": value, "curve": [1.0, value]})

    assert alone == {"value": expected}
    assert named == {"loss": expected, "curve": expected}
    assert histories == {"curve": [1.0, expected]}
    assert {type(v) for v in [*alone.values(), *named.values(), *histories["curve"]]} == {float}


def test_nan_is_a_number() -> None:
    """It is judged later, by the name of the metric that counts."""
    metrics, histories = split({"loss": math.nan, "curve": (math.nan, 1.0)})

    assert math.isnan(metrics["loss"])
    assert math.isnan(histories["curve"][0])
    assert metrics["curve"] == 1.0


WRONG: list[tuple[Any, str]] = [
    (None, r"returned None \(NoneType\)"),
    ("0.5", r"returned '0.5' \(str\)"),
    (True, r"returned True \(bool\)"),
    (np.bool_(True), "returned np.True_"),
    (b"1", "bytes"),
    (1j, "complex"),
    (np.complex64(1), "complex64"),
    ([], r"returned \[\] \(list\)"),
    ([0.5, 0.4], r"returned \[0.5, 0.4\] \(list\)"),
    ({}, r"returned \{\} \(dict\)"),
    ((1, 2), "tuple"),
    (object(), "object"),
    (np.array([1.0]), "ndarray"),
    (Vector(), "Vector"),
    ({"loss": None}, r"returned loss=None \(NoneType\)"),
    ({"loss": "low"}, "returned loss='low'"),
    ({"loss": {"train": 1.0}}, "returned loss={'train': 1.0}"),
    ({"loss": []}, r"returned loss=\[\]"),
    ({"loss": [1.0, None]}, r"returned loss=\[1.0, None\]"),
    ({"loss": [[1.0]]}, r"returned loss=\[\[1.0\]\]"),
    ("x" * 500, r"returned 'xxx.*\.\.\. \(str\)"),
]


@pytest.mark.parametrize(("value", "message"), WRONG, ids=[m for _, m in WRONG])
def test_everything_else_is_refused(value: Any, message: str) -> None:
    """With what came, its type, and what was expected."""
    with pytest.raises(WrongReturn, match=message) as caught:
        split(value)

    assert "expected a number, or a mapping of names to numbers" in str(caught.value)
    assert len(str(caught.value)) < 300


# Recording


def raiser(error: BaseException) -> Callable[[], Any]:
    def task() -> Any:
        raise error

    return task


def test_finished_task_is_recorded(tmp_path: Path) -> None:
    """What is returned is what stands in the file."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    result = record(lambda: {"loss": [2.0, 1.0], "epochs": 2}, tmp_path, attempt=3)

    assert result == read(tmp_path)
    assert (result.status, result.attempt, result.epochs_done) == (DONE, 3, 2)
    assert result.metrics == {"loss": 1.0, "epochs": 2.0}
    assert result.histories == {"loss": [2.0, 1.0]}
    assert result.checkpoint == "checkpoints/last.ckpt"
    assert 0 <= result.seconds < 1


def test_task_without_checkpoint_or_epochs_is_recorded(tmp_path: Path) -> None:
    """They are facts of a training, not duties of a task."""
    result = record(lambda: 1.0, tmp_path)

    assert (result.checkpoint, result.epochs_done) == (None, None)


def test_wrong_return_is_invalid(tmp_path: Path) -> None:
    """Not failed: the task is at fault in every trial."""
    result = record(lambda: None, tmp_path)

    assert result.status == INVALID
    assert "returned None" in str(result.error)


class Unshowable(Exception):
    """An exception whose message cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class Unpicklable(Exception):
    """An exception that no process could send to another."""

    def __init__(self, needed: object) -> None:
        super().__init__("kept here")
        self.lock = sys.stdout


FAILURES: list[tuple[BaseException, str]] = [
    (ValueError("bad lr"), "ValueError: bad lr"),
    (ValueError("first line\nsecond"), "ValueError: first line"),
    (ValueError(), "ValueError:"),
    (Unshowable(), "Unshowable: (its message could not be read)"),
    (Unpicklable(1), "Unpicklable: kept here"),
    (SystemExit(3), "SystemExit: 3"),
    (SystemExit(0), "SystemExit: 0"),
    (RecursionError("deep"), "RecursionError: deep"),
    (StopIteration(1), "StopIteration: 1"),
    (UnicodeError("\ud800 \x00"), "UnicodeError: \\ud800 \x00"),
]


@pytest.mark.parametrize(("error", "line"), FAILURES, ids=[type(e).__name__ for e, _ in FAILURES])
def test_failure_is_recorded_as_text(error: BaseException, line: str, tmp_path: Path) -> None:
    """Type and message on one line, and the traceback down to the task."""
    result = record(raiser(error), tmp_path)

    assert result == read(tmp_path)
    assert (result.status, result.error) == (FAILED, line)
    assert "in task" in str(result.traceback)


def test_long_message_is_cut_in_its_middle(tmp_path: Path) -> None:
    """Somebody's message is the whole batch; the journal and the terminal show its two ends."""
    result = record(raiser(ValueError("first " + 10**7 * "x" + " last")), tmp_path)

    assert str(result.error).startswith("ValueError: first x") and str(result.error).endswith(
        "last"
    )
    assert "in task" in str(result.traceback)
    assert (tmp_path / "result.json").stat().st_size < 60_000


class OutOfMemoryError(RuntimeError):
    """As torch's, by name."""


TOO_LARGE = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")


@pytest.mark.parametrize("error", [MemoryError(), OutOfMemoryError("CUDA"), TOO_LARGE], ids=repr)
def test_lack_of_memory_has_a_status_of_its_own(error: Exception, tmp_path: Path) -> None:
    """Of the host or of the device, and of torch's CPU allocator, which has no class for it."""
    assert record(raiser(error), tmp_path).status == OOM


def test_training_that_sigterm_ended_is_interrupted(tmp_path: Path) -> None:
    """It did not fail, and may have left a checkpoint."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / CHECKPOINT).write_bytes(b"x")
    result = record(raiser(SystemExit(143)), tmp_path)

    assert (result.status, result.checkpoint) == (INTERRUPTED, CHECKPOINT)


def test_checkpoint_that_could_not_be_read_is_no_failure(tmp_path: Path) -> None:
    """The training can begin again without it."""
    error = RuntimeError("damaged")
    error.is_unreadable_checkpoint = True  # type: ignore[attr-defined]

    assert record(raiser(error), tmp_path).status == UNREADABLE


def test_interrupt_passes(tmp_path: Path) -> None:
    """Ctrl-C is no failure of the trial: nothing is written."""
    with pytest.raises(KeyboardInterrupt):
        record(raiser(KeyboardInterrupt()), tmp_path)

    assert read(tmp_path) is None


class Refusal(Exception):
    """As train.check has it; duck-typed, so a task needs nothing of the plugin."""

    is_refusal = True


def test_refusal_is_told_in_the_tasks_own_words(tmp_path: Path) -> None:
    """Without the name of the class."""
    result = record(raiser(Refusal("batch_size=4096 is larger than the data")), tmp_path)

    assert (result.status, result.error) == (REFUSED, "batch_size=4096 is larger than the data")


@pytest.mark.parametrize("mark", [False, None, "yes", 1])
def test_only_true_marks_a_refusal(mark: Any, tmp_path: Path) -> None:
    """An attribute of that name with another meaning does not."""
    error = ValueError("x")
    error.is_refusal = mark  # type: ignore[attr-defined]

    assert record(raiser(error), tmp_path).status == FAILED


def fake_torch(is_cuda: bool) -> types.SimpleNamespace:
    cuda = types.SimpleNamespace(is_initialized=lambda: is_cuda)
    return types.SimpleNamespace(get_num_threads=lambda: 2, cuda=cuda)


@pytest.mark.parametrize(("is_cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_device_and_threads_are_those_of_torch(
    is_cuda: bool, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the task used it; nothing is imported to find out."""
    monkeypatch.setitem(sys.modules, "torch", fake_torch(is_cuda))
    result = record(lambda: 1.0, tmp_path)

    assert (result.device, result.threads) == (device, 2)


def test_device_is_unknown_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may need no torch at all."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    result = record(lambda: 1.0, tmp_path)

    assert (result.device, result.threads) == (None, None)
    assert "torch" not in sys.modules


# The file


metrics = st.dictionaries(st.text(max_size=5), st.floats(), max_size=4)
results = st.builds(
    Result,
    status=st.sampled_from([DONE, FAILED]),
    metrics=metrics,
    histories=st.dictionaries(st.text(max_size=5), st.lists(st.floats(), max_size=3), max_size=2),
    error=st.none() | st.text(),
    traceback=st.none() | st.text(),
    seconds=st.floats(0, 1e6),
    attempt=st.integers(1, 9),
)


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(results)
def test_result_survives_its_file(tmp_path_factory: pytest.TempPathFactory, result: Result) -> None:
    """NaN, the infinities and hostile texts included."""
    folder = tmp_path_factory.getbasetemp() / "result"
    write(folder, result)

    assert repr(result) == repr(read(folder))


def test_file_is_strict_json(tmp_path: Path) -> None:
    """Other programs may read it."""
    write(tmp_path, Result(DONE, {"loss": math.nan}))
    data = json.loads((tmp_path / "result.json").read_text(), parse_constant=lambda name: 1 / 0)

    assert data["metrics"]["loss"] == {"float": "nan"}


def test_file_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in the middle of writing leaves what was there before."""
    write(tmp_path, Result(DONE, {"loss": 1.0}))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Result(DONE, {"loss": 2.0}))

    assert read(tmp_path) == Result(DONE, {"loss": 1.0})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'{"status": "done", "new": 1}',
        b"{}",
        b"\xff\xfe",
        b"\0" * 99,
    ],
)
def test_unreadable_file_is_no_result(tmp_path: Path, content: bytes) -> None:
    """The job then counts as one that left none."""
    (tmp_path / _result.FILE).write_bytes(content)

    assert read(tmp_path) is None


def test_absent_file_is_no_result(tmp_path: Path) -> None:
    """Nor is an absent folder."""
    assert read(tmp_path) is None
    assert read(tmp_path / "nowhere") is None


FORGED: dict[str, dict[str, Any]] = {
    "metrics": {"metrics": [1.0]},
    "metric as text": {"metrics": {"loss": "low"}},
    "huge metric": {"metrics": {"loss": 10**400}},
    "histories": {"histories": "1.0"},
    "history": {"histories": {"loss": 1.0}},
    "seconds": {"seconds": "long"},
    "status": {"status": ["done"]},
    "checkpoint elsewhere": {"checkpoint": "../../../x"},
    "attempt": {"attempt": None},
    "error": {"error": 5},
    "epochs": {"epochs_done": "two"},
    "another field": {"more": 1},
}


@pytest.mark.parametrize("changes", FORGED.values(), ids=list(FORGED))
def test_result_that_no_job_writes_is_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    """It would be recorded, and every reader stumble over it for ever."""
    write(tmp_path, Result(DONE, {"loss": 1.0}, seconds=1.0))
    text = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**text, **changes}))

    assert read(tmp_path) is None


@pytest.mark.parametrize("content", ["[" * 100_000, "null", "{}", "\x00"])
def test_text_that_is_no_result_is_none(tmp_path: Path, content: str) -> None:
    """Nested deeper than any reader goes, or nothing at all."""
    (tmp_path / FILE).write_text(content)

    assert read(tmp_path) is None


def test_device_in_the_place_of_a_result_is_none(tmp_path: Path) -> None:
    """It would be read for ever."""
    (tmp_path / FILE).symlink_to("/dev/zero")

    assert read(tmp_path) is None


class Told(type):
    """A class that does not say its name."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class NoName(Exception, metaclass=Told):
    pass


class ExitsWhenShown(Exception):
    def __str__(self) -> str:
        sys.exit("no message")


class RaisesWhenAsked(Exception):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class RaisesAlways(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


FIGHTERS: list[Callable[[], BaseException]] = [
    NoName,
    ExitsWhenShown,
    RaisesWhenAsked,
    RaisesAlways,
    lambda: SystemExit(Incomparable()),
]


@pytest.mark.parametrize("make", FIGHTERS, ids=range(len(FIGHTERS)))
def test_error_that_fights_back_is_a_failure(
    tmp_path: Path, make: Callable[[], BaseException]
) -> None:
    """Whatever its own methods raise."""
    assert record(lambda: raiser(make())(), tmp_path).status == FAILED
    assert read(tmp_path) is not None


def test_interrupt_of_a_task_that_nobody_else_can_have_sent_is_a_failure(tmp_path: Path) -> None:
    """A worker does not listen to Ctrl-C."""
    assert record(raiser(KeyboardInterrupt()), tmp_path, hears_ctrl_c=False).status == FAILED


OUT_OF_MEMORY = [
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"),
    RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: str(e)[:20])
def test_memory_that_is_not_there_has_many_names(tmp_path: Path, error: Exception) -> None:
    """Of the system, of CUDA, of C++."""
    assert record(raiser(error), tmp_path).status == OOM


class Unreadable(float):
    def __float__(self) -> float:
        raise ValueError("not to be read")


class NoText:
    def __str__(self) -> str:
        raise RuntimeError("no text")


NO_NUMBERS = [
    10**400,
    Unreadable(1.0),
    decimal.Decimal("sNaN"),
    np.timedelta64(1, "s"),
    np.datetime64("2020-01-01"),
    np.array("0.5"),
    np.array(None, dtype=object),
    {NoText(): 1.0},
    {"loss": NoText()},
]


@pytest.mark.parametrize("returned", NO_NUMBERS, ids=range(len(NO_NUMBERS)))
def test_what_is_no_number_is_named(tmp_path: Path, returned: Any) -> None:
    """As any other wrong return, so that the first trial ends the sweep with a sentence."""
    result = record(lambda: returned, tmp_path)

    assert result.status == INVALID
    assert str(result.error).startswith("the task returned")


def test_name_of_a_metric_can_be_written(tmp_path: Path) -> None:
    """It may be that of a file."""
    record(lambda: {"no file \udcff": 1.0}, tmp_path)
    result = read(tmp_path)

    assert result is not None and result.metrics == {r"no file \udcff": 1.0}


@pytest.mark.parametrize("epochs", [-1.0, 1e17, math.inf])
def test_impossible_number_of_epochs_is_none(tmp_path: Path, epochs: float) -> None:
    """The metric stays what the task said."""
    result = record(lambda: {"loss": 1.0, "epochs": epochs}, tmp_path)

    assert result.status == DONE and result.epochs_done is None
    assert read(tmp_path) == result


def test_training_that_lightning_ended_at_sigterm_was_interrupted(tmp_path: Path) -> None:
    """As where the signal comes before a training listens to it itself."""
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    assert record(raiser(SIGTERMException()), tmp_path).status == "interrupted"
