"""Parameters against their unit values, spaces against their conditions."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from search_cases import choices, intervals, is_plain, law, parameters, spaces, unit

from hydra_plugins.tune_sweeper.search._space import (
    LINEAR,
    LOG,
    REVERSE_LOG,
    Choice,
    Condition,
    Interval,
    Parameter,
    Space,
    canonical,
)

# Parameters


@law
@given(parameters(), unit)
def test_values_survive_the_unit_interval(parameter: Parameter, u: float) -> None:
    """value -> unit -> value gives the value back, on every scale and of every type."""
    value = parameter.from_unit(u)
    again = parameter.from_unit(parameter.to_unit(value))

    assert 0.0 <= parameter.to_unit(value) <= 1.0
    if isinstance(value, float):
        assert value == pytest.approx(again, rel=1e-6, abs=1e-9)
    else:
        assert canonical(value) == canonical(again)


@law
@given(intervals().filter(lambda p: p.n_values is None), unit)
def test_units_survive_a_continuous_interval(interval: Interval, u: float) -> None:
    """unit -> value -> unit gives the unit value back."""
    assert u == pytest.approx(interval.to_unit(interval.from_unit(u)), abs=1e-5)


@law
@given(parameters(), unit)
def test_parameter_contains_what_it_draws(parameter: Parameter, u: float) -> None:
    """Every point of the unit interval is a legal value of a plain type."""
    value = parameter.from_unit(u)

    assert parameter.contains(value)
    assert is_plain(value)


@law
@given(intervals(), unit)
def test_interval_keeps_its_bounds_and_type(interval: Interval, u: float) -> None:
    """Never one rounding below low or above high; integers are int, the others float."""
    value = interval.from_unit(u)

    assert interval.low <= value <= interval.high
    assert type(value) is (int if interval.is_integer else float)


def test_interval_with_long_bounds_contains_its_ends() -> None:
    """Rounding to 12 digits does not leave the bounds."""
    interval = Interval("x", 1 / 3, 7 / 3, step=0.5)

    assert all(interval.contains(value) for value in interval.grid(None))


def test_interval_of_whole_bounds_gives_floats() -> None:
    """`interval(1, 10)` of a float key: the bounds themselves are floats too."""
    interval = Interval("x", 1, 10)

    assert [float, float, float] == [type(interval.nearest(v)) for v in (0, 5, 99)]


@law
@given(intervals(), st.floats(-1e7, 1e7))
def test_nearest_value_is_legal_and_stays(interval: Interval, number: float) -> None:
    """Snapping gives a legal value, and a legal value is not moved."""
    value = interval.nearest(number)

    assert interval.contains(value)
    assert value == interval.nearest(value)


@pytest.mark.parametrize(
    ("scale", "low", "high", "middle"),
    [(LINEAR, 2.0, 4.0, 3.0), (LOG, 1e-4, 1e-2, 1e-3), (REVERSE_LOG, 0.9, 0.999, 0.99)],
)
def test_scale_puts_its_middle_at_one_half(
    scale: str, low: float, high: float, middle: float
) -> None:
    """Arithmetic, geometric, and geometric in 1 - x."""
    interval = Interval("x", low, high, scale=scale)

    assert interval.from_unit(0.5) == pytest.approx(middle)
    assert interval.to_unit(middle) == pytest.approx(0.5)
    assert [interval.from_unit(0.0), interval.from_unit(1.0)] == pytest.approx([low, high])


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval("x", 0, 9, is_integer=True), list(range(10))),
        (Interval("x", 0, 1, is_integer=True), [0, 1]),
        (Interval("x", 0, 10, is_integer=True, step=3), [0, 3, 6, 9]),
        (Interval("x", 0.0, 1.0, step=0.3), [0.0, 0.3, 0.6, 0.9]),
        (Interval("x", -2, 2, is_integer=True), [-2, -1, 0, 1, 2]),
    ],
)
def test_values_of_a_stepped_range_are_equally_likely(
    interval: Interval, expected: list[float]
) -> None:
    """The bounds too, which plain rounding would draw half as often.

    False-alarm rate: 1e-6 a case, with a fixed seed.
    """
    draws = [interval.from_unit(u) for u in np.random.default_rng(0).random(20_000)]
    counts = [draws.count(value) for value in expected]

    assert sum(counts) == len(draws)
    assert chisquare(counts).pvalue > 1e-6


def test_integers_on_a_log_scale_are_likely_by_their_logarithm() -> None:
    """P(n) is the share of [n - 1/2, n + 1/2] on the log scale. False-alarm rate: 1e-6."""
    interval = Interval("x", 1, 8, scale=LOG, is_integer=True)
    draws = [interval.from_unit(u) for u in np.random.default_rng(0).random(20_000)]
    edges = np.log(np.arange(0.5, 9.0))
    expected = np.diff(edges) / (edges[-1] - edges[0]) * len(draws)

    assert chisquare([draws.count(n) for n in range(1, 9)], expected).pvalue > 1e-6


@law
@given(intervals())
def test_number_of_values_is_the_length_of_the_grid(interval: Interval) -> None:
    """A stepped range knows how many values it has; they are distinct, sorted and legal."""
    if interval.n_values is None or interval.n_values > 2000:
        return
    values = interval.grid(None)

    assert interval.n_values == len(set(values))
    assert values == sorted(values)
    assert all(map(interval.contains, values))


@pytest.mark.parametrize(
    ("interval", "points", "expected"),
    [
        (Interval("x", 0.0, 1.0), 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (Interval("x", 1e-4, 1e-1, scale=LOG), 4, [1e-4, 1e-3, 1e-2, 1e-1]),
        (Interval("x", 0.9, 0.999, scale=REVERSE_LOG), 3, [0.9, 0.99, 0.999]),
        (Interval("x", 0.0, 1.0), 1, [0.5]),
        (Interval("x", 1, 9, is_integer=True), 3, [1, 5, 9]),
        (Interval("x", 1, 3, is_integer=True), 7, [1, 2, 3]),
        (Interval("x", 0, 10, is_integer=True, step=3), None, [0, 3, 6, 9]),
    ],
)
def test_grid_of_an_interval_is_even_on_its_scale(
    interval: Interval, points: int | None, expected: list[float]
) -> None:
    """Both bounds are in it; never more points than there are values."""
    assert expected == pytest.approx(interval.grid(points))


def test_grid_of_a_continuous_interval_asks_for_points() -> None:
    """The message names the interval and what to type."""
    with pytest.raises(ValueError, match=r"lr in \[0.0001, 0.1\], log.*points=5"):
        Interval("lr", 1e-4, 1e-1, scale=LOG).grid(None)


@law
@given(choices())
def test_choices_share_the_unit_interval_equally(choice: Choice) -> None:
    """The middle of each n-th is the choice; so are its edges, the last one included."""
    n = len(choice.choices)
    middles = [choice.from_unit((i + 0.5) / n) for i in range(n)]

    assert [canonical(c) for c in choice.choices] == [canonical(m) for m in middles]
    assert canonical(choice.from_unit(1.0)) == canonical(choice.choices[-1])
    assert list(choice.choices) == list(choice.grid(3))


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (Interval("x", 0.0, 1.0), 1.1),
        (Interval("x", 0.0, 1.0), math.nan),
        (Interval("x", 0.0, 1.0), "0.5"),
        (Interval("x", 0, 1, is_integer=True), True),
        (Interval("x", 0, 9, is_integer=True), 2.5),
        (Interval("x", 0.0, 1.0, step=0.25), 0.3),
        (Interval("x", 0, 10, is_integer=True, step=3), 10),
        (Choice("x", (1, 2)), 3),
        (Choice("x", (1, 2)), True),
        (Choice("x", ("1",)), 1),
        (Choice("x", (None,)), "None"),
    ],
)
def test_parameter_does_not_contain_other_values(parameter: Parameter, value: Any) -> None:
    """Outside the bounds, between the steps, of another type."""
    assert not parameter.contains(value)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"low": 2.0, "high": 1.0}, "low=2 is above high=1: swap the bounds"),
    ({"low": 1.0, "high": 1.0}, "low and high are both 1"),
    ({"low": math.nan, "high": 1.0}, "low=nan is not a finite number"),
    ({"low": 0.0, "high": math.inf}, "high=inf is not a finite number"),
    ({"low": 0.5, "high": 2, "is_integer": True}, "integer bounds expected, got 0.5 and 2"),
    ({"low": 0.1, "high": 1.0, "scale": "logg"}, "scale 'logg' is unknown: one of linear, log"),
    ({"low": 0.0, "high": 1.0, "scale": LOG}, "a log scale needs low > 0, got 0"),
    ({"low": -3.0, "high": 1.0, "scale": LOG}, "a log scale needs low > 0, got -3"),
    ({"low": 0.0, "high": 1.0, "scale": REVERSE_LOG}, "needs high < 1, got 1"),
    ({"low": 0.0, "high": 1.0, "step": 2.0}, "step=2 must lie between 0 and 1"),
    ({"low": 0.0, "high": 1.0, "step": 0.0}, "step=0 must"),
    ({"low": 0.0, "high": 1.0, "step": math.nan}, "step=nan must"),
    ({"low": 0, "high": 9, "step": 1.5, "is_integer": True}, "step=1.5 of an integer"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[m for _, m in WRONG])
def test_wrong_interval_says_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    """With the value, and what was expected."""
    with pytest.raises(ValueError, match=message):
        Interval("x", **arguments)


@pytest.mark.parametrize(
    ("listed", "message"),
    [((), "no value to choose from"), ((1, 2, 1), "the value 1 is listed twice")],
)
def test_wrong_choice_says_what_is_wrong(listed: tuple[Any, ...], message: str) -> None:
    """An empty list, and a value that stands in it twice."""
    with pytest.raises(ValueError, match=message):
        Choice("x", listed)


def test_choices_of_different_types_are_different() -> None:
    """1, 1.0, True and "1" may stand in one list, and each is found again."""
    choice = Choice("x", (1, 1.0, True, "1", None, "None"))

    assert [choice.index(value) for value in choice.choices] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (Interval("lr", 1e-4, 0.1, scale=LOG), "lr in [0.0001, 0.1], log"),
        (Interval("n", 1, 9, is_integer=True, step=2), "n in [1, 9], integers, step 2"),
        (Choice("model", ("cnn", None)), "model in {cnn, None}"),
        (Choice("x", tuple(range(30))), "x in {0, 1, 2, 3, 4, 5, 6, 7, ... 30 values}"),
    ],
)
def test_parameter_describes_itself(parameter: Parameter, expected: str) -> None:
    """In the user's words, on one line."""
    assert expected == parameter.describe()


