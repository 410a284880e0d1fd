"""Population-based training: lineages, checkpoints, and the problems that tell it from a fake."""

import heapq
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_cases import SPACES, law, spaces
from trainings import Run, Step, by_chance

from hydra_plugins.tune_sweeper.search._pbt import Pbt
from hydra_plugins.tune_sweeper.search._space import LOG, Choice, Interval, Space
from hydra_plugins.tune_sweeper.search._trial import Observation, Proposal

LR = Space((Interval("lr", 1e-3, 1.0, scale=LOG),))


def make(space: Space = LR, seed: int = 0, kind: type[Pbt] = Pbt, **settings: Any) -> Pbt:
    defaults = {"epochs": 24, "population_size": 8, "step_epochs": 3, "in_batches": True}
    return kind(space, seed=seed, **{**defaults, **settings})


ORDERS = st.integers(0, 10**6)


# What holds for every population


@law
@given(ORDERS, st.sampled_from([1.0, 0.75, 0.4]), st.integers(1, 12), st.sampled_from([0, 0.3]))
def test_parents_are_kept_until_they_are_used(
    seed: int, min_peers: float, n_slots: int, failing: float
) -> None:
    """Whatever dies and in whichever order: no proposal continues a deleted checkpoint."""
    pbt = make(seed=seed, min_peers=min_peers)
    run = Run(pbt, by_chance(seed, failing), n_slots=n_slots, order=random.Random(seed))

    assert run.ends.keys() == set(range(len(run.jobs)))
    assert run.n_lost == 0


@law
@given(ORDERS, st.sampled_from(["truncation", "tournament", "none"]))
def test_every_member_reaches_the_end(seed: int, exploit: str) -> None:
    """Each step once, from the same step of a parent; in all, population times epochs."""
    run = Run(make(seed=seed, exploit=exploit), by_chance(seed), order=random.Random(seed))
    steps = sorted((p.trial, p.step) for p in run.jobs)

    assert steps == [(member, step) for member in range(8) for step in range(8)]
    assert all(p.step == run.jobs[p.parent or 0].step + 1 for p in run.children())
    assert all(p.until_epoch == 3 * (p.step + 1) for p in run.jobs)


@pytest.mark.parametrize(
    ("epochs", "step_epochs", "expected"),
    [
        (24, 3, [3, 6, 9, 12, 15, 18, 21, 24]),
        (10, 3, [3, 6, 9, 10]),
        (40, None, [*range(4, 41, 4)]),
    ],
)
def test_last_step_ends_with_the_training(
    epochs: int, step_epochs: int | None, expected: list[int]
) -> None:
    """The last step may be shorter; by default a step is a tenth."""
    run = Run(make(epochs=epochs, step_epochs=step_epochs, population_size=2), by_chance(0))

    assert expected == sorted({p.until_epoch for p in run.jobs})


@law
@given(ORDERS, st.sampled_from([0.0, 0.3]))
def test_peers_of_the_top_are_never_replaced(seed: int, failing: float) -> None:
    """With min_peers=1: the best quarter goes on as it is, the worst quarter copies one of it."""
    run = Run(make(seed=seed, burn_in_steps=0, min_peers=1.0), by_chance(seed, failing))
    for p in run.children():
        ranked = run.results(p.step - 1)
        top, bottom = ranked[:2], ranked[-2:]
        own = next(o for o in ranked if o.proposal.trial == p.trial)
        is_replaced = own in bottom or own.score is None

        assert (p.info["op"] == "exploit") == is_replaced
        assert p.parent in [o.job for o in top] if is_replaced else p.parent == own.job


@law
@given(ORDERS, st.sampled_from([1.0, 0.75]), st.sampled_from(["truncation", "tournament", "none"]))
def test_dead_members_are_always_replaced(seed: int, min_peers: float, exploit: str) -> None:
    """Also during burn-in and without exploitation: a dead job has no checkpoint to continue."""
    pbt = make(seed=seed, burn_in_steps=3, min_peers=min_peers, exploit=exploit)
    run = Run(pbt, by_chance(seed, 0.3), order=random.Random(seed))

    assert all(run.ends[p.parent or 0].score is not None for p in run.children())


