"""Bayesian optimisation: a Gaussian process of the scores, and log expected improvement on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_ndtr

from . import _gp
from ._acquisition import log_expected_improvement
from ._design import Design
from ._features import Features
from ._gp import Posterior
from ._space import Space, canonical
from ._trial import Observation, Proposal

Array = np.ndarray

_N_SPREAD, _N_NEAR = 1000, 200  # candidates all over the cube, and round the best points
_N_STARTS, _N_ROUNDS, _N_MOVES = 5, 30, 24  # of the local search
_WARPS = (np.inf, 0.03, 0.1, 0.3, 1.0, 3.0)  # where the log scale of relative scores begins
_CAP = 20.0  # relative scores above are equally bad: diverged
_DONE, _FAILED = 1.0, -1.0  # what the process of success learns
_FAR = 0.5  # what it expects far from all trials: rather success


class Bayes:
    """Proposes where the expected improvement over the best posterior mean is largest.

    Trials in flight stand in the model with their predicted mean. Failed ones teach a process of
    its own where trials succeed, whose chance multiplies the improvement. The k-th proposal is a
    function of the seed, k and what was told and pending when it was asked for.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        n_trials: int | None,
        initial: Sequence[Mapping[str, Any]] = (),
        n_initial: int | None = None,
    ) -> None:
        self._space = space
        self._seed = seed
        self._limit = n_trials
        self._n_initial = _size_of_design(space, n_trials, len(initial), n_initial)
        self._design = Design(space, seed=seed, initial=initial)
        self._features = Features(space)
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
        self._n_asked += 1

    def _propose(self) -> Proposal | None:
        scores = [o.score for o in self._told.values() if o.score is not None]
        if self._n_asked < self._n_initial or len(scores) < 2:
            values = self._design.next()
            return None if values is None else Proposal(trial=self._n_asked, values=values)
        rng = np.random.default_rng([self._seed, self._n_asked])
        model = self._model(rng)
        chosen = _Search(self._space, self._features, model, self._seen, rng).best()
        if chosen is None:
            return None
        values, info = chosen
        return Proposal(trial=self._n_asked, values=values, info=info)

    def _model(self, rng: np.random.Generator) -> "Model":
        told = [self._told[trial] for trial in sorted(self._told)]
        good = [o for o in told if o.score is not None]
        failed = [o.proposal.values for o in told if o.score is None]
        scores = np.array([o.score for o in good], dtype=float)
        return make_model(
            self._units([o.proposal.values for o in good]),
            scores,
            failed=self._units(failed),
            pending=self._units([self._pending[trial] for trial in sorted(self._pending)]),
            features=self._features,
            rng=rng,
        )

    def _units(self, configurations: Sequence[Mapping[str, Any]]) -> Array:
        rows = [self._space.to_unit(values) for values in configurations]
        return np.array(rows, dtype=float).reshape(len(rows), len(self._space))