# Spaces


@law
@given(spaces(), st.data())
def test_configurations_survive_the_unit_cube(space: Space, data: st.DataObject) -> None:
    """values -> unit -> values, conditions included; what is drawn is contained."""
    values = space.from_unit([data.draw(unit) for _ in space.names])
    again = space.from_unit(space.to_unit(values))

    assert space.contains(values)
    assert values.keys() == again.keys()
    assert all(
        v == pytest.approx(again[k], rel=1e-6, abs=1e-9) if type(v) is float else v == again[k]
        for k, v in values.items()
    )


@law
@given(spaces(), st.data())
def test_pruning_is_idempotent_and_changes_nothing_given(space: Space, data: st.DataObject) -> None:
    """What is left needs no second pass, and the argument stays as it was."""
    drawn = {p.name: p.from_unit(data.draw(unit)) for p in space.parameters}
    before = dict(drawn)
    pruned = space.prune(drawn)

    assert pruned == space.prune(pruned)
    assert before == drawn


CHAIN = Space(
    (Choice("a", (1, 2)), Choice("b", (1, 2)), Choice("c", (1, 2))),
    (Condition("b", "a", (1,)), Condition("c", "b", (2,))),
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": 1, "b": 2, "c": 1}, {"a": 1, "b": 2, "c": 1}),
        ({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 1}),
        ({"a": 2, "b": 2, "c": 1}, {"a": 2}),
        ({"b": 2, "c": 1}, {}),
    ],
)
def test_chain_of_conditions_is_pruned_to_its_end(
    values: dict[str, int], expected: dict[str, int]
) -> None:
    """A child whose parent does not exist does not exist either."""
    assert expected == CHAIN.prune(values)