def test_burn_in_replaces_nobody() -> None:
    """The first steps decide nothing."""
    run = Run(make(burn_in_steps=3), by_chance(0))
    replaced = {p.step for p in run.children() if p.info["op"] == "exploit"}

    assert replaced == {4, 5, 6, 7}


def test_members_that_go_on_keep_their_values() -> None:
    """Only who is replaced explores."""
    run = Run(make(SPACES["mixed"]), by_chance(0))
    going_on = [p for p in run.children() if p.info["op"] == "continue"]

    assert len(going_on) > 20
    assert all(p.values == run.jobs[p.parent or 0].values for p in going_on)


def test_tournament_winner_is_better() -> None:
    """Who copies copies somebody better, and some do."""
    run = Run(make(exploit="tournament", burn_in_steps=0), by_chance(3))
    copied = [p for p in run.children() if p.info["op"] == "exploit"]
    own = {(o.proposal.trial, o.proposal.step): o.score or 0 for o in run.ends.values()}

    assert len(copied) > 5
    assert all(own[p.info["donor"], p.step - 1] < own[p.trial, p.step - 1] for p in copied)


def test_without_exploit_it_is_random_search() -> None:
    """Nobody copies, nobody changes."""
    run = Run(make(exploit="none"), by_chance(0))

    assert all(p.values == run.jobs[p.trial].values for p in run.jobs)


@settings(law, max_examples=25)
@given(spaces(), ORDERS)
def test_values_stay_legal_along_a_lineage(space: Space, seed: int) -> None:
    """In every space, after any number of moves."""
    pbt = make(space, seed=seed, population_size=4, burn_in_steps=0, resample=0.1)
    run = Run(pbt, by_chance(seed), order=random.Random(seed))

    assert all(space.contains(p.values) for p in run.jobs)


@settings(law, max_examples=25)
@given(spaces(), ORDERS)
def test_each_key_is_the_donors_or_said_to_have_moved(space: Space, seed: int) -> None:
    """Also where a choice that moved switches others on and off."""
    run = Run(make(space, seed=seed, population_size=4, resample=0.3), by_chance(seed))
    copies = [p for p in run.jobs if p.info["op"] == "exploit"]

    assert copies
    for child in copies:
        donor, moves = run.jobs[child.parent or 0], child.info["moves"]
        assert donor.trial == child.info["donor"]
        assert moves.keys() <= child.values.keys()
        kept = {key: value for key, value in child.values.items() if key not in moves}
        assert kept == {key: donor.values.get(key) for key in kept}


@law
@given(ORDERS)
def test_frozen_keys_are_constant_along_a_lineage(seed: int) -> None:
    """What cannot change in mid-training is copied with the weights."""
    space = Space(
        (
            Choice("width", (64, 128, 256), is_ordered=True, is_frozen=True),
            Interval("depth", 1, 9, is_integer=True, is_frozen=True),
            Interval("lr", 1e-3, 1.0, scale=LOG),
        )
    )
    run = Run(make(space, seed=seed, burn_in_steps=0), by_chance(seed, 0.1))
    moved = [p for p in run.children() if p.info["op"] == "exploit"]

    for p in run.children():
        donor = run.jobs[p.parent or 0].values
        assert (p.values["width"], p.values["depth"]) == (donor["width"], donor["depth"])
    assert all(p.info["moves"].keys() == {"lr"} for p in moved)


@settings(law, max_examples=15)
@given(ORDERS, ORDERS)
def test_order_of_ends_does_not_matter_in_generations(one: int, other: int) -> None:
    """min_peers=1: the same decisions in any completion order and with any number of slots."""

    def proposals(order: int, n_slots: int) -> set[str]:
        pbt = make(SPACES["mixed"], min_peers=1.0, burn_in_steps=0)
        run = Run(pbt, by_chance(5, 0.1), n_slots=n_slots, order=random.Random(order))
        parents = [None if p.parent is None else run.jobs[p.parent].trial for p in run.jobs]
        return {
            repr((p.trial, p.step, parent, p.values, p.until_epoch, p.info))
            for p, parent in zip(run.jobs, parents, strict=True)
        }

    assert proposals(one, 100) == proposals(other, 3)


