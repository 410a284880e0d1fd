"""Random search: independent or low-discrepancy points, uniform on every parameter's scale."""

from collections.abc import Mapping, Sequence
from typing import Any

from ._design import Design
from ._space import Space
from ._trial import Count, Observation, Proposal


class Random:
    """Random search; the sequence depends on the seed alone, on no result and no number of workers.

    Raises:
        ValueError: an unknown sampler.

    >>> from hydra_plugins.tune_sweeper.search._space import Interval, Space
    >>> search = Random(Space((Interval("lr", 1e-4, 1e-1, scale="log"),)), seed=0, n_trials=2)
    >>> [proposal.trial for proposal in search.ask(5)]
    [0, 1]
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        n_trials: int | None,
        initial: Sequence[Mapping[str, Any]] = (),
        sampler: str = "sobol",
    ) -> None:
        self._design = Design(space, seed=seed, initial=initial, sampler=sampler)
        self._count = Count(n_trials)

    def ask(self, n: int) -> list[Proposal]:
        """The next configurations that were not proposed yet."""
        proposals: list[Proposal] = []
        while len(proposals) < n and not self._count.is_full:
            values = self._design.next()
            if values is None:
                break
            proposals.append(Proposal(trial=self._count.next_trial, values=values))
            self._count.add(self._count.next_trial)
        return proposals

    def accept(self, proposals: Sequence[Proposal]) -> None:
        """Draws the recorded configurations again."""
        for proposal in proposals:
            self._design.accept(proposal.values)
            self._count.add(proposal.trial)

    def tell(self, observations: Sequence[Observation]) -> None:
        """Random search looks at no result."""

    def needed_checkpoints(self) -> set[int]:
        """None: every configuration is trained from scratch."""
        return set()
