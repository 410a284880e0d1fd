"""Successive halving: who goes on and when, what it costs, and what the proposers make of it."""

import functools
import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_cases import law
from trainings import Run, by_chance

from hydra_plugins.tune_sweeper.search._asha import Asha
from hydra_plugins.tune_sweeper.search._ladder import rung_epochs
from hydra_plugins.tune_sweeper.search._random import Random
from hydra_plugins.tune_sweeper.search._space import LOG, Interval, Space
from hydra_plugins.tune_sweeper.search._trial import Observation, Proposal

PLANE = Space((Interval("x", 0.0, 1.0), Interval("lr", 1e-4, 1e-1, scale=LOG)))
ORDERS = st.integers(0, 10**6)
SLOTS = st.integers(1, 12)
BRACKETS = st.integers(1, 4)
FAILING = st.sampled_from([0.0, 0.3])


def make(seed: int = 0, **settings: Any) -> Asha:
    defaults = {"epochs": 27, "n_trials": 30, "min_epochs": 1}
    return Asha(PLANE, seed=seed, **{**defaults, **settings})


def run_of(seed: int, *, n_slots: int = 4, failing: float = 0.0, **settings: Any) -> Run:
    order = random.Random(seed)
    return Run(make(seed, **settings), by_chance(seed, failing), n_slots=n_slots, order=order)


# The rungs


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 27}, [1, 3, 9, 27]),
        ({"epochs": 52}, [2, 6, 18, 52]),
        ({"epochs": 52, "min_epochs": 1}, [1, 3, 9, 27, 52]),
        ({"epochs": 100, "max_epochs": 10}, [1, 3, 10]),
        ({"epochs": 16, "min_epochs": 2, "eta": 2}, [2, 4, 8, 16]),
        ({"epochs": 7, "min_epochs": 1, "eta": 1.5}, [1, 2, 3, 5, 7]),
        ({"epochs": 1}, [1]),
        ({"epochs": 5, "min_epochs": 5}, [5]),
    ],
)
def test_rungs_lie_a_factor_apart(settings: dict[str, Any], expected: list[int]) -> None:
    """From the first to a full training; one a little below the last is left out."""
    settings = {"min_epochs": None, "n_trials": None, "max_epochs_total": 500, **settings}
    run = Run(make(**settings), by_chance(0))

    assert sorted({p.until_epoch for p in run.jobs}) == expected


@law
@given(st.integers(1, 30), st.integers(0, 300), st.floats(1.1, 5.0))
def test_rungs_increase_from_first_to_last(first: int, more: int, eta: float) -> None:
    """Whatever the numbers."""
    found = rung_epochs(first, first + more, eta)

    assert found == sorted(set(found))
    assert [found[0], found[-1]] == [first, first + more]


# What holds for every search


@law
@given(ORDERS, SLOTS, BRACKETS, FAILING)
def test_trainings_climb_rung_by_rung(
    seed: int, n_slots: int, brackets: int, failing: float
) -> None:
    """Each level of a training once, continuing its own level below, with the same values."""
    run = run_of(seed, n_slots=n_slots, brackets=brackets, failing=failing)

    assert len({(p.trial, p.step) for p in run.jobs}) == len(run.jobs)
    for proposal in run.jobs:
        if proposal.parent is not None:
            parent = run.jobs[proposal.parent]
            assert (parent.trial, parent.step) == (proposal.trial, proposal.step - 1)
            assert parent.values == proposal.values


