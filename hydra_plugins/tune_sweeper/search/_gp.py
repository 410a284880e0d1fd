"""Gaussian process regression with a Matern-5/2 kernel, one length scale per parameter.

    X (n, f)   features of the observed points     y (n,)  targets, standardised
    x (m, f)   features of the points asked about  g (f,)  parameter that a feature belongs to
    D (p, n, n) squared distances per parameter    L       lower Cholesky factor of K + noise
    theta (p + 2,) log length scales, log noise variance, log signal variance

Rasmussen and Williams, "Gaussian processes for machine learning" (2006), chapters 2 and 5.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = np.ndarray

# Log-normal priors. Length scales grow with the square root of the dimension, or the model of a
# high-dimensional space is all local: Hvarfner, Hellsten and Nardi, "Vanilla Bayesian optimization
# performs great in high dimensions" (ICML 2024), equation 6.
_LENGTH_MEAN, _LENGTH_SD = math.sqrt(2) - 1.5, 1.0
_NOISE_MEAN, _NOISE_SD = math.log(3e-3), 2.0
_SIGNAL_MEAN, _SIGNAL_SD = 0.0, 0.7
_BOUNDS_LENGTH, _BOUNDS_NOISE, _BOUNDS_SIGNAL = (-4.0, 4.5), (math.log(1e-6), 1.0), (-3.0, 3.0)
_JITTER = 1e-9
_MAX_FIT = 200  # more points hardly move the hyperparameters, and each costs cubically


@dataclass(frozen=True)
class Posterior:
    """The function after n observations."""

    X: Array  # (n, f)
    theta: Array  # (p + 2,)
    groups: Array  # (f,)
    L: Array  # (n, n)
    alpha: Array  # (n,)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean (m,) and standard deviation (m,) of the function itself, without noise, at x."""
        k = self.covariance(x)
        v = solve_triangular(self.L, k.T, lower=True)
        variance = np.exp(self.theta[-1]) - np.sum(v * v, axis=0)
        return k @ self.alpha, np.sqrt(np.maximum(variance, 1e-12))

    def covariance(self, x: Array) -> Array:
        """Prior covariance (m, n) between x and the observed points."""
        scale = np.exp(-self.theta[self.groups])
        return np.asarray(
            np.exp(self.theta[-1]) * matern52(_square_distances(x * scale, self.X * scale))
        )

    def with_points(self, x: Array, y: Array) -> "Posterior":
        """The same process with further observations."""
        Y = self._targets()
        return condition(np.vstack([self.X, x]), np.concatenate([Y, y]), self.theta, self.groups)

    def _targets(self) -> Array:
        return np.asarray(self.L @ (self.L.T @ self.alpha))


def matern52(r2: Array) -> Array:
    """Matern kernel of smoothness 5/2 at the squared scaled distance r2 (equation 4.17)."""
    s = np.sqrt(5.0 * r2)
    return np.asarray((1.0 + s + s * s / 3.0) * np.exp(-s))


def _square_distances(a: Array, b: Array) -> Array:
    cross = a @ b.T
    squares = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)[None, :]
    return np.asarray(np.maximum(squares - 2.0 * cross, 0.0))


def distances(X: Array, groups: Array) -> Array:
    """Squared distances (p, n, n), one matrix per parameter."""
    n_parameters = int(groups.max()) + 1
    out = np.zeros((n_parameters, len(X), len(X)))
    for column, group in enumerate(groups):
        out[group] += (X[:, None, column] - X[None, :, column]) ** 2
    return out


def condition(X: Array, y: Array, theta: Array, groups: Array) -> Posterior:
    """The process with hyperparameters theta after seeing y at X (algorithm 2.1)."""
    scale = np.exp(-theta[groups])
    K = np.exp(theta[-1]) * matern52(_square_distances(X * scale, X * scale))
    L = cholesky(K + _noise(theta) * np.eye(len(X)), lower=True)
    return Posterior(X, theta, groups, L, cho_solve((L, True), y))


def _noise(theta: Array) -> float:
    return float(np.exp(theta[-2]) + _JITTER * np.exp(theta[-1]))


def log_posterior(theta: Array, D: Array, y: Array) -> tuple[float, Array]:
    """Log of likelihood times prior, up to a constant, and its gradient (p + 2,) (equation 5.9)."""
    signal, inverse_squares = np.exp(theta[-1]), np.exp(-2.0 * theta[:-2])
    s = np.sqrt(5.0 * np.tensordot(inverse_squares, D, axes=1))
    decay = np.exp(-s)
    K = signal * (1.0 + s + s * s / 3.0) * decay
    L = cholesky(K + _noise(theta) * np.eye(len(y)), lower=True)
    alpha = cho_solve((L, True), y)
    value = -0.5 * y @ alpha - np.sum(np.log(np.diag(L)))
    # d value / d K, so that the gradient is a sum over the elements of dK / d theta.
    W = 0.5 * (np.outer(alpha, alpha) - cho_solve((L, True), np.eye(len(y))))
    slope = W * (signal * 5.0 / 3.0) * (1.0 + s) * decay
    lengths = np.tensordot(D, slope, axes=([1, 2], [0, 1])) * inverse_squares
    noise = np.exp(theta[-2]) * np.trace(W)
    signal_gradient = np.sum(W * K) + _JITTER * signal * np.trace(W)
    gradient = np.concatenate([lengths, [noise, signal_gradient]])
    mean, sd = _prior(len(theta) - 2)
    z = (theta - mean) / sd
    return float(value - 0.5 * z @ z), gradient - z / sd


def _prior(n_parameters: int) -> tuple[Array, Array]:
    length = _LENGTH_MEAN + 0.5 * math.log(n_parameters)
    mean = np.array([length] * n_parameters + [_NOISE_MEAN, _SIGNAL_MEAN])
    sd = np.array([_LENGTH_SD] * n_parameters + [_NOISE_SD, _SIGNAL_SD])
    return mean, sd


def fit(X: Array, y: Array, groups: Array, rng: np.random.Generator) -> Array:
    """The hyperparameters (p + 2,) of highest posterior density, from two starts.

    Beyond 200 points the best half and a random half of 200 decide.
    """
    if len(y) > _MAX_FIT:
        X, y = _subset(X, y, rng)
    D = distances(X, groups)
    p = len(D)
    bounds = [_BOUNDS_LENGTH] * p + [_BOUNDS_NOISE, _BOUNDS_SIGNAL]
    mean, _ = _prior(p)
    short = np.concatenate([mean[:-2] - 1.2, [mean[-2] + 2.0, mean[-1]]])
    results = [
        minimize(_negative, start, args=(D, y), jac=True, method="L-BFGS-B", bounds=bounds)
        for start in (mean, short)
    ]
    return np.asarray(min(results, key=lambda r: float(r.fun)).x)


def _negative(theta: Array, D: Array, y: Array) -> tuple[float, Array]:
    value, gradient = log_posterior(theta, D, y)
    return -value, -gradient


def _subset(X: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    order = np.argsort(y, kind="stable")
    rest = rng.permutation(order[_MAX_FIT // 2 :])[: _MAX_FIT // 2]
    chosen = np.sort(np.concatenate([order[: _MAX_FIT // 2], rest]))
    return X[chosen], y[chosen]
