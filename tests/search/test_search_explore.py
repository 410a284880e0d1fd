"""How a copied configuration moves."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_cases import close, intervals, law, spaces, unit

from hydra_plugins.tune_sweeper.search._explore import Explore
from hydra_plugins.tune_sweeper.search._space import (
    LINEAR,
    LOG,
    Choice,
    Condition,
    Interval,
    Parameter,
    Space,
    canonical,
)

FACTORS = (0.5, 0.8, 1.25, 2.0)


def explore(space: Space, *, resample: float = 0.0, linear: float = 0.2) -> Explore:
    return Explore(space, factors=FACTORS, linear=linear, resample=resample)


def moved(parameter: Parameter, value: Any, n: int = 200) -> list[tuple[Any, str]]:
    """Where a value goes, and what is said of it, n times."""
    move = explore(Space((parameter,)))
    results = [move({parameter.name: value}, np.random.default_rng(i)) for i in range(n)]
    return [(values[parameter.name], moves[parameter.name]) for values, moves in results]


def target(p: Interval, value: float, move: str) -> float:
    """Where the recorded move leads before the bounds and the steps."""
    if move.startswith("x"):
        factor = float(move[1:])
        return value * factor if p.scale == LOG else 1 - (1 - value) * factor
    return value + float(move)


@law
@given(intervals(), unit)
def test_value_is_where_the_recorded_move_leads(interval: Interval, u: float) -> None:
    """By a factor on log scales, by a shift on linear ones; snapped, or by one step at least."""
    old = interval.from_unit(u)
    for new, move in moved(interval, old, n=20):
        expected = interval.nearest(target(interval, old, move))
        gap = 1e-3 * (interval.high - interval.low) + 1e-9  # the record has four digits
        if interval.n_values is None:
            assert new == pytest.approx(expected, rel=1e-5, abs=gap)
        else:
            step = interval.step or 1
            assert abs(new - expected) <= step * (1 + 1e-6) + gap


@law
@given(spaces(), st.data())
def test_explored_values_are_legal(space: Space, data: st.DataObject) -> None:
    """Inside the bounds, on the steps, complete by the conditions."""
    values = space.from_unit([data.draw(unit) for _ in space.names])
    before = canonical(values)
    for resample in (0.0, 1.0):
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        assert space.contains(explore(space, resample=resample)(values, rng)[0])

    assert before == canonical(values)


@law
@given(intervals().filter(lambda p: p.n_values is not None and p.n_values > 1), unit)
def test_stepped_values_move_by_one_step_at_least(interval: Interval, u: float) -> None:
    """Also at a bound, and where a factor is smaller than a step."""
    old = interval.from_unit(u)

    assert all(new != old for new, _ in moved(interval, old, n=20))


def test_zero_can_move() -> None:
    """On a linear scale a factor would keep it where it is for ever."""
    assert max(new for new, _ in moved(Interval("dropout", 0.0, 0.5), 0.0)) > 0.05


def test_shifts_fill_the_share_of_the_range() -> None:
    """Uniform up to 0.2 of the range, in both directions; no drift.

    The mean of 2000 shifts is within 4.5 standard errors of zero: false-alarm rate 7e-6.
    """
    shifts = np.array([new - 5.0 for new, _ in moved(Interval("x", 0.0, 10.0), 5.0, n=2000)])

    assert 1.9 < shifts.max() <= 2.0
    assert -2.0 <= shifts.min() < -1.9
    assert abs(shifts.mean()) < 4.5 * 2 / math.sqrt(3) / math.sqrt(2000)


def test_factors_are_equally_likely() -> None:
    """Each a quarter of 2000: 4.5 standard deviations are 87, false-alarm rate 3e-5."""
    found = [move for _, move in moved(Interval("lr", 1e-6, 1.0, scale=LOG), 1e-3, n=2000)]
    counts = {move: found.count(move) for move in found}

    assert {"x0.5", "x0.8", "x1.25", "x2"} == counts.keys()
    assert all(abs(count - 500) < 87 for count in counts.values())


def test_ordered_choices_move_to_a_neighbour() -> None:
    """In both directions, inwards at the ends."""
    choice = Choice("batch_size", (16, 32, 64, 128), is_ordered=True)

    assert {(32, "neighbour"), (128, "neighbour")} == set(moved(choice, 64))
    assert {(32, "neighbour")} == set(moved(choice, 16))
    assert {(64, "neighbour")} == set(moved(choice, 128))


def test_unordered_choices_are_drawn_again() -> None:
    """There is no neighbour."""
    found = moved(Choice("model", ("cnn", "mlp", "vit")), "cnn")

    assert {"cnn", "mlp", "vit"} == {value for value, _ in found}
    assert {"resampled"} == {move for _, move in found}


def test_resampling_happens_as_often_as_said() -> None:
    """A quarter of 2000: 4.5 standard deviations are 87, false-alarm rate 7e-6."""
    space = Space((Interval("x", 0.0, 1.0),))
    move = explore(space, resample=0.25)
    moves = [move({"x": 0.5}, np.random.default_rng(i))[1]["x"] for i in range(2000)]

    assert abs(moves.count("resampled") - 500) < 87


def test_nothing_is_resampled_in_the_last_step() -> None:
    """But what has no neighbour."""
    space = Space((Interval("x", 0.0, 1.0), Choice("model", ("cnn", "mlp", "vit"))))
    move = explore(space, resample=1.0)
    _, moves = move({"x": 0.5, "model": "cnn"}, np.random.default_rng(0), is_last=True)

    assert moves["x"] != "resampled"
    assert moves["model"] == "resampled"


def test_frozen_keys_stay() -> None:
    """And are not among the moves."""
    space = Space((Interval("width", 1, 9, is_integer=True, is_frozen=True), Interval("x", 0, 1)))
    values, moves = explore(space, resample=1.0)({"width": 3, "x": 0.5}, np.random.default_rng(0))

    assert values["width"] == 3
    assert {"x"} == moves.keys()


def test_switched_on_keys_are_drawn_and_switched_off_ones_go() -> None:
    """A moved choice may change which keys exist."""
    space = Space(
        (Choice("optimizer", ("adam", "sgd")), Interval("momentum", 0.0, 0.9)),
        (Condition("momentum", "optimizer", ("sgd",)),),
    )
    move = explore(space, resample=1.0)
    from_adam = [move({"optimizer": "adam"}, np.random.default_rng(i))[0] for i in range(20)]
    start = {"optimizer": "sgd", "momentum": 0.5}
    from_sgd = [move(start, np.random.default_rng(i))[0] for i in range(20)]

    assert {1, 2} == {len(values) for values in from_adam}
    assert all(space.contains(values) for values in [*from_adam, *from_sgd])


def test_where_is_respected() -> None:
    """A move that it forbids is tried again."""
    space = Space((Interval("x", 0.0, 1.0),), where=lambda values: values["x"] < 0.52)
    move = explore(space)
    found = [move({"x": 0.5}, np.random.default_rng(i))[0]["x"] for i in range(100)]

    assert max(found) < 0.52
    assert min(found) < 0.35


def test_nothing_moves_when_where_forbids_every_move() -> None:
    """The donor's values are legal, and are kept; no move is claimed."""
    space = Space((Interval("x", 0.0, 1.0),), where=lambda values: values["x"] == 0.5)

    assert explore(space)({"x": 0.5}, np.random.default_rng(0)) == ({"x": 0.5}, {})


