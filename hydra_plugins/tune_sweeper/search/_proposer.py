"""Where new configurations come from: a design that looks at nothing, or a model of what ended.

A proposer knows configurations and scores, no jobs and no budgets; strategies decide when to ask.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np

from ._acquisition import ACQUISITIONS
from ._belief import Belief, most_believed
from ._climb import Climb
from ._design import Design
from ._features import Features
from ._space import Space, Values, canonical
from ._surrogate import Row, Surrogate
from ._threads import one_blas_thread
from ._transfer import FEWEST_RANKED, deserve_trust

Array = np.ndarray

Found = tuple[dict[str, Any], dict[str, Any]]  # a configuration, and what is predicted of it

T = TypeVar("T")
Lazy = Callable[[], Sequence[T]]  # called only by those who want to know


class Proposer(Protocol):
    """A sequence of new configurations."""

    def next(self, number: int, rows: Lazy[Row], pending: Lazy[Values]) -> Found | None:
        """The configuration of trial `number` and why; None when none is left."""
        ...

    def accept(self, values: Values, info: Mapping[str, Any]) -> None:
        """Takes over a configuration that an earlier process proposed."""
        ...


class DesignProposer:
    """Looks at no result.

    Raises:
        ValueError: an unknown sampler.
    """

    def __init__(
        self, space: Space, *, seed: int, initial: Sequence[Values] = (), sampler: str = "sobol"
    ) -> None:
        self._design = Design(space, seed=seed, initial=initial, sampler=sampler)

    def next(self, number: int, rows: Lazy[Row], pending: Lazy[Values]) -> Found | None:
        """The next of the sequence."""
        values = self._design.next()
        return None if values is None else (values, {})

    def accept(self, values: Values, info: Mapping[str, Any]) -> None:
        """Draws it again."""
        self._design.accept(values)


class ModelProposer:
    """Proposes where a Gaussian process of the scores promises most.

    Pending trials stand in the model with their predicted mean. Failed ones teach a process of its
    own where trials succeed. The k-th configuration is a function of the seed, k and what ended and
    was pending when it was asked for.

    `known` are rows that were there before the first trial, each of them `away` where the rows of
    trials are not. While they do not help to predict these, every proposal is that of a cold start.

    Raises:
        ValueError: an unknown acquisition, or no first trial.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        n_trials: int | None,
        initial: Sequence[Values] = (),
        n_initial: int | None = None,
        acquisition: str = "logei",
        known: Sequence[Row] = (),
    ) -> None:
        if acquisition not in ACQUISITIONS:
            legal = ", ".join(ACQUISITIONS)
            raise ValueError(f"acquisition={acquisition!r} is unknown: one of {legal}")
        self._space = space
        self._seed = seed
        self._acquisition = acquisition
        self._belief = Belief(space)
        self._features = Features(space)
        self._known = known
        first = _first(space, seed, initial, has_prior=self._belief.has_prior)
        self._n_initial = _size_of_design(space, n_trials, first, n_initial)
        self._design = Design(space, seed=seed, initial=first, n_inner=self._n_initial)
        self._seen: set[str] = set()

    def next(self, number: int, rows: Lazy[Row], pending: Lazy[Values]) -> Found | None:
        """A point of the first design, later what the model expects most of."""
        is_early = number < self._n_initial
        if is_early and not self._known:
            found = self._drawn()
        else:
            with one_blas_thread():
                found = self._advised(number, rows(), pending, is_early=is_early)
        if found is not None:
            self._skip(found[0])
        return found

    def accept(self, values: Values, info: Mapping[str, Any]) -> None:
        """Never proposes it again; those of the first design are drawn again."""
        if not info:
            self._design.accept(values)
        self._skip(values)

    def _skip(self, values: Values) -> None:
        self._design.skip(values)
        self._seen.add(canonical(values))

    def _drawn(self) -> Found | None:
        values = self._design.next()
        return None if values is None else (values, {})

    def _advised(
        self, number: int, rows: Sequence[Row], pending: Lazy[Values], *, is_early: bool
    ) -> Found | None:
        """The proposal of a model; of the design while there is too little to learn from.

        Early on there is enough only where known rows deserve trust.
        """
        n_good = _n_good(rows)
        if n_good < (FEWEST_RANKED if is_early else 2):
            return self._drawn()
        in_flight = pending()
        fit = alone = self._fit(number, rows, in_flight)
        if self._known and n_good >= FEWEST_RANKED:
            together = self._fit(number, self._beside_known(rows), in_flight)
            if deserve_trust(alone.scores, together.left_out()[-n_good:], alone.left_out()):
                fit = together
        if is_early and fit is alone:
            return self._drawn()
        values = self._climb(fit).best()
        if values is None:
            return None
        trust = {"warm_start": fit is not alone} if self._known else {}
        return values, {**fit.explain(values), **trust}

    def _beside_known(self, rows: Sequence[Row]) -> list[Row]:
        not_away = (0.0,) * len(self._known[0].away)
        return [*self._known, *(replace(row, away=not_away) for row in rows)]

    def _fit(self, number: int, rows: Sequence[Row], pending: Sequence[Values]) -> Surrogate:
        rng = np.random.default_rng([self._seed, number])
        return Surrogate(self._features, rows, pending, acquisition=self._acquisition, rng=rng)

    def _climb(self, fit: Surrogate) -> Climb:
        def value_of(U: Array) -> Array:
            weight = self._belief.log_weight(U, fit.U, fit.means)
            return np.asarray(fit.acquisition(U) + weight)

        return Climb(self._space, self._features, value_of, fit.tops(), self._seen, fit.rng)


def _n_good(rows: Sequence[Row]) -> int:
    return sum(row.score is not None for row in rows)


def _first(space: Space, seed: int, initial: Sequence[Values], *, has_prior: bool) -> list[Values]:
    """What is tried first: the `initial` ones, what is believed.

    The middle of the space stands in for initial configurations that nobody gave.
    """
    random = np.random.default_rng([seed]).random(len(space))
    believed = [most_believed(space, random)] if has_prior or not initial else []
    return [*initial, *believed]


def _size_of_design(
    space: Space, n_trials: int | None, first: Sequence[Values], wanted: int | None
) -> int:
    if wanted is not None and wanted < 1:
        raise ValueError(f"n_initial={wanted}: expected an integer from 1 on")
    size = min(5, 2 + len(space)) if wanted is None else wanted
    if wanted is None and n_trials is not None:
        size = min(size, max(2, n_trials // 2))
    return max(size, len(first))
