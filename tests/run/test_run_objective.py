"""From metrics to the one number that counts; and the rules that end a sweep."""

import math
from typing import Any

import pytest

from hydra_plugins.tune_sweeper.run import _rules
from hydra_plugins.tune_sweeper.run._objective import AGGREGATES, DIRECTIONS, Objective
from hydra_plugins.tune_sweeper.run._record import End
from hydra_plugins.tune_sweeper.run._result import DONE, FAILED, Result, WrongReturn
from hydra_plugins.tune_sweeper.run._rules import Progress, Rules
from hydra_plugins.tune_sweeper.search._trial import Proposal

HISTORY = [3.0, 1.0, 4.0, 2.0]
NAN, INF = math.nan, math.inf


def result(**metrics: Any) -> Result:
    """A result with a number or a history by name."""
    histories = {k: v for k, v in metrics.items() if isinstance(v, list)}
    last = {k: v[-1] if isinstance(v, list) else v for k, v in metrics.items()}
    return Result(DONE, last, histories)


@pytest.mark.parametrize("direction", ["minimize", "min", "maximize", "max"])
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_history_becomes_one_number(aggregate: str, direction: str) -> None:
    """In the user's own direction: the best of a maximised metric is its largest value."""
    is_max = direction.startswith("max")
    best = max(HISTORY) if is_max else min(HISTORY)
    expected = {"last": 2.0, "best": best, "min": 1.0, "max": 4.0, "mean": 2.5}
    objective = Objective("acc", direction, aggregate)

    assert expected[aggregate] == objective.value(result(acc=HISTORY))
    assert objective.value(result(acc=0.25)) == 0.25


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_score_is_smaller_for_better_values(direction: str) -> None:
    """The sign turns here and nowhere else."""
    objective = Objective("acc", direction)
    better, worse = (2.0, 1.0) if direction.startswith("max") else (1.0, 2.0)

    assert objective.score(better) < objective.score(worse)
    assert objective.is_better(better, worse)
    assert not objective.is_better(worse, better)
    assert not objective.is_better(worse, worse)
    assert objective.is_better(worse, None)


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("last", [NAN, INF, -INF])
def test_history_that_ends_badly_is_bad(aggregate: str, last: float) -> None:
    """min() would let a NaN pass: a training that diverged at its end is not done."""
    value = Objective("loss", "minimize", aggregate).value(result(loss=[1.0, last]))

    assert not math.isfinite(value)


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_one_bad_epoch_is_left_out(aggregate: str, bad: float, direction: str) -> None:
    """What recovered counts as if it had not happened."""
    objective = Objective("loss", direction, aggregate)

    assert objective.value(result(loss=[3.0, bad, 2.0])) == objective.value(result(loss=[3.0, 2.0]))


def test_missing_metric_names_the_nearest() -> None:
    """With those that there are, and what to type."""
    with pytest.raises(WrongReturn) as caught:
        Objective("val/los").value(result(**{"val/loss": 1.0, "train/loss": 2.0, "epochs": 3}))

    assert "metric 'val/los' is not among" in str(caught.value)
    assert "epochs, train/loss, val/loss" in str(caught.value)
    assert "hydra.sweeper.metric=val/loss" in str(caught.value)


def test_unnamed_metric_of_a_mapping_asks_for_its_name() -> None:
    """A task that returns several numbers must say which counts."""
    with pytest.raises(WrongReturn, match=r"returned the metrics acc, loss: name the one"):
        Objective().value(result(loss=1.0, acc=0.5))


def test_bare_number_needs_no_name() -> None:
    """It is called `value`."""
    assert Objective().value(result(value=0.5)) == 0.5
    assert Objective().name == "value"


PROPOSAL = Proposal(0, {"x": 1})


@pytest.mark.parametrize(
    ("values", "direction", "score"),
    [
        ([0.5], "minimize", 0.5),
        ([0.5], "maximize", -0.5),
        ([1.0, 2.0, 6.0], "minimize", 3.0),
        ([1.0, 2.0, 6.0], "maximize", -3.0),
        ([1.0, None, 6.0], "minimize", None),
        ([None], "minimize", None),
    ],
)
def test_repeats_are_averaged(
    values: list[float | None], direction: str, score: float | None
) -> None:
    """One that failed makes the configuration fail."""
    observation = Objective("loss", direction).observe(3, PROPOSAL, values)

    assert (observation.job, observation.score) == (3, score)


