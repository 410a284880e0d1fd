"""The files for other programs: trials.csv and optimization_results.yaml, after every trial."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..run._record import End, Job
from ..run._whole import open_own, write_whole
from ._display import harmless

CSV = "trials.csv"
RESULTS = "optimization_results.yaml"
_FIXED = ("job", "trial", "step", "repeat", "status", "value", "seconds")


class Table:
    """trials.csv: a row per ended job, a column per hyperparameter and per metric."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._path = folder / CSV
        self._names = names
        self._metrics: list[str] = []
        self._rows: list[tuple[Job, End]] = []

    def add(self, job: Job, end: End) -> None:
        """Appends a row; the whole file is written anew only when a metric is new."""
        self._rows.append((job, end))
        if (
            set(end.metrics) <= {*self._metrics, *_FIXED}
            and self._path.exists()
            and len(self._rows) > 1
        ):
            with open_own(self._path, "a", encoding="utf-8") as file:
                file.write(_line(self._row(job, end)))
        else:
            self._metrics = sorted({*self._metrics, *end.metrics} - {*_FIXED})
            header = _line([*_FIXED, *self._names, *self._metrics, "error", "folder"])
            write_whole(self._path, header + "".join(_line(self._row(*row)) for row in self._rows))

    def _row(self, job: Job, end: End) -> list[Any]:
        p = job.proposal
        place = [job.number, p.trial, p.step, job.repeat]
        values = [p.values.get(name, "") for name in self._names]
        metrics = [end.metrics.get(name, "") for name in self._metrics]
        seconds = f"{end.seconds:.3f}"
        return [*place, end.status, end.value, seconds, *values, *metrics, end.error, job.folder]


def _line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    shown = [harmless(cell, keep="\n\t") if isinstance(cell, str) else cell for cell in cells]
    csv.writer(text, lineterminator="\n").writerow(shown)
    return text.getvalue()


def write_best(folder: Path, name: str, job: Job, value: float) -> None:
    """optimization_results.yaml: the keys of Hydra's other sweepers, and which trial it was."""
    content = {
        "name": name,
        "best_params": dict(job.proposal.values),
        "best_value": value,
        "best_trial": job.proposal.trial,
        "best_dir": job.folder,
    }
    write_whole(folder / RESULTS, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
