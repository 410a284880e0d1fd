"""What is believed of the optimum before any result: a weight on the acquisition that fades.

Two beliefs: the optimum seldom lies at the edge of the ranges that somebody typed, and where the
user said that it lies (`tag(prior:3e-3, ...)`). Hvarfner et al., "pi-BO: augmenting acquisition
functions with user beliefs for Bayesian optimization" (ICLR 2022): the acquisition is multiplied
by the density of the belief to a power that falls with the number of trials.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._space import Choice, Parameter, Space

Array = np.ndarray

# Without this a third of the first 15 trials lie at an edge, where a process knows least, and the
# regret after 15 trials is higher by an eighth: docs/bayes.md.
_EDGE, _EDGE_WEIGHT, _EDGE_TRIALS = 0.15, 6.0, 40
_PRIOR_SD = 0.15  # of the unit interval: as sure as "about 3e-3" is between 1e-4 and 1e-1
_OTHER_CHOICE = -2.0  # log density of a choice that the user did not name
_PRIOR_LOWEST = -6.0  # log density far away: unlikely, not excluded
_PRIOR_TRIALS = 10.0  # after so many trials the belief counts half as much as in the beginning
_DISTRUST = 2.0  # how fast it is forgotten, per standard deviation that trials near it are worse
_NEAR = -1.0  # log density above which a trial is near


class Belief:
    """Log weights of snapped points of the unit cube."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._has_edges = np.array([_has_edges(p) for p in space.parameters])

    @property
    def has_prior(self) -> bool:
        """Whether the user said anything."""
        return any(p.prior is not None for p in self._space.parameters)

    def mode(self, random: Array) -> Array:
        """The most believed point (d,): what the user said, else the middle of a range.

        Unordered choices have no middle: they come from the point `random` (d,).
        """
        believed = [_middle(p) for p in self._space.parameters]
        return np.array(
            [u if b is None else b for b, u in zip(believed, random.tolist(), strict=True)]
        )

    def log_weight(self, U: Array, told: Array, means: Array) -> Array:
        """Weights (m,) of U (m, d) after trials at `told` (n, d) with posterior means (n,)."""
        weight = self._edges(U) * max(0.0, 1.0 - len(told) / _EDGE_TRIALS)
        if self.has_prior:
            weight = weight + self._trust(told, means) * self._log_prior(U)
        return np.asarray(weight)

    def _edges(self, U: Array) -> Array:
        depth = np.maximum(np.abs(U - 0.5) - (0.5 - _EDGE), 0.0) / _EDGE
        return np.asarray(-_EDGE_WEIGHT * np.sum(depth[:, self._has_edges] ** 2, axis=1))

    def _trust(self, told: Array, means: Array) -> float:
        """How much the user's belief counts: less with time, and less when trials near it fail."""
        trust = _PRIOR_TRIALS / (_PRIOR_TRIALS + len(told))
        near = self._log_prior(told) > _NEAR
        if not near.any() or near.all():
            return trust
        worse = float(means[near].min() - means[~near].min())
        return trust * float(np.exp(-_DISTRUST * max(0.0, worse)))

    def _log_prior(self, U: Array) -> Array:
        total = np.zeros(len(U))
        for u, p in zip(U.T, self._space.parameters, strict=True):
            if p.prior is not None:
                total += _log_density(p, u)
        return np.asarray(np.maximum(total, _PRIOR_LOWEST))


def _log_density(p: Parameter, u: Array) -> Array:
    away = u - p.to_unit(p.prior)
    if isinstance(p, Choice) and not p.is_ordered:
        return np.where(np.abs(away) < 1e-9, 0.0, _OTHER_CHOICE)
    return np.asarray(-0.5 * (away / _PRIOR_SD) ** 2)


def _middle(p: Parameter) -> float | None:
    if p.prior is not None:
        return p.to_unit(p.prior)
    return None if isinstance(p, Choice) and not p.is_ordered else 0.5


def _has_edges(p: Parameter) -> bool:
    """Ranges of a few values are tried from end to end anyway."""
    return p.n_values is None or p.n_values > 10


def most_believed(space: Space, random: Array) -> Mapping[str, Any]:
    """The configuration at the mode of the belief."""
    return space.from_unit([float(u) for u in Belief(space).mode(random)])
