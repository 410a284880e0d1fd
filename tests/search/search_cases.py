"""Spaces, strategies and a way to drive them that the tests of the search share."""

import copy
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from hydra_plugins.tune_sweeper.search._asha import Asha
from hydra_plugins.tune_sweeper.search._bayes import Bayes
from hydra_plugins.tune_sweeper.search._grid import Grid
from hydra_plugins.tune_sweeper.search._pbt import Pbt
from hydra_plugins.tune_sweeper.search._random import Random
from hydra_plugins.tune_sweeper.search._space import (
    LINEAR,
    LOG,
    REVERSE_LOG,
    Choice,
    Condition,
    Interval,
    Parameter,
    Space,
)
from hydra_plugins.tune_sweeper.search._trial import Observation, Proposal, Strategy
from hydra_plugins.tune_sweeper.search._where import Where

# The same examples every time, and as many as a second allows.
law = settings(derandomize=True, max_examples=60, deadline=None, database=None)

N_TRIALS = 10
EPOCHS, STEP_EPOCHS, POPULATION = 8, 2, 4

LR = Interval("lr", 1e-4, 1e-1, scale=LOG)
MODEL = Choice("model", ("cnn", "mlp", "vit"))

SPACES = {
    "continuous": Space(
        (LR, Interval("momentum", 0.5, 0.999, scale=REVERSE_LOG), Interval("dropout", 0, 0.5))
    ),
    "integers": Space(
        (
            Interval("depth", 1, 6, is_integer=True),
            Interval("width", 16, 512, scale=LOG, is_integer=True),
            Interval("batch_size", 8, 64, step=8, is_integer=True),
        )
    ),
    "mixed": Space(
        (
            MODEL,
            Choice("optimizer", ("sgd", "adam")),
            Interval("momentum", 0.0, 0.9, step=0.1),
            Choice("nesterov", (True, False)),
            Choice("crop", (None, 4, "random", (2, 3))),
            LR,
        ),
        (
            Condition("momentum", "optimizer", ("sgd",)),
            Condition("nesterov", "momentum", (0.5, 0.9)),
            Condition("crop", "model", ("cnn", "vit")),
        ),
    ),
    "tiny": Space((Choice("a", (1, 2, 3), is_ordered=True), Choice("b", (None, True)))),
    "where": Space(
        (LR, Interval("batch_size", 16, 256, scale=LOG, is_integer=True)),
        where=Where("lr * scale / batch_size < 0.01", {"scale": 16}, ("lr", "batch_size")),
    ),
}

Make = Callable[..., Strategy]


def n_configurations(space: Space) -> int:
    """How many there are at most; a thousand million where there is no end of them."""
    return math.prod(p.n_values or 10**9 for p in space.parameters)


def make_grid(space: Space, seed: int = 0, n_trials: int = N_TRIALS, **settings: Any) -> Grid:
    return Grid(space, seed=seed, n_trials=n_trials, points=4, shuffle=True)


def make_sobol(space: Space, seed: int = 0, n_trials: int = N_TRIALS, **settings: Any) -> Random:
    return Random(space, seed=seed, n_trials=n_trials, **settings)


def make_iid(space: Space, seed: int = 0, n_trials: int = N_TRIALS, **settings: Any) -> Random:
    return Random(space, seed=seed, n_trials=n_trials, sampler="iid", **settings)


def make_bayes(space: Space, seed: int = 0, n_trials: int = N_TRIALS, **settings: Any) -> Bayes:
    return Bayes(space, seed=seed, n_trials=n_trials, **settings)


def make_pbt(space: Space, seed: int = 0, n_trials: int = 0, **settings: Any) -> Pbt:
    own = {"population_size": POPULATION, "in_batches": False, "min_peers": 0.75, **settings}
    return Pbt(space, seed=seed, epochs=EPOCHS, step_epochs=STEP_EPOCHS, **own)


def make_asha(space: Space, seed: int = 0, n_trials: int = N_TRIALS, **settings: Any) -> Asha:
    return Asha(space, seed=seed, epochs=EPOCHS, n_trials=n_trials, **{"eta": 2, **settings})


MAKERS: dict[str, Make] = {
    "grid": make_grid,
    "sobol": make_sobol,
    "iid": make_iid,
    "bayes": make_bayes,
    "pbt": make_pbt,
    "pbt candidates": functools.partial(
        make_pbt, population_size=3, init_candidates=POPULATION, score_window=2, keep="population"
    ),
    "asha": make_asha,
    "asha bayes": functools.partial(make_asha, proposer="bayes"),
    "asha progressive": functools.partial(make_asha, progressive=True),
    "asha brackets": functools.partial(make_asha, brackets=2, keep=0.3, max_epochs_total=40),
}
IN_STEPS = tuple(name for name in MAKERS if name.startswith(("pbt", "asha")))


@dataclass(frozen=True)
class Ask:
    """One call of ask, and what it gave."""

    n: int
    proposals: list[Proposal]


@dataclass(frozen=True)
class Tell:
    """One call of tell."""

    observations: list[Observation]