def test_few_peers_decide_before_the_slowest_ends() -> None:
    """min_peers=0.5 of 8: the first is asked for its next step once four have ended."""
    pbt = make(min_peers=0.5)
    jobs = pbt.ask(8)
    told = [Observation(p.trial, p, float(p.trial)) for p in jobs]
    pbt.tell(told[:3])
    before = pbt.ask(8)
    pbt.tell(told[3:4])

    assert before == []
    assert [(p.trial, p.step) for p in pbt.ask(8)] == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_lowest_step_goes_first() -> None:
    """Who lags behind is served before who runs ahead."""
    pbt = make(min_peers=0.5)
    jobs = pbt.ask(8)
    pbt.tell([Observation(p.trial, p, float(p.trial)) for p in jobs[:4]])
    ahead = pbt.ask(4)
    pbt.tell([Observation(8 + i, p, 0.0) for i, p in enumerate(ahead)])
    pbt.tell([Observation(7, jobs[7], 9.0)])

    assert [(p.trial, p.step) for p in pbt.ask(2)] == [(7, 1), (0, 2)]


# Deaths


def dead_in(*dead: tuple[int, int]) -> Step:
    """Every listed (member, step) dies, each time it is tried."""

    def step(state: Any, p: Proposal) -> tuple[Any, float | None]:
        return 1, None if (p.trial, p.step) in dead else float(p.trial)

    return step


def test_dead_first_step_draws_another_configuration_once() -> None:
    """Then the member counts as dead, and copies somebody at the next step."""
    run = Run(make(), dead_in((2, 0)))
    steps = [p for p in run.jobs if p.trial == 2]

    assert [p.step for p in steps[:3]] == [0, 0, 1]
    assert steps[0].values != steps[1].values
    assert [p.parent for p in steps[:2]] == [None, None]
    assert steps[2].info["op"] == "exploit"


@settings(law, max_examples=12)
@given(ORDERS, st.sampled_from([0.0, 0.3]), st.sampled_from([None, 12]))
def test_whole_population_asks_in_one_order(
    seed: int, failing: float, init_candidates: int | None
) -> None:
    """With min_peers=1 the record is the same for any slots and any order of ends, deaths too."""
    lists = []
    for n_slots in (1, 2, 3, 100):
        pbt = make(seed=seed, min_peers=1.0, init_candidates=init_candidates)
        order = random.Random(n_slots)
        run = Run(pbt, by_chance(seed, failing), n_slots=n_slots, order=order)
        lists.append(run.jobs)

    assert all(jobs == lists[0] for jobs in lists)


def test_wholly_dead_step_starts_over() -> None:
    """Nobody is left to copy: new configurations train from scratch to where the rest would be."""
    run = Run(make(), dead_in(*((member, 3) for member in range(8))))
    fresh = [p for p in run.jobs if p.step == 4]

    assert len(fresh) == 8
    assert {(None, 15)} == {(p.parent, p.until_epoch) for p in fresh}
    assert len(run.results(7)) == 8


def test_population_that_always_dies_ends() -> None:
    """Each member starts anew once, and that is all."""
    run = Run(make(), lambda state, p: (1, None))

    assert len(run.jobs) == 2 * 8


def test_population_that_dies_after_a_step_ends() -> None:
    """Where whatever trains so far diverges, no epoch is spent on a third start."""
    run = Run(make(), lambda state, p: (1, None if p.step >= 3 else 1.0))

    assert [p.step for p in run.jobs].count(3) == 8
    assert {(p.parent, p.step) for p in run.jobs if p.step > 3} == {(None, 4)}
    assert len(run.jobs) == 5 * 8


# Checkpoints


def test_finished_population_needs_no_checkpoints() -> None:
    """The best ones are kept by the loop, not by the strategy."""
    run = Run(make(), by_chance(0))

    assert run.strategy.needed_checkpoints() == set()


