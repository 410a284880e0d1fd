"""Bayesian optimisation: which configuration to try next, from what all trials so far tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from ._proposer import ModelProposer
from ._space import Space
from ._surrogate import Row
from ._trial import Count, Observation, Proposal

Ended = tuple[Mapping[str, Any], float | None]  # a configuration of an earlier sweep and its score


class Bayes:
    """Proposes where a Gaussian process of the scores promises most.

    Trials in flight count as if they had ended as predicted. Those of earlier sweeps (`warm_start`)
    count as far as they agree with the present ones.

    Raises:
        ValueError: an unknown acquisition, or no first trial.

    >>> from hydra_plugins.tune_sweeper.search._space import Interval, Space
    >>> from hydra_plugins.tune_sweeper.search._trial import Observation
    >>> search = Bayes(Space((Interval("x", 0.0, 1.0),)), seed=0, n_trials=12)
    >>> for job in range(12):
    ...     (proposal,) = search.ask(1)
    ...     score = (proposal.values["x"] - 0.7) ** 2
    ...     search.tell([Observation(job, proposal, score)])
    >>> abs(proposal.values["x"] - 0.7) < 0.1
    True
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        n_trials: int | None,
        initial: Sequence[Mapping[str, Any]] = (),
        n_initial: int | None = None,
        acquisition: str = "logei",
        warm_start: Sequence[Sequence[Ended]] = (),
    ) -> None:
        self._space = space
        self._proposer = ModelProposer(
            space,
            seed=seed,
            n_trials=n_trials,
            initial=initial,
            n_initial=n_initial,
            acquisition=acquisition,
            known=_known(space, warm_start),
        )
        self._pending: dict[int, Mapping[str, Any]] = {}  # by trial
        self._told: dict[int, Observation] = {}
        self._count = Count(n_trials)

    def ask(self, n: int) -> list[Proposal]:
        """The next configurations, each chosen knowing of those before it."""
        proposals: list[Proposal] = []
        while len(proposals) < n and not self._count.is_full:
            found = self._proposer.next(self._count.next_trial, self._rows, self._in_flight)
            if found is None:
                break
            values, info = found
            proposals.append(Proposal(trial=self._count.next_trial, values=values, info=info))
            self._take(proposals[-1])
        return proposals

    def accept(self, proposals: Sequence[Proposal]) -> None:
        """Takes recorded proposals over; those of the first design are drawn again."""
        for proposal in proposals:
            self._proposer.accept(proposal.values, proposal.info)
            self._take(proposal)

    def tell(self, observations: Sequence[Observation]) -> None:
        """Takes note of scores and failures; configurations of another space do not count."""
        for observation in observations:
            self._pending.pop(observation.proposal.trial, None)
            if self._space.contains(observation.proposal.values):
                self._told[observation.proposal.trial] = observation

    def needed_checkpoints(self) -> set[int]:
        """None: every configuration is trained from scratch."""
        return set()

    def _take(self, proposal: Proposal) -> None:
        if self._space.contains(proposal.values):
            self._pending[proposal.trial] = proposal.values
        self._count.add(proposal.trial)

    def _in_flight(self) -> list[Mapping[str, Any]]:
        return [self._pending[trial] for trial in sorted(self._pending)]

    def _rows(self) -> list[Row]:
        """All trials that ended."""
        told = (self._told[trial] for trial in sorted(self._told))
        return [Row(o.proposal.values, o.score) for o in told]


def _known(space: Space, sweeps: Sequence[Sequence[Ended]]) -> list[Row]:
    """The trials of earlier sweeps that lie in the space, marked by their sweep."""
    return [
        Row(values, score, tuple(float(i == number) for i in range(len(sweeps))))
        for number, trials in enumerate(sweeps)
        for values, score in ((space.cast(v), score) for v, score in trials)
        if space.contains(values)
    ]
