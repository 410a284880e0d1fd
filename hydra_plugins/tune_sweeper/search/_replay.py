"""A schedule, trained again: one training whose overrides change as they did in a lineage."""

from collections.abc import Sequence
from typing import NamedTuple

from ._space import Space
from ._trial import Observation, Proposal


class Step(NamedTuple):
    """A piece of a training: the overrides with which it trained until an epoch."""

    until_epoch: int
    overrides: Sequence[str]


class Replay:
    """Each step continues the one before it; the first failure ends it.

    The overrides stand in the proposals' `info`, as nothing is searched.

    >>> from hydra_plugins.tune_sweeper.search._space import Space
    >>> steps = [Step(2, ["lr=0.1"]), Step(4, ["lr=0.05"])]
    >>> (first,) = Replay(Space(()), steps=steps).ask(3)
    >>> first.info, first.until_epoch
    ({'overrides': ['lr=0.1']}, 2)
    """

    def __init__(self, space: Space, *, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._last: Observation | None = None
        self._n_asked = 0

    def __len__(self) -> int:
        """How many jobs there will be."""
        return len(self._steps)

    def ask(self, n: int) -> list[Proposal]:
        """The next step, once the one before it is done."""
        number, last = self._n_asked, self._last
        is_waiting = number > 0 and (last is None or last.proposal.step < number - 1)
        has_failed = last is not None and last.score is None
        if n < 1 or is_waiting or has_failed or number == len(self._steps):
            return []
        step = self._steps[number]
        proposal = Proposal(
            trial=0,
            values={},
            step=number,
            parent=None if last is None else last.job,
            until_epoch=step.until_epoch,
            info={"overrides": list(step.overrides)},
        )
        self.accept([proposal])
        return [proposal]

    def accept(self, proposals: Sequence[Proposal]) -> None:
        """Goes on after these steps."""
        for proposal in proposals:
            self._n_asked = max(self._n_asked, proposal.step + 1)

    def tell(self, observations: Sequence[Observation]) -> None:
        """Takes note of the step that ended."""
        for observation in observations:
            self._last = observation

    def needed_checkpoints(self) -> set[int]:
        """That of the last step."""
        return set() if self._last is None else {self._last.job}
