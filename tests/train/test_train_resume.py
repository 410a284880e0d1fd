"""A training that is cut and continued is the training that was not cut."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from train import augment
from train.check import ConfigRefused

Compose = Callable[..., DictConfig]
Train = Callable[..., dict[str, Any]]

RANDOM = ("augment=light", "flip_probability=0.3", "model.dropout=0.3", "warmup_epochs=1")
"""Everything that draws random numbers, and a schedule that moves."""

OPTIMIZERS = ("sgd", "adamw", "adam", "rmsprop")


def last(tmp_path: Path, folder: str = "out") -> Path:
    """The checkpoint that a training in this folder left."""
    return tmp_path / folder / "checkpoints" / "last.ckpt"


def load(file: Path) -> dict[str, Any]:
    """A checkpoint's content."""
    return dict(torch.load(file, weights_only=True))


def flat(state: Any) -> list[Any]:
    """The leaves of nested mappings, in order."""
    if isinstance(state, dict):
        return [leaf for key in state for leaf in flat(state[key])]
    return [state]


def assert_bit_equal(first: Path, second: Path) -> None:
    """Two checkpoints agree in every key and in every bit of every tensor."""
    one, two = load(first), load(second)

    assert one.keys() == two.keys()
    for name in one:
        left, right = flat(one[name]), flat(two[name])
        assert len(left) == len(right), name
        assert all(
            torch.equal(torch.as_tensor(a), torch.as_tensor(b))
            for a, b in zip(
                (x for x in left if not isinstance(x, str)),
                (x for x in right if not isinstance(x, str)),
                strict=True,
            )
        ), name


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings of the optimizer at each step of SGD, as torch's optimizer sees them."""
    seen: list[dict[str, Any]] = []
    original = torch.optim.SGD.step

    def step(self: torch.optim.SGD, *args: Any, **kwargs: Any) -> Any:
        (group,) = self.param_groups
        seen.append({name: value for name, value in group.items() if name != "params"})
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    return seen


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resume_two_and_two_epochs_equal_four(train: Train, tmp_path: Path, optimizer: str) -> None:
    """Weights, optimizer buffers, histories and test metrics, bit for bit."""
    base = (f"optimizer={optimizer}", "epochs=4", *RANDOM)
    whole = train(*base, folder="whole")
    head = train(*base, "until_epoch=2", folder="head")
    tail = train(*base, f"resume_from={last(tmp_path, 'head')}", folder="tail")

    assert_bit_equal(last(tmp_path, "whole"), last(tmp_path, "tail"))
    for name, values in whole.items():
        joined = head[name] + tail[name] if isinstance(values, list) else tail[name]
        assert joined == values, name


def test_resume_epoch_by_epoch_equals_four(train: Train, tmp_path: Path) -> None:
    """As in a population whose steps are single epochs."""
    base = ("optimizer=adamw", "epochs=4", *RANDOM)
    whole = train(*base, folder="whole")
    parts: list[dict[str, Any]] = []
    for epoch in range(1, 5):
        before = f"part{epoch - 1}"
        parent = (f"resume_from={last(tmp_path, before)}",) if parts else ()
        parts.append(train(*base, f"until_epoch={epoch}", *parent, folder=f"part{epoch}"))

    assert_bit_equal(last(tmp_path, "whole"), last(tmp_path, "part4"))
    for name, values in whole.items():
        if isinstance(values, list):
            assert [value for part in parts for value in part[name]] == values, name
        else:
            assert parts[-1][name] == values, name


