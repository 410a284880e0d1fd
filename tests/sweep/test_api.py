"""Sweeps from Python: the same loop, record and strategies, without a Hydra app."""

import doctest
import importlib
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apps import ROOT

from hydra_plugins.tune_sweeper.api import Step, TaskRefused, UsageError, sweep
from hydra_plugins.tune_sweeper.run._repair import repair

EXAMPLES = [
    "hydra_plugins.tune_sweeper._python",
    "hydra_plugins.tune_sweeper.search._random",
    "hydra_plugins.tune_sweeper.search._space",
    "hydra_plugins.tune_sweeper.search._where",
]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep writes below the working directory."""
    monkeypatch.chdir(tmp_path)


def bowl(values: dict[str, Any]) -> float:
    """A task with its minimum at x = 0.3."""
    return float((values["x"] - 0.3) ** 2)


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_in_docstrings_run(module: str) -> None:
    """What a docstring shows is what happens."""
    found = doctest.testmod(importlib.import_module(module))

    assert found.attempted > 0 and found.failed == 0


def test_example_in_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """README's Python example, as it stands there."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile("\n".join(code), "README.md", "exec"), {})

    assert "outputs/bayes-1" in capsys.readouterr().out


@pytest.mark.parametrize("strategy", ["grid", "random", "bayes"])
def test_sweep_gives_back_all_trials(strategy: str) -> None:
    """The trials, the best of them, the folder and the reason."""
    settings: dict[str, Any] = {"points": 5} if strategy == "grid" else {"n_trials": 6, "seed": 1}
    outcome = sweep(bowl, {"x": "interval(0.0,1.0)"}, strategy=strategy, **settings)
    values = [trial.value for trial in outcome.trials]

    assert outcome.reason == "complete" and outcome.best is not None
    assert outcome.best.value == min(v for v in values if v is not None)
    assert all((trial.folder / "result.json").exists() for trial in outcome.trials)


def test_failing_task_is_data() -> None:
    """An exception is a failed trial, and the search goes on."""

    def task(values: dict[str, Any]) -> float:
        if values["x"] > 0.5:
            raise RuntimeError("too large")
        return bowl(values)

    outcome = sweep(task, {"x": "interval(0.0,1.0)"}, n_trials=10, seed=0, max_failures=None)
    statuses = {trial.status for trial in outcome.trials}

    assert statuses == {"done", "failed"}
    assert [t.value is None for t in outcome.trials] == [
        t.values["x"] > 0.5 for t in outcome.trials
    ]


def test_population_trains_in_steps() -> None:
    """The task continues the checkpoint that it is given.

    Of 200 seeds 194 stay below the bound (trial by trial, without Hydra).
    """

    def task(values: dict[str, Any], step: Step) -> dict[str, float]:
        start = float(step.resume_from.read_text()) if step.resume_from else 1.0
        reached = start * (1 - values["lr"])
        (step.folder / "checkpoints").mkdir()
        (step.folder / "checkpoints" / "last.ckpt").write_text(str(reached))
        return {"loss": reached}

    space = {"lr": "tag(log, interval(1e-3, 0.5))"}
    outcome = sweep(
        task, space, strategy="pbt", epochs=10, population_size=8, metric="loss", seed=0
    )

    assert len(outcome.trials) == 80
    assert outcome.best is not None and outcome.best.value is not None
    assert outcome.best.value < (1 - 0.5) ** 6


LR = {"lr": "tag(log, interval(1e-3, 0.5))"}


def trained(values: dict[str, Any], step: Step) -> dict[str, float]:
    """Loss (1 - lr)^epochs, from the checkpoint that it continues; the width must stay."""
    before: dict[str, float] = {"loss": 1.0, "epoch": 0}
    if step.resume_from is not None:
        before = json.loads(step.resume_from.read_text())
        if before["width"] != values.get("width"):
            raise Misfit("weights of another width")
    epoch = step.until_epoch or 9
    loss = before["loss"] * (1 - values["lr"]) ** (epoch - before["epoch"])
    file = step.folder / "checkpoints" / "last.ckpt"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"loss": loss, "epoch": epoch, "width": values.get("width")}))
    return {"loss": loss, "epochs_trained": epoch - before["epoch"]}


