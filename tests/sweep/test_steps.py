"""Strategies that train in steps, with real trainings on Hydra's launchers and on ours."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from apps import BASIC, TRAIN, Run, progress_of, statuses_of

from hydra_plugins.tune_sweeper.run import _record

LAUNCHERS = ("basic", "joblib", "submitit_local", "workers")
PARALLEL = ("hydra.sweeper.n_parallel=2", "hydra.sweeper.seed=3", "hydra.sweep.dir=here")
# Results depend on the threads, which launchers choose differently.
NET = ("model=mlp", "lr=interval(1e-4,1)", "trainer.threads=1")


def test_halving_trains_no_epoch_twice(run: Run, tmp_path: Path) -> None:
    """Each job continues its trial's checkpoint, two at once; most trials end early."""
    settings = ("hydra.sweeper.n_trials=9", "hydra.sweeper.proposer=bayes", "epochs=9")
    budget = "hydra.sweeper.max_epochs_total=900"
    done = run(TRAIN, "-m", "hydra/sweeper=asha", *PARALLEL, *NET, *settings, budget)
    folder = tmp_path / "here"
    jobs = _record.read(folder).jobs.values()
    epochs = {job.folder: len(progress_of(folder / job.folder)) for job in jobs}
    wanted = {job.folder: {0: 1, 1: 2, 2: 6}[job.proposal.step] for job in jobs}

    assert set(statuses_of(folder)) == {"done"}
    assert epochs == wanted
    assert sum(epochs.values()) < 9 * 9 * 0.6
    took = f"all 9 trials took {sum(epochs.values())} of max_epochs_total=900 epochs"
    assert f"{took}: type hydra.sweeper.n_trials=null hydra.sweep.dir=here" in done.stdout
    assert max(job.proposal.until_epoch or 0 for job in jobs) == 9


def ends_of(folder: Path) -> list[Any]:
    """What was asked for and what came of it, by job."""
    summary = _record.read(folder)
    return [(summary.jobs[n].proposal, end.value) for n, end in sorted(summary.ends.items())]


def test_step_that_was_trained_and_not_recorded_is_scored(run: Run, tmp_path: Path) -> None:
    """A kill after the last checkpoint of the very first job: another attempt trains nothing."""
    settings = ("hydra.sweeper.population_size=2", "hydra.sweeper.keep_checkpoints=null")
    typed = ("-m", "hydra/sweeper=pbt", *PARALLEL[1:], *NET, *settings, "epochs=4", BASIC)
    run(TRAIN, *typed)
    folder, whole = tmp_path / "here", ends_of(tmp_path / "here")
    journal = folder / _record.FILE
    lines = journal.read_bytes().splitlines(keepends=True)
    before = itertools.takewhile(lambda line: b'"type": "end"' not in line, lines)
    journal.write_bytes(b"".join(before))
    (folder / "0" / "0" / "result.json").unlink()
    run(TRAIN, *typed)

    assert ends_of(folder) == whole
    assert _record.read(folder).ends[0].attempt == 2


@pytest.mark.slow
def test_population_is_the_same_on_every_launcher(run: Run, tmp_path: Path) -> None:
    """With min_peers=1 nothing depends on who ends first, nor on where it runs."""
    settings = ("hydra.sweeper.population_size=4", "hydra.sweeper.min_peers=1.0", "epochs=5")
    found = []
    for launcher in LAUNCHERS:
        more = (f"hydra/launcher={launcher}", f"hydra.sweep.dir={launcher}")
        run(TRAIN, "-m", "hydra/sweeper=pbt", *PARALLEL[:-1], *NET, *settings, *more)
        found.append(ends_of(tmp_path / launcher))

    assert len(found[0]) == 20
    assert all(ends == found[0] for ends in found[1:])
