"""Our Bayesian strategy behind the interface of a search benchmark: one ask, one tell at a time.

A benchmark describes a parameter by an object with `name`, `type` (float, int or cat), `low`,
`high`, `log` and `choices`; it minimises, and NaN is a trial that failed.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hydra_plugins.tune_sweeper.search._bayes import Bayes as Strategy
from hydra_plugins.tune_sweeper.search._space import LINEAR, LOG, Choice, Interval, Space
from hydra_plugins.tune_sweeper.search._trial import Observation, Proposal


class Bayes:
    """Bayesian search at its defaults.

    >>> from types import SimpleNamespace
    >>> x = SimpleNamespace(name="x", type="float", low=0.0, high=1.0, log=False, choices=())
    >>> search = Bayes([x], seed=0, n=20)
    >>> search.tell(search.ask(), 0.5)
    """

    settings: Mapping[str, Any] = {}

    def __init__(self, space: Sequence[Any], seed: int, n: int = 60, batch: int = 1) -> None:
        self._space = Space(tuple(_parameter(p) for p in space))
        self._strategy = Strategy(self._space, seed=seed, n_trials=n, **self.settings)
        self._asked: dict[int, Proposal] = {}  # by the identity of the mapping that was given out
        self._given: list[dict[str, Any]] = []  # keeps these alive, so that no identity comes twice

    def ask(self) -> dict[str, Any]:
        """The next configuration."""
        (proposal,) = self._strategy.ask(1)
        values = dict(proposal.values)
        self._given.append(values)
        self._asked[id(values)] = proposal
        return values

    def tell(self, values: dict[str, Any], score: float) -> None:
        """How the trial with these values, an object that `ask` gave, ended."""
        proposal = self._asked.pop(id(values))
        end = float(score) if math.isfinite(score) else None
        self._strategy.tell([Observation(proposal.trial, proposal, end)])

    def recommend(self) -> dict[str, Any] | None:
        """None: the best trial seen."""
        return None

    def inject(self, values: Mapping[str, Any], score: float) -> None:
        """Counts a trial that somebody else chose."""
        trial = len(self._given)
        self._given.append(dict(values))
        proposal = Proposal(trial, self._space.cast(values), info={"injected": True})
        self._strategy.accept([proposal])
        self._strategy.tell([Observation(trial, proposal, float(score))])


def _parameter(p: Any) -> Interval | Choice:
    if p.type == "cat":
        return Choice(p.name, tuple(p.choices))
    scale = LOG if p.log else LINEAR
    return Interval(p.name, p.low, p.high, scale=scale, is_integer=p.type == "int")
