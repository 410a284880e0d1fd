"""What every strategy promises, on every kind of space; a new one is added to MAKERS."""

import copy
import functools
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from search_cases import (
    IN_STEPS,
    MAKERS,
    N_TRIALS,
    POPULATION,
    SPACES,
    Ask,
    Event,
    Score,
    always_fails,
    drive,
    from_file,
    is_plain,
    n_configurations,
    often_fails,
    plain,
    proposals_of,
    smooth,
)

from hydra_plugins.tune_sweeper.search._space import Space, canonical
from hydra_plugins.tune_sweeper.search._trial import Observation, Proposal, Strategy

NAMES = sorted(MAKERS)
LOOKS_AT_NOTHING = ["grid", "iid", "sobol"]

for_all_spaces = pytest.mark.parametrize("key", SPACES)
for_all_strategies = pytest.mark.parametrize("name", NAMES)


@functools.cache
def run_of(name: str, key: str, score: Score = smooth, batch: int = 3) -> list[Event]:
    """All calls of a whole search; nobody changes them."""
    return drive(MAKERS[name](SPACES[key]), SPACES[key], score=score, batch=batch)


def values_of(proposals: Sequence[Proposal]) -> list[str]:
    return [canonical(p.values) for p in proposals]


def n_expected(name: str, key: str) -> int:
    """How many trials a strategy starts."""
    if name.startswith("pbt"):
        return POPULATION
    return min(N_TRIALS, n_configurations(SPACES[key]))


@for_all_strategies
@for_all_spaces
@pytest.mark.parametrize("score", [smooth, often_fails], ids=["works", "often fails"])
def test_proposals_are_legal_and_allowed(name: str, key: str, score: Score) -> None:
    """Complete, inside the bounds, by the conditions and by `where`."""
    proposals = proposals_of(run_of(name, key, score))

    assert all(SPACES[key].contains(p.values) for p in proposals)


@for_all_strategies
@for_all_spaces
def test_trials_are_numbered_and_limited(name: str, key: str) -> None:
    """0, 1, 2, ... up to n_trials, or to the last configuration of a small space."""
    proposals = proposals_of(run_of(name, key))
    trials = list(dict.fromkeys(p.trial for p in proposals))

    assert list(range(n_expected(name, key))) == trials


@for_all_spaces
@pytest.mark.parametrize("name", [n for n in NAMES if n not in IN_STEPS])
def test_nothing_is_proposed_twice(name: str, key: str) -> None:
    """A repeated training would tell nothing new."""
    values = values_of(proposals_of(run_of(name, key)))

    assert len(values) == len(set(values))


@for_all_strategies
@for_all_spaces
def test_proposals_hold_plain_types_only(name: str, key: str) -> None:
    """No numpy scalar leaves a strategy: values become overrides, all of it becomes JSON."""
    for p in proposals_of(run_of(name, key)):
        assert is_plain(dict(p.values)), p
        assert is_plain(dict(p.info)), p
        assert {type(p.trial), type(p.step)} == {int}
        assert {type(p.parent), type(p.until_epoch)} <= {int, type(None)}


@for_all_strategies
@for_all_spaces
def test_same_seed_gives_the_same_sequence(name: str, key: str) -> None:
    """Twice in one process."""
    space = SPACES[key]

    assert run_of(name, key) == drive(MAKERS[name](space), space, batch=3)


@for_all_strategies
def test_another_seed_gives_another_sequence(name: str) -> None:
    """A seed that did nothing would pass the other tests."""
    space = SPACES["mixed"]
    runs = [values_of(proposals_of(drive(MAKERS[name](space, seed=s), space))) for s in (0, 1)]

    assert runs[0] != runs[1]


def sequences() -> dict[str, Any]:
    """What every strategy proposes in every space, as plain data."""
    return {
        f"{name} {key}": [plain(p) for p in proposals_of(run_of(name, key))]
        for name in NAMES
        for key in SPACES
    }


