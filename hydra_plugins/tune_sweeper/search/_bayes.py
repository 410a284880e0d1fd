"""Bayesian optimisation: which configuration to try next, from what all trials so far tell."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._acquisition import ACQUISITIONS
from ._belief import Belief, most_believed
from ._climb import Climb
from ._design import Design
from ._features import Features
from ._model import Data, Model, make_model
from ._space import Space, canonical
from ._threads import one_blas_thread
from ._trial import Observation, Proposal

Array = np.ndarray

Ended = tuple[Mapping[str, Any], float | None]  # a configuration of an earlier sweep and its score
Row = tuple[int | None, Mapping[str, Any], float | None]  # with the sweep, None: this one

_N_TOPS = 5  # best trials, round which the search for a proposal starts too


class Bayes:
    """Proposes where a Gaussian process of the scores promises most.

    Trials in flight stand in the model with their predicted mean. Failed ones teach a process of
    its own where trials succeed. Those of earlier sweeps (`warm_start`) count as far as they agree
    with the present ones. The k-th proposal is a function of the seed, k and what was told and
    pending when it was asked for.

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
        if acquisition not in ACQUISITIONS:
            known = ", ".join(ACQUISITIONS)
            raise ValueError(f"acquisition={acquisition!r} is unknown: one of {known}")
        self._space = space
        self._seed = seed
        self._acquisition = acquisition
        self._limit = n_trials
        self._belief = Belief(space)
        self._features = Features(space)
        self._earlier: list[Row] = [
            (sweep, space.cast(values), score)
            for sweep, trials in enumerate(warm_start)
            for values, score in trials
            if space.contains(space.cast(values))
        ]
        self._n_sweeps = len(warm_start)
        first = _first(space, seed, initial, self._earlier, has_prior=self._belief.has_prior)
        self._n_initial = _size_of_design(space, n_trials, len(first), n_initial)
        self._design = Design(space, seed=seed, initial=first, n_inner=self._n_initial)
        self._seen: set[str] = set()
        self._pending: dict[int, Mapping[str, Any]] = {}  # by trial
        self._told: dict[int, Observation] = {}
        self._n_asked = 0

    def ask(self, n: int) -> list[Proposal]:
        """The next configurations, each chosen knowing of those before it."""
        proposals: list[Proposal] = []
        while len(proposals) < n and (self._limit is None or self._n_asked < self._limit):
            proposal = self._propose()
            if proposal is None:
                break
            self._take(proposal)
            proposals.append(proposal)
        return proposals

    def accept(self, proposals: Sequence[Proposal]) -> None:
        """Takes recorded proposals over; those of the first design are drawn again."""
        for proposal in proposals:
            if not proposal.info:
                self._design.accept(proposal.values)
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
        self._design.skip(proposal.values)
        self._seen.add(canonical(proposal.values))
        if self._space.contains(proposal.values):
            self._pending[proposal.trial] = proposal.values
        # Not counted: a repaired record may lack some.
        self._n_asked = max(self._n_asked, proposal.trial + 1)

    def _propose(self) -> Proposal | None:
        ended = self._ended()
        n_good = sum(score is not None for _, _, score in ended)
        if self._n_asked < self._n_initial or n_good < 2:
            values = self._design.next()
            return None if values is None else Proposal(trial=self._n_asked, values=values)
        with one_blas_thread():
            return self._promising(ended)

    def _promising(self, ended: Sequence[Row]) -> Proposal | None:
        """The proposal of the model; None when no configuration is left."""
        rng = np.random.default_rng([self._seed, self._n_asked])
        model = make_model(self._data(ended), acquisition=self._acquisition, rng=rng)
        values = self._climb(model, ended, rng).best()
        if values is None:
            return None
        info = model.explain(self._encode([values]))
        return Proposal(trial=self._n_asked, values=values, info=info)

    def _ended(self) -> list[Row]:
        """All trials that ended: those of earlier sweeps, then our own."""
        told = [self._told[trial] for trial in sorted(self._told)]
        return [*self._earlier, *((None, o.proposal.values, o.score) for o in told)]

    def _data(self, ended: Sequence[Row]) -> Data:
        good = [(sweep, values) for sweep, values, score in ended if score is not None]
        failed = [(sweep, values) for sweep, values, score in ended if score is None]
        sweeps, configurations = [s for s, _ in good], [v for _, v in good]
        pending = [self._pending[trial] for trial in sorted(self._pending)]
        of_sweep = np.full(self._n_sweeps, len(self._space))
        return Data(
            F=self._encode(configurations, sweeps),
            scores=np.array([s for _, _, s in ended if s is not None], dtype=float),
            failed=self._encode([v for _, v in failed], [s for s, _ in failed]),
            pending=self._encode(pending),
            groups=np.concatenate([self._features.groups, of_sweep]),
            places=self._encode(configurations),
        )

    def _climb(self, model: Model, ended: Sequence[Row], rng: np.random.Generator) -> Climb:
        good = self._units([values for _, values, score in ended if score is not None])

        def value_of(U: Array) -> Array:
            weight = self._belief.log_weight(U, good, model.means)
            return np.asarray(model.acquisition(self._features_of(U)) + weight)

        tops = good[np.argsort(model.means, kind="stable")[:_N_TOPS]]
        return Climb(self._space, self._features, value_of, tops, self._seen, rng)

    def _encode(
        self, configurations: Sequence[Mapping[str, Any]], sweeps: Sequence[int | None] = ()
    ) -> Array:
        return self._features_of(self._units(configurations), sweeps)

    def _features_of(self, U: Array, sweeps: Sequence[int | None] = ()) -> Array:
        """Features (m, f) of snapped points, and a column per earlier sweep that marks its trials.

        The length scale of these columns says how much the sweeps have to do with each other.
        """
        marks = np.zeros((len(U), self._n_sweeps))
        for row, sweep in enumerate(sweeps):
            if sweep is not None:
                marks[row, sweep] = 1.0
        return np.hstack([self._features.encode(U), marks])

    def _units(self, configurations: Sequence[Mapping[str, Any]]) -> Array:
        """Snapped points (m, d) of the unit cube."""
        rows = [self._space.to_unit(values) for values in configurations]
        U = np.array(rows, dtype=float).reshape(len(rows), len(self._space))
        return self._features.snap(U)


def _first(
    space: Space,
    seed: int,
    initial: Sequence[Mapping[str, Any]],
    earlier: Sequence[Row],
    *,
    has_prior: bool,
) -> list[Mapping[str, Any]]:
    """What is tried first: the `initial` ones, the best of earlier sweeps, what is believed.

    The middle of the space stands in for initial configurations that nobody gave.
    """
    scores = [(score, i) for i, (_, _, score) in enumerate(earlier) if score is not None]
    best = [earlier[min(scores)[1]][1]] if scores else []
    random = np.random.default_rng([seed]).random(len(space))
    believed = [most_believed(space, random)] if has_prior or not initial else []
    return [*initial, *best, *believed]


def _size_of_design(space: Space, n_trials: int | None, n_given: int, wanted: int | None) -> int:
    if wanted is not None and wanted < 1:
        raise ValueError(f"n_initial={wanted}: expected an integer from 1 on")
    size = min(5, 2 + len(space)) if wanted is None else wanted
    if wanted is None and n_trials is not None:
        size = min(size, max(2, n_trials // 2))
    return max(size, n_given)
