"""Gaussian process regression with a Matern-5/2 kernel, one length scale per parameter.

    X (n, f)   features of the observed points     y (n,)  targets, standardised
    x (m, f)   features of the points asked about  g (f,)  parameter that a feature belongs to
    D (p, n, n) squared distances per parameter    L       lower Cholesky factor of K + noise
    theta (p + 2,) log length scales, log noise variance, log signal variance

Rasmussen and Williams, "Gaussian processes for machine learning" (2006), chapters 2 and 5.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri

Array = np.ndarray

_JITTER = 1e-9


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
        v = solve_triangular(self.L, k.T, lower=True, overwrite_b=False, check_finite=False)
        variance = np.exp(self.theta[-1]) - np.einsum("ij,ij->j", v, v)
        return k @ self.alpha, np.sqrt(np.maximum(variance, 1e-12))

    def means(self) -> Array:
        """Mean (n,) at the observed points: what of y is not noise."""
        return np.asarray(self._targets() - _noise(self.theta) * self.alpha)

    def left_out(self) -> Array:
        """Mean (n,) at each observed point given all others (equation 5.12)."""
        return np.asarray(self._targets() - self.alpha / np.diag(_inverse(self.L)))

    def covariance(self, x: Array) -> Array:
        """Prior covariance (m, n) between x and the observed points."""
        scale = np.exp(-self.theta[self.groups])
        k = matern52(_square_distances(x * scale, self.X * scale))
        k *= np.exp(self.theta[-1])
        return k

    def with_points(self, x: Array, y: Array) -> "Posterior":
        """The same process with further observations."""
        Y = self._targets()
        return condition(np.vstack([self.X, x]), np.concatenate([Y, y]), self.theta, self.groups)

    def _targets(self) -> Array:
        return np.asarray(self.L @ (self.L.T @ self.alpha))


def matern52(r2: Array) -> Array:
    """Matern kernel of smoothness 5/2 at the squared scaled distance r2 (equation 4.17)."""
    s2 = 5.0 * r2
    s = np.sqrt(s2)
    s2 /= 3.0
    s2 += s
    s2 += 1.0
    s2 *= np.exp(-s, out=s)
    return np.asarray(s2)


def _square_distances(a: Array, b: Array) -> Array:
    squares = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)[None, :]
    squares -= 2.0 * (a @ b.T)
    return np.asarray(np.maximum(squares, 0.0, out=squares))


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
    K[np.diag_indices(len(X))] = np.exp(theta[-1]) + _noise(theta)
    L = cholesky(K, lower=True, overwrite_a=True, check_finite=False)
    return Posterior(X, theta, groups, L, cho_solve((L, True), y, check_finite=False))


def _noise(theta: Array) -> float:
    return float(np.exp(theta[-2]) + _JITTER * np.exp(theta[-1]))


def log_evidence(theta: Array, D: Array, y: Array) -> float:
    """Log marginal likelihood up to a constant (equation 5.8)."""
    K, _, _ = _kernel(theta, D)
    K[np.diag_indices(len(y))] += _noise(theta)
    L = cholesky(K, lower=True, overwrite_a=True, check_finite=False)
    z = solve_triangular(L, y, lower=True, check_finite=False)
    return float(-0.5 * z @ z - np.sum(np.log(np.diag(L))))


def evidence_slopes(theta: Array, D: Array, y: Array) -> tuple[float, Array, Array]:
    """Log marginal likelihood, its gradient (p + 2,) by theta and (n,) by y (equation 5.9)."""
    K, s, decay = _kernel(theta, D)
    signal, noise = np.exp(theta[-1]), np.exp(theta[-2])
    M = K.copy()
    M[np.diag_indices(len(y))] += _noise(theta)
    L = cholesky(M, lower=True, overwrite_a=True, check_finite=False)
    alpha = cho_solve((L, True), y, check_finite=False)
    value = -0.5 * y @ alpha - np.sum(np.log(np.diag(L)))
    # d value / d K, so that the gradient is a sum over the elements of dK / d theta.
    W = 0.5 * (np.outer(alpha, alpha) - _inverse(L))
    trace = np.trace(W)
    by_signal = np.vdot(W, K) + _JITTER * signal * trace
    slope = W
    slope *= s + 1.0
    slope *= decay
    lengths = (D.reshape(len(D), -1) @ slope.ravel()) * np.exp(-2.0 * theta[:-2])
    lengths *= signal * 5.0 / 3.0
    return float(value), np.concatenate([lengths, [noise * trace, by_signal]]), -alpha


def _kernel(theta: Array, D: Array) -> tuple[Array, Array, Array]:
    """Covariance (n, n) without noise, with the scaled distance s (n, n) and exp(-s)."""
    s = (5.0 * np.exp(-2.0 * theta[:-2])) @ D.reshape(len(D), -1)
    s = np.sqrt(s, out=s).reshape(D.shape[1:])
    decay = np.exp(-s)
    K = s / 3.0
    K += 1.0
    K *= s
    K += 1.0
    K *= decay
    K *= np.exp(theta[-1])
    return K, s, decay


def _inverse(L: Array) -> Array:
    """Inverse (n, n) of L L^T."""
    lower, _ = dpotri(L, lower=1)
    inverse = np.tril(lower)
    inverse += np.tril(lower, -1).T
    return np.asarray(inverse)