def test_same_seed_gives_the_same_sequence_in_another_process() -> None:
    """With another hash seed, so nothing hangs on the order of a set."""
    code = "import json, test_search_contract as t; print(json.dumps(t.sequences()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONHASHSEED": "1234", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert sequences() == json.loads(done.stdout)


@for_all_strategies
@for_all_spaces
def test_asking_in_vain_changes_nothing(name: str, key: str) -> None:
    """Asks that give nothing, because of n = 0 or because all wait, leave no trace."""
    expected = run_of(name, key)
    strategy, found = MAKERS[name](SPACES[key]), []
    for event in expected:
        assert strategy.ask(0) == []
        if isinstance(event, Ask):
            found += strategy.ask(event.n)
        else:
            strategy.tell(event.observations)

    assert proposals_of(expected) == found
    assert [strategy.ask(3), strategy.ask(3)] == [[], []]


@for_all_strategies
@for_all_spaces
def test_one_large_ask_equals_many_small_ones(name: str, key: str) -> None:
    """Each proposal knows of those before it, whoever asked for them."""
    space = SPACES[key]
    one, many = MAKERS[name](space), MAKERS[name](space)
    for strategy in (one, many):
        first = strategy.ask(4)
        strategy.tell([Observation(i, p, smooth(space, p)) for i, p in enumerate(first)])

    assert one.ask(4) == [p for _ in range(4) for p in many.ask(1)]


@for_all_strategies
@for_all_spaces
def test_failures_never_break_asking(name: str, key: str) -> None:
    """When every job fails, the strategy goes on to its last trial."""
    proposals = proposals_of(run_of(name, key, always_fails))

    assert len({p.trial for p in proposals}) == n_expected(name, key)


@for_all_strategies
@pytest.mark.parametrize(
    "scores",
    [
        [0.0] * 6,
        [1e300, -1e300, 0.0, 1.0, 2.0, 3.0],
        [0.0, 5e-324, 1e-320, 1.0, 1e10, 1e300],
        [1e15, 1e15 + 1, 1e15 + 2, 1e15, 1e15, 1e15],
        [1e-300, 2e-300, 3e-300, 1e-300, 0.0, 1.0],
    ],
    ids=["equal", "huge", "denormal", "offset", "tiny"],
)
def test_extreme_scores_never_break_asking(name: str, scores: list[float]) -> None:
    """A diverged training may report any finite number."""
    key, space = "continuous", SPACES["continuous"]

    def score(space: Space, proposal: Proposal) -> float:
        return scores[proposal.trial % len(scores)]

    events = drive(MAKERS[name](space), space, score=score)

    assert all(space.contains(p.values) for p in proposals_of(events))
    assert len({p.trial for p in proposals_of(events)}) == n_expected(name, key)


@for_all_strategies
@for_all_spaces
def test_order_within_a_batch_of_tells_does_not_matter(name: str, key: str) -> None:
    """Jobs that end together may be reported in any order, in one call or in several."""
    expected = run_of(name, key, often_fails)
    strategy, found = MAKERS[name](SPACES[key]), []
    shuffle = random.Random(0)
    for event in expected:
        if isinstance(event, Ask):
            found += strategy.ask(event.n)
        else:
            for observation in shuffle.sample(event.observations, len(event.observations)):
                strategy.tell([observation])

    assert proposals_of(expected) == found


@for_all_strategies
@for_all_spaces
def test_arguments_are_never_changed(name: str, key: str) -> None:
    """Neither the initial configurations nor what is told, nor a proposal after it was given."""
    space = SPACES[key]
    initial = [] if name == "grid" else [space.from_unit([0.4] * len(space))]
    before = copy.deepcopy(initial)
    strategy = MAKERS[name](space, initial=initial)
    given: list[Proposal] = []
    kept: list[Proposal] = []
    for event in drive(MAKERS[name](space, initial=initial), space, batch=3):
        if isinstance(event, Ask):
            given += strategy.ask(event.n)
            kept = copy.deepcopy(given)
        else:
            told = copy.deepcopy(event.observations)
            strategy.tell(told)
            assert told == event.observations
        assert kept == given

    assert before == initial


