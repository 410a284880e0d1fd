"""What a job leaves behind: `result.json` in its folder, the truth about how it ended.

The job writes it, whatever launched it, so a launcher that dies loses no finished training.
"""

import errno
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ._journal import tagged, untagged
from ._whole import open_own, write_whole

FILE = "result.json"
SIGTERM_CODE = 128 + signal.SIGTERM  # of a process that SIGTERM ended
VERSION = 1
CHECKPOINT = "checkpoints/last.ckpt"  # where a task that can be continued leaves it
_MOST = 2**53  # whole numbers that every reader of JSON understands
_SPARE_BYTES = 8 * 2**20
_ERROR, _TRACEBACK = 1_000, 50_000  # characters of a failure that are kept
NUMBER = "value"  # name of the metric of a task that returns a bare number

DONE, FAILED, OOM, INVALID, REFUSED = "done", "failed", "oom", "invalid", "refused"
TIMEOUT, STALLED = "timeout", "stalled"  # ended by the sweep
DIED, INTERRUPTED = "died", "interrupted"  # what the world did; they are tried again
UNREADABLE = "unreadable"  # its checkpoint was; without that one it is tried again
LOST = (DIED, INTERRUPTED, UNREADABLE)
STATUSES = (DONE, FAILED, OOM, INVALID, REFUSED, TIMEOUT, STALLED, *LOST)

SLOT = "HYDRA_TUNE_SLOT"  # in the environment of a job: the part of the machine that it has


@dataclass(frozen=True)
class Result:
    """How one job ended.

    `metrics` holds the last value of each metric, `histories` the whole course of those that came
    as lists (one value an epoch).
    """

    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    histories: Mapping[str, list[float]] = field(default_factory=dict)
    error: str | None = None  # one line
    traceback: str | None = None
    seconds: float = 0.0
    epochs_done: int | None = None
    checkpoint: str | None = None
    device: str | None = None
    threads: int | None = None
    slot: str | None = None
    attempt: int = 1
    version: int = VERSION


def read(folder: Path) -> Result | None:
    """The result in a job's folder; None when there is none that can be read."""
    try:
        with open_own(folder / FILE, "r", encoding="utf-8") as file:
            result = Result(**json.load(file, object_hook=untagged))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return result if _is_sound(result) else None


def _is_sound(result: Result) -> bool:
    """Whether it is as `write` writes it: what it says is recorded, and read by everybody."""
    whole = (result.epochs_done, result.threads)
    texts = (result.error, result.traceback, result.device, result.slot)
    return (
        result.status in STATUSES
        and result.checkpoint in (None, CHECKPOINT)
        and isinstance(result.metrics, dict)
        and isinstance(result.histories, dict)
        and _are_floats([result.seconds, *result.metrics.values()])
        and all(isinstance(h, list) and _are_floats(h) for h in result.histories.values())
        and all(n is None or (type(n) is int and 0 <= n < _MOST) for n in whole)
        and all(isinstance(text, str | None) for text in texts)
        and type(result.attempt) is int
    )


def _are_floats(values: Iterable[Any]) -> bool:
    return all(type(value) is float for value in values)


def write(folder: Path, result: Result) -> None:
    """Puts the result into the folder, complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tagged(asdict(result)), allow_nan=False, indent=1)
    write_whole(folder / FILE, text, is_durable=True)


def record(
    task: Callable[[], Any],
    folder: Path,
    *,
    attempt: int = 1,
    threads: int | None = None,
    hears_ctrl_c: bool = True,
) -> Result:
    """Runs the task and writes how it ended; only Ctrl-C passes, as KeyboardInterrupt.

    Where this process does not hear it, as workers do not, the task itself has raised it.

    A task that leaves with the exit code of SIGTERM was interrupted, and did not fail. A process
    that it forked, and that comes back here too, ends.

    `threads` is how many the task was told to use; None: as many as torch takes.
    """
    start, pid = time.perf_counter(), os.getpid()
    spare = bytes(_SPARE_BYTES)  # address space alone: nothing is written to it
    try:
        metrics, histories = split(task())
        result = Result(DONE, metrics, histories)
    except WrongReturn as error:
        result = Result(INVALID, error=str(error))
    except BaseException as error:  # asyncio's CancelledError is no Exception
        if os.getpid() != pid:
            traceback.print_exc()
            os._exit(1)
        if issubclass(type(error), KeyboardInterrupt) and hears_ctrl_c:
            raise
        del spare  # there may be nothing else left to tell of the failure with
        result = _failure(error)
    if os.getpid() != pid:
        os._exit(0)
    seconds = time.perf_counter() - start
    circumstances = {"seconds": seconds, "attempt": attempt, "slot": os.environ.get(SLOT)}
    circumstances |= _torch_circumstances(threads)
    result = Result(**{**asdict(result), **_training(result, folder), **circumstances})
    write(folder, result)
    return result


class WrongReturn(TypeError):
    """The task returned something that is no metric."""


def split(returned: Any) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Final values and histories in what a task returned.

    A number, a mapping of numbers, or a mapping that also holds lists of numbers (one an epoch).

    Raises:
        WrongReturn: anything else; the message says what came.
    """
    if _is_number(returned):
        return {NUMBER: _float(NUMBER, returned)}, {}
    if not isinstance(returned, Mapping) or not returned:
        raise WrongReturn(f"the task returned {_shown(returned)}: {_EXPECTED}")
    metrics: dict[str, float] = {}
    histories: dict[str, list[float]] = {}
    for key, value in returned.items():
        name = _name(key)
        if _is_number(value):
            metrics[name] = _float(name, value)
        elif isinstance(value, list | tuple) and value and all(map(_is_number, value)):
            histories[name] = [_float(name, v) for v in value]
            metrics[name] = histories[name][-1]
        else:
            raise WrongReturn(f"the task returned {name}={_shown(value)}: {_EXPECTED}")
    return metrics, histories