# Settings

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"population_size": 1}, "population_size=1: at least 2 members are needed"),
    ({"exploit": "copy"}, "exploit='copy' is unknown: one of truncation, tournament, none"),
    ({"quantile": 0.6}, r"quantile=0.6: expected a share in \(0, 0.5\]"),
    ({"quantile": 0.0}, "quantile=0.0"),
    ({"min_peers": 0.0}, r"min_peers=0.0: expected a share in \(0, 1\]"),
    ({"min_peers": 1.5}, "min_peers=1.5"),
    ({"step_epochs": 12}, "epochs=24 in steps of 12 make 2 steps, at least 4 are needed"),
    ({"step_epochs": -1}, "step_epochs=-1"),
    ({"epochs": 3, "step_epochs": None}, "epochs=3 in steps of 1 make 3 steps"),
    ({"burn_in_steps": -1}, "burn_in_steps=-1"),
    ({"factors": [0.8, 1.2]}, r"factors=\[0.8, 1.2\]: their product is 0.96, not 1"),
    ({"factors": []}, r"factors=\[\]: expected positive numbers"),
    ({"factors": [-1.0, -1.0]}, "expected positive numbers"),
    ({"linear": 0.0}, "linear=0.0"),
    ({"resample": 1.1}, "resample=1.1"),
    ({"init_candidates": 7}, "init_candidates=7: expected at least population_size=8"),
    ({"score_window": 0}, "score_window=0: expected at least 1 step"),
    ({"keep": "best"}, "keep='best' is unknown: one of winner, population, all"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=[str(s) for s, _ in WRONG])
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    """With the value and what was expected."""
    with pytest.raises(ValueError, match=message):
        make(**settings)


# Problems with a known answer


def schedule(seed: int, **settings: Any) -> float:
    """Final v of v' = (1 - lr)^2 v + lr^2 after 200 steps from 100, over the optimum."""

    def train(v: float, proposal: Proposal) -> tuple[float, float]:
        for _ in range(10):
            v = (1 - proposal.values["lr"]) ** 2 * v + proposal.values["lr"] ** 2
        return v, v

    pbt = make(seed=seed, epochs=200, step_epochs=10, **settings)
    run = Run(pbt, train, start=100.0, order=random.Random(seed))
    return (run.results(19)[0].score or 0.0) * (1 / 100 + 200)


@pytest.mark.parametrize(
    ("settings", "median", "p90"),
    [
        ({}, 1.40, 1.80),
        ({"in_batches": False}, 1.40, 1.80),
        ({"exploit": "tournament"}, 1.45, 1.90),
    ],
    ids=["generations", "lazy", "tournament"],
)
def test_known_schedule_is_followed(settings: dict[str, Any], median: float, p90: float) -> None:
    """Within 1.4 of the best schedule; the best constant lr reaches 3.07, no exploitation 4.0.

    Measured over 100 seeds: median 1.28, 1.26, 1.29, p90 1.50, 1.53, 1.53; the standard error of
    the median is about 0.02. The seeds are fixed; of 20,000 other draws of 100 seeds none would
    fail (resampled from 1,500).
    """
    found = [schedule(seed, **settings) for seed in range(100)]

    assert np.median(found) <= median
    assert np.quantile(found, 0.9) <= p90


def toy(seed: int, n_steps: int, kind: type[Pbt] = Pbt) -> float:
    """Best Q = 1.2 - a^2 - b^2 of two workers that see h0 a^2 and h1 b^2 (Jaderberg, figure 2)."""
    space = Space((Interval("h0", 0.0, 1.0), Interval("h1", 0.0, 1.0)))

    def train(at: tuple[float, float], p: Proposal) -> tuple[tuple[float, float], float]:
        a, b = at
        for _ in range(4):
            a, b = a * (1 - 0.04 * p.values["h0"]), b * (1 - 0.04 * p.values["h1"])
        return (a, b), a * a + b * b - 1.2

    pbt = make(
        space,
        seed=seed,
        kind=kind,
        epochs=n_steps,
        step_epochs=1,
        population_size=2,
        burn_in_steps=0,
        resample=0.0,
        initial=[{"h0": 1.0, "h1": 0.0}, {"h0": 0.0, "h1": 1.0}],
    )
    run = Run(pbt, train, start=(0.9, 0.9))
    return -(run.results(n_steps - 1)[0].score or 0.0)


