"""Knobs: each wrong value gets one sentence, each right one none, and torch stays out of it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from train.check import (
    ConfigRefused,
    check,
    check_value,
    is_inside,
    load_knobs,
    refuse_wrong_knobs,
)

Compose = Callable[..., DictConfig]

KNOBS = load_knobs()
CONF = Path(__file__).parents[2] / "conf"
FIELDS = {"type", "range", "choices", "nullable", "scale", "mutable", "per_job", "sweep", "help"}
GROUPS = ("data", "model", "optimizer", "schedule", "augment", "trainer")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "val_fraction=1.2",
            "val_fraction=1.2: expected a number in [0, 1), for instance val_fraction=0.2",
        ),
        (
            "val_fraction=-0.1",
            "val_fraction=-0.1: expected a number in [0, 1), for instance val_frac",
        ),
        ("lr=-1", "lr=-1: expected a number in (0, 10], for instance lr=1e-3"),
        ("lr=nan", "lr=nan: expected a number in (0, 10]"),
        ("lr=inf", "lr=inf: expected a number in (0, 10]"),
        ("lr=fast", "lr=fast: expected a number"),
        ("lr=null", "lr=null: expected a number"),
        ("lr=true", "lr=true: expected a number"),
        ("momentum=1", "momentum=1: expected a number in [0, 1), for instance momentum=0.5"),
        ("batch_size=0", "batch_size=0: expected a whole number in [1, inf)"),
        ("batch_size=1.5", "batch_size=1.5: expected a whole number"),
        ("batch_size=true", "batch_size=true: expected a whole number"),
        ("until_epoch=0", "until_epoch=0: expected a whole number in [1, inf) or null"),
        ("seed=-1", "seed=-1: expected a whole number in [0, inf)"),
        ("warmup_epochs=inf", "warmup_epochs=inf: expected a number in [0, inf)"),
        (
            "flip_direction=horizontl",
            "flip_direction=horizontl: expected one of none, horizontal, vertical, both; "
            "did you mean flip_direction=horizontal?",
        ),
        (
            "objective.metric=test/acc",
            "objective.metric=test/acc: expected one of val/loss, val/acc, train/loss, train/acc",
        ),
        (
            "objective.metric=val/acc",
            "objective.metric=val/acc: type objective.direction=maximize with it",
        ),
        ("trainer.device=tpu", "trainer.device=tpu: expected one of auto, cpu, cuda"),
        ("optimizer.nesterov=1", "optimizer.nesterov=1: expected true or false"),
        ("log_dir=7", "log_dir=7: expected a text or null"),
    ],
)
def test_check_answers_a_wrong_value(config: Compose, override: str, sentence: str) -> None:
    """One sentence: key and value as typed, what was expected, what to type instead."""
    (answer,) = check(config(override), KNOBS)

    assert answer.startswith(sentence)
    assert "\n" not in answer


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("lr=1e-4", "until_epoch=3", "log_dir=logs", "momentum=0"),
        ("warmup_epochs=0.5", "weight_decay=0", "lr=10", "crop_scale=1"),
        ("trainer.threads=1", "flip_direction=none"),
        ("objective.metric=val/acc", "objective.direction=maximize"),
    ],
)
def test_check_accepts_right_values(config: Compose, overrides: tuple[str, ...]) -> None:
    """Ends of closed intervals, null where it is allowed, whole numbers where fractions are."""
    assert check(config(*overrides), KNOBS) == []


@pytest.mark.parametrize("group", GROUPS)
def test_check_accepts_every_choice_of_a_group(config: Compose, group: str) -> None:
    """The defaults that the group files set are legal; a folder must be named by the user."""
    for file in sorted((CONF / group).glob("*.yaml")):
        answers = check(config(f"{group}={file.stem}"), KNOBS)

        assert [answer for answer in answers if not answer.startswith("data.root=null")] == []


def test_check_reports_every_wrong_value(config: Compose) -> None:
    """Two faults are two sentences, and the exception shows both."""
    with pytest.raises(ConfigRefused, match=r"(?s)lr=-1.*\n.*seed=-2") as caught:
        refuse_wrong_knobs(config("lr=-1", "seed=-2"))

    assert caught.value.is_refusal


def test_knobs_describe_every_flat_key(config: Compose) -> None:
    """A key at the top of the config has its row, whatever group set it."""
    flat = {str(key) for key, value in config().items() if not isinstance(value, DictConfig)}

    assert flat - KNOBS.keys() == set()


def test_knobs_name_keys_that_exist(config: Compose) -> None:
    """A row whose key no config has would be a misspelling."""
    files = [file for group in GROUPS for file in (CONF / group).glob("*.yaml")]
    configs = [config(f"{file.parent.name}={file.stem}") for file in files]
    known = {key for key in KNOBS for cfg in configs if OmegaConf.select(cfg, key, default=0) != 0}
    zero = {key for key in KNOBS for cfg in configs if OmegaConf.select(cfg, key, default=1) != 1}

    assert KNOBS.keys() == known | zero


@pytest.mark.parametrize("key", KNOBS)
def test_knobs_are_well_formed(key: str) -> None:
    """Known fields, a range only on numbers, choices only on choices, a line of help."""
    knob = KNOBS[key]

    assert knob.keys() <= FIELDS
    assert {"type", "mutable", "help"} <= knob.keys()
    assert ("choices" in knob) == (knob["type"] == "choice")
    assert ("scale" in knob) == (knob["type"] in ("int", "float"))
    assert ("range" in knob) <= (knob["type"] in ("int", "float"))
    assert isinstance(knob["mutable"], bool)


@pytest.mark.parametrize("key", [key for key in KNOBS if "sweep" in KNOBS[key]])
def test_knobs_example_is_legal(key: str) -> None:
    """Every value in the example of a sweep would be accepted."""
    arguments = KNOBS[key]["sweep"].split("(")[1].rstrip(")").split(",")
    values = [OmegaConf.create(f"v: {argument}").v for argument in arguments]

    assert [check_value(key, value, KNOBS[key]) for value in values] == [None] * len(values)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("(0, 10]", [1e-9, 10], [0, 10.1, -1]),
        ("[0, 1)", [0, 0.999], [1, -1e-9]),
        ("(-inf, inf)", [0, -1e300], [float("inf"), float("nan")]),
        ("[1, inf]", [1, float("inf")], [0, float("nan")]),
    ],
)
def test_interval_brackets_decide_about_the_ends(
    interval: str, inside: list[float], outside: list[float]
) -> None:
    """A round bracket leaves the end out, and nan lies nowhere."""
    assert all(is_inside(value, interval) for value in inside)
    assert not any(is_inside(value, interval) for value in outside)


def test_interval_misspelt_is_named() -> None:
    """A wrong knobs.yaml is the developer's fault and says so."""
    with pytest.raises(ValueError, match="expected an interval such as"):
        is_inside(1, "0..10")