def test_reciprocal_factors_do_not_drift() -> None:
    """500 blind moves far from the bounds end as often above as below.

    The log of the product is a sum of 500 moves of sd 0.51: its mean over 100 lineages is within
    4.5 standard errors, 5.1, of zero; false-alarm rate 7e-6.
    """
    move = explore(Space((Interval("x", 1e-60, 1e60, scale=LOG),)))
    ends = []
    for seed in range(100):
        rng, values = np.random.default_rng(seed), {"x": 1.0}
        for _ in range(500):
            values, _ = move(values, rng)
        ends.append(math.log(values["x"]))

    assert abs(np.mean(ends)) < 5.1


@pytest.mark.parametrize("factors", [(0.8, 1.25), (1 / 3, 3.0), (0.5, 0.5, 4.0), (1.0,)])
def test_factors_that_multiply_to_one_are_taken(factors: tuple[float, ...]) -> None:
    """Pairs, triples, and no factor at all."""
    move = Explore(
        Space((Interval("x", 1e-3, 1e3, scale=LOG),)), factors=factors, linear=0.2, resample=0.0
    )
    found = {move({"x": 1.0}, np.random.default_rng(i))[0]["x"] for i in range(50)}

    assert all(any(close(x, f) for f in factors) for x in found)
    assert len(found) == len(set(factors))


def test_scale_of_linear_moves_is_the_range() -> None:
    """The same shifts whatever the units of a parameter."""
    one = [new for new, _ in moved(Interval("x", 0.0, 1.0, scale=LINEAR), 0.5, n=20)]
    other = [new for new, _ in moved(Interval("x", 0.0, 1e6, scale=LINEAR), 5e5, n=20)]

    assert [1e6 * x for x in one] == pytest.approx(other)
