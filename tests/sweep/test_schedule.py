"""Winners whose values changed on the way are trained again as they were, exactly."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from apps import BASIC, TRAIN, Run, progress_of

from hydra_plugins.tune_sweeper.run import _record
from hydra_plugins.tune_sweeper.run._record import Job, Summary

SET = "hydra.sweeper"
POPULATION = (
    "-m",
    "hydra/sweeper=pbt",
    f"{SET}.population_size=4",
    f"{SET}.seed=1",
    f"{SET}.step_epochs=2",
    BASIC,
)
NET = ("model=mlp", "epochs=8", "flip_probability=0.2")
VALUES = ("lr=interval(1e-3,1)", "batch_size=32,64")
REPLAY = ("-m", "hydra/sweeper=replay", BASIC, f"{SET}.schedule=outputs/pbt-1")


def lineage(summary: Summary) -> list[Job]:
    """The best job and those that it goes on from, the first one first."""
    done = [number for number, end in summary.ends.items() if end.value is not None]
    best = min(done, key=lambda number: summary.ends[number].value or 0.0)
    found = [summary.jobs[best]]
    while (parent := found[0].proposal.parent) is not None:
        found.insert(0, summary.jobs[parent])
    return found


def test_journal_is_what_the_optimizer_got(run: Run, tmp_path: Path) -> None:
    """Of every step: values on record, overrides of the job, and the rate that it trained with."""
    values = ("lr=interval(1e-3,1)", "momentum=interval(0.0,0.95)", "schedule=constant")
    run(TRAIN, *POPULATION, *NET, *values)
    folder = tmp_path / "outputs" / "pbt-1"
    jobs = _record.read(folder).jobs.values()

    assert any(job.proposal.info["op"] == "exploit" for job in jobs)
    for job in jobs:
        lines = yaml.safe_load((folder / job.folder / ".hydra" / "overrides.yaml").read_text())
        typed = dict(line.split("=", 1) for line in lines)
        config = yaml.safe_load((folder / job.folder / ".hydra" / "config.yaml").read_text())
        rates = {metrics["train/lr"] for metrics in progress_of(folder / job.folder)}
        for key, value in job.proposal.values.items():
            assert float(typed[key]) == config[key] == value
        assert rates == {job.proposal.values["lr"]}


def metrics_by_epoch(folder: Path, jobs: list[Job]) -> dict[int | None, Any]:
    ends = _record.read(folder).ends
    return {job.proposal.until_epoch: dict(ends[job.number].metrics) for job in jobs}


def test_schedule_of_a_population_is_trained_again(run: Run, tmp_path: Path) -> None:
    """Every step that the winner went through, bit for bit; then on all images."""
    printed = run(TRAIN, *POPULATION, *NET, *VALUES).stdout
    folder = tmp_path / "outputs" / "pbt-1"
    winner = lineage(_record.read(folder))
    steps = yaml.safe_load((folder / "schedule.yaml").read_text())["steps"]

    (typed,) = re.findall(r"^train all of it: .*train\.py (.*)$", printed, re.MULTILINE)
    done = run(TRAIN, *shlex.split(typed), BASIC)
    again = _record.read(tmp_path / "outputs" / "replay-1")
    expected = metrics_by_epoch(folder, winner)
    found = metrics_by_epoch(tmp_path / "outputs" / "replay-1", list(again.jobs.values()))

    assert len(steps) > 1, "the values of the winner never changed"
    assert found == {epoch: expected[epoch] for epoch in found}
    assert max(epoch or 0 for epoch in found) == winner[-1].proposal.until_epoch
    assert f"best val/loss {again.ends[len(steps) - 1].value:.4g} in trial 0" in done.stdout

    run(TRAIN, *REPLAY, "val_fraction=0", "objective.metric=train/loss")
    full = _record.read(tmp_path / "outputs" / "replay-2")
    assert {end.status for end in full.ends.values()} == {"done"}
    assert not any(name.startswith("val/") for name in full.ends[0].metrics)


def test_schedule_tells_of_a_checkpoint_that_was_lost(run: Run, tmp_path: Path) -> None:
    """Its child began anew with values of its own, is said to, and is trained again so."""
    typed = (TRAIN, *POPULATION, *NET, *VALUES, "hydra.sweep.dir=outputs/pbt-1")
    run(*typed, f"{SET}.stop.target=0.4")
    folder = tmp_path / "outputs" / "pbt-1"
    n_before = len(_record.read(folder).ends)
    for file in folder.glob("*/*/checkpoints/*.ckpt"):
        file.unlink()
    printed = run(*typed).stdout
    summary = _record.read(folder)
    run(TRAIN, *REPLAY)
    again = _record.read(tmp_path / "outputs" / "replay-1")
    expected = metrics_by_epoch(folder, lineage(summary))
    found = metrics_by_epoch(tmp_path / "outputs" / "replay-1", list(again.jobs.values()))

    assert 4 < n_before < 16, "the first run was to end in the middle"
    assert printed.count("is gone; starts from scratch") >= 4
    assert min(epoch or 0 for epoch in found) > 2, "the winner began with a later step"
    assert found == {epoch: expected[epoch] for epoch in found}


def test_winner_that_may_stop_early_is_trained_again_in_its_steps(run: Run, tmp_path: Path) -> None:
    """Each step has patience of its own: one long training would end sooner."""
    patient = ("early_stop_patience=1", "epochs=12", "lr=interval(0.1,1)", "model=mlp")
    pair = (f"{SET}.population_size=2", f"{SET}.exploit=none", f"{SET}.step_epochs=3")
    printed = run(TRAIN, *POPULATION, *pair, *patient).stdout
    folder = tmp_path / "outputs" / "pbt-1"
    expected = metrics_by_epoch(folder, lineage(_record.read(folder)))

    (again,) = re.findall(r"^train all of it: .*train\.py (.*)$", printed, re.MULTILINE)
    run(TRAIN, *shlex.split(again), BASIC)
    jobs = list(_record.read(tmp_path / "outputs" / "replay-1").jobs.values())

    assert metrics_by_epoch(tmp_path / "outputs" / "replay-1", jobs) == expected


def test_population_keeps_what_a_checkpoint_cannot_change(run: Run, tmp_path: Path) -> None:
    """The groups of nets and optimizers stay along a lineage, and the first lines say so."""
    groups = ("model=mlp,cnn", "optimizer=sgd,adamw", "model.width=8,16", "lr=interval(1e-3,1)")
    sizes = (f"{SET}.step_epochs=1", "epochs=4", f"{SET}.quantile=0.5")
    printed = run(TRAIN, *POPULATION, *sizes, *groups).stdout
    summary = _record.read(tmp_path / "outputs" / "pbt-1")
    copied = [job.proposal for job in summary.jobs.values() if job.proposal.info["op"] == "exploit"]
    donors = [summary.jobs[proposal.parent or 0].proposal for proposal in copied]

    assert {end.status for end in summary.ends.values()} == {"done"}
    assert len(copied) > 3
    for child, donor in zip(copied, donors, strict=True):
        names = ("model", "optimizer", "model.width")
        assert [child.values[n] for n in names] == [donor.values[n] for n in names]
    frozen = re.findall(r"^  (\S+) in .*, constant along a training$", printed, re.MULTILINE)
    assert frozen == ["model", "optimizer", "model.width"]


def test_winner_of_halving_is_one_training(run: Run, tmp_path: Path) -> None:
    """Its values never change, so one command trains it from the beginning, exactly."""
    sizes = (f"{SET}.n_trials=6", f"{SET}.seed=0", "model=mlp", "epochs=9", "lr=interval(1e-3,1)")
    done = run(TRAIN, "-m", "hydra/sweeper=asha", *sizes, BASIC)
    folder = tmp_path / "outputs" / "asha-1"
    winner = lineage(_record.read(folder))
    history = [epoch for job in winner for epoch in progress_of(folder / job.folder)]
    (typed,) = re.findall(r"^train it again: +(.*)$", done.stdout, re.MULTILINE)
    words = shlex.split(typed)

    run(TRAIN, *words[words.index(next(w for w in words if w.endswith("train.py"))) + 1 :])

    (again,) = (tmp_path / "outputs").glob("*/*/progress.jsonl")
    assert len(winner) > 1
    assert len(history) == winner[-1].proposal.until_epoch
    assert progress_of(again.parent) == history


def test_schedule_keeps_what_only_some_steps_have(run: Run, tmp_path: Path) -> None:
    """Groups, lists, quoted text and keys that exist in one of the steps alone."""
    steps = [
        {"until_epoch": 1, "overrides": ["augment=none", "objective.metric='val/loss'", "seed=3"]},
        {"until_epoch": 2, "overrides": ["augment=strong", "+extra=[1,'a,b']", "seed=4"]},
    ]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"fixed": ["model=mlp"], "steps": steps}))
    run(TRAIN, *REPLAY[:3], f"{SET}.schedule=mine.yaml", "lr=0.02", "epochs=4")
    folder = tmp_path / "outputs" / "replay-1" / "0"
    first, second = (yaml.safe_load((folder / n / ".hydra/config.yaml").read_text()) for n in "01")

    assert (first["seed"], second["seed"], second["extra"]) == (3, 4, [1, "a,b"])
    assert "extra" not in first and first["lr"] == second["lr"] == 0.02
    assert first["flip_probability"] != second["flip_probability"]


@pytest.mark.parametrize("typed", ["lr=0.1,0.2", "lr=interval(1e-3,1e-1)", "weight_decay=0.1,0.2"])
def test_nothing_is_searched_beside_a_schedule(run: Run, tmp_path: Path, typed: str) -> None:
    """One sentence that names the key."""
    (tmp_path / "mine.yaml").write_text("fixed: []\nsteps: [{until_epoch: 1, overrides: [lr=1]}]")
    done = run(TRAIN, *REPLAY[:3], f"{SET}.schedule=mine.yaml", typed, check=False)

    assert done.returncode == 2
    assert f"{typed.split('=')[0]}: hydra/sweeper=replay trains one schedule" in done.stderr


@pytest.mark.parametrize(
    ("fixed", "typed", "sentence"),
    [
        ("[epochs=4]", "epochs=8", "epochs=8: the schedule was found with epochs=4"),
        ("[]", "epochs=2", "epochs=2: the schedule ends with epoch 4; type epochs=4 or more"),
    ],
)
def test_schedule_keeps_its_epochs(
    run: Run, tmp_path: Path, fixed: str, typed: str, sentence: str
) -> None:
    """A longer horizon would cut its steps off in the middle, a shorter one has no room."""
    text = f"fixed: {fixed}\nsteps: [{{until_epoch: 4, overrides: [lr=1]}}]"
    (tmp_path / "mine.yaml").write_text(text)
    done = run(TRAIN, *REPLAY[:3], f"{SET}.schedule=mine.yaml", typed, check=False)

    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.parametrize("content", ["", "a: b", "fixed: []\nsteps: []", "fixed: []\nsteps: [1]"])
def test_what_is_no_schedule_is_refused(run: Run, tmp_path: Path, content: str) -> None:
    """With the file's name, before anything runs."""
    (tmp_path / "mine.yaml").write_text(content)
    done = run(TRAIN, *REPLAY[:3], f"{SET}.schedule=mine.yaml", check=False)

    assert done.returncode == 2
    assert "mine.yaml is no schedule" in done.stderr