Event = Ask | Tell
Score = Callable[[Space, Proposal], float | None]


def smooth(space: Space, proposal: Proposal) -> float | None:
    """A bowl over the unit cube; it sinks with the epochs of a training."""
    u = space.to_unit(proposal.values)
    return sum((x - 0.3) ** 2 for x in u) / (1 + proposal.step)


def always_fails(space: Space, proposal: Proposal) -> float | None:
    """No training ever ends well."""
    return None


def often_fails(space: Space, proposal: Proposal) -> float | None:
    """A third of the trainings fail, whatever their values."""
    fails = (proposal.trial + proposal.step) % 3 == 1
    return None if fails else smooth(space, proposal)


def drive(
    strategy: Strategy, space: Space, *, score: Score = smooth, batch: int = 1, rounds: int = 100
) -> list[Event]:
    """Asks for a batch, runs it, tells it, until nothing comes; gives back all calls."""
    events: list[Event] = []
    n_jobs = 0
    for _ in range(rounds):
        proposals = strategy.ask(batch)
        if not proposals:
            break
        jobs = range(n_jobs, n_jobs + len(proposals))
        told = [Observation(j, p, score(space, p)) for j, p in zip(jobs, proposals, strict=True)]
        events += [Ask(batch, copy.deepcopy(proposals)), Tell(told)]
        strategy.tell(told)
        n_jobs += len(proposals)
    return events


def proposals_of(events: Iterable[Event]) -> list[Proposal]:
    return [p for event in events if isinstance(event, Ask) for p in event.proposals]


def plain(proposal: Proposal) -> dict[str, Any]:
    """A proposal after its journey through a file."""
    restored: dict[str, Any] = json.loads(json.dumps(vars(proposal)))
    return restored


def from_file(proposal: Proposal) -> Proposal:
    """A proposal as a resumed sweep reads it: tuples have become lists."""
    return Proposal(**plain(proposal))


# Random parameters and spaces

_numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: float(f"{x:.6g}"))


@st.composite
def intervals(draw: st.DrawFn, name: str = "x") -> Interval:
    """Any legal interval: every scale, with or without a step, floats or integers."""
    scale = draw(st.sampled_from([LINEAR, LOG, REVERSE_LOG]))
    if draw(st.booleans()):
        return draw(_integer_intervals(name, scale))
    low, high = draw(_float_bounds(scale))
    steps = draw(st.none() | st.integers(1, 50))
    step = None if steps is None else float(f"{(high - low) / steps:.6g}")
    step = step if step is None or 0 < step <= high - low else None
    return Interval(name, low, high, scale=scale, step=step)


@st.composite
def _float_bounds(draw: st.DrawFn, scale: str) -> tuple[float, float]:
    if scale == LINEAR:
        a, b = draw(st.tuples(_numbers, _numbers).filter(lambda p: abs(p[0] - p[1]) > 1e-3))
        return min(a, b), max(a, b)
    low = draw(st.floats(1e-8, 0.4))
    high = draw(st.floats(0.5, 0.9999))
    return low, high


@st.composite
def _integer_intervals(draw: st.DrawFn, name: str, scale: str) -> Interval:
    width = draw(st.integers(1, 2000))
    low = draw({LINEAR: st.integers(-1000, 1000), LOG: st.integers(1, 1000)}.get(scale, st.just(0)))
    low = -width if scale == REVERSE_LOG else low
    step = draw(st.none() | st.integers(1, width))
    return Interval(name, low, low + width, scale=scale, is_integer=True, step=step)


_values = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.floats(0, 1)


@st.composite
def choices(draw: st.DrawFn, name: str = "x") -> Choice:
    """Any list of different values, ordered or not."""
    listed = st.lists(_values | st.lists(st.integers(0, 3), max_size=2), min_size=1, max_size=6)
    found = {json.dumps(v): v for v in draw(listed)}
    is_ordered = draw(st.booleans())
    return Choice(name, tuple(found.values()), is_ordered=is_ordered)


def parameters(name: str = "x") -> st.SearchStrategy[Parameter]:
    return st.one_of(intervals(name), choices(name))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """One to four parameters, some of which exist only for some values of an earlier one."""
    found = [draw(parameters(f"p{i}")) for i in range(draw(st.integers(1, 4)))]
    conditions = []
    for i, child in enumerate(found[1:], start=1):
        parent = found[draw(st.integers(0, i - 1))]
        if isinstance(parent, Choice) and draw(st.booleans()):
            values = draw(st.lists(st.sampled_from(parent.choices), min_size=1, max_size=2))
            conditions.append(Condition(child.name, parent.name, tuple(values)))
    return Space(tuple(found), tuple(conditions))


unit = st.floats(0.0, 1.0, allow_nan=False)


def is_plain(value: Any) -> bool:
    """Whether a value consists of exactly the types that JSON has; a tuple is a list."""
    if isinstance(value, Mapping):
        return all(type(k) is str and is_plain(v) for k, v in value.items())
    if isinstance(value, Sequence) and type(value) in (list, tuple):
        return all(map(is_plain, value))
    return type(value) in (bool, int, float, str, type(None))


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
