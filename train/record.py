"""What a training leaves as it runs: TensorBoard scalars and progress.jsonl, once an epoch.

The x axis counts finished epochs, so that curves of unlike batch sizes line up.
"""

import json
import math
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboard.compat.proto import event_pb2
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

Metrics = Mapping[str, float]

CURVES = {"train/loss", "train/lr", "val/acc", "val/loss"}
"""What TensorBoard shows: its HPARAMS page has room for five metrics, the objective among them.
Test metrics are left out, so that nobody chooses by them."""


class Record:
    """Per-epoch metrics in memory, and in files when folders are given."""

    def __init__(self, *, folder: Path | None, log_dir: Path | None, first_epoch: int) -> None:
        self._progress = _made(folder) / "progress.jsonl" if folder else None
        self.earlier = _rows_before(self._progress, first_epoch) if self._progress else []
        """Metrics of the epochs that an earlier attempt trained in the same folder."""
        self.history: dict[str, list[float]] = {}
        for metrics in self.earlier:
            self._remember(metrics)
        self._events = _Events(log_dir, first_epoch) if log_dir else None
        self._last_time = time.perf_counter()

    def add(self, epoch: int, metrics: Metrics) -> None:
        """Record the metrics after `epoch` epochs."""
        self._remember(metrics)
        now = time.perf_counter()
        seconds, self._last_time = now - self._last_time, now
        if self._progress:
            row = {"epoch": epoch, "metrics": _strict(metrics), "seconds": round(seconds, 4)}
            with self._progress.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row, allow_nan=False) + "\n")
        self._add_scalars(epoch, metrics)

    def _remember(self, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)

    def _add_scalars(self, epoch: int, metrics: Metrics) -> None:
        if self._events:
            self._events.add(epoch, {name: metrics[name] for name in CURVES & metrics.keys()})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._events:
            self._events.close()


class _Events:
    """One event file of TensorBoard, whose name sorts by time and then by epoch.

    torch's SummaryWriter numbers its files 9, 10: within one second their order by name is not that
    of the epochs, and what a later one purges is lost.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        name = f"{int(time.time()):010d}.{first_epoch:06d}.{platform.node()}.{os.getpid()}"
        self._file = (_made(folder) / f"events.out.tfevents.{name}").open("wb")
        self._writer = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        # Points that an earlier attempt or another parent left from this epoch on are not shown.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first_epoch, session_log=start)

    def add(self, epoch: int, scalars: Metrics) -> None:
        """Write scalars, to be seen at once."""
        values = [Summary.Value(tag=name, simple_value=x) for name, x in scalars.items()]
        self._write(step=epoch, summary=Summary(value=values))
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def _write(self, **fields: Any) -> None:
        event = event_pb2.Event(wall_time=time.time(), **fields)
        self._writer.write(event.SerializeToString())


def _rows_before(progress: Path, first_epoch: int) -> list[dict[str, float]]:
    """The metrics of an earlier attempt before `first_epoch`; its later rows are dropped."""
    if not progress.exists():
        return []
    lines = progress.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if _epoch(line) < first_epoch]
    progress.write_text("".join(kept), encoding="utf-8")
    rows = [json.loads(line)["metrics"] for line in kept]
    # What is not finite stands there as text.
    return [{name: float(value) for name, value in row.items()} for row in rows]


def _epoch(line: str) -> float:
    """The epoch of a row; infinite for half a line, which a killed training leaves."""
    try:
        return float(json.loads(line)["epoch"])
    except ValueError:
        return math.inf


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _strict(metrics: Metrics) -> dict[str, float | str]:
    """Metrics as strict JSON knows them: what is not finite becomes a text."""
    return {name: value if math.isfinite(value) else str(value) for name, value in metrics.items()}