def _size_of_design(space: Space, n_trials: int | None, n_given: int, wanted: int | None) -> int:
    if wanted is not None and wanted < 1:
        raise ValueError(f"n_initial={wanted}: expected an integer from 1 on")
    size = min(10, 2 + len(space)) if wanted is None else wanted
    if wanted is None and n_trials is not None:
        size = min(size, max(2, n_trials // 2))
    return max(size, n_given)


@dataclass(frozen=True)
class Model:
    """What is believed about the scores, on the warped scale."""

    posterior: Posterior  # of observed and pending points
    best: float  # the incumbent: the smallest posterior mean at one of these points
    tops: Array  # (k, d) the most promising observed points, best first
    success: Posterior | None  # above 0 where trials end well; None: none failed

    def acquisition(self, F: Array) -> tuple[Array, Array, Array]:
        """Log of expected improvement times chance of success (m,), with mean and sd (m,)."""
        mean, sd = self.posterior.predict(F)
        value = log_expected_improvement(mean, sd, self.best)
        return value + self._log_success(F), mean, sd

    def _log_success(self, F: Array) -> Array:
        if self.success is None:
            return np.zeros(len(F))
        mean, sd = self.success.predict(F)
        noise = np.exp(self.success.theta[-2])
        return np.asarray(log_ndtr((_FAR + mean) / np.sqrt(sd * sd + noise)))


def make_model(
    U: Array,  # (n, d)
    scores: Array,  # (n,)
    *,
    failed: Array,  # (b, d)
    pending: Array,  # (q, d)
    features: Features,
    rng: np.random.Generator,
) -> Model:
    """Fits the process to the observed scores and conditions it on the pending points."""
    X = features.encode(features.snap(U))
    scores = relative(scores)
    theta = _gp.fit(X, standardise(scores), features.groups, rng)
    y = warp(scores, X, theta, features.groups)
    theta = _gp.fit(X, y, features.groups, rng)
    posterior = _gp.condition(X, y, theta, features.groups)
    tops = U[np.argsort(posterior.predict(X)[0], kind="stable")[:_N_STARTS]]
    if len(pending):
        F = features.encode(features.snap(pending))
        posterior = posterior.with_points(F, posterior.predict(F)[0])
    # The believed points count too, or each pending trial would go on promising its improvement.
    best = float(posterior.predict(posterior.X)[0].min())
    return Model(posterior, best, tops, _success(X, failed, features, rng))


def _success(
    X: Array, failed: Array, features: Features, rng: np.random.Generator
) -> Posterior | None:
    """The process of success, from the features of good trials and the points of failed ones."""
    if not len(failed):
        return None
    F = np.vstack([X, features.encode(features.snap(failed))])
    y = np.repeat([_DONE, _FAILED], [len(X), len(failed)]) - _FAR
    return _gp.condition(F, y, _gp.fit(F, y, features.groups, rng), features.groups)


def relative(scores: Array) -> Array:
    """Scores from the best, 0, over the median, 1, up to a cap; all 0 when they are equal."""
    above = scores / 4.0 - scores.min() / 4.0  # a quarter, so that nothing overflows
    median, top = np.median(above), above.max()
    unit = median if median > 1e-9 * top else top  # half of the scores may be equal
    return np.asarray(np.minimum(above / unit, _CAP) if unit > 0 else np.zeros(len(scores)))


def standardise(scores: Array) -> Array:
    """Scores with mean 0 and standard deviation 1; all 0 when they are equal."""
    sd = float(np.std(scores))
    return np.asarray((scores - np.mean(scores)) / sd if sd > 0 else np.zeros(len(scores)))


def warp(scores: Array, X: Array, theta: Array, groups: Array) -> Array:
    """Relative scores on the scale log(1 + score / c) that the process explains best.

    A cliff of diverged trainings would otherwise flatten everything else. c is chosen by the
    likelihood of the scores themselves, so the Jacobian of the warp counts; c = infinity, no warp,
    is among the candidates. Snelson, Ghahramani and Rasmussen, "Warped Gaussian processes" (2003).
    """
    if not scores.any():
        return scores
    best = max(_WARPS, key=lambda c: _log_likelihood(scores, c, X, theta, groups))
    return standardise(_warped(scores, best)[0])


def _warped(scores: Array, c: float) -> tuple[Array, Array]:
    """Warped scores and the log of the warp's slope at each."""
    if np.isinf(c):
        return scores, np.zeros(len(scores))
    shifted = 1.0 + scores / c
    return np.log(shifted), -np.log(shifted) - np.log(c)


def _log_likelihood(scores: Array, c: float, X: Array, theta: Array, groups: Array) -> float:
    raw, log_slope = _warped(scores, c)
    sd = float(np.std(raw))
    y = (raw - raw.mean()) / sd
    posterior = _gp.condition(X, y, theta, groups)
    fit = -0.5 * y @ posterior.alpha - np.sum(np.log(np.diag(posterior.L)))
    return float(fit + np.sum(log_slope) - len(y) * np.log(sd))


@dataclass
class _Search:
    """Looks for the point of largest acquisition, over legal values only."""

    space: Space
    features: Features
    model: Model
    seen: set[str]
    rng: np.random.Generator

    def best(self) -> tuple[dict[str, Any], dict[str, float]] | None:
        """The best new configuration and what the model says of it; None when there is none."""
        U = self.features.snap(self._candidates())
        value, _, _ = self.model.acquisition(self.features.encode(U))
        value[~self._is_legal(U)] = -np.inf
        starts = np.argsort(-value, kind="stable")[:_N_STARTS]
        found, found_value = self._climb(U[starts], value[starts])
        U, value = np.vstack([found, U]), np.concatenate([found_value, value])
        for i in np.argsort(-value, kind="stable"):
            values = self.space.from_unit([float(u) for u in U[i]])
            if canonical(values) not in self.seen and self.space.allows(values):
                return values, self._explain(U[i : i + 1])
        return self._any_new()

    def _candidates(self) -> Array:
        d = len(self.space)
        spread = self.rng.random((_N_SPREAD, d))
        near = np.repeat(self.model.tops, -(-_N_NEAR // len(self.model.tops)), axis=0)
        return np.vstack([spread, self._moved(near, 0.1)])

    def _climb(self, U: Array, value: Array) -> tuple[Array, Array]:
        """Random moves of shrinking size from each start, keeping what is better and legal."""
        U, value = U.copy(), value.copy()
        for size in np.geomspace(0.2, 0.003, _N_ROUNDS):
            moved = self.features.snap(self._moved(np.repeat(U, _N_MOVES, axis=0), float(size)))
            new = self.model.acquisition(self.features.encode(moved))[0]
            new[~self._is_legal(moved)] = -np.inf
            new = new.reshape(len(U), _N_MOVES)
            best = new.argmax(axis=1)
            rows = np.arange(len(U))
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

    def _explain(self, u: Array) -> dict[str, float]:
        value, mean, sd = self.model.acquisition(self.features.encode(u))
        return {"mean": float(mean[0]), "sd": float(sd[0]), "acquisition": float(value[0])}

    def _any_new(self) -> tuple[dict[str, Any], dict[str, float]] | None:
        """A small space is nearly used up: whatever is left."""
        design = Design(self.space, seed=int(self.rng.integers(2**31)), sampler="iid")
        design._seen = set(self.seen)
        values = design.next()
        if values is None:
            return None
        u = self.features.snap(np.array([self.space.to_unit(values)]))
        return values, self._explain(u)
