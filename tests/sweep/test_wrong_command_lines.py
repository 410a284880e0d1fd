"""Every mistake gets one sentence on stderr, exit code 2, and leaves nothing behind."""

from pathlib import Path

import pytest
from apps import APP, TRAIN, Run

LR = "lr=interval(1e-4,1e-1)"
BAYES = "hydra/sweeper=bayes"
ASHA = "hydra/sweeper=asha"
RANDOM = "hydra/sweeper=random"
PBT = "hydra/sweeper=pbt"
SET = "hydra.sweeper"

# The command line behind `train.py`, and what its sentence must hold.
MISTAKES: list[tuple[list[str], list[str]]] = [
    # Names
    (["lrr=0.1"], ["lrr", "did you mean lr?"]),
    (["-m", "lrr=0.1,0.2"], ["lrr=0.1,0.2", "did you mean lr?"]),
    (["-m", BAYES, "lrr=interval(1e-4,1e-1)"], ["lrr", "did you mean lr?"]),
    (["-m", "model.widht=8,16"], ["model.widht", "did you mean model.width"]),
    (["optimizer.nestrov=true"], ["optimizer.nestrov", "did you mean optimizer.nesterov?"]),
    (["-m", "hydra/sweeper=bays", LR], ["bays", "did you mean hydra/sweeper=bayes?", "random"]),
    (["-m", BAYES, f"{SET}.n_trial=5", LR], ["n_trial", f"did you mean {SET}.n_trials?"]),
    (["-m", BAYES, f"+{SET}.n_trails=5", LR], [f"{SET}.n_trails", "did you mean n_trials?"]),
    (["-m", BAYES, f"{SET}.sampler=iid", LR], [f"{SET}.sampler", "no such key"]),
    (["-m", RANDOM, f"{SET}.sampler=sobl", LR], ["sobl", "sobol, iid"]),
    (["data=digit"], ["data=digit", "did you mean data=digits?", "shapes"]),
    (["-m", "data=digit,shapes"], ["'digit'", "did you mean digits?"]),
    (["model=cn"], ["model=cn", "did you mean model=cnn?"]),
    (["-m", "model=cnn,mpl"], ["'mpl'", "did you mean mlp?"]),
    (["schedule=cosin"], ["schedule=cosin", "did you mean schedule=cosine?"]),
    (
        ["-m", "hydra/launcher=joblb", "lr=0.1,0.2"],
        ["joblb", "did you mean hydra/launcher=joblib?"],
    ),
    (["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0", "lr=0.1,0.2"], ["n_jobs=0", "-1"]),
    (["-m", RANDOM, "hydra.job.name=../x", LR], ["hydra.job.name=../x", "expected a name"]),
    (["-m", RANDOM, f"{SET}.seed=1700000000123456789", LR], ["seed=17", "0 to 2**53 - 1"]),
    (["-m", "+sweep=bayes_lrr"], ["bayes_lrr", "did you mean sweep=bayes_lr?"]),
    (["-m", "model=glob(z*)"], ["matches nothing", "cnn, mlp"]),
    (["-m", "hydra.sweeper=bayes", LR], ["did you mean hydra/sweeper=bayes?"]),
    (["-m", "sweeper=bayes", LR], ["did you mean hydra/sweeper=bayes?"]),
    (["-m", "hydra/sweepers=bayes", LR], ["did you mean hydra/sweeper=bayes?"]),
    (["--config-name", "nope"], ["--config-name nope", "no such config"]),
    (["-m", BAYES, f"{SET}.strategy=foo:bar", LR], ["foo:bar", "hydra/sweeper=<name>"]),
    (["-m", BAYES, f"{SET}.strategy=os:system", LR], ["os:system", "no class with ask"]),
    (["-m", BAYES, f"{SET}.name=../../x", LR], ["../../x", "letters, digits"]),
    (["-m", BAYES, "hydra.sweep.dir=", LR], ["hydra.sweep.dir=", "expected a folder"]),
    (["schedule.name=cosin"], ["schedule.name=cosin", "cosine"]),
    (["-m", "hydra/sweeper=replay"], ["which schedule", f"{SET}.schedule=outputs/pbt-1"]),
    (["-m", "hydra/sweeper=replay", f"{SET}.schedule=nope"], ["nope cannot be read"]),
    (["-m", ASHA, LR, f"{SET}.min_epochs=11"], ["min_epochs=11", "<= 10, the app's epochs"]),
    (["-m", ASHA, LR, f"{SET}.eta=1"], ["eta=1: expected a number above 1"]),
    (["-m", ASHA, LR, f"{SET}.proposer=byes"], ["'byes'", "random, bayes"]),
    (["-m", ASHA, LR, f"{SET}.max_epochs_total=9"], ["max_epochs_total=9", "at least 10"]),
    (["-m", ASHA, LR, f"{SET}.repeats=2"], ["repeats", "without steps"]),
    (["-m", ASHA, "until_epoch=1,2"], ["until_epoch", "cannot be swept"]),
    (["-m", ASHA, LR, "until_epoch=3"], ["until_epoch=3", "epochs=3"]),
    # The grammar
    (["bayes"], ["expected key=value", "+bayes="]),
    (["lr = 0.1"], ["no blanks round ="]),
    (["-m", 'model="cnn","\udcff"'], [r'model="cnn","\udcff"', "no text in UTF-8"]),
    (["-m", BAYES, "lr=interval(1e-4,1e-1"], ["a bracket is not closed"]),
    (["-m", BAYES, "lr=uniform(1e-4,1e-1)"], ["no function uniform", "interval"]),
    (["-m", BAYES, "lr=Interval(1e-4,1e-1)"], ["did you mean interval(...)?"]),
    (["-m", BAYES, "lr=interval(1e-4,1e-1,log)"], ["tag(log,interval(1e-4,1e-1))"]),
    (["-m", BAYES, "lr=interval(1e-4,1e-1),0.5"], ["cannot hold interval(...)"]),
    (["-m", BAYES, "model=interval(0,1)"], ["model is a config group", "cnn, mlp"]),
    (["~lr"], ["lr: expected in every configuration", "leave ~lr out"]),
    (["-m", "lr=0.1,0.2", "~model"], ["model: expected in every configuration"]),
    # Without -m
    ([LR], [LR, "needs -m", f"python train.py -m '{LR}'"]),
    (["lr=0.1,0.2"], ["lr=0.1,0.2", "needs -m"]),
    # Intervals
    (["-m", BAYES, "lr=interval(1e-1,1e-4)"], ["low=0.1 is above high=0.0001", "swap"]),
    (["-m", BAYES, "lr=interval(0.1,0.1)"], ["both 0.1", "nothing to search"]),
    (
        ["-m", BAYES, "lr=interval(0,0.1)"],
        ["needs low > 0", "knobs.yaml", "lr=interval(1e-3,1e-1)"],
    ),
    (
        ["-m", BAYES, "weight_decay=interval(0,0.1)"],
        ["needs low > 0", "knobs.yaml", "tag(linear,interval(0,0.1))"],
    ),
    (["-m", BAYES, "lr=tag(log,interval(-1,0.1))"], ["log scale needs low > 0, got -1"]),
    (["-m", BAYES, "lr=interval(nan,0.1)"], ["low=nan", "finite"]),
    (["-m", BAYES, "lr=interval(0.1,inf)"], ["high=inf", "finite"]),
    (["-m", BAYES, "lr=interval(1e-4,20)"], ["20", "(0, 10]"]),
    (["-m", BAYES, "momentum=interval(0.5,1.5)"], ["needs high < 1, got 1.5"]),
    (["-m", BAYES, "momentum=tag(linear,interval(0.5,1.5))"], ["1.5", "[0, 1)"]),
    (["-m", RANDOM, "batch_size=interval(16.5,64)"], ["integer bounds", "16.5"]),
    (["-m", "batch_size=range(10,5)"], ["range is empty"]),
    (["-m", LR], ["continuous", "points=5", f"{SET}.<name>"]),
    (["-m", LR, f"{SET}.points=0"], ["points=0", "expected an integer from 1"]),
    (["-m", LR, f"{SET}.points=abc"], ["points=abc", "expected an integer from 1"]),
    (["-m", LR, f"{SET}.points={{lr: 0}}"], ["'lr': 0", "expected an integer from 1"]),
    (["-m", LR, f"{SET}.points={{lrr: 3}}"], ["lrr is not searched"]),
    (["-m", LR, f"{SET}.points=1000000000"], ["1,000,000"]),
    # Tags
    (["-m", BAYES, "lr=tag(log,tag(int,interval(1,10)))"], ["tags do not nest"]),
    (["-m", BAYES, "lr=tag(lg,interval(1e-4,1e-1))"], ["'lg'", "did you mean log?"]),
    (["-m", BAYES, "lr=tag(log,linear,interval(1e-4,1e-1))"], ["exclude each other"]),
    (["-m", RANDOM, "batch_size=tag(step:x,interval(16,64))"], ["'step:x'", "step:8"]),
    (["-m", RANDOM, "lr=tag(log,choice(0.1,0.2))"], ["interval(...) alone"]),
    (["-m", PBT, "model.width=tag(mutable,interval(8,64))"], ["model.width", "mid-training"]),
    # Nothing to search, and values
    (["-m", BAYES], ["nothing to search", "quotes"]),
    (["-m", BAYES, "lr=0.1"], ["nothing to search"]),
    (["-m", "lr=choice(0.1,0.1)"], ["0.1", "twice"]),
    (["-m", "batch_size=0,16"], ["0 is not", "[1, inf)"]),
    (["-m", "flip_direction=horizontal,vertcal"], ["vertcal", "did you mean vertical?"]),
    (["-m", BAYES, LR, "val_fraction=1.2"], ["val_fraction=1.2", "[0, 1)"]),
    (["val_fraction=1.2"], ["val_fraction=1.2", "[0, 1)"]),
    (["lr=-1"], ["lr=-1", "(0, 10]"]),
    (["lr=nan"], ["lr=nan", "(0, 10]"]),
    (["epochs=0"], ["epochs=0", "[1, inf)"]),
    (["trainer.precision=fp8"], ["fp8", "bf16-mixed"]),
    # Settings
    (["-m", BAYES, f"{SET}.n_trials=0", LR], ["n_trials=0", "from 1 on"]),
    (["-m", BAYES, f"{SET}.n_trials=abc", LR], ["n_trials", "abc", "Integer"]),
    (["-m", BAYES, f"{SET}.n_parallel=0", LR], ["n_parallel=0", "from 1 on"]),
    (
        ["-m", BAYES, f"{SET}.n_parallel=4", "hydra.launcher.cpu_slots=2", LR],
        ["n_parallel=4", "2 slots", "n_parallel=2 or less"],
    ),
    (["-m", BAYES, f"{SET}.direction=minimise", LR], ["minimise", "did you mean minimize"]),
    (["-m", BAYES, f"{SET}.metric_agg=median", LR], ["median", "last, best, min, max, mean"]),
    (["-m", BAYES, f"{SET}.stop.patience=0", LR], ["stop.patience=0", "from 1 on"]),
    (["-m", BAYES, f"{SET}.stop.target=nan", LR], ["stop.target=nan", "finite"]),
    (["-m", BAYES, f"{SET}.retries=-1", LR], ["retries=-1", "from 0 on"]),
    (["-m", BAYES, f"{SET}.trial_timeout_s=0", LR], ["trial_timeout_s=0", "above 0"]),
    (["-m", BAYES, f"{SET}.resume=maybe", LR], ["maybe", "auto, never, must"]),
    (["-m", BAYES, f"{SET}.resume=must", LR], ["no unfinished bayes sweep"]),
    (["-m", BAYES, f"{SET}.n_initial=0", LR], ["n_initial=0"]),
    (["-m", BAYES, f"{SET}.initial=[{{lr: 7}}]", LR], ["{'lr': 7}", "no configuration"]),
    (["-m", BAYES, f"{SET}.where='lr*foo < 1'", LR], ["'foo'"]),
    (["-m", BAYES, f"{SET}.where='__import__(1)'", LR], ["not allowed"]),
    (["-m", BAYES, f"{SET}.where=lr", LR], ["compares nothing"]),
    (["-m", BAYES, f"{SET}.where='{'-' * 5000}lr < 1'", LR], ["too long"]),
    (["-m", BAYES, f'{SET}.where=\'"a" * 99999999999 == "b"\'', LR], ["is no number"]),
    (
        ["-m", BAYES, f"{SET}.conditions={{lr: {{model: [cnnn]}}}}", LR, "model=cnn,mlp"],
        ["model is never 'cnnn'", "cnn, mlp"],
    ),
    (["-m", BAYES, f"{SET}.conditions={{lr: {{model: [cnn]}}}}", LR], ["model", "not searched"]),
    (["-m", RANDOM, f"{SET}.repeats=2", "seed=range(0,3)"], ["repeats", "'seed'"]),
    (["-m", PBT, f"{SET}.factors=[0.8,1.2]", LR], ["0.96", "reciprocal"]),
    (["-m", PBT, f"{SET}.exploit=best", LR], ["best", "truncation, tournament, none"]),
    (["-m", PBT, "epochs=2", LR], ["2 steps", "at least 4"]),
    (["-m", PBT, "epochs=4,8", LR], ["epochs", "cannot be swept"]),
    (["-m", PBT, "until_epoch=3", LR], ["until_epoch=3", "epochs=3"]),
    # Metrics
    (["-m", BAYES, f"{SET}.metric=val/los", LR], ["val/los", "did you mean val/loss?"]),
    (["-m", BAYES, "objective.metric=val/los", LR], ["val/los", "objective.metric=val/loss"]),
    (["-m", BAYES, f"{SET}.metric=val/acc", LR], ["direction=maximize"]),
    (["-m", BAYES, f"{SET}.direction=max", LR], ["direction=max", "to be minimized"]),
    (["-m", "objective.metric=val/loss,val/acc"], ["objective.metric", "cannot be searched"]),
    # What only the data can tell
    (["batch_size=100000"], ["batch_size=100000", "training images"]),
    (["warmup_epochs=50"], ["warmup_epochs=50", "epochs=10"]),
    (["resume_from=/etc/passwd"], ["/etc/passwd", "no checkpoint of this program"]),
    # Both are refused at once; which of the two is told first is a matter of milliseconds.
    (["-m", "batch_size=50000,100000"], ["batch_size=", "0000: expected", "training images"]),
    (["data=folder", "data.root=missing"], ["data.root=missing", "class folders"]),
    (["-m", BAYES, "hue=0.1", LR], ["hue=0.1", "channel"]),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES, ids=lambda v: " ".join(v)[:60])