@pytest.mark.parametrize(
    ("n_steps", "low", "high"), [(15, 0.98, 1.09), (50, 1.1999, 1.2)], ids=["15", "50"]
)
def test_toy_of_the_paper_is_solved(n_steps: int, low: float, high: float) -> None:
    """Exploit only reaches 0.38, explore only 0.87, without copied weights 0.62, after 15 steps.

    The median over many seeds is 1.030 after 15 steps and 1.2000 after 50; of 60 seeds its standard
    error is 0.019 and 1e-6. The seeds are fixed; other 60 would fail in 0.9 % and in none of 20,000
    draws (resampled from 1,000).
    """
    assert low < np.median([toy(seed, n_steps) for seed in range(60)]) < high


def test_divergence_is_left_behind() -> None:
    """Above lr 0.3 the training dies: under 4 % of the jobs do, and nobody at the end.

    Measured over 200 seeds: 2.8 %, and nobody. The seeds are fixed; of 20,000 other draws of 20
    seeds none would fail (resampled from 400).
    """

    def train(v: float, proposal: Proposal) -> tuple[float, float | None]:
        lr = proposal.values["lr"]
        for _ in range(10):
            v = (1 - lr) ** 2 * v + lr**2
        return v, None if lr > 0.3 else v

    runs = [
        Run(make(seed=seed, epochs=200, step_epochs=10), train, start=100.0) for seed in range(20)
    ]
    dead = [o.score is None for run in runs for o in run.ends.values()]

    assert np.mean(dead) < 0.04
    assert not any(o.score is None for run in runs for o in run.results(19))


# Settings that come on top


def by_lr(state: Any, proposal: Proposal) -> tuple[Any, float]:
    """The smaller lr, the better."""
    return None, proposal.values["lr"]


def test_best_candidates_become_the_population() -> None:
    """All of them train the first step; only the best 8 of 20 train further."""
    run = Run(make(init_candidates=20, burn_in_steps=1), by_lr, n_slots=3)
    first = sorted(p.values["lr"] for p in run.jobs if p.step == 0)
    second = [p.values["lr"] for p in run.jobs if p.step == 1]

    assert len(first) == 20
    assert sorted(second) == first[:8]
    assert len(run.jobs) == len(make(init_candidates=20)) == 20 + 7 * 8
    assert run.n_kept <= 12


@law
@given(ORDERS, st.sampled_from([0.0, 0.5]), st.integers(1, 20), st.sampled_from([9, 12, 20]))
def test_candidates_may_die(seed: int, failing: float, n_slots: int, n_candidates: int) -> None:
    """The population is as large as ever, and no checkpoint is missed."""
    order = random.Random(seed)
    exploit = ("truncation", "tournament")[seed % 2]
    pbt = make(seed=seed, init_candidates=n_candidates, exploit=exploit)
    run = Run(pbt, by_chance(seed, failing), n_slots=n_slots, order=order)

    assert run.n_lost == 0
    assert len({p.trial for p in run.jobs if p.step == 7}) == 8


def test_score_window_averages_along_the_lineage() -> None:
    """A member that is good by turns is no better than one that is always in between."""

    def by_turns(state: Any, p: Proposal) -> tuple[Any, float]:
        return None, 5.0 + p.trial / 100 if p.trial else 10.0 * ((p.step + 1) % 2)

    one, two = (
        Run(make(score_window=window, burn_in_steps=0, min_peers=1.0), by_turns)
        for window in (1, 2)
    )

    # At step 0 member 0 is the worst. Later it is the best or the worst by turns, or in the middle.
    assert {p.step for p in one.jobs if p.trial == 0 and p.info["op"] == "exploit"} == {1, 3, 5, 7}
    assert {p.step for p in two.jobs if p.trial == 0 and p.info["op"] == "exploit"} == {1}


