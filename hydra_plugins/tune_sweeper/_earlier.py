"""Earlier sweeps, read for a new one that starts with their results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._errors import UsageError
from .run import _record
from .run._journal import JournalError
from .run._objective import Objective
from .run._record import Summary
from .search._space import Space

Ended = tuple[Mapping[str, Any], float | None]  # a configuration and its score; None: it failed


def load(folders: Sequence[str], space: Space, objective: Objective) -> list[list[Ended]]:
    """The ended trials of each sweep, with scores of which smaller is better.

    Raises:
        UsageError: no sweep there, another metric, or nothing that this space holds.
    """
    return [_load(folder, space, objective) for folder in folders]


def _load(folder: str, space: Space, objective: Objective) -> list[Ended]:
    typed = f"hydra.sweeper.warm_start: {folder}"
    try:
        summary = _record.read(Path(folder))
    except (JournalError, OSError) as error:
        raise UsageError(f"{typed} holds no sweep that can be read ({error})") from error
    was = (summary.header.get("metric"), summary.header.get("direction"))
    if was != (objective.name, objective.direction):
        raise UsageError(
            f"{typed}: its sweep had the objective {' '.join(map(str, was))}, this one has"
            f" {objective.name} {objective.direction}"
        )
    found = [(v, s) for v, s in _ended(summary, objective) if space.contains(space.cast(v))]
    if not found:
        shown = "; ".join(p.describe() for p in space.parameters)
        raise UsageError(f"{typed}: none of its trials lies in the space ({shown})")
    return found


def _ended(summary: Summary, objective: Objective) -> list[Ended]:
    """Configurations in the order of their trials, repeats averaged as in the sweep itself."""
    values: dict[int, list[float | None]] = {}
    configurations: dict[int, Mapping[str, Any]] = {}
    for number, job in sorted(summary.jobs.items()):
        end = summary.ends.get(number)
        # A part of a training says nothing of the whole.
        if end is not None and job.proposal.until_epoch is None:
            configurations[job.proposal.trial] = job.proposal.values
            values.setdefault(job.proposal.trial, []).append(end.value)
    return [(configurations[trial], _score(values[trial], objective)) for trial in values]


def _score(values: Sequence[float | None], objective: Objective) -> float | None:
    good = [v for v in values if v is not None]
    return objective.score(sum(good) / len(good)) if len(good) == len(values) else None