def test_mistake_gets_one_sentence(
    run: Run, tmp_path: Path, arguments: list[str], expected: list[str]
) -> None:
    """What is wrong, what was expected, what to type; nothing on disk, exit code 2."""
    done = run(TRAIN, *arguments, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]

    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    assert [text for text in expected if text not in lines[0]] == [], lines[0]
    assert list(tmp_path.iterdir()) == []


def test_empty_class_is_refused_at_the_first_trial(run: Run, tmp_path: Path) -> None:
    """A folder of class folders, one of which holds no image."""
    from PIL import Image

    for i in range(12):
        folder = tmp_path / "images" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i * 20).save(folder / f"{i}.png")
    (tmp_path / "images" / "empty").mkdir()

    done = run(
        TRAIN, "-m", BAYES, LR, "data=folder", "data.root=images", "batch_size=2", check=False
    )

    assert done.returncode == 2, done.stderr
    assert "empty" in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        ("none", ["returned None", "expected a number"]),
        ("text", ["'good' (str)", "expected a number"]),
        ("empty", ["{} (dict)"]),
        ("list", ["[1.0] (list)"]),
        ("lock", ["lock"]),
        ("mapping", ["acc, loss", "hydra.sweeper.metric=acc"]),
    ],
)
def test_wrong_return_ends_the_sweep_at_the_first_trial(
    run: Run, behave: str, expected: list[str]
) -> None:
    """What came, what exists, what to type."""
    done = run(APP, "-m", RANDOM, "x=interval(0.0,1.0)", f"behave={behave}", check=False)

    assert done.returncode == 2, done.stderr
    assert [text for text in expected if text not in done.stderr] == [], done.stderr


def test_unknown_metric_of_any_app_names_those_that_exist(run: Run) -> None:
    """Only the first result can tell."""
    done = run(
        APP, "-m", RANDOM, "x=interval(0.0,1.0)", "behave=mapping", f"{SET}.metric=los", check=False
    )

    assert done.returncode == 2
    assert "'los'" in done.stderr and "hydra.sweeper.metric=loss" in done.stderr
