"""Hyperparameters of the Gaussian process: the most probable ones, and draws from what is probable.

theta (p + 2,) log length scales, log noise variance, log signal variance
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError
from scipy.optimize import minimize

from ._gp import distances, evidence_slopes, log_evidence
from ._warp import HIGHEST, LOWEST, warp, warp_slopes

Array = np.ndarray

# Log-normal priors. Length scales grow with the square root of the dimension, or the model of a
# high-dimensional space is all local: Hvarfner, Hellsten and Nardi, "Vanilla Bayesian optimization
# performs great in high dimensions" (ICML 2024), equation 6.
_LENGTH_MEAN, _LENGTH_SD = math.sqrt(2) - 1.5, 1.0
_NOISE_MEAN, _NOISE_SD = math.log(3e-3), 2.0
_SIGNAL_MEAN, _SIGNAL_SD = 0.0, 0.7
_WARP_MEAN, _WARP_SD = math.log(1.0), 2.0
_BOUNDS_LENGTH, _BOUNDS_NOISE, _BOUNDS_SIGNAL = (-4.0, 4.5), (math.log(1e-6), 1.0), (-3.0, 3.0)
_MAX_FIT = 200  # more points hardly move the hyperparameters, and each costs cubically
_GTOL, _FTOL = 0.02, 1e-6  # of the maximum: the draws about it vary by much more
_MAX_BOTH = 40  # with more points one start is enough
_STEP = 1e-3  # of the differences that give the curvature


@dataclass(frozen=True)
class Fit:
    """The scale of the scores and the hyperparameters on it."""

    log_c: float
    theta: Array  # (p + 2,) the most probable
    draws: Array  # (k, p + 2) from the posterior


def fit(
    X: Array,  # (n, f)
    r: Array,  # (n,) relative scores
    groups: Array,  # (f,)
    *,
    n_draws: int,
    rng: np.random.Generator,
) -> Fit:
    """The most probable scale and hyperparameters, and `n_draws` of these on that scale.

    Beyond 200 points the best half and a random half of 200 decide.
    """
    if len(r) > _MAX_FIT:
        X, r = _subset(X, r, rng)
    D = distances(X, groups)
    if r.any():
        psi = _maximum(lambda psi: _log_joint(psi, D, r), len(D), len(r), has_warp=True)
        log_c, theta = float(psi[-1]), psi[:-1]
        y = warp(r, log_c)
    else:
        log_c, y = HIGHEST, r
        theta = _maximum(lambda theta: log_posterior(theta, D, y), len(D), len(y), has_warp=False)
    return Fit(log_c, theta, draw(theta, D, y, n_draws, rng))


def fit_plain(X: Array, y: Array, groups: Array, rng: np.random.Generator) -> Array:
    """The most probable hyperparameters (p + 2,) of targets that need no scale."""
    if len(y) > _MAX_FIT:
        X, y = _subset(X, y, rng)
    D = distances(X, groups)
    return _maximum(lambda theta: log_posterior(theta, D, y), len(D), len(y), has_warp=False)


def _subset(X: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    order = np.argsort(y, kind="stable")
    rest = rng.permutation(order[_MAX_FIT // 2 :])[: _MAX_FIT // 2]
    chosen = np.sort(np.concatenate([order[: _MAX_FIT // 2], rest]))
    return X[chosen], y[chosen]


# The posterior of the hyperparameters


def _prior(p: int) -> tuple[Array, Array]:
    length = _LENGTH_MEAN + 0.5 * math.log(p)
    mean = np.array([length] * p + [_NOISE_MEAN, _SIGNAL_MEAN])
    sd = np.array([_LENGTH_SD] * p + [_NOISE_SD, _SIGNAL_SD])
    return mean, sd


def _bounds(p: int) -> Array:
    return np.array([_BOUNDS_LENGTH] * p + [_BOUNDS_NOISE, _BOUNDS_SIGNAL])


def log_posterior(theta: Array, D: Array, y: Array) -> tuple[float, Array]:
    """Log of likelihood times prior, up to a constant, and its gradient (p + 2,)."""
    value, gradient, _ = evidence_slopes(theta, D, y)
    mean, sd = _prior(len(D))
    z = (theta - mean) / sd
    return float(value - 0.5 * z @ z), gradient - z / sd


def _log_joint(psi: Array, D: Array, r: Array) -> tuple[float, Array]:
    """The same for psi (p + 3,), theta and then log c, of relative scores."""
    theta, log_c = psi[:-1], float(psi[-1])
    y, y_slope, log_jacobian, jacobian_slope = warp_slopes(r, log_c)
    value, by_theta, by_y = evidence_slopes(theta, D, y)
    mean, sd = _prior(len(D))
    z = np.append((theta - mean) / sd, (log_c - _WARP_MEAN) / _WARP_SD)
    gradient = np.append(by_theta, by_y @ y_slope + jacobian_slope)
    return value + log_jacobian - 0.5 * float(z @ z), gradient - z / np.append(sd, _WARP_SD)


def _maximum(
    log_density: Callable[[Array], tuple[float, Array]], p: int, n: int, *, has_warp: bool
) -> Array:
    """The largest of two local maxima: from the prior's mean, and from short lengths and noise.

    With many points the first steps from the better start tell as much as both to the end.
    """
    mean, _ = _prior(p)
    short = np.concatenate([mean[:-2] - 1.2, [mean[-2] + 2.0, mean[-1]]])
    bounds = [tuple(b) for b in _bounds(p)]
    starts = [mean, short]
    if has_warp:
        bounds.append((LOWEST, HIGHEST))
        starts = [np.append(mean, math.log(0.3)), np.append(short, math.log(3.0))]

    def negative(psi: Array) -> tuple[float, Array]:
        value, gradient = log_density(psi)
        return -value, -gradient

    if n > _MAX_BOTH:
        starts = [max(starts, key=lambda start: log_density(start)[0])]
    results = [
        minimize(
            negative,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"gtol": _GTOL, "ftol": _FTOL},
        )
        for start in starts
    ]
    return np.asarray(min(results, key=lambda result: float(result.fun)).x)


# Draws


def draw(theta: Array, D: Array, y: Array, k: int, rng: np.random.Generator) -> Array:
    """k hyperparameters (k, p + 2) from their posterior, whose maximum is theta.

    Elliptical slice sampling needs no step size: Murray, Adams and MacKay (AISTATS 2010). Its
    ellipses come from the curvature at the maximum instead of from the prior: Nishihara, Murray
    and Adams, "Parallel MCMC with generalized elliptical slice sampling" (JMLR 2014), section 2.
    """
    root = _root_of_covariance(theta, D, y)
    mean, sd = _prior(len(D))
    bounds = _bounds(len(D))

    def log_ratio(w: Array) -> float:
        """Log of the posterior over the normal approximation, at theta + root w."""
        t = theta + root @ w
        if np.any(t < bounds[:, 0]) or np.any(t > bounds[:, 1]):
            return -math.inf
        z = (t - mean) / sd
        return log_evidence(t, D, y) - 0.5 * float(z @ z) + 0.5 * float(w @ w)

    w = np.zeros(len(theta))
    level = log_ratio(w)
    draws = np.empty((k, len(theta)))
    for i in range(k):
        w, level = _slice(w, level, log_ratio, rng)
        draws[i] = theta + root @ w
    return draws


def _slice(
    w: Array, level: float, log_ratio: Callable[[Array], float], rng: np.random.Generator
) -> tuple[Array, float]:
    """One step of elliptical slice sampling; w is standard normal but for log_ratio."""
    threshold = level + math.log(rng.random())
    other = rng.standard_normal(len(w))
    angle = rng.uniform(0.0, 2.0 * math.pi)
    low, high = angle - 2.0 * math.pi, angle
    while high - low > 1e-6:
        proposed = w * math.cos(angle) + other * math.sin(angle)
        value = log_ratio(proposed)
        if value > threshold:
            return proposed, value
        low, high = (angle, high) if angle < 0 else (low, angle)
        angle = rng.uniform(low, high)
    return w, level


def _root_of_covariance(theta: Array, D: Array, y: Array) -> Array:
    """A root of the inverse curvature at theta; no direction wider than the prior's widest."""
    steps = _STEP * np.eye(len(theta))
    at = log_posterior(theta, D, y)[1]
    curvature = np.array([(at - log_posterior(theta + s, D, y)[1]) / _STEP for s in steps])
    _, sd = _prior(len(D))
    scaled = 0.5 * (curvature + curvature.T) * np.outer(sd, sd)  # the prior alone: the identity
    try:
        values, vectors = np.linalg.eigh(scaled)
    except LinAlgError:
        return np.diag(sd)
    return np.asarray(sd[:, None] * vectors / np.sqrt(np.maximum(values, 1.0)))
