"""Random search: covers the space evenly, and is a function of the seed."""

import numpy as np
import pytest
from scipy.stats import kstest
from search_cases import SPACES, from_file

from hydra_plugins.tune_sweeper.search._design import Design
from hydra_plugins.tune_sweeper.search._random import Random
from hydra_plugins.tune_sweeper.search._space import (
    LOG,
    REVERSE_LOG,
    Choice,
    Interval,
    Space,
)

SCALES = Space(
    (
        Interval("linear", -2.0, 5.0),
        Interval("log", 1e-5, 1.0, scale=LOG),
        Interval("reverse_log", 0.0, 0.9999, scale=REVERSE_LOG),
    )
)


@pytest.mark.parametrize("sampler", ["sobol", "iid"])
def test_random_is_uniform_on_every_scale(sampler: str) -> None:
    """Kolmogorov-Smirnov on the unit values; false-alarm rate 3e-6, with a fixed seed."""
    proposals = Random(SCALES, seed=1, n_trials=1000, sampler=sampler).ask(1000)
    units = np.array([SCALES.to_unit(p.values) for p in proposals])

    assert all(kstest(units[:, j], "uniform").pvalue > 1e-6 for j in range(3))


def test_sobol_fills_every_cell() -> None:
    """64 points of a scrambled Sobol sequence lie one in each 64th of every axis."""
    design = Design(SCALES, seed=3)
    units = np.array([SCALES.to_unit(design.next() or {}) for _ in range(64)])

    assert [len(set((units[:, j] * 64).astype(int))) for j in range(3)] == [64, 64, 64]


def test_initial_configurations_come_first() -> None:
    """In their order; the sequence behind them is the same as without them."""
    initial = [
        {"linear": 0.5, "log": 0.1, "reverse_log": 0.5},
        {"linear": 0, "log": 1, "reverse_log": 0},
    ]
    with_initial = Random(SCALES, seed=0, n_trials=9, initial=initial).ask(9)
    without = Random(SCALES, seed=0, n_trials=7).ask(7)

    assert initial == [p.values for p in with_initial[:2]]
    assert [p.values for p in without] == [p.values for p in with_initial[2:]]


def test_forbidden_or_repeated_initial_configurations_are_left_out() -> None:
    """`where` holds for them too, and nothing is trained twice."""
    space = Space((Choice("a", (1, 2, 3)),), where=lambda values: values["a"] != 2)
    search = Random(space, seed=0, n_trials=9, initial=[{"a": 2}, {"a": 3}, {"a": 3}])

    assert [p.values["a"] for p in search.ask(9)] == [3, 1]


def test_unknown_sampler_is_refused() -> None:
    """With the legal ones."""
    with pytest.raises(ValueError, match="sampler='halton' is unknown: one of sobol, iid"):
        Random(SCALES, seed=0, n_trials=1, sampler="halton")


@pytest.mark.parametrize("sampler", ["sobol", "iid"])
def test_all_configurations_of_a_small_space_are_found(sampler: str) -> None:
    """Without repetition; then the search is over.

    Chance of missing one of 60 in 2000 draws: 60 * (59/60)^2000 < 1e-12.
    """
    space = Space((Interval("n", 0, 29, is_integer=True), Choice("b", (True, False))))
    found = Random(space, seed=0, n_trials=None, sampler=sampler).ask(1000)

    assert len(found) == 60


def test_exhausted_search_stays_exhausted() -> None:
    """However often it is asked, so the sequence does not depend on the number of workers.

    A space that is nearly used up could else give one more at the second attempt.
    """
    space = Space((Interval("n", 0, 3999, is_integer=True),))
    search = Random(space, seed=0, n_trials=None, sampler="iid")
    search.ask(10_000)

    assert [search.ask(1) for _ in range(3)] == [[], [], []]


def test_unbounded_search_goes_on() -> None:
    """n_trials=null of a continuous space."""
    search = Random(SPACES["continuous"], seed=0, n_trials=None)

    assert len(search.ask(300)) == 300


@pytest.mark.parametrize("sampler", ["sobol", "iid"])
def test_resumed_search_of_a_larger_space_proposes_what_is_new(sampler: str) -> None:
    """Recorded configurations are not repeated, and no new one is lost."""
    old = Random(Space((Choice("a", tuple(range(8))),)), seed=0, n_trials=5, sampler=sampler).ask(5)
    search = Random(Space((Choice("a", tuple(range(12))),)), seed=0, n_trials=None, sampler=sampler)
    search.accept([from_file(p) for p in old])
    found = search.ask(99)

    assert list(range(12)) == sorted(p.values["a"] for p in [*old, *found])
    assert list(range(12)) == [p.trial for p in [*old, *found]]
