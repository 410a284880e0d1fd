"""Where new configurations come from: a design that looks at nothing, or a model of what ended.

A proposer knows configurations and scores, no jobs and no budgets; strategies decide when to ask.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ._acquisition import ACQUISITIONS
from ._belief import Belief, most_believed
from ._climb import Climb
from ._design import Design
from ._features import Features
from ._model import Data, Model, make_model
from ._space import Space, Values, canonical
from ._threads import one_blas_thread
from ._transfer import FEWEST_RANKED, deserve_trust

Array = np.ndarray

Found = tuple[dict[str, Any], dict[str, Any]]  # a configuration, and what is predicted of it

_N_TOPS = 5  # best trials, round which the search for a proposal starts too


T = TypeVar("T")
Known = Callable[[], Sequence[T]]  # called only by those who want to know


@dataclass(frozen=True)
class Row:
    """What one training told.

    `away` says in which ways it was not what counts, 0 for none: trained for less long, part of an
    earlier sweep. The model learns how much each of them matters.
    """

    values: Values
    score: float | None  # smaller is better; None: it failed
    away: tuple[float, ...] = ()


class Proposer(Protocol):
    """A sequence of new configurations."""

    def next(self, number: int, rows: Known[Row], pending: Known[Values]) -> Found | None:
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

    def next(self, number: int, rows: Known[Row], pending: Known[Values]) -> Found | None:
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

    `n_away` is the length of the rows' `away`; `known` are rows that were there before the first
    trial, the best of which is tried early.

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
        n_away: int = 0,
        known: Sequence[Row] = (),
    ) -> None:
        if acquisition not in ACQUISITIONS:
            legal = ", ".join(ACQUISITIONS)
            raise ValueError(f"acquisition={acquisition!r} is unknown: one of {legal}")
        self._space = space
        self._seed = seed
        self._acquisition = acquisition
        self._n_away = n_away
        self._belief = Belief(space)
        self._features = Features(space)
        first = _first(space, seed, initial, known, has_prior=self._belief.has_prior)
        self._n_initial = _size_of_design(space, n_trials, first, n_initial, is_warm=bool(known))
        self._design = Design(space, seed=seed, initial=first, n_inner=self._n_initial)
        self._has_known = bool(known)
        self._seen: set[str] = set()

    def next(self, number: int, rows: Known[Row], pending: Known[Values]) -> Found | None:
        """A point of the first design, later what the model expects most of."""
        is_early = number < self._n_initial
        told = [] if is_early and not self._has_known else rows()
        if _n_good(told) < 2:
            found = self._drawn()
        else:
            with one_blas_thread():
                found = self._promising(number, told, pending(), is_early=is_early)
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

    def _promising(
        self, number: int, rows: Sequence[Row], pending: Sequence[Values], *, is_early: bool
    ) -> Found | None:
        """The proposal of the model; None when no configuration is left.

        Early on there is one only where known rows deserve trust; else the design goes on.
        """
        rng = np.random.default_rng([self._seed, number])
        ours = [row for row in rows if not any(row.away)]
        if is_early and _n_good(ours) < FEWEST_RANKED:
            return self._drawn()
        rows, model = self._trusted(rows, ours, pending, rng)
        if is_early and rows is ours:
            return self._drawn()
        values = self._climb(model, rows, rng).best()
        if values is None:
            return None
        trust = {"warm_start": rows is not ours} if self._has_known else {}
        return values, {**model.explain(self._encode([values])), **trust}

    def _trusted(
        self,
        rows: Sequence[Row],
        ours: Sequence[Row],
        pending: Sequence[Values],
        rng: np.random.Generator,
    ) -> tuple[Sequence[Row], Model]:
        """All rows and their model; ours alone where those known before do not help."""
        together = self._model(rows, pending, rng)
        if not self._has_known or _n_good(ours) < FEWEST_RANKED:
            return rows, together
        alone = self._model(ours, pending, rng)
        good = [row for row in rows if row.score is not None]
        is_ours = np.array([not any(row.away) for row in good])
        scores = np.array([row.score for row in good], dtype=float)[is_ours]
        if deserve_trust(scores, together.left_out()[is_ours], alone.left_out()):
            return rows, together
        return ours, alone

    def _model(
        self, rows: Sequence[Row], pending: Sequence[Values], rng: np.random.Generator
    ) -> Model:
        return make_model(self._data(rows, pending), acquisition=self._acquisition, rng=rng)

    def _data(self, rows: Sequence[Row], pending: Sequence[Values]) -> Data:
        good = [row for row in rows if row.score is not None]
        failed = [row for row in rows if row.score is None]
        configurations = [row.values for row in good]
        of_away = np.full(self._n_away, len(self._space))
        return Data(
            F=self._encode(configurations, [row.away for row in good]),
            scores=np.array([row.score for row in good], dtype=float),
            failed=self._encode([row.values for row in failed], [row.away for row in failed]),
            pending=self._encode(pending),
            groups=np.concatenate([self._features.groups, of_away]),
            places=self._encode(configurations),
        )

    def _climb(self, model: Model, rows: Sequence[Row], rng: np.random.Generator) -> Climb:
        good = self._units([row.values for row in rows if row.score is not None])

        def value_of(U: Array) -> Array:
            weight = self._belief.log_weight(U, good, model.means)
            return np.asarray(model.acquisition(self._features_of(U)) + weight)

        _, first = np.unique(good, axis=0, return_index=True)  # one may stand at several rungs
        order = first[np.argsort(model.means[first], kind="stable")]
        tops = good[order[:_N_TOPS]]
        return Climb(self._space, self._features, value_of, tops, self._seen, rng)

    def _encode(
        self, configurations: Sequence[Values], away: Sequence[tuple[float, ...]] = ()
    ) -> Array:
        return self._features_of(self._units(configurations), away)

    def _features_of(self, U: Array, away: Sequence[tuple[float, ...]] = ()) -> Array:
        """Features (m, f) of snapped points, and columns that say what they were trained as.

        The length scale of these columns says how much the others have to do with what counts.
        """
        ways = np.array(away, dtype=float) if len(away) else np.zeros((len(U), self._n_away))
        return np.hstack([self._features.encode(U), ways.reshape(len(U), self._n_away)])

    def _units(self, configurations: Sequence[Values]) -> Array:
        """Snapped points (m, d) of the unit cube."""
        rows = [self._space.to_unit(values) for values in configurations]
        U = np.array(rows, dtype=float).reshape(len(rows), len(self._space))
        return self._features.snap(U)


def _n_good(rows: Sequence[Row]) -> int:
    return sum(row.score is not None for row in rows)


def _first(
    space: Space,
    seed: int,
    initial: Sequence[Values],
    known: Sequence[Row],
    *,
    has_prior: bool,
) -> list[Values]:
    """What is tried first: the `initial` ones, the best that is known, what is believed.

    The middle of the space stands in for initial configurations that nobody gave.
    """
    scores = [(row.score, i) for i, row in enumerate(known) if row.score is not None]
    best = [known[min(scores)[1]].values] if scores else []
    random = np.random.default_rng([seed]).random(len(space))
    believed = [most_believed(space, random)] if has_prior or not initial else []
    return [*initial, *best, *believed]


def _size_of_design(
    space: Space,
    n_trials: int | None,
    first: Sequence[Values],
    wanted: int | None,
    *,
    is_warm: bool,
) -> int:
    if wanted is not None and wanted < 1:
        raise ValueError(f"n_initial={wanted}: expected an integer from 1 on")
    # The best of earlier sweeps takes no place of a trial that tells something for certain.
    size = min(5, 2 + len(space)) + is_warm if wanted is None else wanted
    if wanted is None and n_trials is not None:
        size = min(size, max(2, n_trials // 2))
    return max(size, len(first))
