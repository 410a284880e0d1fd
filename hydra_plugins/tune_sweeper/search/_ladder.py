"""The rungs that trainings climb in successive halving: who waits where, and who may go on."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ._trial import Observation, rank

_NOISE_PERCENTILE = 90  # of the differences between trainings that overtake each other to and fro


def rung_epochs(first: int, last: int, eta: float) -> list[int]:
    """Epochs at which trainings are compared: `first`, `first * eta`, ... and `last`.

    One so near to the last that the way between them is hardly worth a decision is left out.

    >>> rung_epochs(1, 52, 3)
    [1, 3, 9, 27, 52]
    >>> rung_epochs(1, 10, 3)
    [1, 3, 10]
    """
    nearest = last / math.sqrt(eta)
    powers = itertools.takewhile(
        lambda x: x <= nearest, (first * eta**k for k in itertools.count())
    )
    return sorted({first, *map(round, powers), last})


@dataclass
class Rung:
    """Trainings that reached the same epoch."""

    ended: dict[int, Observation] = field(default_factory=dict)  # by trial
    gone_on: set[int] = field(default_factory=set)  # trials that train further, or have

    @property
    def has_living(self) -> bool:
        """Whether any training came as far as this and lives."""
        return any(o.score is not None for o in self.ended.values())

    def waiting(self, n_best: int) -> Iterator[Observation]:
        """Those of the best `n_best` that live and have not gone on, best first."""
        for observation in sorted(self.ended.values(), key=rank)[:n_best]:
            if observation.score is not None and observation.proposal.trial not in self.gone_on:
                yield observation


class Ladder:
    """The rungs of one bracket: levels `start` to `n_levels - 1` of all.

    `keep` is the share of a rung that goes on. A progressive one has two rungs, and one more for as
    long as the two highest disagree about who is better: Bohdal et al., "PASHA: efficient HPO and
    NAS with progressive resource allocation" (ICLR 2023). All is a function of what was told and
    who went on, in whichever order.
    """

    def __init__(
        self, n_levels: int, *, start: int, keep: float, is_progressive: bool = False
    ) -> None:
        self.start = start
        self._rungs = [Rung() for _ in range(n_levels)]
        self._keep = keep
        self._is_progressive = is_progressive

    def tell(self, observation: Observation) -> None:
        """Takes note of a training that reached a level, or died on the way there."""
        rung = self._rungs[observation.proposal.step]
        rung.ended[observation.proposal.trial] = observation

    def go_on(self, trial: int, level: int) -> None:
        """Takes note of a training that leaves a level for the next one."""
        self._rungs[level].gone_on.add(trial)

    def promotable(self) -> Iterator[Observation]:
        """Who belongs to the best of his rung and waits; highest rung first, then best first."""
        for level in range(self._top() - 1, self.start - 1, -1):
            rung = self._rungs[level]
            yield from rung.waiting(self._n_best(len(rung.ended)))

    def survivors(self) -> Iterator[Observation]:
        """Who goes on when nobody else comes: the best of the highest rung where one waits.

        Nobody, once somebody is trained to the end.
        """
        *below, last = self._rungs
        if not last.has_living:
            for rung in reversed(below):
                yield from rung.waiting(len(rung.ended))

    def needed(self, n_most: int | None) -> Iterator[int]:
        """Jobs of all who may go on some day, when at most `n_most` trainings start here.

        The one of rank r goes on once r / keep have come to its rung. A second one stands by, in
        case that the best goes on alone and dies.
        """
        for level in range(self.start, len(self._rungs) - 1):
            rung = self._rungs[level]
            n_best = len(rung.ended) if n_most is None else max(2, self._n_best(n_most))
            waiting = list(rung.waiting(n_best))
            yield from (o.job for o in waiting)
            if n_most is not None:
                n_to_come = max(0, n_most - len(rung.ended))
                n_most = len(rung.gone_on) + len(waiting) + n_to_come

    def furthest(self) -> int:
        """The highest level where somebody waits, or is at the end; -1 when there is nobody."""
        *below, last = self._rungs
        waits = [any(rung.waiting(len(rung.ended))) for rung in below] + [last.has_living]
        return max((level for level, is_there in enumerate(waits) if is_there), default=-1)

    def _n_best(self, n: int) -> int:
        return math.floor(self._keep * n + 1e-9)

    # How high the rungs of a progressive one go

    def _top(self) -> int:
        last = len(self._rungs) - 1
        if not self._is_progressive:
            return last
        levels = range(self.start + 1, last)
        return next((level for level in levels if self._agree(level - 1, level)), last)

    def _agree(self, below: int, above: int) -> bool:
        """Whether each place above is held by one who could hold it below, too.

        Those who differ below by less than the noise could change places (section 4.2).
        """
        high, low = self._scores(above), self._scores(below)
        noise = self._noise(above)
        held = sorted(low[trial] for trial in high)
        ranked = sorted(high, key=lambda trial: (high[trial], trial))
        return all(
            abs(low[trial] - place) <= noise for trial, place in zip(ranked, held, strict=True)
        )

    def _noise(self, level: int) -> float:
        """How much trainings differ that overtake each other on the way here, and back again."""
        if level - self.start < 2:
            return 0.0
        scores = [self._scores(each) for each in (level - 2, level - 1, level)]
        differences = [
            abs(scores[-1][a] - scores[-1][b])
            for a, b in itertools.combinations(sorted(scores[-1]), 2)
            if _overtakes([row[a] - row[b] for row in scores])
        ]
        return float(np.percentile(differences, _NOISE_PERCENTILE)) if differences else 0.0

    def _scores(self, level: int) -> dict[int, float]:
        ended = self._rungs[level].ended
        return {trial: o.score for trial, o in ended.items() if o.score is not None}


def _overtakes(leads: Sequence[float]) -> bool:
    return leads[0] * leads[1] < 0 and leads[1] * leads[2] < 0