@pytest.mark.parametrize("name", [n for n in NAMES if n != "grid"])
@for_all_spaces
def test_initial_configurations_come_first(name: str, key: str) -> None:
    """In the order given."""
    space = SPACES[key]
    drawn = [space.from_unit([u] * len(space)) for u in (0.4, 0.8)]
    initial = [values for values in drawn if space.allows(values)]
    first = MAKERS[name](space, initial=initial).ask(2)

    assert initial == [dict(p.values) for p in first][: len(initial)]


# Resuming


def replay(strategy: Strategy, events: Sequence[Event]) -> None:
    """Lets a new strategy live through recorded calls, as read from a file."""
    for event in events:
        if isinstance(event, Ask):
            for proposal in event.proposals:
                strategy.accept([from_file(proposal)])
        else:
            strategy.tell(
                [Observation(o.job, from_file(o.proposal), o.score) for o in event.observations]
            )


def continued(strategy: Strategy, events: Sequence[Event]) -> list[dict[str, Any]]:
    """What the strategy proposes when it is told what the unbroken one was told."""
    found: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, Ask):
            found += map(plain, strategy.ask(event.n))
        else:
            strategy.tell(event.observations)
    return found


def check_resume(name: str, key: str, score: Score, batch: int, step: int) -> None:
    """Cuts the run after every `step`-th call and compares what follows."""
    events = run_of(name, key, score, batch)
    for cut in range(1, len(events), step):
        strategy = MAKERS[name](SPACES[key])
        replay(strategy, events[:cut])

        assert continued(strategy, events[cut:]) == [plain(p) for p in proposals_of(events[cut:])]


@for_all_strategies
@for_all_spaces
@pytest.mark.parametrize("score", [smooth, often_fails, always_fails])
def test_resumed_strategy_continues_as_the_unbroken_one(name: str, key: str, score: Score) -> None:
    """Cut after any ask or tell, one job at a time."""
    check_resume(name, key, score, batch=1, step={"bayes": 7, "asha bayes": 17}.get(name, 1))


@pytest.mark.parametrize("name", LOOKS_AT_NOTHING)
@for_all_spaces
@pytest.mark.parametrize("batch", [2, 5, 100])
def test_blind_strategies_ignore_the_number_of_workers(name: str, key: str, batch: int) -> None:
    """Grid and random propose the same in batches of any size, and after a resume between them."""
    alone, together = run_of(name, key, batch=1), run_of(name, key, batch=batch)

    assert proposals_of(alone) == proposals_of(together)
    check_resume(name, key, smooth, batch, step=1)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in IN_STEPS])
@for_all_spaces
def test_more_trials_extend_the_sequence(name: str, key: str) -> None:
    """A sweep resumed with a larger n_trials goes on; with a smaller one it is over."""
    make, space = MAKERS[name], SPACES[key]
    events = drive(make(space, n_trials=4), space)
    larger, smaller = make(space), make(space, n_trials=3)
    replay(larger, events)
    replay(smaller, events)

    assert [p.trial for p in larger.ask(99)] == list(range(4, n_expected(name, key)))
    assert smaller.ask(1) == []


# Checkpoints


@for_all_strategies
@for_all_spaces
@pytest.mark.parametrize("score", [smooth, often_fails], ids=["works", "often fails"])
def test_needed_checkpoints_are_those_of_ended_jobs(name: str, key: str, score: Score) -> None:
    """A job that runs has none yet."""
    strategy = MAKERS[name](SPACES[key])
    told: set[int] = set()
    for event in run_of(name, key, score):
        if isinstance(event, Ask):
            strategy.ask(event.n)
        else:
            strategy.tell(event.observations)
            told |= {o.job for o in event.observations}

        assert strategy.needed_checkpoints() <= told


@pytest.mark.parametrize("name", [n for n in NAMES if n not in IN_STEPS])
def test_strategies_without_steps_need_no_checkpoints(name: str) -> None:
    """Their trainings always start from scratch."""
    strategy = MAKERS[name](SPACES["tiny"])
    events = drive(strategy, SPACES["tiny"])

    assert len(events) > 2
    assert strategy.needed_checkpoints() == set()
