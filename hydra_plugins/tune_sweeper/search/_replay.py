"""A schedule, trained again: one training whose values change as they did in a lineage."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ._space import Space
from ._trial import Observation, Proposal


class Step(NamedTuple):
    """A piece of a training: the values with which it trained until an epoch."""

    until_epoch: int
    values: Mapping[str, Any]


class Replay:
    """Each step continues the one before it; the first failure ends it.

    >>> from hydra_plugins.tune_sweeper.search._space import Choice, Space
    >>> steps = [Step(2, {"lr": 0.1}), Step(4, {"lr": 0.05})]
    >>> (first,) = Replay(Space((Choice("lr", (0.1, 0.05)),)), steps=steps).ask(3)
    >>> first.values, first.until_epoch
    ({'lr': 0.1}, 2)
    """

    def __init__(self, space: Space, *, steps: Sequence[Step]) -> None:
        self._names = set(space.names)
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
        values = {name: v for name, v in step.values.items() if name in self._names}
        parent = None if last is None else last.job
        proposal = Proposal(0, values, number, parent, step.until_epoch)
        self.accept([proposal])
        return [proposal]

    def accept(self, proposals: Sequence[Proposal]) -> None:
        """Goes on after these steps."""
        self._n_asked += len(proposals)

    def tell(self, observations: Sequence[Observation]) -> None:
        """Takes note of the step that ended."""
        for observation in observations:
            self._last = observation

    def needed_checkpoints(self) -> set[int]:
        """That of the last step."""
        return set() if self._last is None else {self._last.job}
