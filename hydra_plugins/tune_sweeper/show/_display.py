"""What a sweep says while it runs: log lines without escape codes, one per ended job."""

import logging
import unicodedata
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
        """Lines as they are, without what a terminal would obey.

        Where nobody reads them any more, as behind `| head`, the sweep goes on in silence.
        """
        before, logging.raiseExceptions = logging.raiseExceptions, False
        try:
            for line in lines:
                log.info("%s", harmless(line))
        finally:
            logging.raiseExceptions = before

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


def harmless(text: str, *, keep: str = "") -> str:
    """The text with the characters that a terminal obeys as escapes: `\\x1b` and others.

    They come from users' values and exceptions, and could clear a screen or fake a line.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(c) if _is_control(c) and c not in keep else c for c in text)


_BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _is_control(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


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