# Rules


def progress(*values: float | None, direction: str = "minimize", **rules: Any) -> Progress:
    """What the rules know after jobs that ended with these values, None for a failure."""
    objective = Objective("loss", direction)
    found = Progress(Rules(n_parallel=1, **rules), objective)
    for job, value in enumerate(values):
        found.add(End(job, 1, FAILED if value is None else DONE, value))
        if value is not None:
            found.rank(job, objective.score(value))
    return found


REASONS: list[tuple[list[float | None], dict[str, Any], str | None]] = [
    ([1.0, 2.0, None], {}, None),
    ([], {"fail_fast": 1, "max_failures": 0.1, "patience": 1, "target": 0.0}, None),
    ([None, None], {"fail_fast": 3}, None),
    ([None, None, None], {"fail_fast": 3}, "fail_fast"),
    ([None, None, None, None], {"fail_fast": 3}, "fail_fast"),
    ([None, None, 1.0, None], {"fail_fast": 3}, None),
    ([None, None, None, 1.0], {"max_failures": 0.5}, None),
    ([None, None, None, 1.0, 1.0], {"max_failures": 0.5}, "max_failures"),
    ([None, None, None, 1.0, 1.0, 1.0], {"max_failures": 0.5}, None),
    ([None, 1.0, None, 1.0], {"max_failures": 2}, "max_failures"),
    ([None, 1.0, 1.0, 1.0], {"max_failures": 2}, None),
    ([5.0, 2.1], {"target": 2.0}, None),
    ([5.0, 2.0], {"target": 2.0}, "target"),
    ([5.0, 1.0, 9.0], {"target": 2.0}, "target"),
    ([3.0, 4.0, 5.0], {"patience": 3}, None),
    ([3.0, 4.0, 5.0, 3.0], {"patience": 3}, "patience"),
    ([3.0, 4.0, 5.0, 2.9], {"patience": 3}, None),
    ([3.0, None, None, None], {"patience": 3}, None),
]


@pytest.mark.parametrize(("values", "rules", "reason"), REASONS)
def test_rule_says_when_to_stop(
    values: list[float | None], rules: dict[str, Any], reason: str | None
) -> None:
    """Each by itself; the limit itself counts."""
    assert reason == progress(*values, **rules).reason_to_stop()


@pytest.mark.parametrize(
    ("best", "reason"), [(0.89, None), (0.9, "target"), (0.95, "target")], ids=str
)
def test_target_is_in_the_users_direction(best: float, reason: str | None) -> None:
    """A maximised metric reaches it from below."""
    found = progress(0.1, best, 0.3, direction="maximize", target=0.9)

    assert reason == found.reason_to_stop()


def test_time_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed sweep has its time anew; the wall clock does not matter."""
    found = progress(time_s=5.0)
    reasons = []
    for seconds in (4.9, 5.0):
        monkeypatch.setattr(_rules.time, "monotonic", lambda s=seconds: found._began + s)
        reasons.append(found.reason_to_stop())

    assert reasons == [None, "time_s"]


@pytest.mark.parametrize(
    ("direction", "best"), [("minimize", (1.0, 1)), ("maximize", (4.0, 2))], ids=str
)
def test_best_is_the_first_of_equals_in_the_users_units(
    direction: str, best: tuple[float, int]
) -> None:
    """Its value with its own sign, and the number of its job."""
    assert best == progress(3.0, 1.0, 4.0, 1.0, 4.0, direction=direction).best


def test_leaders_are_the_best_jobs() -> None:
    """As many as checkpoints are kept, best first, at no growing cost."""
    found = progress(5.0, 3.0, None, 1.0, 4.0, 2.0, keep_checkpoints=3)

    assert found.leaders == [(1.0, 3), (2.0, 5), (3.0, 1)]
