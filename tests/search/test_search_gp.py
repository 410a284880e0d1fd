"""The Gaussian process against dense algebra."""

import numpy as np
import pytest

from hydra_plugins.tune_sweeper.search._gp import (
    condition,
    distances,
    evidence_slopes,
    log_evidence,
    matern52,
)

Array = np.ndarray

GROUPS = np.array([0, 1, 1, 1, 2])  # the second parameter has three features


def data(n: int = 12, seed: int = 0) -> tuple[Array, Array, Array]:
    """X (n, 5), y (n,) and theta (5,) of a process with three parameters."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, len(GROUPS)))
    y = np.sin(3 * X[:, 0]) + X[:, 1] - X[:, 4] ** 2 + 0.05 * rng.standard_normal(n)
    theta = np.concatenate([rng.normal(0, 0.5, 3), [-4.0, 0.3]])
    return X, (y - y.mean()) / y.std(), theta


def dense_kernel(a: Array, b: Array, theta: Array) -> Array:
    """The covariance (m, n), element by element, straight from the textbook."""
    out = np.empty((len(a), len(b)))
    for i, u in enumerate(a):
        for j, v in enumerate(b):
            r = np.sqrt(np.sum(((u - v) / np.exp(theta[:-2][GROUPS])) ** 2))
            s = np.sqrt(5) * r
            out[i, j] = np.exp(theta[-1]) * (1 + s + s**2 / 3) * np.exp(-s)
    return out


@pytest.mark.parametrize("seed", range(3))
def test_posterior_equals_dense_algebra(seed: int) -> None:
    """Mean and standard deviation by np.linalg.inv of the whole covariance."""
    X, y, theta = data(seed=seed)
    x = np.random.default_rng(99).random((7, len(GROUPS)))
    inverse = np.linalg.inv(dense_kernel(X, X, theta) + np.exp(theta[-2]) * np.eye(len(X)))
    k = dense_kernel(x, X, theta)
    variance = np.diag(dense_kernel(x, x, theta) - k @ inverse @ k.T)
    mean, sd = condition(X, y, theta, GROUPS).predict(x)

    assert mean.shape == sd.shape == (7,)
    assert mean == pytest.approx(k @ inverse @ y, abs=1e-6)
    assert sd == pytest.approx(np.sqrt(variance), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_with_points_equals_conditioning_on_everything(seed: int) -> None:
    """Pending trials are further observations, not an approximation."""
    X, y, theta = data(seed=seed)
    x = np.random.default_rng(99).random((7, len(GROUPS)))
    step_by_step = condition(X[:8], y[:8], theta, GROUPS).with_points(X[8:], y[8:]).predict(x)
    at_once = condition(X, y, theta, GROUPS).predict(x)

    assert step_by_step[0] == pytest.approx(at_once[0], abs=1e-8)
    assert step_by_step[1] == pytest.approx(at_once[1], abs=1e-8)


def test_left_out_equals_conditioning_on_the_others() -> None:
    """The prediction of each observed point by a process that never saw it."""
    X, y, theta = data()
    others = [np.arange(len(y)) != i for i in range(len(y))]
    refitted = [condition(X[o], y[o], theta, GROUPS).predict(X[~o])[0][0] for o in others]

    assert condition(X, y, theta, GROUPS).left_out() == pytest.approx(refitted, abs=1e-6)


def test_believing_the_mean_leaves_the_mean() -> None:
    """A point observed at its own predicted mean moves no prediction, and lowers the sd there."""
    X, y, theta = data()
    x = np.random.default_rng(99).random((7, len(GROUPS)))
    before = condition(X, y, theta, GROUPS)
    after = before.with_points(x[:1], before.predict(x[:1])[0])

    assert after.predict(x)[0] == pytest.approx(before.predict(x)[0], abs=1e-8)
    assert after.predict(x[:1])[1] < 0.5 * before.predict(x[:1])[1]


def test_distances_add_up_to_the_euclidean_ones() -> None:
    """One matrix a parameter; a parameter's features count together."""
    X, _, _ = data()
    D = distances(X, GROUPS)

    assert D.shape == (3, 12, 12)
    assert D.sum(axis=0) == pytest.approx(((X[:, None] - X[None]) ** 2).sum(axis=2))
    assert D[1] == pytest.approx(((X[:, None, 1:4] - X[None, :, 1:4]) ** 2).sum(axis=2))


def test_kernel_is_one_at_distance_zero_and_falls() -> None:
    """A correlation: from one to zero."""
    r2 = np.array([0.0, 1e-6, 0.1, 1.0, 10.0, 1e3, 1e5])
    k = matern52(r2)

    assert k[0] == 1.0
    assert np.all(np.diff(k) < 0) or k[-1] == 0.0
    assert k[-1] < 1e-12


def test_log_evidence_equals_dense_algebra() -> None:
    """Differences between two hyperparameters, with and without slopes."""
    X, y, theta = data()
    other = theta + np.array([0.3, -0.2, 0.1, 0.5, -0.4])
    D = distances(X, GROUPS)

    def dense(theta: Array) -> float:
        K = dense_kernel(X, X, theta) + np.exp(theta[-2]) * np.eye(len(X))
        return float(-0.5 * y @ np.linalg.inv(K) @ y - 0.5 * np.linalg.slogdet(K)[1])

    expected = dense(theta) - dense(other)

    assert expected == pytest.approx(log_evidence(theta, D, y) - log_evidence(other, D, y))
    assert log_evidence(theta, D, y) == pytest.approx(evidence_slopes(theta, D, y)[0])


def test_repeated_points_are_no_obstacle() -> None:
    """Repeats and nearly equal points do not make the covariance singular."""
    X = np.repeat([[0.3, 0.2], [0.3, 0.2 + 1e-9], [0.9, 0.1]], 20, axis=0)
    y = np.tile([1.0, 1.0, -1.0, -1.0], 15)
    mean, sd = condition(X, y, np.array([1.0, 1.0, -13.8, 1.0]), np.array([0, 1])).predict(X)

    assert np.isfinite(mean).all()
    assert (sd > 0).all()
