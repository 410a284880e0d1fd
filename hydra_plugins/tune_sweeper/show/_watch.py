"""Everything that is shown of a running sweep, behind two calls of the loop."""

from collections.abc import Callable, Mapping
from typing import Any

from ..run import _result
from ..run._objective import Objective
from ..run._record import End, Job, Record
from ..run._rules import Progress
from ..search._space import Choice, Space
from ._display import Plain, Silent
from ._files import Table, write_best
from ._tensorboard import HParams, type_of


class Watch:
    """Keeps terminal, TensorBoard, trials.csv and the files of the best trial up to date."""

    def __init__(
        self,
        record: Record,
        space: Space,
        objective: Objective,
        *,
        display: str,
        n_jobs: int | None,
        compare: Callable[[Job], Mapping[str, Any]] = lambda job: {},
        horizon: int | None = None,
        on_best: Callable[[Job], None] = lambda job: None,
    ) -> None:
        """`compare`: keys and values that TensorBoard shows beside the searched ones of a job;
        `horizon`: the epoch with which a training in steps is over."""
        self._record = record
        self._name = record.header["strategy"]
        self._on_best = on_best
        self.display = (Silent if display == "none" else Plain)(objective.name, n_jobs)
        self._table = Table(record.folder, space.names)
        for number, end in record.ends.items():
            self._table.add(record.jobs[number], end)
        self._hparams = HParams(
            record.folder.resolve(),
            metric=objective.name,
            compare=compare,
            types=_types(space),
            horizon=horizon,
        )

    def restore(self, progress: Progress) -> None:
        """Writes what an earlier process recorded but did not come to show."""
        for number, end in self._record.ends.items():
            self._hparams.end_if_missing(self._record.jobs[number], end)
        if progress.best is not None:
            self._show_best(*progress.best)

    def _show_best(self, value: float, number: int) -> None:
        job = self._record.jobs[number]
        write_best(self._record.folder, self._name, job, value)
        self._on_best(job)

    def started(self, job: Job) -> None:
        """A job is about to run."""
        asked, parent = job.proposal.parent, self._record.parent(job)
        if asked is not None and parent != asked:
            where = "starts from scratch" if parent is None else f"continues {self._step(parent)}"
            gone = f"the checkpoint of {self._step(asked)} is gone"
            self.display.say([f"{self._step(job.number)}: {gone}; {where}"])
        self._hparams.start(job)

    def _step(self, number: int) -> str:
        proposal = self._record.jobs[number].proposal
        return f"trial {proposal.trial} step {proposal.step}"

    def ended(self, job: Job, end: End, progress: Progress) -> None:
        """A job is over, and `progress` counts it."""
        self._hparams.end(job, end)
        self._table.add(job, end)
        best = progress.best
        is_best = best is not None and best[1] == job.number - job.repeat
        if is_best and best is not None:
            self._show_best(*best)
        self.display.ended(
            job,
            end,
            n_ended=progress.n_ended,
            is_best=is_best,
            log_file=str(self._record.folder / job.folder),
        )

    def errors(self) -> list[str]:
        """One line per distinct error, with the place to look."""
        first: dict[str, End] = {}
        for end in self._record.ends.values():
            if end.value is None:
                first.setdefault(str(end.error), end)
        places = {error: self._record.jobs[end.job].folder for error, end in first.items()}
        return [f"failed: {error}  ({self._record.folder / p})" for error, p in places.items()]

    def first_traceback(self) -> str | None:
        """That of the first job that failed, as its own result tells it."""
        failed = (n for n, end in sorted(self._record.ends.items()) if end.value is None)
        number = next(failed, None)
        if number is None:
            return None
        result = _result.read(self._record.folder / self._record.jobs[number].folder)
        return None if result is None else result.traceback


def _types(space: Space) -> dict[str, type]:
    return {
        p.name: type_of(p.choices) if isinstance(p, Choice) else float for p in space.parameters
    }
