"""Expected improvement against its definition, and far from where that can be computed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from search_cases import law

from hydra_plugins.tune_sweeper.search._acquisition import (
    log_expected_improvement,
    log_h,
    upper_confidence,
)


@pytest.mark.parametrize("mean", [-1.0, 0.0, 0.7, 2.0])
@pytest.mark.parametrize("sd", [0.1, 1.0, 3.0])
def test_expected_improvement_equals_monte_carlo(mean: float, sd: float) -> None:
    """The mean of max(best - f, 0) over 10^6 draws.

    The tolerance is 5 standard errors, so one of the 12 cases fails with a chance of 7e-6.
    """
    if (0.5 - mean) / sd < -4:
        return  # not one of 10^6 draws improves
    f = np.random.default_rng(0).normal(mean, sd, 10**6)
    gains = np.maximum(0.5 - f, 0.0)
    expected = np.exp(log_expected_improvement(np.array([mean]), np.array([sd]), 0.5))[0]

    assert expected == pytest.approx(gains.mean(), abs=5 * gains.std() / 1000)


@law
@given(st.floats(-5, 5))
def test_log_h_equals_the_naive_formula(z: float) -> None:
    """log(phi + z Phi), where doubles can hold it."""
    assert log_h(np.array([z]))[0] == pytest.approx(np.log(norm.pdf(z) + z * norm.cdf(z)), rel=1e-7)


def test_log_h_is_smooth_and_monotone_from_near_to_far() -> None:
    """z from 5 to -1e5: no NaN, no infinity, no step where the formulas change."""
    z = np.concatenate([np.linspace(5, -50, 20_001), -np.geomspace(50.01, 1e5, 20_001)])
    values = log_h(z)

    assert np.isfinite(values).all()
    assert (np.diff(values) < 0).all()


@pytest.mark.parametrize("z", [-10.0, -100.0, -1e3, -9.9e3, -1.01e4, -1e5, -1e8])
def test_log_h_tends_to_its_asymptote(z: float) -> None:
    """phi(z) / z^2 (1 - 3 / z^2 + ...): what is left out is below 20 / z^4."""
    series = norm.logpdf(z) - 2 * np.log(-z) + np.log1p(-3 / z**2)

    assert log_h(np.array([z]))[0] == pytest.approx(series, rel=1e-12, abs=20 / z**4 + 1e-7)


@pytest.mark.parametrize("z", [-np.inf, -1e200, np.inf, 1e150])
def test_log_h_knows_no_nan(z: float) -> None:
    """Not even where z itself overflowed."""
    assert not np.isnan(log_h(np.array([z]))[0])


def test_far_points_keep_their_order() -> None:
    """Where expected improvement is zero in doubles, its logarithm still tells points apart."""
    mean, sd = np.array([50.0, 60.0, 60.0]), np.array([0.1, 0.1, 0.2])
    value = log_expected_improvement(mean, sd, 0.0)

    assert value[0] > value[1]
    assert value[2] > value[1]


@law
@given(st.floats(-5, 5), st.floats(0.01, 5), st.floats(-5, 5), st.floats(0.1, 100))
def test_expected_improvement_scales_with_the_scores(
    mean: float, sd: float, best: float, factor: float
) -> None:
    """EI(a mean, a sd, a best) = a EI(mean, sd, best)."""
    m, s = np.array([mean]), np.array([sd])
    one = log_expected_improvement(m, s, best)[0]
    other = log_expected_improvement(factor * m, factor * s, factor * best)

    assert other[0] == pytest.approx(one + np.log(factor), rel=1e-6, abs=1e-6)


def test_upper_confidence_weighs_mean_and_doubt() -> None:
    """Two standard deviations count as much as the mean; a lower mean is better."""
    mean, sd = np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 2.0])
    value = upper_confidence(mean, sd)

    assert value == pytest.approx([2.0, 1.0, 4.0])