def test_resume_for_batch_normalisation_and_odd_paths(train: Train, tmp_path: Path) -> None:
    """Running statistics continue too, and a path may hold blanks and quotes."""
    base = ("data=shapes", "data.n_images=400", "model=resnet8", "model.width=4", "epochs=2")
    train(*base, folder="whole")
    train(*base, "until_epoch=1", folder="it's a = head")
    parent = last(tmp_path, "it's a = head")
    train(*base, f'resume_from="{parent}"', folder="tail")

    assert_bit_equal(last(tmp_path, "whole"), last(tmp_path, "tail"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", 0.003), ("momentum", 0.5), ("weight_decay", 0.02), ("momentum", 0.0)],
)
def test_resume_uses_the_new_value_from_the_first_step(
    train: Train, steps: list[dict[str, Any]], tmp_path: Path, key: str, value: float
) -> None:
    """Hyperparameters come from the config, never from the checkpoint."""
    base = ("epochs=2", "schedule=constant")
    train(*base, "until_epoch=1")
    steps.clear()
    train(*base, f"{key}={value}", f"resume_from={last(tmp_path)}", folder="tail")

    assert {step[key] for step in steps} == {value}


def test_resume_uses_the_new_batch_size(
    train: Train, steps: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The number of steps of the next epoch follows from the config's batch size."""
    n_before = len(train("epochs=2", "until_epoch=1") and steps)
    steps.clear()
    train("epochs=2", "batch_size=128", f"resume_from={last(tmp_path)}", folder="tail")

    assert (n_before, len(steps)) == (1149 // 64, 1149 // 128)


def test_resume_uses_the_new_augmentation_from_the_first_batch(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent that flipped nothing has a child that flips every image."""
    flips: list[bool] = []
    original = augment.random_flip

    def watched(images: torch.Tensor, **settings: Any) -> torch.Tensor:
        flipped = original(images, **settings)
        flips.append(torch.equal(flipped, images.flip(3)))
        return flipped

    monkeypatch.setattr(augment, "random_flip", watched)
    train("epochs=2", "until_epoch=1")
    n_before = len(flips)
    train("epochs=2", "flip_probability=1", f"resume_from={last(tmp_path)}", folder="tail")

    assert n_before == 0
    assert flips == [True] * (1149 // 64)


def test_resume_gives_rmsprop_a_momentum_it_had_not(train: Train, tmp_path: Path) -> None:
    """A buffer that the parent never made starts at zero."""
    base = ("optimizer=rmsprop", "epochs=2")
    train(*base, "momentum=0", "until_epoch=1")
    result = train(*base, "momentum=0.9", f"resume_from={last(tmp_path)}", folder="tail")

    assert result["epochs"] == 2


def test_resume_leaves_the_parent_as_it_was(train: Train, tmp_path: Path) -> None:
    """Two children continue the same file, and not a byte of it or its time changes."""
    train("epochs=3", "until_epoch=1")
    parent = last(tmp_path)
    before = (parent.read_bytes(), parent.stat().st_mtime_ns)
    for child in ("one", "two"):
        train("epochs=3", f"resume_from={parent}", folder=child)

    assert (parent.read_bytes(), parent.stat().st_mtime_ns) == before
    assert_bit_equal(last(tmp_path, "one"), last(tmp_path, "two"))


def test_resume_in_another_process_is_the_same(
    train: Train, config: Compose, tmp_path: Path
) -> None:
    """The first, the second and a fresh process's training agree in every bit."""
    base = ("epochs=2", *RANDOM, "trainer.threads=1")
    train(*base, folder="first")
    second = train(*base, folder="second")
    OmegaConf.save(config(*base), tmp_path / "config.yaml")
    code = (
        "import json, sys; from omegaconf import OmegaConf; from train.task import task;"
        "print(json.dumps(task(OmegaConf.load(sys.argv[1]), sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "config.yaml"), str(tmp_path / "fresh")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert json.loads(printed) == second
    assert_bit_equal(last(tmp_path, "first"), last(tmp_path, "second"))
    assert_bit_equal(last(tmp_path, "first"), last(tmp_path, "fresh"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resume_in_another_memory_format_changes_rounding_alone(
    train: Train, tmp_path: Path, optimizer: str
) -> None:
    """As when a GPU's checkpoint is continued on a CPU; buffers read askew would be garbage."""
    base = (f"optimizer={optimizer}", "epochs=2", "lr=1e-3", "schedule=constant")
    formats = {name: f"trainer.memory_format={name}" for name in ("contiguous", "channels_last")}
    train(*base, formats["contiguous"], "until_epoch=1", folder="head")
    resume = f"resume_from={last(tmp_path, 'head')}"
    same = train(*base, formats["contiguous"], resume, folder="same")
    other = train(*base, formats["channels_last"], resume, folder="other")

    assert other["train/loss"] == pytest.approx(same["train/loss"], rel=1e-4)
    states = [load(last(tmp_path, folder))["optimizer"] for folder in ("same", "other")]
    for left, right in zip(*map(flat, states), strict=True):
        left, right = torch.as_tensor(left), torch.as_tensor(right)
        assert (left - right).abs().max() <= 1e-2 * left.abs().max()


def test_resume_does_not_inherit_impatience(train: Train, tmp_path: Path) -> None:
    """A child of a training that early stopping ended trains its own epochs."""
    base = ("epochs=6", "early_stop_patience=1", "lr=1e-9", "schedule=constant")
    # An objective that falls with such an lr for no two epochs: accuracy that stays.
    flat_objective = ("objective.metric=val/acc", "objective.direction=maximize")
    ended = train(*base, *flat_objective)
    child = train(*base, *flat_objective, f"resume_from={last(tmp_path)}", folder="child")

    assert ended["epochs"] < 6
    assert child["epochs"] > ended["epochs"]


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("model.width=8", r"0\.weight is \[8, 1, 3, 3\] .* but \[16, 1, 3, 3\] in the"),
        ("optimizer=adamw", "optimizer is AdamW in this configuration but SGD in the checkpoint"),
        ("model=mlp", "is absent in this|but absent in the checkpoint|in this configuration"),
    ],
)
def test_resume_with_another_signature_is_refused(
    train: Train, tmp_path: Path, override: str, name: str
) -> None:
    """The sentence names what differs, what it is here and what it is there."""
    train("epochs=2", "until_epoch=1")

    with pytest.raises(ConfigRefused, match=name):
        train("epochs=2", override, f"resume_from={last(tmp_path)}", folder="child")


@pytest.mark.parametrize("limit", ["epochs=2", "until_epoch=1"])
def test_resume_of_a_finished_training_is_refused(train: Train, tmp_path: Path, limit: str) -> None:
    """There must be an epoch left to train."""
    train("epochs=2")

    with pytest.raises(ConfigRefused, match=rf"{limit}: expected more than 2, .*or more"):
        train("epochs=2", limit, f"resume_from={last(tmp_path)}", folder="child")


@pytest.mark.parametrize(
    "limits", [("epochs=3",), ("epochs=4", "until_epoch=2"), ("epochs=9", "early_stop_patience=1")]
)
def test_resume_of_an_attempt_that_was_not_scored(
    train: Train, tmp_path: Path, limits: tuple[str, ...]
) -> None:
    """A kill between the last checkpoint and the end: nothing is trained again, all is scored."""
    flat_objective = ("objective.metric=val/acc", "objective.direction=maximize", "lr=1e-9")
    whole = train(*limits, *flat_objective, "schedule=constant")
    before = load(last(tmp_path))
    again = train(*limits, *flat_objective, "schedule=constant", f"resume_from={last(tmp_path)}")

    assert again == whole
    assert load(last(tmp_path))["epoch"] == before["epoch"] == again["epochs"]


def test_init_from_takes_the_weights_only(train: Train, tmp_path: Path) -> None:
    """Another optimizer and epoch 0, but the parent's knowledge."""
    parent = train("epochs=4")
    start = ("lr=1e-9", "schedule=constant", "epochs=1", "optimizer=adamw")
    child = train(*start, f"init_from={last(tmp_path)}", folder="child")
    fresh = train(*start, folder="fresh")

    assert child["epochs"] == 1
    assert child["val/loss"][0] == pytest.approx(parent["val/loss"][-1], rel=0.2)
    assert fresh["val/loss"][0] > 2 * child["val/loss"][0]


def test_init_from_beside_resume_from_is_refused(config: Compose) -> None:
    """Only one of them can be meant."""
    from train.task import task

    with pytest.raises(ConfigRefused, match=r"init_from=a: .*resume_from=b"):
        task(config("init_from=a", "resume_from=b"))
