"""What a job leaves behind: `result.json` in its folder, the truth about how it ended.

The job writes it, whatever launched it, so a launcher that dies loses no finished training.
"""

import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ._journal import tagged, untagged
from ._whole import write_whole

FILE = "result.json"
SIGTERM_CODE = 128 + signal.SIGTERM  # of a process that SIGTERM ended
VERSION = 1
CHECKPOINT = "checkpoints/last.ckpt"  # where a task that can be continued leaves it
_ERROR, _TRACEBACK = 1_000, 50_000  # characters of a failure that are kept
NUMBER = "value"  # name of the metric of a task that returns a bare number

DONE, FAILED, OOM, INVALID, REFUSED = "done", "failed", "oom", "invalid", "refused"
TIMEOUT, STALLED = "timeout", "stalled"  # ended by the sweep
DIED, INTERRUPTED = "died", "interrupted"  # what the world did; they are tried again
UNREADABLE = "unreadable"  # its checkpoint was; without that one it is tried again
LOST = (DIED, INTERRUPTED, UNREADABLE)

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
        text = (folder / FILE).read_text(encoding="utf-8")
        return Result(**json.loads(text, object_hook=untagged))
    except (OSError, ValueError, TypeError):
        return None


def write(folder: Path, result: Result) -> None:
    """Puts the result into the folder, complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tagged(asdict(result)), allow_nan=False, indent=1)
    write_whole(folder / FILE, text, is_durable=True)


def record(
    task: Callable[[], Any], folder: Path, *, attempt: int = 1, threads: int | None = None
) -> Result:
    """Runs the task and writes how it ended; only KeyboardInterrupt passes.

    A task that leaves with the exit code of SIGTERM was interrupted, and did not fail.

    `threads` is how many the task was told to use; None: as many as torch takes.
    """
    start = time.perf_counter()
    try:
        metrics, histories = split(task())
        result = Result(DONE, metrics, histories)
    except WrongReturn as error:
        result = Result(INVALID, error=str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # asyncio's CancelledError is no Exception
        result = _failure(error)
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
        return {NUMBER: float(returned)}, {}
    if not isinstance(returned, Mapping) or not returned:
        raise WrongReturn(f"the task returned {_shown(returned)}: {_EXPECTED}")
    metrics: dict[str, float] = {}
    histories: dict[str, list[float]] = {}
    for name, value in returned.items():
        if _is_number(value):
            metrics[str(name)] = float(value)
        elif isinstance(value, list | tuple) and value and all(map(_is_number, value)):
            histories[str(name)] = [float(v) for v in value]
            metrics[str(name)] = float(value[-1])
        else:
            raise WrongReturn(f"the task returned {name}={_shown(value)}: {_EXPECTED}")
    return metrics, histories


_EXPECTED = "expected a number, or a mapping of names to numbers or to lists of numbers"


def _is_number(value: Any) -> bool:
    """Whether float() of it means a measurement: numpy's and torch's scalars too, but no text."""
    if isinstance(value, str | bytes | bool | complex) or not hasattr(value, "__float__"):
        return False
    dtype = str(getattr(value, "dtype", ""))
    return getattr(value, "ndim", 0) == 0 and "bool" not in dtype and "complex" not in dtype


def _shown(value: Any) -> str:
    text = f"{value!r}"
    return f"{text[:60]}{'...' if len(text) > 60 else ''} ({type(value).__name__})"


def _failure(error: BaseException) -> Result:
    """The failure as plain text: an exception may not survive pickling, nor even its own str()."""
    try:
        message = str(error)
    except Exception:
        message = "(its message could not be read)"
    kind = type(error).__name__
    message = _writable(message)
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
    if isinstance(error, SystemExit) and error.code == SIGTERM_CODE:
        return INTERRUPTED
    if getattr(error, "is_unreadable_checkpoint", False) is True:
        return UNREADABLE
    if getattr(error, "is_refusal", False) is True:
        return REFUSED
    # torch's CPU allocator raises a bare RuntimeError, so that only its text tells.
    is_oom = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return OOM if is_oom or "can't allocate memory" in message else FAILED


def _training(result: Result, folder: Path) -> dict[str, Any]:
    """How far a training came, and the checkpoint that it left."""
    epochs = result.metrics.get("epochs", math.nan)
    return {
        "epochs_done": int(epochs) if math.isfinite(epochs) else None,
        "checkpoint": CHECKPOINT if (folder / CHECKPOINT).exists() else None,
    }


def _torch_circumstances(threads: int | None) -> dict[str, Any]:
    """Device and threads, when the task used torch: its results on a CPU depend on the threads."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_num_threads"):
        return {}
    device = "cuda" if torch.cuda.is_initialized() else "cpu"
    return {"device": device, "threads": threads or int(torch.get_num_threads())}