def test_check_imports_nothing_heavy() -> None:
    """train.check is on the path of every start: no torch, numpy or scipy."""
    code = (
        "import sys, train.check; train.check.load_knobs();"
        "print(sorted({'torch', 'numpy', 'scipy', 'train.task'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert printed.stdout == "[]\n"


APP = """
import sys
import hydra

@hydra.main(config_path={conf!r}, config_name="config", version_base="1.3")
def main(cfg):
    print("trained", cfg.lr)

try:
    main()
finally:
    print("torch" in sys.modules)
"""


def run_app(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The exit of an app with our config, started in an empty folder."""
    (folder / "app").mkdir()
    app = folder / "app" / "app.py"
    app.write_text(APP.format(conf=str(CONF)))
    (folder / "here").mkdir()
    command = [sys.executable, str(app), *arguments, "hydra/sweeper=basic"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder / "here")


@pytest.mark.parametrize(
    "arguments", [("val_fraction=1.2",), ("-m", "val_fraction=1.2", "lr=0.1,0.2")]
)
def test_wrong_knob_ends_the_program_with_2_and_leaves_nothing(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """One sentence on stderr, no folder, no training, no torch."""
    ended = run_app(tmp_path, *arguments)

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(
        "error: val_fraction=1.2: expected a number in [0, 1)"
    )
    assert ended.stdout == "False\n"
    assert list((tmp_path / "here").iterdir()) == []


def test_sweep_over_values_leaves_them_to_the_sweeper(tmp_path: Path) -> None:
    """Only fixed values are checked when a sweep starts."""
    ended = run_app(tmp_path, "-m", "lr=0.1,0.2", "hydra/launcher=basic")

    assert ended.returncode == 0
    assert "trained 0.1" in ended.stdout and "trained 0.2" in ended.stdout
