"""The scale of the scores: order, units, slopes, and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from search_cases import law

from hydra_plugins.tune_sweeper.search._warp import (
    Scale,
    relative,
    standardise,
    warp,
    warp_slopes,
)

scores_lists = st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=12)


def test_relative_scores_run_from_best_to_median() -> None:
    """0 and 1; all 0 when all are equal."""
    assert relative(np.array([5.0, 3.0, 4.0, 9.0, 7.0])) == pytest.approx([1, 0, 0.5, 3, 2])
    assert list(relative(np.array([3.0, 3.0]))) == [0.0, 0.0]
    assert list(relative(np.array([1.0, 1.0, 2.0]))) == [0.0, 0.0, 1.0]


def test_cliff_comes_into_sight() -> None:
    """A gap is at most three times what lies below it, and no less than it takes to see it."""
    r = relative(np.array([3.0, 4.0, 5.0, 7.0, 1e9]))

    assert r == pytest.approx([0.0, 0.5, 1.0, 2.0, 8.0])


def test_scores_over_many_decades_stay_apart() -> None:
    """A loss that falls from 2 to 0.01 is no cliff: what is bad keeps its order and distance."""
    r = relative(np.geomspace(0.01, 2.0, 20))

    assert r[-1] > 12
    assert (np.diff(r) > 0).all()


@law
@given(scores_lists, st.floats(0.1, 100.0), st.floats(-100.0, 100.0))
def test_units_do_not_matter(scores: list[float], factor: float, offset: float) -> None:
    """Relative scores of an increasing affine change are the same."""
    y = np.array([round(s, 2) for s in scores])

    assert relative(factor * y + offset) == pytest.approx(relative(y), rel=1e-6, abs=1e-6)


@law
@given(scores_lists)
def test_order_is_kept(scores: list[float]) -> None:
    """By the relative scores and by every warp."""
    y = np.array([round(s, 2) for s in scores])
    order = np.argsort(y, kind="stable")
    r = relative(y)

    assert (np.diff(r[order]) >= 0).all()
    for log_c in (-4.0, 0.0, 4.0):
        assert (np.diff(warp(r, log_c)[order]) >= 0).all()


def test_standardised_scores_have_mean_0_and_sd_1() -> None:
    """Equal ones are all zero."""
    y = standardise(np.array([1.0, 2.0, 6.0]))

    assert [y.mean(), y.std()] == pytest.approx([0.0, 1.0])
    assert list(standardise(np.array([3.0, 3.0]))) == [0.0, 0.0]


@law
@given(st.integers(0, 10**6), st.floats(-4.0, 6.0))
def test_slopes_equal_finite_differences(seed: int, log_c: float) -> None:
    """Of each target and of the log Jacobian, by log c."""
    r = relative(np.random.default_rng(seed).exponential(size=9))
    _, y_slope, _, jacobian_slope = warp_slopes(r, log_c)

    def at(x: np.ndarray) -> np.ndarray:
        y, _, log_jacobian, _ = warp_slopes(r, float(x[0]))
        return np.append(y, log_jacobian)

    expected = approx_fprime(np.array([log_c]), at, 1e-6)[:, 0]

    assert expected == pytest.approx(np.append(y_slope, jacobian_slope), abs=1e-3)


def test_jacobian_is_that_of_the_targets() -> None:
    """log |dy / dr| with the standardisation's location and width held fixed."""
    r = relative(np.array([1.0, 2.0, 4.0, 9.0]))
    sd = np.std(np.log1p(r / 0.5))
    slopes = 1.0 / (0.5 + r) / sd

    assert np.sum(np.log(slopes)) == pytest.approx(warp_slopes(r, np.log(0.5))[2])


@law
@given(scores_lists, st.floats(-4.0, 6.0))
def test_way_back_leads_to_the_scores(scores: list[float], log_c: float) -> None:
    """Targets of observed scores go back to these."""
    y = np.array([round(s, 1) for s in scores])
    if y.max() == y.min():
        return
    back = Scale.of(y, log_c).to_scores(warp(relative(y), log_c))

    assert y == pytest.approx(back, abs=1e-6 * (y.max() - y.min()))


def test_way_back_goes_beyond_the_best() -> None:
    """A target below all observed ones is a score below all observed ones."""
    y = np.array([1.0, 2.0, 3.0])
    lower = Scale.of(y, 0.0).to_scores(np.array([-2.0, -2.5]))

    assert lower[1] < lower[0] < 1.0
