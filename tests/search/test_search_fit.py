"""Hyperparameters: the density, its maximum, and draws from it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad
from search_cases import law
from test_search_gp import GROUPS, data, dense_kernel

from hydra_plugins.tune_sweeper.search._fit import _log_joint, draw, fit, fit_plain, log_posterior
from hydra_plugins.tune_sweeper.search._gp import distances
from hydra_plugins.tune_sweeper.search._warp import relative, standardise

Array = np.ndarray


def test_log_posterior_equals_dense_algebra() -> None:
    """Differences of the log marginal likelihood plus the log of the priors."""
    X, y, theta = data()
    other = theta + np.array([0.3, -0.2, 0.1, 0.5, -0.4])

    def dense(theta: Array) -> float:
        K = dense_kernel(X, X, theta) + np.exp(theta[-2]) * np.eye(len(X))
        likelihood = -0.5 * y @ np.linalg.inv(K) @ y - 0.5 * np.linalg.slogdet(K)[1]
        mean = [np.sqrt(2) - 1.5 + 0.5 * np.log(3)] * 3 + [np.log(3e-3), 0.0]
        z = (theta - mean) / np.array([1.0, 1.0, 1.0, 2.0, 0.7])
        return float(likelihood - 0.5 * z @ z)

    D = distances(X, GROUPS)
    found = log_posterior(theta, D, y)[0] - log_posterior(other, D, y)[0]

    assert dense(theta) - dense(other) == pytest.approx(found, abs=1e-5)


@law
@given(st.integers(0, 10**6), st.lists(st.floats(-1.5, 1.5), min_size=5, max_size=5))
def test_gradient_equals_finite_differences(seed: int, shift: list[float]) -> None:
    """Anywhere near the priors; the error is that of the differences, about 1e-5."""
    X, y, _ = data(seed=seed)
    theta = np.array([0.5, 0.5, 0.5, -4.0, 0.0]) + shift
    D = distances(X, GROUPS)
    gradient = log_posterior(theta, D, y)[1]
    error = check_grad(
        lambda t: log_posterior(t, D, y)[0], lambda t: log_posterior(t, D, y)[1], theta
    )

    assert gradient.shape == (5,)
    assert error < 1e-3 * (1 + np.abs(gradient).max())


@pytest.mark.parametrize("seed", range(4))
def test_fit_finds_a_local_maximum(seed: int) -> None:
    """No gradient is left inside the bounds, and the prior's mean is not better."""
    X, y, _ = data(n=20, seed=seed)
    theta = fit_plain(X, y, GROUPS, np.random.default_rng(0))
    D = distances(X, GROUPS)
    value, gradient = log_posterior(theta, D, y)
    inside = (theta[:3] > -3.99) & (theta[:3] < 4.49)

    assert np.abs(gradient[:3][inside]).max(initial=0) < 0.05
    assert value >= log_posterior(np.array([0.46, 0.46, 0.46, -5.8, 0.0]), D, y)[0]


def test_fit_sees_which_parameter_matters() -> None:
    """The length scale of the only one that the function depends on is the shortest by far."""
    X = np.random.default_rng(0).random((40, 3))
    y = np.sin(6 * X[:, 1])
    theta = fit_plain(X, (y - y.mean()) / y.std(), np.arange(3), np.random.default_rng(0))

    assert theta[1] + 1.0 < min(theta[0], theta[2])


def test_fit_learns_the_noise() -> None:
    """White noise of half the variance is told from a smooth function. Fixed seed."""
    rng = np.random.default_rng(0)
    X = rng.random((80, 1))
    smooth = np.sin(4 * X[:, 0]) * np.sqrt(2)
    y = (smooth + rng.standard_normal(80)) / np.sqrt(2)
    clean = fit_plain(X, (smooth - smooth.mean()) / smooth.std(), np.array([0]), rng)
    noisy = fit_plain(X, (y - y.mean()) / y.std(), np.array([0]), rng)

    assert np.exp(clean[-2]) < 1e-3
    assert 0.2 < np.exp(noisy[-2]) < 1.0


def test_fit_of_many_points_uses_a_subset() -> None:
    """Beyond 200 points: the same seed the same subset, and about the same hyperparameters."""
    X, y, _ = data(n=400)
    found = [fit_plain(X, y, GROUPS, np.random.default_rng(s)) for s in (0, 0, 1)]

    assert np.array_equal(found[0], found[1])
    assert found[0] == pytest.approx(found[2], abs=1.0)


@law
@given(st.integers(0, 10**6), st.floats(-3.0, 5.0))
def test_joint_gradient_equals_finite_differences(seed: int, log_c: float) -> None:
    """Of hyperparameters and scale together."""
    X, y, theta = data(seed=seed)
    D, r = distances(X, GROUPS), relative(np.exp(y))
    psi = np.append(theta, log_c)
    gradient = _log_joint(psi, D, r)[1]
    error = check_grad(lambda p: _log_joint(p, D, r)[0], lambda p: _log_joint(p, D, r)[1], psi)

    assert gradient.shape == (6,)
    assert error < 1e-3 * (1 + np.abs(gradient).max())


def test_scale_follows_the_scores() -> None:
    """An exponential is seen on a log scale, a straight line as it comes."""
    X = np.linspace(0, 1, 40)[:, None]
    groups, rng = np.array([0]), np.random.default_rng(0)
    steep = fit(X, relative(10 ** (4 * X[:, 0])), groups, n_draws=1, rng=rng)
    straight = fit(X, relative(X[:, 0]), groups, n_draws=1, rng=rng)

    assert steep.log_c < 0.0
    assert straight.log_c > steep.log_c + 1.0


def test_draws_have_the_moments_of_the_posterior() -> None:
    """Means and spreads against a dense grid over all three hyperparameters.

    600 correlated draws; the tolerance of 0.3 posterior standard deviations is about five standard
    errors at an effective size of 300. Fixed seed.
    """
    rng = np.random.default_rng(0)
    X = rng.random((30, 1))
    y = standardise(np.sin(6 * X[:, 0]) + 0.2 * rng.standard_normal(30))
    D = distances(X, np.array([0]))
    axes = (np.linspace(-2.5, 2.5, 18), np.linspace(-6, -0.5, 18), np.linspace(-2.5, 3, 14))
    grid = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
    log_density = np.array([log_posterior(t, D, y)[0] for t in grid])
    weight = np.exp(log_density - log_density.max())
    mean = weight @ grid / weight.sum()
    sd = np.sqrt(weight @ (grid - mean) ** 2 / weight.sum())
    draws = draw(fit_plain(X, y, np.array([0]), rng), D, y, 600, rng)

    assert draws.shape == (600, 3)
    assert np.abs((draws.mean(axis=0) - mean) / sd).max() < 0.3
    assert np.abs(draws.std(axis=0) / sd - 1).max() < 0.3


def test_same_seed_gives_the_same_draws() -> None:
    """And draws stay where a process can be computed."""
    X, y, _ = data(n=20)
    found = [
        fit(X, relative(y), GROUPS, n_draws=8, rng=np.random.default_rng(s)).draws
        for s in (0, 0, 1)
    ]

    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert found[0].shape == (8, 5)
    assert (found[0] >= -14).all()
    assert (found[0] <= 4.5).all()


def test_equal_scores_need_no_scale() -> None:
    """Nothing was learned, and nothing breaks."""
    X, _, _ = data()
    found = fit(X, np.zeros(12), GROUPS, n_draws=2, rng=np.random.default_rng(0))

    assert np.isfinite(found.draws).all()
