"""How promising a point is: log expected improvement, stable down to improvements of exp(-1000)."""

import math

import numpy as np
from scipy.special import erfcx, log_ndtr

Array = np.ndarray

ACQUISITIONS = ("logei", "ucb")
_KAPPA = 2.0  # standard deviations of optimism in UCB
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_HALF_LOG_HALF_PI = 0.5 * math.log(0.5 * math.pi)


def log_expected_improvement(mean: Array, sd: Array, best: float | Array) -> Array:
    """log E[max(best - f, 0)] for f ~ N(mean, sd^2), elementwise; smaller f is better."""
    return np.asarray(log_h((best - mean) / sd) + np.log(sd))


def log_h(z: Array) -> Array:
    """log(phi(z) + z Phi(z)), for any z.

    Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization"
    (NeurIPS 2023), equation 9.
    """
    z = np.asarray(z, dtype=float)
    middle = np.maximum(z, -1.0)
    phi = np.exp(-0.5 * middle * middle - _HALF_LOG_2PI)
    direct = np.log(phi + middle * np.exp(log_ndtr(middle)))
    far = np.clip(z, -1e150, -1.0)
    # phi + z Phi = phi (1 - r), with r = |z| Phi / phi < 1 tending to one.
    log_r = np.log(erfcx(-far / math.sqrt(2.0)) * np.abs(far)) + _HALF_LOG_HALF_PI
    tail = -0.5 * far * far - _HALF_LOG_2PI + _log1mexp(log_r, far)
    return np.asarray(np.where(z > -1.0, direct, tail))


def _log1mexp(log_r: Array, z: Array) -> Array:
    """log(1 - exp(log_r)); where the difference drowns in rounding, its limit 1 / z^2."""
    safe = np.minimum(log_r, -1e-12)
    exact = np.log(-np.expm1(safe))
    return np.asarray(np.where(z < -1e4, -2.0 * np.log(np.abs(z)), exact))


def upper_confidence(mean: Array, sd: Array) -> Array:
    """How good f may well be, larger is better: its mean less two standard deviations, negated.

    Srinivas et al., "Gaussian process optimization in the bandit setting" (ICML 2010), with a
    constant in the place of its growing beta.
    """
    return np.asarray(_KAPPA * sd - mean)