_EXPECTED = "expected a number, or a mapping of names to numbers or to lists of numbers"


def _is_number(value: Any) -> bool:
    """Whether float() of it means a measurement: numpy's and torch's scalars too, but no text."""
    if isinstance(value, str | bytes | bool | complex) or not hasattr(value, "__float__"):
        return False
    dtype = getattr(value, "dtype", "")
    is_other = any(kind in str(dtype) for kind in _NO_NUMBERS)
    is_other |= getattr(dtype, "kind", "f") in "USO"  # numpy's texts and objects
    return getattr(value, "ndim", 0) == 0 and not is_other


_NO_NUMBERS = ("bool", "complex", "datetime", "timedelta")


def _float(name: str, value: Any) -> float:
    try:
        return float(value)
    except Exception as error:  # too large, without data, or not meant to be read
        raise WrongReturn(f"the task returned {name}={_shown(value)}: {_EXPECTED}") from error


def _name(key: Any) -> str:
    try:
        return _writable(str(key))
    except Exception as error:
        kind = type(key).__name__
        raise WrongReturn(f"the task returned a metric whose name is a {kind}") from error


def _shown(value: Any) -> str:
    try:
        text = _writable(f"{value!r}")
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"
    return f"{text[:60]}{'...' if len(text) > 60 else ''} ({type(value).__name__})"


def _failure(error: BaseException) -> Result:
    """The failure as plain text: an exception may not survive pickling, nor even its own str()."""
    kind = _writable(_NAME.__get__(type(error)))
    try:
        return _told(error, kind)
    except BaseException:  # whatever an exception's own methods raise
        return Result(FAILED, error=f"{kind}: (nothing of it could be read)")


def _told(error: BaseException, kind: str) -> Result:
    if isinstance(error, MemoryError):
        _let_go(error)
    try:
        message = _writable(str.__str__(str(error)))
    except BaseException:
        message = "(its message could not be read)"
    text = _writable("".join(traceback.format_tb(error.__traceback__))) + f"{kind}: {message}"
    status = _status_of(error, message)
    line = message if status == REFUSED else f"{kind}: {message}"
    line = line.strip().split("\n")[0]
    return Result(status, error=_shortened(line, _ERROR), traceback=_shortened(text, _TRACEBACK))


def _shortened(text: str, n: int) -> str:
    """Its two ends: somebody's message may be a whole tensor, and every reader would carry it."""
    left_out = len(text) - n
    if left_out <= 0:
        return text
    return f"{text[: n // 2]} [... {left_out} characters ...] {text[-(n - n // 2) :]}"


def _writable(text: str) -> str:
    """Without halves of surrogate pairs, which names of files may hold and no file can."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _status_of(error: BaseException, message: str) -> str:
    """Duck-typed, since a task needs to know nothing of this plugin to refuse a configuration."""
    code = error.code if isinstance(error, SystemExit) else None
    if type(code) is int and code == SIGTERM_CODE:
        return INTERRUPTED
    if _NAME.__get__(type(error)) == "SIGTERMException":  # Lightning's, which has no code
        return INTERRUPTED
    if _says(error, "is_unreadable_checkpoint"):
        return UNREADABLE
    if _says(error, "is_refusal"):
        return REFUSED
    is_oom = isinstance(error, MemoryError) or _NAME.__get__(type(error)) == "OutOfMemoryError"
    is_oom |= isinstance(error, OSError) and error.errno == errno.ENOMEM
    # Elsewhere torch raises a bare RuntimeError, so that only its text tells.
    is_oom |= any(text in message for text in _OOM_TEXTS)
    return OOM if is_oom else FAILED


_OOM_TEXTS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUDA out of memory",
    "STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)
_NAME: Any = type.__dict__["__name__"]  # a class may have a __name__ of its own making


def _says(error: BaseException, attribute: str) -> bool:
    try:
        return getattr(error, attribute, False) is True
    except BaseException:
        return False


def _let_go(error: BaseException) -> None:
    """Frees what filled the memory, so that there is some to tell of it."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__


def _training(result: Result, folder: Path) -> dict[str, Any]:
    """How far a training came, and the checkpoint that it left."""
    epochs = result.metrics.get("epochs", math.nan)
    return {
        "epochs_done": int(epochs) if 0 <= epochs < _MOST else None,
        "checkpoint": CHECKPOINT if (folder / CHECKPOINT).exists() else None,
    }


def _torch_circumstances(threads: int | None) -> dict[str, Any]:
    """Device and threads, when the task used torch: its results on a CPU depend on the threads."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_num_threads"):
        return {}
    device = "cuda" if torch.cuda.is_initialized() else "cpu"
    return {"device": device, "threads": threads or int(torch.get_num_threads())}
