"""What passes between the loop and a strategy: proposals one way, observations the other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Proposal:
    """One job that a strategy wants: a configuration, from scratch or continuing another job.

    A trial is a configuration; the strategies that train in steps (`step` 0, 1, ...) ask for
    several jobs of the same trial.
    """

    trial: int
    values: Mapping[str, Any]  # by parameter name; only those whose conditions hold
    step: int = 0
    parent: int | None = None  # number of the job whose checkpoint this one continues
    until_epoch: int | None = None  # where this job ends; None: at the end of the training
    info: Mapping[str, Any] = field(default_factory=dict)  # why, for the record alone


@dataclass(frozen=True)
class Observation:
    """How a proposal ended."""

    job: int
    proposal: Proposal
    score: float | None  # smaller is better, whatever the metric's direction; None: it failed
    seconds: float = 0.0


@dataclass
class Count:
    """How many trials there are of those that there may be, and the next one's number.

    The two differ where a repaired record lacks some.
    """

    limit: int | None
    n_trials: int = 0
    next_trial: int = 0

    @property
    def is_full(self) -> bool:
        """Whether there may be no more."""
        return self.limit is not None and self.n_trials >= self.limit

    def add(self, trial: int) -> None:
        """The trial is one of them now."""
        self.n_trials += 1
        self.next_trial = max(self.next_trial, trial + 1)


def rank(observation: Observation) -> tuple[float, int]:
    """What results are sorted by: best first, the dead last, ties by trial."""
    score = math.inf if observation.score is None else observation.score
    return score, observation.proposal.trial


class Strategy(Protocol):
    """A search method. Its state is a function of space, settings, seed and the calls so far.

    Asking never changes what was told; telling a failure never breaks asking; arguments are never
    changed. `accept` is how a recorded sweep is resumed: the strategy takes over proposals that it
    made in an earlier process, instead of making them again.
    """

    def ask(self, n: int) -> list[Proposal]:
        """At most `n` jobs to run now; none while it waits for results, or when it is done."""
        ...

    def accept(self, proposals: Sequence[Proposal]) -> None:
        """Takes over proposals of an earlier process, in their recorded order."""
        ...

    def tell(self, observations: Sequence[Observation]) -> None:
        """Takes note of jobs that ended."""
        ...

    def needed_checkpoints(self) -> set[int]:
        """Numbers of the ended jobs whose checkpoints a later proposal may continue."""
        ...
