"""Every combination, lazily, in the user's order."""

import itertools
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_cases import SPACES, from_file, law, n_configurations, spaces

from hydra_plugins.tune_sweeper.search._grid import Grid
from hydra_plugins.tune_sweeper.search._space import (
    LOG,
    Choice,
    Condition,
    Interval,
    Space,
    canonical,
)
from hydra_plugins.tune_sweeper.search._trial import Proposal

ABC = Space((Choice("a", (1, 2)), Choice("b", ("x", "y", "z")), Choice("c", (True, False))))
HUGE = Space(tuple(Choice(f"p{i}", tuple(range(10))) for i in range(9)))


def values_of(proposals: list[Proposal]) -> list[tuple[object, ...]]:
    return [tuple(p.values.values()) for p in proposals]


def test_grid_is_the_product_in_the_users_order() -> None:
    """The last parameter varies fastest, as in itertools.product."""
    expected = list(itertools.product((1, 2), ("x", "y", "z"), (True, False)))

    assert expected == values_of(Grid(ABC).ask(100))
    assert len(expected) == len(Grid(ABC))


def test_grid_numbers_its_trials_from_zero() -> None:
    """Over several asks."""
    grid = Grid(ABC)

    assert list(range(12)) == [p.trial for n in (1, 4, 20) for p in grid.ask(n)]


def test_grid_ends() -> None:
    """And stays at its end."""
    grid = Grid(ABC)
    grid.ask(12)

    assert [grid.ask(1), grid.ask(1)] == [[], []]


@pytest.mark.parametrize("shuffle", [False, True])
def test_grid_of_a_billion_starts_at_once(shuffle: bool) -> None:
    """10^9 combinations: no list of them in memory, no time before the first."""
    tracemalloc.start()
    start = time.process_time()
    proposals = Grid(HUGE, shuffle=shuffle).ask(10)
    seconds = time.process_time() - start
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(proposals) == 10
    assert seconds < 0.2
    assert peak_bytes < 200_000


@law
@given(st.integers(1, 3000), st.integers(0, 99))
def test_shuffled_grid_is_a_permutation(n: int, seed: int) -> None:
    """Of any number of combinations, with any seed."""
    space = Space((Choice("x", (0,)), Interval("n", 0, n, is_integer=True)))
    shuffled = [p.values["n"] for p in Grid(space, shuffle=True, seed=seed).ask(n + 1)]

    assert list(range(n + 1)) == sorted(shuffled)


def test_shuffle_depends_on_the_seed_alone() -> None:
    """The same order twice, another one for another seed, and not the user's."""
    orders = [values_of(Grid(ABC, shuffle=True, seed=s).ask(12)) for s in (0, 0, 1)]

    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_shuffle_puts_each_combination_first_equally_often() -> None:
    """Over seeds: all 12 combinations, none much more often than others.

    Chance of a false alarm: each count is binomial(1200, 1/12), 60 is 4.2 sd below 100: 3e-4
    for all twelve; the seeds are fixed.
    """
    first = [values_of(Grid(ABC, shuffle=True, seed=s).ask(1))[0] for s in range(1200)]
    counts = [first.count(values) for values in itertools.product((1, 2), "xyz", (True, False))]

    assert sum(counts) == 1200
    assert all(60 < count < 140 for count in counts)


@pytest.mark.parametrize("shuffle", [False, True])
@law
@given(space=spaces().filter(lambda s: n_configurations(s) < 3000))
def test_grid_holds_every_configuration_once(shuffle: bool, space: Space) -> None:
    """Conditions make combinations equal: each configuration stands once, and none is missing."""
    axes = [[(p.name, v) for v in p.grid(None)] for p in space.parameters]
    expected = {canonical(space.prune(dict(pairs))) for pairs in itertools.product(*axes)}
    proposed = [canonical(p.values) for p in Grid(space, shuffle=shuffle).ask(3000)]

    assert len(proposed) == len(set(proposed))
    assert expected == set(proposed)


def test_grid_leaves_out_what_where_forbids() -> None:
    """In the order of the rest."""
    space = Space(ABC.parameters, where=lambda values: values["a"] == 2 or values["b"] != "y")
    expected = [v for v in itertools.product((1, 2), "xyz", (True, False)) if v[:2] != (1, "y")]

    assert expected == values_of(Grid(space).ask(100))


def test_grid_asks_where_about_pruned_configurations() -> None:
    """What does not exist cannot be held against a combination."""
    space = Space(
        (Choice("a", (1, 2)), Choice("b", (3, 4))),
        (Condition("b", "a", (1,)),),
        where=lambda values: values.get("b") != 3,
    )

    assert values_of(Grid(space).ask(9)) == [(1, 4), (2,)]


def test_points_may_differ_by_key() -> None:
    """Even on each parameter's scale; an integer range without points is taken whole."""
    space = Space(
        (
            Interval("lr", 1e-3, 1e-1, scale=LOG),
            Interval("dropout", 0.0, 0.5),
            Interval("n", 1, 3, is_integer=True),
        )
    )
    grid = Grid(space, points={"lr": 3, "dropout": 2})
    expected = itertools.product((1e-3, 1e-2, 1e-1), (0.0, 0.5), (1, 2, 3))

    assert values_of(grid.ask(99)) == [pytest.approx(v) for v in expected]


@pytest.mark.parametrize("points", [None, {"momentum": 3}])
def test_grid_refuses_intervals_without_points(points: dict[str, int] | None) -> None:
    """Before anything runs, naming the interval."""
    with pytest.raises(ValueError, match=r"lr in \[0.0001, 0.1\]"):
        Grid(SPACES["continuous"], points=points)


def test_n_trials_cuts_the_grid() -> None:
    """The first ones are run."""
    assert values_of(Grid(ABC, n_trials=5).ask(99)) == values_of(Grid(ABC).ask(5))


def test_grid_without_parameters_is_one_job() -> None:
    """`-m` without anything to sweep runs the config as it is."""
    assert [p.values for p in Grid(Space(())).ask(5)] == [{}]


def test_resumed_grid_of_a_larger_space_runs_what_is_new() -> None:
    """The recorded combinations stand elsewhere in the new order: neither lost nor run again."""
    old = Grid(Space((Choice("a", (1, 2)), Choice("b", (1, 2))))).ask(3)
    grid = Grid(Space((Choice("a", (1, 2)), Choice("b", (0, 1, 2)))))
    grid.accept([from_file(p) for p in old])

    assert values_of(grid.ask(9)) == [(1, 0), (2, 0), (2, 2)]