class Watched(Run):
    """Notes what stood on a rung when one of its trainings was promoted."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.seen: list[tuple[Proposal, list[Observation]]] = []
        self.alone: set[int] = set()
        super().__init__(*arguments, **settings)

    def ask(self) -> bool:
        n = len(self.jobs)
        if not self.running:
            self.alone.add(n)
        found = super().ask()
        for proposal in self.jobs[n:]:
            if proposal.parent is not None:
                self.seen.append((proposal, self.results(proposal.step - 1)))
        return found

    def is_last(self, proposal: Proposal) -> bool:
        """Whether it went on alone, because nobody else came any more."""
        return self.jobs.index(proposal) in self.alone


@law
@given(ORDERS, SLOTS, FAILING, st.sampled_from([2.0, 3.0, 4.0]))
def test_only_the_best_of_a_rung_go_on(seed: int, n_slots: int, failing: float, eta: float) -> None:
    """One who is promoted is among the best 1 / eta of those who reached his rung, and lives."""
    order = random.Random(seed)
    run = Watched(make(seed, eta=eta), by_chance(seed, failing), n_slots=n_slots, order=order)

    for proposal, ended in run.seen:
        best = [o.proposal.trial for o in ended[: math.floor(len(ended) / eta + 1e-9)]]
        (own,) = [o for o in ended if o.proposal.trial == proposal.trial]
        assert own.score is not None
        assert proposal.trial in best or run.is_last(proposal)


def test_highest_rung_comes_first() -> None:
    """Who is nearest to a full training is promoted before a new configuration is started."""
    asha = make(eta=2.0)
    jobs = asha.ask(4)
    asha.tell([Observation(i, p, float(i)) for i, p in enumerate(jobs)])
    promoted = asha.ask(2)
    asha.tell([Observation(4 + i, p, float(i)) for i, p in enumerate(promoted)])

    assert [(p.trial, p.step) for p in promoted] == [(0, 1), (1, 1)]
    assert [(p.trial, p.step) for p in asha.ask(3)] == [(0, 2), (4, 0), (5, 0)]


@law
@given(ORDERS, SLOTS, BRACKETS, st.booleans(), st.sampled_from([0.0, 0.5]))
def test_search_ends_with_a_full_training(
    seed: int, n_slots: int, brackets: int, progressive: bool, failing: float
) -> None:
    """When nothing is left to start, the best goes on to the end; if it dies, the next one."""
    brackets = 1 if progressive else brackets
    settings = {"brackets": brackets, "progressive": progressive, "n_trials": 9}
    run = run_of(seed, n_slots=n_slots, failing=failing, **settings)
    last = {o.proposal.trial: o for _, o in sorted(run.ends.items())}
    living = [o for o in last.values() if o.score is not None]

    assert not living or max(o.proposal.until_epoch or 0 for o in living) == 27


@law
@given(ORDERS, SLOTS, BRACKETS, FAILING, st.integers(27, 300))
def test_budget_is_kept_and_buys_a_full_training(
    seed: int, n_slots: int, brackets: int, failing: float, budget: int
) -> None:
    """Epochs count once, wherever they are trained."""
    settings = {"n_trials": None, "max_epochs_total": budget, "brackets": brackets}
    run = run_of(seed, n_slots=n_slots, failing=failing, **settings)
    before = [0 if p.parent is None else run.jobs[p.parent].until_epoch or 0 for p in run.jobs]
    n_epochs = sum((p.until_epoch or 0) - b for p, b in zip(run.jobs, before, strict=True))
    assert n_epochs <= budget
    assert failing or max(o.proposal.until_epoch or 0 for o in run.ends.values()) == 27


@law
@given(ORDERS, SLOTS, BRACKETS, FAILING)
def test_order_of_starts_does_not_depend_on_slots(
    seed: int, n_slots: int, brackets: int, failing: float
) -> None:
    """Random proposals are the sequence of random search, whoever is promoted in between."""
    run = run_of(seed, n_slots=n_slots, brackets=brackets, failing=failing)
    expected = Random(PLANE, seed=seed, n_trials=30).ask(30)

    assert [p.values for p in run.jobs if p.parent is None] == [p.values for p in expected]


@law
@given(ORDERS, SLOTS, st.integers(27, 400))
def test_budget_bounds_the_checkpoints(seed: int, n_slots: int, budget: int) -> None:
    """Also without a limit on the trials; when it is spent, few are left."""
    run = run_of(seed, n_slots=n_slots, n_trials=None, max_epochs_total=budget)
    n_started = sum(p.parent is None for p in run.jobs)

    assert run.n_lost == 0
    assert len(run.strategy.needed_checkpoints()) <= n_started / 2 + 6


@law
@given(ORDERS, SLOTS, FAILING)
def test_checkpoints_on_the_disk_are_few(seed: int, n_slots: int, failing: float) -> None:
    """Those of who may still be promoted; measured over 300 runs: 11 above the slots.

    One whose checkpoint is gone goes on only where several died one after the other.
    """
    run = run_of(seed, n_slots=n_slots, failing=failing)

    assert run.n_kept <= 14 + n_slots
    assert failing or run.n_lost == 0


def test_brackets_share_the_epochs() -> None:
    """Each as many as the others, up to a training; bracket b starts at level b."""
    run = run_of(0, brackets=3, n_trials=None, max_epochs_total=1000)
    bracket = {p.trial: p.step for p in run.jobs if p.parent is None}
    spent = [0, 0, 0]
    for p in run.jobs:
        before = 0 if p.parent is None else run.jobs[p.parent].until_epoch or 0
        spent[bracket[p.trial]] += (p.until_epoch or 0) - before

    assert set(bracket.values()) == {0, 1, 2}
    assert max(spent) - min(spent) <= 27


def test_median_stopping_keeps_one_half() -> None:
    """keep=0.5: the better half of each rung goes on, some before it is known to be the better."""
    run = run_of(0, keep=0.5, n_trials=64)
    reached = [sum(p.step == level for p in run.jobs) for level in range(4)]

    assert reached[0] == 64
    assert all(0.5 <= up / down < 0.7 for down, up in itertools.pairwise(reached))


# Progressive


def ranked(state: Any, proposal: Proposal) -> tuple[Any, float]:
    """Who is better at the first rung is better at all."""
    return None, proposal.values["x"] / (1 + proposal.step)


def test_agreeing_rungs_stay_the_last_ones() -> None:
    """While the ranking is stable nobody trains further, but for the winner in the end."""
    run = Run(make(progressive=True, epochs=81, n_trials=60), ranked, n_slots=4)
    further = {p.trial for p in run.jobs if p.step > 1}
    best = min(run.jobs, key=lambda p: p.values["x"]).trial

    assert further == {best}
    assert max(p.until_epoch or 0 for p in run.jobs) == 81


def test_disagreeing_rungs_open_the_next_one() -> None:
    """Scores by chance: about as many trainings beyond the second rung as without it."""
    one, other = (run_of(0, progressive=p, epochs=81, n_trials=60) for p in (True, False))

    n_one, n_other = (sum(p.step > 1 for p in run.jobs) for run in (one, other))

    assert 3 < n_other / 2 < n_one


# Proposers


def learning_curve(state: Any, proposal: Proposal) -> tuple[Any, float]:
    """Loss after some epochs: the best x is known late, the best lr early."""
    x, lr = proposal.values["x"], math.log10(proposal.values["lr"])
    epochs = proposal.until_epoch or 0
    left = math.exp(-epochs / 9)
    return None, (x - 0.3) ** 2 * (1 - left) + 0.2 * (lr + 2.2) ** 2 + left


def best_after(budget: int, seed: int, **settings: Any) -> float:
    """The best loss of full trainings."""
    settings = {"n_trials": None, "max_epochs_total": budget, **settings}
    run = Run(make(seed, **settings), learning_curve, n_slots=1)
    return min(o.score or 0.0 for o in run.ends.values() if o.proposal.until_epoch == 27)


@functools.cache
def of_random_search(budget: int, seed: int) -> float:
    jobs = Random(PLANE, seed=seed, n_trials=budget // 27).ask(99)
    full = [Proposal(p.trial, p.values, until_epoch=27) for p in jobs]
    return min(learning_curve(None, p)[1] for p in full)


def test_halving_beats_random_search() -> None:
    """Median over 20 seeds, with as many epochs as 12 full trainings; measured 0.80 of its loss."""
    ratios = [best_after(324, s) / of_random_search(324, s) for s in range(20)]

    assert np.median(ratios) < 0.97


def test_model_beats_random_proposals() -> None:
    """The process learns from short trainings what the long ones will be; measured 0.04
    of what random proposals leave.

    Four seeds, fixed.
    """
    excess = [
        [best_after(324, s, proposer=p) - math.exp(-3) for p in ("bayes", "random")]
        for s in range(4)
    ]
    bayes, random_ = np.median(excess, axis=0)

    assert bayes < 0.3 * random_


# Mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_epochs": 0}, "min_epochs=0"),
        ({"min_epochs": 40}, "<= 27, the app's epochs"),
        ({"max_epochs": 40}, "max_epochs=40"),
        ({"max_epochs_total": 26}, "max_epochs_total=26: expected at least 27"),
        ({"eta": 1.0}, "eta=1: expected a number above 1"),
        ({"keep": 1.0}, "keep=1: expected a share"),
        ({"proposer": "bays"}, "proposer='bays' is unknown: one of random, bayes"),
        ({"brackets": 5}, "brackets=5: expected 1 to 4, as trainings are compared after 1, 3, 9"),
        ({"brackets": 2, "progressive": True}, "progressive=true has one bracket"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    """With the value and what was expected."""
    with pytest.raises(ValueError, match=message):
        make(**settings)
