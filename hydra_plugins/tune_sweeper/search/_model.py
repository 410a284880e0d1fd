"""What is believed about the scores: Gaussian processes under several hyperparameters.

It knows features and scores, no space and no trials; further columns of features (how long a
training was, which sweep it belongs to) make no difference here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, logsumexp

from . import _gp
from ._acquisition import log_expected_improvement, upper_confidence
from ._fit import fit, fit_plain
from ._gp import Posterior
from ._warp import Scale, relative, warp

Array = np.ndarray

_MOST_DRAWS = 8  # of the hyperparameters; fewer when there are many points, as they differ less
_DRAWS_TIMES_POINTS = 400
_MOST_POINTS = 1000  # the better half of these are the best; the rest are drawn
_DONE, _FAILED = 1.0, -1.0  # what the process of success learns
_FAR = 0.5  # what it expects far from all trials: rather success


@dataclass(frozen=True)
class Data:
    """Features of all trials and the scores of those that ended well."""

    F: Array  # (n, f)
    scores: Array  # (n,)
    failed: Array  # (b, f)
    pending: Array  # (q, f)
    groups: Array  # (f,) parameter that a feature belongs to
    places: Array  # (n, f) the same trials as if they counted in full; the incumbent is one


@dataclass(frozen=True)
class Model:
    """Posteriors under several draws of the hyperparameters, on the warped scale."""

    F: Array  # (n, f) of the trials that ended well
    kept: Array  # (k,) those of them that the process knows
    told: Sequence[Posterior]  # of these
    posteriors: Sequence[Posterior]  # of these and of pending points
    bests: Array  # (s,) incumbents: the smallest posterior mean at a place
    means: Array  # (n,) at the places of the trials
    scale: Scale
    success: Posterior | None  # above 0 where trials end well; None: none failed
    name: str  # of the acquisition

    def acquisition(self, F: Array) -> Array:
        """How promising points are (m,): the mean over the draws, less what may fail."""
        mean, sd = self.predict(F)
        if self.name == "ucb":
            return np.asarray(upper_confidence(mean, sd).mean(axis=0) + self._log_success(F))
        value = log_expected_improvement(mean, sd, self.bests[:, None])
        return np.asarray(logsumexp(value, axis=0) - np.log(len(value)) + self._log_success(F))

    def predict(self, F: Array) -> tuple[Array, Array]:
        """Means (s, m) and standard deviations (s, m) under each draw."""
        mean, sd = zip(*(p.predict(F) for p in self.posteriors), strict=True)
        return np.array(mean), np.array(sd)

    def moments(self, F: Array) -> tuple[Array, Array]:
        """Mean (m,) and standard deviation (m,) over all draws."""
        mean, sd = self.predict(F)
        return mean.mean(axis=0), np.sqrt(np.mean(sd * sd, axis=0) + mean.var(axis=0))

    def left_out(self) -> Array:
        """What is predicted for each trial (n,) by all the others."""
        means = np.array([p.predict(self.F)[0] for p in self.told])
        means[:, self.kept] = [p.left_out() for p in self.told]
        return np.asarray(means.mean(axis=0))

    def explain(self, F: Array) -> dict[str, float]:
        """What is predicted for one point (1, f): on the model's scale and on that of the scores.

        `score_low` and `score_high` are one standard deviation from `score`, the median.
        """
        mean, sd = self.moments(F)
        at = self.scale.to_scores(mean[0] + sd[0] * np.array([0.0, -1.0, 1.0]))
        named = dict(zip(("score", "score_low", "score_high"), at.tolist(), strict=True))
        acquisition = float(self.acquisition(F)[0])
        return {"mean": float(mean[0]), "sd": float(sd[0]), "acquisition": acquisition, **named}

    def _log_success(self, F: Array) -> Array:
        if self.success is None:
            return np.zeros(len(F))
        mean, sd = self.success.predict(F)
        noise = np.exp(self.success.theta[-2])
        return np.asarray(log_ndtr((_FAR + mean) / np.sqrt(sd * sd + noise)))


def make_model(data: Data, *, acquisition: str, rng: np.random.Generator) -> Model:
    """Fits the process to the scores and conditions it on the pending points."""
    r = relative(data.scores)
    kept = _subset(r, rng)
    X, r = data.F[kept], r[kept]
    n_draws = int(np.clip(_DRAWS_TIMES_POINTS // len(r), 1, _MOST_DRAWS))
    found = fit(X, r, data.groups, n_draws=n_draws, rng=rng)
    y = warp(r, found.log_c)
    told = [_gp.condition(X, y, theta, data.groups) for theta in found.draws]
    means = np.mean([p.predict(data.places)[0] for p in told], axis=0)
    believed = [_believe(p, data.pending) for p in told]
    # The believed points count too, or each pending trial would go on promising its improvement.
    places = np.vstack([data.places, data.pending])
    bests = np.array([p.predict(places)[0].min() for p in believed])
    scale = Scale.of(data.scores, found.log_c)
    success = _success(data, rng)
    return Model(data.F, kept, told, believed, bests, means, scale, success, acquisition)


def _subset(r: Array, rng: np.random.Generator) -> Array:
    """Rows that the process is conditioned on: all of up to 1000."""
    if len(r) <= _MOST_POINTS:
        return np.arange(len(r))
    order = np.argsort(r, kind="stable")
    half = _MOST_POINTS // 2
    return np.sort(np.concatenate([order[:half], rng.permutation(order[half:])[:half]]))


def _believe(posterior: Posterior, pending: Array) -> Posterior:
    """As if the pending trials had ended as predicted.

    Ginsbourger, Le Riche and Carraro, "Kriging is well-suited to parallelize optimization" (2010).
    """
    if not len(pending):
        return posterior
    return posterior.with_points(pending, posterior.predict(pending)[0])


def _success(data: Data, rng: np.random.Generator) -> Posterior | None:
    """The process of success, from the good trials and the failed ones."""
    if not len(data.failed):
        return None
    F = np.vstack([data.F, data.failed])
    y = np.repeat([_DONE, _FAILED], [len(data.F), len(data.failed)]) - _FAR
    kept = _subset(-y, rng)  # of thousands of trials, failures first
    theta = fit_plain(F[kept], y[kept], data.groups, rng)
    return _gp.condition(F[kept], y[kept], theta, data.groups)