class Misfit(Exception):
    """A configuration that cannot go on with a checkpoint."""

    is_refusal = True


def test_halving_continues_checkpoints() -> None:
    """No epoch is trained twice, and the best is trained to the end."""
    space = {"lr": "tag(log, interval(1e-3, 0.5))"}
    outcome = sweep(trained, space, strategy="asha", epochs=9, n_trials=9, metric="loss", seed=0)
    n_epochs = [trial.metrics["epochs_trained"] for trial in outcome.trials]

    assert outcome.best is not None
    assert outcome.best.metrics["loss"] == pytest.approx((1 - outcome.best.values["lr"]) ** 9)
    assert set(n_epochs) == {1, 2, 6}
    assert sum(n_epochs) < 9 * 9 / 2


def test_key_that_a_training_refuses_to_change_is_named() -> None:
    """Nobody said that the width may change, and the first child of another width refused."""
    space = {"lr": "tag(mutable, log, interval(1e-3, 0.5))", "width": [8, 16, 32]}
    with pytest.raises(TaskRefused, match=r"^width: changed in mid-training.*width=tag\(frozen"):
        sweep(trained, space, strategy="pbt", epochs=10, metric="loss", seed=0)

    space["width"] = "tag(frozen, choice(8, 16, 32))"
    outcome = sweep(trained, space, strategy="pbt", epochs=10, metric="loss", seed=0)

    assert {trial.status for trial in outcome.trials} == {"done"}


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("exploit", ["truncation", "tournament"])
def test_population_keeps_few_checkpoints(size: int, exploit: str) -> None:
    """On the disk there are at most one and a half a member and one for the job that runs."""
    peaks = []

    def by_chance(values: dict[str, Any], step: Step) -> dict[str, float]:
        result = trained(values, step)
        peaks.append(len(list(Path("here").glob("*/*/checkpoints/*"))))
        return {**result, "loss": random.Random(str(step.folder)).random()}

    settings = {"population_size": size, "exploit": exploit, "metric": "loss", "seed": 0}
    sweep(by_chance, LR, strategy="pbt", epochs=9, folder="here", **settings)

    assert len(peaks) == 9 * size
    assert max(peaks) <= 1.5 * size + 1


@pytest.mark.parametrize(
    ("strategy", "change"),
    [
        ("pbt", {"epochs": 20}),
        ("asha", {"epochs": 20}),
        ("pbt", {"space": {"lr": "tag(log, interval(1e-2, 0.1))"}}),
    ],
)
def test_training_in_steps_keeps_its_horizon(strategy: str, change: dict[str, Any]) -> None:
    """Its jobs continue each other; members of a population would stay outside another space."""
    typed = {"space": LR, "strategy": strategy, "epochs": 9, "metric": "loss", "seed": 0}
    sweep(trained, folder="here", **typed)

    with pytest.raises(UsageError, match=r"another search: .*Type the old values or another hydra"):
        sweep(trained, folder="here", on_change="extend", **{**typed, **change})


def test_budget_of_epochs_may_be_raised() -> None:
    """As n_trials may: it is the same search."""
    typed = {"strategy": "asha", "epochs": 9, "n_trials": None, "metric": "loss", "seed": 0}
    n_epochs = []
    for budget in (30, 60):
        found = sweep(trained, LR, folder="here", max_epochs_total=budget, **typed)
        n_epochs.append(sum(trial.metrics["epochs_trained"] for trial in found.trials))

    assert n_epochs[0] <= 30 < n_epochs[1] <= 60