@pytest.mark.parametrize(("keep", "n_kept"), [("winner", 0), ("population", 8), ("all", 76)])
def test_checkpoints_that_stay(keep: str, n_kept: int) -> None:
    """Of the winner's the loop takes care; the population's are those of its last step."""
    run = Run(make(keep=keep, init_candidates=20), by_chance(0))

    assert len(run.strategy.needed_checkpoints()) == n_kept
    assert len(run.states) == n_kept


class LastFirst(random.Random):
    """Of the running jobs mostly the youngest ends: the others are stragglers."""

    def randrange(self, n: int) -> int:  # type: ignore[override]
        return n - 1 if self.random() < 0.9 else super().randrange(n)


@settings(law, max_examples=20)
@given(
    ORDERS,
    st.sampled_from([random.Random, LastFirst]),
    st.integers(1, 12),
    st.sampled_from([(4, 0.25), (8, 0.25), (8, 0.5), (12, 0.4)]),
    st.sampled_from(["truncation", "tournament"]),
    st.sampled_from([1.0, 0.75, 0.3]),
)
def test_checkpoints_are_at_most_half_more_than_members(
    seed: int,
    order: type[random.Random],
    n_slots: int,
    sizes: tuple[int, float],
    exploit: str,
    min_peers: float,
) -> None:
    """Besides one per slot: of those that run, and of who may still be copied.

    Without a bound on how far others run ahead, one straggler let 43 files be kept for 8 members.
    """
    size, quantile = sizes
    pbt = make(
        seed=seed,
        population_size=size,
        quantile=quantile,
        exploit=exploit,
        min_peers=min_peers,
        epochs=40,
        step_epochs=2,
    )
    run = Run(pbt, by_chance(seed, 0.1), n_slots=n_slots, order=order(seed))

    assert run.n_kept <= 1.5 * size + n_slots
    assert run.n_lost == 0
    assert len(run.results(19)) == size


@settings(law, max_examples=40)
@given(
    st.one_of(st.just(65), ORDERS),
    st.sampled_from([0.2, 0.4]),
    st.sampled_from([2, 3, 8]),
    st.sampled_from([0.75, 0.3]),
)
def test_who_lives_comes_to_the_end(seed: int, failing: float, size: int, min_peers: float) -> None:
    """Also when somebody died for good far behind, whom nobody must wait for."""
    pbt = make(
        seed=seed,
        population_size=size,
        min_peers=min_peers,
        epochs=20,
        step_epochs=1,
        in_batches=False,
    )
    run = Run(pbt, by_chance(seed, failing), n_slots=2, order=random.Random(seed))
    last = {o.proposal.trial: o for _, o in sorted(run.ends.items())}

    assert {o.proposal.step for o in last.values() if o.score is not None} <= {19}


# Fakes: what looks like population-based training and is none


class ExploitOnly(Pbt):
    """Copies a donor and changes nothing."""

    def _copy(self, own: Observation, donor: Observation, rng: np.random.Generator) -> Proposal:
        return replace(super()._copy(own, donor, rng), values=donor.proposal.values)


class ExploreOnly(Pbt):
    """Changes its own values, and copies nobody."""

    def _copy(self, own: Observation, donor: Observation, rng: np.random.Generator) -> Proposal:
        return super()._copy(own, own, rng)


class WeightsNotCopied(Pbt):
    """Takes the donor's values and goes on with its own weights."""

    def _copy(self, own: Observation, donor: Observation, rng: np.random.Generator) -> Proposal:
        return replace(super()._copy(own, donor, rng), parent=own.job)


class ValuesNotCopied(Pbt):
    """Takes the donor's weights and changes its own values."""

    def _copy(self, own: Observation, donor: Observation, rng: np.random.Generator) -> Proposal:
        return replace(super()._copy(own, own, rng), parent=donor.job)


class EverybodyChanges(Pbt):
    """Who is not replaced changes its values too."""

    def _stay(self, own: Observation) -> Proposal:
        rng = np.random.default_rng([own.job])
        return replace(super()._stay(own), values=self._explore(own.proposal.values, rng)[0])


def follows_the_schedule(kind: type[Pbt]) -> bool:
    return float(np.median([schedule(seed, kind=kind) for seed in range(15)])) < 1.6


