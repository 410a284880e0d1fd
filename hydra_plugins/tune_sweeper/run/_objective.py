"""From a job's result to the one number that a sweep optimises. The direction's sign turns here."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass

from ..search._trial import Observation, Proposal
from ._result import NUMBER, Result, WrongReturn

AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "last": lambda history: history[-1],
    "best": min,  # of the values with the sign turned, so that smaller is better
    "min": min,
    "max": max,
    "mean": lambda history: sum(history) / len(history),
}
DIRECTIONS = {"minimize": 1.0, "min": 1.0, "maximize": -1.0, "max": -1.0}


@dataclass(frozen=True)
class Objective:
    """Which metric counts, how its history becomes one number, and which way is better."""

    metric: str | None = None  # None: the number that the task returns
    direction: str = "minimize"
    aggregate: str = "last"

    @property
    def name(self) -> str:
        """The metric's name, also for a task that returns a bare number."""
        return self.metric or NUMBER

    @property
    def _sign(self) -> float:
        return DIRECTIONS[self.direction]

    def value(self, result: Result) -> float:
        """The metric's value in the user's direction; may be NaN or infinite.

        Raises:
            WrongReturn: the result has no such metric; the message names those that it has.
        """
        if self.name not in result.metrics:
            raise WrongReturn(self._missing(result))
        history = result.histories.get(self.name, [result.metrics[self.name]])
        # One NaN on the way is not the end, but a last one is: min() would let it pass.
        finite = [v for v in history if math.isfinite(v)]
        if self.aggregate == "last" or not math.isfinite(history[-1]):
            return history[-1]
        if self.aggregate == "best":
            return self._sign * min(map(self.score, finite))
        return AGGREGATES[self.aggregate](finite)

    def observe(self, job: int, proposal: Proposal, values: list[float | None]) -> Observation:
        """What the strategy is told of a proposal whose repeats ended with `values`."""
        good = [v for v in values if v is not None]
        score = self.score(sum(good) / len(good)) if len(good) == len(values) else None
        return Observation(job=job, proposal=proposal, score=score)

    def score(self, value: float) -> float:
        """The value with its sign turned so that smaller is better."""
        return self._sign * value

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether `value` beats `than`; anything beats None."""
        return than is None or self.score(value) < self.score(than)

    def _missing(self, result: Result) -> str:
        names = sorted(result.metrics)
        if self.metric is None:
            return (
                f"the task returned the metrics {', '.join(names)}: name the one to optimise,"
                f" for instance hydra.sweeper.metric={names[0]}"
            )
        near = difflib.get_close_matches(self.metric, names, n=1, cutoff=0.4) or names[:1]
        return (
            f"metric {self.metric!r} is not among those that the task returned:"
            f" {', '.join(names)}. Type hydra.sweeper.metric={near[0]}"
        )