@pytest.mark.parametrize(
    ("values", "is_contained"),
    [
        ({"a": 1, "b": 2, "c": 1}, True),
        ({"a": 2}, True),
        ({"a": 1, "b": 1}, True),
        ({"a": 1}, False),
        ({"a": 2, "b": 1}, False),
        ({"a": 2, "other": 1}, False),
        ({"a": 3}, False),
        ({}, False),
    ],
)
def test_space_contains_complete_legal_configurations_only(
    values: dict[str, int], is_contained: bool
) -> None:
    """Nothing missing, nothing more, no value from elsewhere."""
    assert is_contained == CHAIN.contains(values)


def test_space_contains_only_what_where_allows() -> None:
    """The constraint is part of being legal."""
    space = Space((Interval("x", 0.0, 1.0),), where=lambda values: values["x"] < 0.5)

    assert space.contains({"x": 0.4})
    assert not space.contains({"x": 0.6})


def test_two_conditions_must_both_hold() -> None:
    """A parameter with two parents exists only when both have a wanted value."""
    parameters = (Choice("a", (1, 2)), Choice("b", (1, 2)), Choice("c", (1, 2)))
    space = Space(parameters, (Condition("c", "a", (1,)), Condition("c", "b", (1,))))

    assert space.contains({"a": 1, "b": 1, "c": 1})
    assert space.contains({"a": 1, "b": 2})
    assert not space.contains({"a": 1, "b": 2, "c": 1})