@pytest.mark.parametrize("strategy", ["pbt", "asha"])
@pytest.mark.parametrize("lost_step", [0, 1, 2])
def test_repaired_sweep_in_steps_goes_on(strategy: str, lost_step: int) -> None:
    """Without a record of one job, and without those that went on from it."""
    space = {"lr": "tag(mutable, log, interval(1e-3, 0.5))"}
    settings = {"strategy": strategy, "epochs": 9, "metric": "loss", "seed": 0, "folder": "here"}
    sweep(trained, space, **settings)
    file = Path("here") / "trials.jsonl"
    lines = file.read_text().splitlines()
    asks = [i for i, line in enumerate(lines) if '"type": "ask"' in line]
    of_step = [i for i in asks if f'"step": {lost_step},' in lines[i]]
    lines[of_step[1]] = lines[of_step[1]].replace("lr", "rl")  # its check sum does not hold now
    file.write_text("\n".join([*lines[:-1], ""]))  # not over yet

    assert repair(Path("here")) is not None
    outcome = sweep(trained, space, **settings)

    assert outcome.reason == "complete"
    assert {trial.status for trial in outcome.trials} == {"done"}


def test_named_folder_is_continued() -> None:
    """A second call with the same folder runs only what is missing."""
    calls: list[Any] = []

    def task(values: dict[str, Any]) -> float:
        calls.append(values)
        return bowl(values)

    for n_trials in (4, 7):
        sweep(task, {"x": "interval(0.0,1.0)"}, folder="here", n_trials=n_trials, seed=2)

    assert len(calls) == 7


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: sweep(bowl, {}, n_trials=2), "nothing to search"),
        (lambda: sweep(bowl, {"x": "interval(1,0)"}), "swap the bounds"),
        (lambda: sweep(bowl, {"x": [1, 2]}, strategy="bays"), "did you mean bayes?"),
        (lambda: sweep(bowl, {"x": [1, 2]}, strategy="replay"), "one of grid, random"),
        (lambda: sweep(bowl, {"x": [1, 2]}, n_trial=2), "did you mean n_trials"),
        (lambda: sweep(bowl, {"x": [1, 2]}, strategy="pbt"), "epochs=<number>"),
        (lambda: sweep(bowl, {"x": [1, 2]}, n_trials=0), "n_trials=0"),
        (lambda: sweep(bowl, {"x": [1, 2]}, trial_timeout_s=1), "trial_timeout_s=1"),
    ],
)
def test_mistake_raises_one_sentence(call: Callable[[], Any], sentence: str) -> None:
    """UsageError, and nothing on disk."""
    with pytest.raises(UsageError, match=re.escape(sentence)):
        call()

    assert os.listdir() == []


def test_null_and_empty_text_are_choices(tmp_path: Path) -> None:
    """As in a list that is typed."""
    seen: list[Any] = []
    sweep(
        lambda values: float(seen.append(values["x"]) is None),
        {"x": [None, "", "null", 1, [2, "a,b"]]},
        strategy="grid",
        folder=tmp_path / "here",
    )

    assert seen == [None, "", "null", 1, [2, "a,b"]]


@pytest.mark.parametrize(
    ("space", "settings", "words"),
    [
        ({"x": [1, 2]}, {"n_trials": "many"}, "n_trials='many'"),
        ({"x": [1, 2]}, {"n_trials": 1.5}, "n_trials=1.5"),
        ({"x": [1, 2]}, {"stop": {"tget": 1}}, "tget"),
        ({"x": [1, 2]}, {"initial": 3}, "initial=3"),
        ({"x": [1, 2]}, {"repeats": 2}, "repeats=2"),
        ({"x": [object(), 2]}, {}, "cannot be a value"),
        ("x", {}, "space='x'"),
    ],
    ids=["text", "fraction", "misspelt", "number", "repeats", "object", "no mapping"],
)
def test_wrong_settings_are_told(space: Any, settings: dict[str, Any], words: str) -> None:
    """In one sentence, before the task is called."""
    with pytest.raises(UsageError, match=re.escape(words)):
        sweep(lambda values: 0.0, space, **{"strategy": "random", **settings})


def test_task_may_change_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not come back."""
    monkeypatch.chdir(tmp_path)

    def wander(values: Any) -> float:
        os.chdir("/")
        return float(values["x"])

    outcome = sweep(wander, {"x": [1, 2, 3]}, strategy="grid", folder="here")

    assert [trial.value for trial in outcome.trials] == [1.0, 2.0, 3.0]
    assert (tmp_path / "here" / "trials.csv").exists()
