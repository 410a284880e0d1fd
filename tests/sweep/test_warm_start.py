"""A sweep that starts with the results of earlier ones."""

from pathlib import Path

import pytest
from apps import APP, Run, values_of

from hydra_plugins.tune_sweeper import _earlier
from hydra_plugins.tune_sweeper.run import _record
from hydra_plugins.tune_sweeper.run._objective import Objective
from hydra_plugins.tune_sweeper.search._space import Interval, Space

BAYES = ["-m", "hydra/sweeper=bayes", "hydra.sweeper.seed=1"]
X = "x=interval(0.0,1.0)"
WARM = "hydra.sweeper.warm_start=[outputs/random-1]"


@pytest.fixture
def earlier(run: Run, tmp_path: Path) -> Path:
    """A finished random search."""
    run(APP, "-m", "hydra/sweeper=random", "hydra.sweeper.n_trials=6", X)
    return tmp_path / "outputs" / "random-1"


def test_earlier_results_shape_the_sweep(run: Run, tmp_path: Path, earlier: Path) -> None:
    """They help to predict its trials, and the record of the fifth says so."""
    run(APP, *BAYES, WARM, "hydra.sweeper.n_trials=6", X)
    jobs = _record.read(tmp_path / "outputs" / "bayes-1").jobs.values()

    assert [job.proposal.info.get("warm_start") for job in jobs][4]


def test_ended_trials_are_read_with_their_scores(earlier: Path) -> None:
    """In their order; smaller is better, whatever the direction."""
    space = Space((Interval("x", 0.0, 1.0),))
    summary = _record.read(earlier)
    objective = Objective(summary.header["metric"], summary.header["direction"])
    ((*found,),) = _earlier.load([str(earlier)], space, objective)
    expected = [objective.score(end.value or 0.0) for _, end in sorted(summary.ends.items())]

    assert expected == [score for _, score in found]
    assert values_of(earlier) == [dict(values) for values, _ in found]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["hydra.sweeper.warm_start=[nowhere]", X], "nowhere holds no sweep"),
        ([WARM, "x=interval(7.0,8.0)"], "none of its trials lies in the space"),
        ([WARM, "y=interval(1,5)"], "none of its trials lies in the space"),
        ([WARM, "hydra.sweeper.direction=maximize", X], "had the objective"),
        (["hydra.sweeper.acquisition=ei", X], "acquisition='ei' is unknown: one of logei, ucb"),
    ],
)
def test_what_cannot_be_used_is_refused(
    run: Run, earlier: Path, arguments: list[str], told: str
) -> None:
    """In one sentence, before anything runs."""
    assert told in run(APP, *BAYES, *arguments, check=False).stderr
