"""What a sweep says while it runs: log lines without escape codes, one per ended job."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..run._record import End, Job, is_step
from ..run._result import DONE

log = logging.getLogger("hydra_plugins.tune_sweeper")


class Plain:
    """Lines through logging."""

    def __init__(self, metric: str, n_jobs: int | None) -> None:
        self._metric = metric
        self._n_jobs = n_jobs

    def say(self, lines: Iterable[str]) -> None:
        """Lines as they are."""
        for line in lines:
            log.info(line)

    def ended(self, job: Job, end: End, *, n_ended: int, is_best: bool, log_file: str) -> None:
        """One line about a job that is over, and one about its error."""
        count = f"{n_ended}/{self._n_jobs}" if self._n_jobs else str(n_ended)
        outcome = end.status if end.value is None else f"{self._metric} {number(end.value)}"
        head = f"{count:>7}  {_place(job):<9}  {outcome + (' *' if is_best else ''):<20}"
        self.say([f"{head} {end.seconds:7.1f} s  {shown(job.proposal.values)}"])
        if end.status != DONE:
            self.say([f"         {end.error}  ({log_file})"])


class Silent(Plain):
    """Says nothing: `display=none`."""

    def say(self, lines: Iterable[str]) -> None:
        """Nothing."""


def _place(job: Job) -> str:
    return f"trial {job.proposal.trial}" + (f".{job.proposal.step}" if is_step(job) else "")


def shown(values: Mapping[str, Any]) -> str:
    """`lr=0.0123 model=cnn`: for reading, not for typing."""
    return " ".join(f"{name}={number(value)}" for name, value in values.items())


def number(value: Any) -> str:
    """Four significant digits of a float, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def closing_metrics(metrics: Mapping[str, float], objective: str) -> str:
    """The winner's test metrics; without any, the first few others."""
    test = [name for name in metrics if name.startswith("test")]
    others = [name for name in metrics if name != objective][:5]
    return ", ".join(f"{name} {number(metrics[name])}" for name in test or others)
