"""The search for the most promising configuration, over legal values only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._design import Design
from ._features import Features
from ._space import Space, canonical

Array = np.ndarray

_N_SPREAD, _N_NEAR = 500, 100  # candidates all over the cube, and round the best points
_N_STARTS, _N_ROUNDS, _N_MOVES = 4, 20, 16  # of the local search


@dataclass
class Climb:
    """Candidates all over the cube and round the best trials; then moves uphill from the best."""

    space: Space
    features: Features
    value_of: Callable[[Array], Array]  # acquisition (m,) of snapped points U (m, d)
    tops: Array  # (k, d) the best trials, from which more candidates come
    seen: set[str]  # configurations that must not come again
    rng: np.random.Generator

    def best(self) -> dict[str, Any] | None:
        """The best new configuration; None when there is none."""
        U = self.features.snap(self._candidates())
        value = self._value(U)
        starts = np.argsort(-value, kind="stable")[:_N_STARTS]
        found, found_value = self._climb(U[starts], value[starts])
        U, value = np.vstack([found, U]), np.concatenate([found_value, value])
        for i in np.argsort(-value, kind="stable"):
            values = self.space.from_unit([float(u) for u in U[i]])
            if canonical(values) not in self.seen and self.space.allows(values):
                return values
        return self._any_new()

    def _value(self, U: Array) -> Array:
        value = self.value_of(U)
        value[~self._is_legal(U)] = -np.inf
        return value

    def _candidates(self) -> Array:
        d = len(self.space)
        spread = self.rng.random((_N_SPREAD, d))
        near = np.repeat(self.tops, -(-_N_NEAR // len(self.tops)), axis=0)
        return np.vstack([spread, self._moved(near, 0.1)])

    def _climb(self, U: Array, value: Array) -> tuple[Array, Array]:
        """Random moves of shrinking size from each start, keeping what is better and legal."""
        U, value = U.copy(), value.copy()
        rows = np.arange(len(U))
        for size in np.geomspace(0.2, 0.003, _N_ROUNDS):
            moved = self.features.snap(self._moved(np.repeat(U, _N_MOVES, axis=0), float(size)))
            new = self._value(moved).reshape(len(U), _N_MOVES)
            best = new.argmax(axis=1)
            better = new[rows, best] > value
            U[better] = moved.reshape(len(U), _N_MOVES, -1)[rows, best][better]
            value[better] = new[rows, best][better]
        return U, value

    def _moved(self, U: Array, size: float) -> Array:
        """Each coordinate moves with probability 1/2; one in ten jumps anywhere."""
        moves = self.rng.random(U.shape) < 0.5
        step = np.where(moves, size * self.rng.standard_normal(U.shape), 0.0)
        jumps = self.rng.random(U.shape) < 0.1 / max(1, U.shape[1] / 4)
        return np.where(jumps, self.rng.random(U.shape), np.clip(U + step, 0.0, 1.0))

    def _is_legal(self, U: Array) -> Array:
        if self.space.where is None:
            return np.ones(len(U), dtype=bool)
        rows = [self.space.from_unit([float(x) for x in u]) for u in U]
        return np.array([self.space.allows(values) for values in rows])

    def _any_new(self) -> dict[str, Any] | None:
        """A small space is nearly used up: whatever is left."""
        design = Design(self.space, seed=int(self.rng.integers(2**31)), sampler="iid")
        for seen in self.seen:
            design.skip_canonical(seen)
        return design.next()