def solves_the_toy(kind: type[Pbt]) -> bool:
    return 0.95 < float(np.median([toy(seed, 15, kind=kind) for seed in range(15)])) < 1.1


def moves_the_donors_values(kind: type[Pbt]) -> bool:
    """Whoever goes on with other weights has values within a factor of those they came with."""
    run = Run(make(seed=1, kind=kind, resample=0.0), by_chance(1))
    copies = [(p, run.jobs[p.parent or 0]) for p in run.children()]
    ratios = [
        child.values["lr"] / parent.values["lr"]
        for child, parent in copies
        if child.trial != parent.trial
    ]
    return bool(ratios) and all(0.49 < r < 2.01 for r in ratios)


def changes_only_who_is_replaced(kind: type[Pbt]) -> bool:
    """Who goes on with its own weights keeps its values."""
    run = Run(make(seed=1, kind=kind), by_chance(1))
    own = [(p, run.jobs[p.parent or 0]) for p in run.children()]
    return all(c.values == parent.values for c, parent in own if c.trial == parent.trial)


CHECKS = (
    follows_the_schedule,
    solves_the_toy,
    moves_the_donors_values,
    changes_only_who_is_replaced,
)


@pytest.mark.parametrize("check", CHECKS)
def test_real_one_passes_every_check(check: Any) -> None:
    """Otherwise catching fakes would mean nothing.

    With 15 other seeds the toy would fail in 2.9 % of 20,000 draws, the schedule in none.
    """
    assert check(Pbt)


@pytest.mark.parametrize(
    ("fake", "caught_by"),
    [
        (ExploitOnly, follows_the_schedule),
        (ExploitOnly, solves_the_toy),
        (ExploreOnly, follows_the_schedule),
        (ExploreOnly, solves_the_toy),
        (WeightsNotCopied, follows_the_schedule),
        (WeightsNotCopied, solves_the_toy),
        (ValuesNotCopied, moves_the_donors_values),
        (EverybodyChanges, changes_only_who_is_replaced),
    ],
)
def test_fakes_are_caught(fake: type[Pbt], caught_by: Any) -> None:
    """Each by at least one check."""
    assert not caught_by(fake)


# Time


def wall_time(seed: int, min_peers: float) -> tuple[float, float]:
    """Hours until a population on 8 slots is done, and its final loss over the optimum.

    Jobs are uneven: each takes its own time, lognormal with a spread of a half.
    """
    rng = np.random.default_rng(seed)
    pbt = make(seed=seed, epochs=200, step_epochs=10, min_peers=min_peers)
    clock, n_jobs, last = 0.0, 0, []
    running: list[tuple[float, int, Proposal]] = []  # by the time when they end
    states: dict[int | None, float] = {None: 100.0}
    while True:
        for proposal in pbt.ask(8 - len(running)):
            v = states[proposal.parent]
            for _ in range(10):
                v = (1 - proposal.values["lr"]) ** 2 * v + proposal.values["lr"] ** 2
            states[n_jobs] = v
            heapq.heappush(running, (clock + rng.lognormal(0.0, 0.5), n_jobs, proposal))
            n_jobs += 1
        if not running:
            return clock, min(last) * (1 / 100 + 200)
        clock, job, ended = heapq.heappop(running)
        pbt.tell([Observation(job, ended, states[job])])
        last += [states[job]] if ended.step == 19 else []


def test_lazy_population_does_not_wait_for_the_slowest() -> None:
    """min_peers=0.75: at most 0.88 of the time of generations, and as good in the end.

    Measured over 200 seeds: 0.74 of the time; median losses 1.26 times the optimum, both. With 60
    other seeds it would fail in 0.5 % of 20,000 draws (resampled from 400).
    """
    lazy = [wall_time(seed, 0.75) for seed in range(60)]
    generations = [wall_time(seed, 1.0) for seed in range(60)]
    ratios = [a / b for (a, _), (b, _) in zip(lazy, generations, strict=True)]

    assert np.median(ratios) < 0.88
    assert np.median([q for _, q in lazy]) < 1.05 * np.median([q for _, q in generations])
