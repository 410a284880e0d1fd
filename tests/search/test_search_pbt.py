"""Population-based training: lineages, checkpoints, and the problems that tell it from a fake."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_cases import SPACES, law, spaces

from hydra_plugins.tune_sweeper.search._pbt import Pbt
from hydra_plugins.tune_sweeper.search._space import LOG, Choice, Interval, Space
from hydra_plugins.tune_sweeper.search._trial import Observation, Proposal

Step = Callable[[Any, Proposal], tuple[Any, float | None]]


@dataclass
class Run:
    """A whole training of a population, jobs ending in a random order."""

    pbt: Pbt
    step: Step  # state and proposal to the next state and its score
    start: Any = None
    n_slots: int = 100
    order: random.Random = field(default_factory=lambda: random.Random(0))
    jobs: list[Proposal] = field(default_factory=list)
    ends: dict[int, Observation] = field(default_factory=dict)
    states: dict[int, Any] = field(default_factory=dict)  # of jobs whose checkpoint is kept
    running: list[int] = field(default_factory=list)
    n_kept: int = 0  # the most checkpoints at once

    def __post_init__(self) -> None:
        while self.ask() or self.running:
            self.finish(self.running.pop(self.order.randrange(len(self.running))))
            self.delete()

    def ask(self) -> bool:
        proposals = self.pbt.ask(self.n_slots - len(self.running))
        for proposal in proposals:
            assert proposal.parent is None or proposal.parent in self.states
            self.running.append(len(self.jobs))
            self.jobs.append(proposal)
        return bool(proposals)

    def finish(self, job: int) -> None:
        proposal = self.jobs[job]
        before = self.start if proposal.parent is None else self.states[proposal.parent]
        self.states[job], score = self.step(before, proposal)
        self.ends[job] = Observation(job, proposal, score)
        self.pbt.tell([self.ends[job]])

    def delete(self) -> None:
        """As the loop does: what the strategy does not need, and nobody runs from, goes."""
        parents = {self.jobs[j].parent for j in self.running}
        needed = self.pbt.needed_checkpoints() | parents
        self.states = {j: s for j, s in self.states.items() if j in needed}
        self.n_kept = max(self.n_kept, len(self.states))

    def results(self, step: int) -> list[Observation]:
        """The last of each member at a step, best first, the dead last."""
        found = {o.proposal.trial: o for o in self.ends.values() if o.proposal.step == step}
        return sorted(found.values(), key=lambda o: (o.score is None, o.score))

    def children(self) -> list[Proposal]:
        return [p for p in self.jobs if p.parent is not None]


LR = Space((Interval("lr", 1e-3, 1.0, scale=LOG),))


def make(space: Space = LR, seed: int = 0, **settings: Any) -> Pbt:
    defaults = {"epochs": 24, "population_size": 8, "step_epochs": 3, "in_batches": True}
    return Pbt(space, seed=seed, **{**defaults, **settings})


def by_chance(seed: int, failing: float = 0.0) -> Step:
    """Scores without meaning, some of them failures; a function of the job alone."""

    def step(state: Any, proposal: Proposal) -> tuple[Any, float | None]:
        rng = random.Random(f"{seed}/{proposal.trial}/{proposal.step}")
        fails = rng.random() < failing
        return (state or 0) + 1, None if fails else rng.random()

    return step


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


def test_wholly_dead_step_starts_over() -> None:
    """Nobody is left to copy: new configurations train from scratch to where the rest would be."""
    run = Run(make(), dead_in(*((member, 3) for member in range(8))))
    fresh = [p for p in run.jobs if p.step == 4]

    assert len(fresh) == 8
    assert {(None, 15)} == {(p.parent, p.until_epoch) for p in fresh}
    assert len(run.results(7)) == 8


def test_population_that_always_dies_ends() -> None:
    """No endless restarts."""
    run = Run(make(), lambda state, p: (1, None))

    assert len(run.jobs) == 8 * 8 + 8


# Checkpoints


@law
@given(ORDERS)
def test_checkpoints_on_the_disk_are_few(seed: int) -> None:
    """Measured over 300 runs: at most 17 for a population of 8."""
    run = Run(make(seed=seed, min_peers=0.75), by_chance(seed), order=random.Random(seed))

    assert 8 <= run.n_kept <= 18


def test_finished_population_needs_no_checkpoints() -> None:
    """The best ones are kept by the loop, not by the strategy."""
    run = Run(make(), by_chance(0))

    assert run.pbt.needed_checkpoints() == set()


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

    Measured over 100 seeds: median 1.28, 1.27, 1.30, p90 1.49, 1.48, 1.64; the standard error of
    the median is about 0.02. The seeds are fixed.
    """
    found = [schedule(seed, **settings) for seed in range(100)]

    assert np.median(found) <= median
    assert np.quantile(found, 0.9) <= p90


def toy(seed: int, n_steps: int) -> float:
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
    error is 0.019 and 1e-6. The seeds are fixed.
    """
    assert low < np.median([toy(seed, n_steps) for seed in range(60)]) < high


def test_divergence_is_left_behind() -> None:
    """Above lr 0.3 the training dies: under 4 % of the jobs do, and nobody at the end."""

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
