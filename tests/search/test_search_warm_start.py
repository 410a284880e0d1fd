"""Results of earlier sweeps: counted when they agree with the present one, else forgotten."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from search_cases import SPACES, Tell, drive, make_bayes, make_sobol, proposals_of, smooth

from hydra_plugins.tune_sweeper.search._space import Interval, Space

PLANE = Space((Interval("a", 0.0, 1.0), Interval("b", 0.0, 1.0)))
Ended = tuple[Mapping[str, Any], float | None]


def bowl(a: float, b: float) -> Callable[[Mapping[str, Any]], float]:
    """A narrow valley with its lowest point at (a, b)."""
    return lambda v: float(abs(v["a"] - a) + (v["b"] - b) ** 2 + abs(v["a"] - a) * v["b"])


@functools.cache
def earlier(a: float, b: float) -> list[Ended]:
    """A finished sweep of 25 trials over the valley with its lowest point at (a, b)."""
    function = bowl(a, b)
    events = drive(
        make_bayes(PLANE, seed=99, n_trials=25), PLANE, score=lambda _, p: function(p.values)
    )
    return [(p.values, function(p.values)) for p in proposals_of(events)]


def best(warm_start: Sequence[Sequence[Ended]], seed: int, n_trials: int) -> float:
    """The best score that a sweep over the present function finds."""
    present = bowl(0.3, 0.6)
    events = drive(
        make_bayes(PLANE, seed=seed, n_trials=n_trials, warm_start=warm_start),
        PLANE,
        score=lambda _, p: present(p.values),
    )
    scores = [o.score for e in events if isinstance(e, Tell) for o in e.observations]
    return min(s for s in scores if s is not None)


def test_equal_sweep_is_continued() -> None:
    """After six trials it is better than a cold start: 4 of 4 seeds.

    Of two equal methods one wins so with a chance of 1/16; measured 10 of 10.
    """
    told = earlier(0.3, 0.6)
    seeds = range(4)

    assert all(best([told], seed, 6) < best([], seed, 6) for seed in seeds)


def test_misleading_sweep_is_forgotten() -> None:
    """An optimum on the other side: after 18 trials the 90 % quantile is as good as of random.

    Six seeds, fixed.
    """
    told = earlier(0.9, 0.05)
    present = bowl(0.3, 0.6)

    def random(seed: int) -> float:
        events = drive(make_sobol(PLANE, seed=seed, n_trials=18), PLANE)
        return min(present(p.values) for p in proposals_of(events))

    warm = [best([told], seed, 18) for seed in range(6)]

    assert np.quantile(warm, 0.9) < np.median([random(seed) for seed in range(6)])


def test_record_says_whether_earlier_sweeps_count() -> None:
    """Those of the same function do in the fifth trial, those of another do not.

    Measured over 8 seeds: 8 against 3.
    """

    def counted(told: Sequence[Ended], seed: int) -> set[int]:
        strategy = make_bayes(PLANE, seed=seed, n_trials=12, warm_start=[told])
        present = bowl(0.3, 0.6)
        asked = proposals_of(drive(strategy, PLANE, score=lambda _, p: present(p.values)))
        return {p.trial for p in asked if p.info.get("warm_start")}

    same, other = earlier(0.3, 0.6), earlier(0.9, 0.05)

    for seed in range(3):
        assert 4 in counted(same, seed)
        assert 4 not in counted(other, seed)


@pytest.mark.parametrize("seed", range(3))
def test_what_does_not_help_makes_no_difference(seed: int) -> None:
    """Up to the first proposal with their help the sweep is that of a cold start, value for value.

    The first four trials always, whatever the earlier ones say.
    """
    present = bowl(0.3, 0.6)
    for told in (earlier(0.9, 0.05), earlier(0.3, 0.6)):
        warm, cold = (
            proposals_of(
                drive(
                    make_bayes(PLANE, seed=seed, n_trials=12, warm_start=warm_start),
                    PLANE,
                    score=lambda _, p: present(p.values),
                )
            )
            for warm_start in ([told], [])
        )
        n_equal = next((i for i, p in enumerate(warm) if p.info.get("warm_start")), 12)

        assert n_equal >= 4
        assert [p.values for p in warm[:n_equal]] == [p.values for p in cold[:n_equal]]


@pytest.mark.parametrize("key", SPACES)
def test_every_space_starts_warm(key: str) -> None:
    """With failed trials and with some of another space; the sequence is legal and repeats."""
    space = SPACES[key]
    rng = np.random.default_rng(0)
    drawn = [space.from_unit(rng.random(len(space)).tolist()) for _ in range(8)]
    ended: list[Ended] = [(v, None if i % 3 == 0 else float(i)) for i, v in enumerate(drawn)]
    warm_start = [[*ended, ({"other": 1}, 0.0)], ended[:2]]
    runs = [
        proposals_of(drive(make_bayes(space, n_trials=6, warm_start=warm_start), space))
        for _ in range(2)
    ]

    assert runs[0] == runs[1]
    assert all(space.contains(p.values) for p in runs[0])
    assert runs[0] != proposals_of(drive(make_bayes(space, n_trials=6), space, score=smooth))
