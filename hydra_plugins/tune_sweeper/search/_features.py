"""Points of the unit cube as a Gaussian process sees them, many at a time.

U (m, d)  points of the unit cube     F (m, f)  features; an unordered choice has one per value
"""

import math
from collections.abc import Sequence

import numpy as np

from ._space import Choice, Condition, Parameter, Space, Values

Array = np.ndarray

_ABSENT = 0.5  # where a parameter that does not exist stands: the same place for all such points
_MOST_STEPS = 10_000  # an integer parameter with more values is as good as continuous


class Features:
    """Snaps points to legal values, and turns them into features."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._places = [_places(p) for p in space.parameters]
        widths = [_width(p) for p in space.parameters]
        self.groups = np.repeat(np.arange(len(space)), widths)  # (f,)

    def units(self, configurations: Sequence[Values]) -> Array:
        """Snapped points (m, d) of configurations."""
        rows = [self._space.to_unit(values) for values in configurations]
        return self.snap(np.array(rows, dtype=float).reshape(len(rows), len(self._space)))

    def snap(self, U: Array) -> Array:
        """The nearest points (m, d) whose values are legal; absent parameters in the middle."""
        snapped: Array = np.clip(U, 0.0, 1.0)
        for j, places in enumerate(self._places):
            if places is not None:
                snapped[:, j] = _nearest(places, snapped[:, j])
        for j, name in enumerate(self._space.names):
            snapped[~self._is_active(name, snapped), j] = _ABSENT
        return snapped

    def encode(self, U: Array) -> Array:
        """Features (m, f) of snapped points."""
        columns = []
        for j, p in enumerate(self._space.parameters):
            if not _is_unordered(p):
                columns.append(U[:, j : j + 1])
                continue
            n = p.n_values or 1
            index = np.minimum((U[:, j] * n).astype(int), n - 1)
            # Two different values are at distance 1, as far apart as the ends of an interval.
            hot = np.eye(n)[index] / math.sqrt(2.0)
            columns.append(hot * self._is_active(p.name, U)[:, None])
        return np.hstack(columns)

    def _is_active(self, name: str, U: Array) -> Array:
        active = np.ones(len(U), dtype=bool)
        for condition in self._space.conditions:
            if condition.child == name:
                active &= self._holds(condition, U) & self._is_active(condition.parent, U)
        return active

    def _holds(self, condition: Condition, U: Array) -> Array:
        parent = self._space[condition.parent]
        column = U[:, self._space.names.index(condition.parent)]
        wanted = [parent.to_unit(v) for v in condition.values if parent.contains(v)]
        return np.asarray(np.isclose(column[:, None], np.array(wanted)[None, :]).any(axis=1))


def _is_unordered(p: Parameter) -> bool:
    return isinstance(p, Choice) and not p.is_ordered and len(p.choices) > 2


def _width(p: Parameter) -> int:
    return (p.n_values or 1) if _is_unordered(p) else 1


def _places(p: Parameter) -> Array | None:
    """Unit values of all legal values in increasing order; None when continuous."""
    if p.n_values is None or p.n_values > _MOST_STEPS:
        return None
    return np.array([p.to_unit(v) for v in p.grid(None)])


def _nearest(places: Array, u: Array) -> Array:
    middles = (places[1:] + places[:-1]) / 2.0
    return np.asarray(places[np.searchsorted(middles, u)])
