"""The HPARAMS page of TensorBoard: one session per trial, written without torch or TensorFlow.

Two small files per trial: `...0000000000.sweep.start` with the hyperparameters, `...9999999999.
sweep.end` with the status and the objective. TensorBoard takes the first record of a kind, so the
start is written once and the end only when the job is over; between them the row reads UNKNOWN.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..run._record import End, Job, is_step
from ..run._result import DONE

_START = "events.out.tfevents.0000000000.sweep.start"
_END = "events.out.tfevents.9999999999.sweep.end"


class HParams:
    """Writer of the sessions of one sweep."""

    def __init__(
        self,
        folder: Path,
        *,
        metric: str,
        compare: Callable[[Job], Mapping[str, Any]],
        types: Mapping[str, type],
        horizon: int | None,
    ) -> None:
        """`compare`: further keys that all sweeps show; `types`: one per key; `horizon`: the epoch
        with which every trial in steps is over, None where it may be over after any step."""
        self._folder = folder
        self._horizon = horizon
        self._tag = f"objective/{metric.replace('/', '_')}"
        self._compare = compare
        self._types = types

    def start(self, job: Job) -> None:
        """The row of a job that is about to run; its next attempt keeps the same row."""
        if not (self._run(job) / _START).exists():
            self._write_start(job)

    def end(self, job: Job, end: End) -> None:
        """The status of a trial that is over, and the number that counted.

        A trial in steps is over with its last one; its row then shows the values of that step, and
        `vary/<key>` shows how they changed on the way.
        """
        if is_step(job):
            self._write_step(job, end)
            if self._horizon not in (None, job.proposal.until_epoch):
                return
            self._write_start(job)
        events = [_session_end(is_success=end.status == DONE)]
        if end.value is not None:
            events.insert(0, _scalar(self._tag, end.value, step=end.epochs_done or 0))
        _write(self._run(job) / _END, events)

    def end_if_missing(self, job: Job, end: End) -> None:
        """As `end`, where a process died between recording a job's end and showing it."""
        is_missing = not (self._run(job) / _END).exists()
        may_be_old = is_step(job) and self._horizon is None
        if may_be_old or (is_missing and not is_step(job)):
            self.end(job, end)

    def _write_start(self, job: Job) -> None:
        values = {**self._compare(job), **job.proposal.values}
        group = f"{self._folder.name}/{job.proposal.trial}"
        _write(self._run(job) / _START, [_session_start(self._typed(values), group)])

    def _write_step(self, job: Job, end: End) -> None:
        step = job.proposal.until_epoch or 0
        numbers = {k: v for k, v in job.proposal.values.items() if type_of([v]) is float}
        scalars = {f"vary/{key}": float(value) for key, value in numbers.items()}
        if job.proposal.parent is not None:
            scalars["vary/parent"] = float(job.proposal.parent)
        name = f"events.out.tfevents.{1_000_000_000 + job.number}.sweep.vary"
        _write(self._run(job) / name, [_scalar(k, v, step=step) for k, v in scalars.items()])

    def _run(self, job: Job) -> Path:
        """The steps of a trial make one run, in the trial's folder; repeats make one each."""
        return self._folder / (str(job.proposal.trial) if is_step(job) else job.folder)

    def _typed(self, values: Mapping[str, Any]) -> dict[str, bool | float | str]:
        types = {key: self._types.get(key, type_of([value])) for key, value in values.items()}
        return {key: _as(types[key], value) for key, value in values.items()}


def type_of(values: Sequence[Any]) -> type:
    """The one type that fits all values of a hyperparameter: bool, float or str."""
    if all(isinstance(v, bool) for v in values):
        return bool
    is_number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return float if is_number else str


def _as(kind: type, value: Any) -> bool | float | str:
    return str(value) if kind is str else kind(value)


def _session_start(values: Mapping[str, bool | float | str], group: str) -> Any:
    from tensorboard.plugins.hparams import summary_v2

    return summary_v2.hparams_pb(values, trial_id=group, start_time_secs=time.time())


def _session_end(*, is_success: bool) -> Any:
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if is_success else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    content = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    summary = summary_pb2.Summary()
    summary.value.add(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(content),
        tensor=metadata.NULL_TENSOR,
    )
    return summary


def _scalar(tag: str, value: float, *, step: int) -> Any:
    from tensorboard.compat.proto import event_pb2, summary_pb2

    summary = summary_pb2.Summary()
    summary.value.add(tag=tag, simple_value=value)
    return event_pb2.Event(wall_time=time.time(), step=step, summary=summary)


def _write(path: Path, items: Sequence[Any]) -> None:
    """An event file, complete or not there at all; readers open it only under its last name."""
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):  # a task put something else in its folder's place
        return
    new = path.with_name(f"new.{path.name.rpartition('.')[2]}")
    new.unlink(missing_ok=True)
    with open(new, "xb") as file:
        writer = RecordWriter(file)
        version = event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")
        for item in [version, *items]:
            is_event = isinstance(item, event_pb2.Event)
            event = item if is_event else event_pb2.Event(wall_time=time.time(), summary=item)
            writer.write(event.SerializeToString())
        writer.flush()
    os.replace(new, path)