def test_condition_tells_true_from_one() -> None:
    """A condition on the value 1 does not hold for True."""
    space = Space((Choice("a", (1, True)), Choice("b", (0, 5))), (Condition("b", "a", (1,)),))

    assert list(space.prune({"a": True, "b": 5})) == ["a"]
    assert list(space.prune({"a": 1, "b": 5})) == ["a", "b"]


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([("a", "a")], "the condition on a depends on itself"),
        ([("a", "b"), ("b", "a")], "the condition on a depends on itself"),
        ([("b", "c"), ("c", "a"), ("a", "b")], "depends on itself"),
        ([("a", "z")], "the condition on a names z, which is not searched"),
        ([("z", "a")], "the condition on z names z, which is not searched"),
    ],
)
def test_wrong_conditions_are_named(edges: list[tuple[str, str]], message: str) -> None:
    """Circles of any length and names from nowhere."""
    conditions = tuple(Condition(child, parent, (1,)) for child, parent in edges)
    with pytest.raises(ValueError, match=message):
        Space(tuple(Choice(name, (1, 2)) for name in "abc"), conditions)


def test_parameter_twice_is_refused() -> None:
    """By its name."""
    with pytest.raises(ValueError, match="lr is searched twice"):
        Space((Choice("lr", (1, 2)), Interval("lr", 0, 1)))


def test_absent_parameter_stands_in_the_middle() -> None:
    """Where a point of the unit cube needs a place for it."""
    assert CHAIN.to_unit({"a": 2}) == [0.75, 0.5, 0.5]
