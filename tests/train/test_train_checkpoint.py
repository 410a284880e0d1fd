"""Checkpoint files: plain, whole, and harmless to open."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from train.check import ConfigRefused
from train.checkpoint import (
    CheckpointUnreadable,
    load_checkpoint,
    make_checkpoint,
    save_checkpoint,
)

Train = Callable[..., dict[str, Any]]


@pytest.fixture
def checkpoint() -> dict[str, Any]:
    """The checkpoint of a tiny net after one step."""
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return make_checkpoint(net, optimizer, epoch=3)


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def only_plain(value: object) -> bool:
    """Whether a value consists of tensors, numbers, texts, lists and mappings."""
    if isinstance(value, dict):
        return all(only_plain(item) for item in [*value, *value.values()])
    if isinstance(value, list):
        return all(map(only_plain, value))
    return type(value) in (torch.Tensor, int, float, str, bool, type(None))


def test_checkpoint_round_trip_keeps_everything(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    """What is loaded is what was saved."""
    save_checkpoint(checkpoint, tmp_path / "deep" / "last.ckpt")
    loaded = load_checkpoint("resume_from", tmp_path / "deep" / "last.ckpt")

    assert loaded["epoch"] == 3
    assert loaded["signature"] == checkpoint["signature"]
    assert torch.equal(loaded["state_dict"]["weight"], checkpoint["state_dict"]["weight"])
    assert loaded["optimizer"].keys() == {0, 1}


def test_checkpoint_of_a_training_holds_plain_types(train: Train, tmp_path: Path) -> None:
    """It opens with weights_only=True and names no hyperparameter."""
    train("epochs=1", "optimizer=adamw")
    loaded = torch.load(tmp_path / "out/checkpoints/last.ckpt", weights_only=True)

    assert only_plain(loaded)
    assert loaded.keys() == {"format", "epoch", "signature", "state_dict", "optimizer"}
    assert loaded["signature"]["optimizer"] == "AdamW"


def test_checkpoint_that_fails_to_write_leaves_the_old_one(
    checkpoint: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in mid-write destroys nothing and leaves no rubbish."""
    file = tmp_path / "last.ckpt"
    save_checkpoint(checkpoint, file)
    before = file.read_bytes()

    def full_disk(value: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(checkpoint, file)

    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_checkpoint_truncated_is_named(
    checkpoint: dict[str, Any], tmp_path: Path, share: float
) -> None:
    """A cut file is refused by its name, not torch's own."""
    file = tmp_path / "cut.ckpt"
    save_checkpoint(checkpoint, file)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])

    with pytest.raises(CheckpointUnreadable, match=r"resume_from=.*cut.ckpt: the file is damaged"):
        load_checkpoint("resume_from", file)


@pytest.mark.parametrize("bit", [0, 7, 63])
def test_checkpoint_with_a_flipped_bit_is_refused(
    checkpoint: dict[str, Any], tmp_path: Path, bit: int
) -> None:
    """Also where the bit is one of a weight, which torch would load as another number."""
    file = tmp_path / "flipped.ckpt"
    save_checkpoint(checkpoint, file)
    data = bytearray(file.read_bytes())
    weights = data.index(checkpoint["state_dict"]["weight"].numpy().tobytes())
    data[weights + bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)

    with pytest.raises(CheckpointUnreadable, match="the file is damaged"):
        load_checkpoint("resume_from", file)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_checkpoint_malicious_is_refused_and_not_run(tmp_path: Path, protocol: str) -> None:
    """A pickle that calls os.system is refused before it calls anything."""
    file, trace = tmp_path / "evil.ckpt", tmp_path / "executed"
    evil = {"format": 1, "state_dict": Command(f"touch '{trace}'")}
    if protocol == "torch":
        torch.save(evil, file)
    else:
        file.write_bytes(pickle.dumps(evil))

    with pytest.raises(CheckpointUnreadable, match="nothing in it was run"):
        load_checkpoint("resume_from", file)
    assert not trace.exists()


@pytest.mark.parametrize("content", [{"format": 99}, {"state_dict": {}}, [1, 2]])
def test_checkpoint_of_another_program_is_refused(tmp_path: Path, content: object) -> None:
    """A sound file that is no checkpoint of ours is answered with both formats."""
    torch.save(content, tmp_path / "other.ckpt")

    with pytest.raises(CheckpointUnreadable, match="expected a checkpoint of format 1, got format"):
        load_checkpoint("resume_from", tmp_path / "other.ckpt")


@pytest.mark.parametrize("key", ["resume_from", "init_from"])
def test_checkpoint_that_is_missing_is_refused(tmp_path: Path, key: str) -> None:
    """The sentence names the key and the path."""
    with pytest.raises(ConfigRefused, match=rf"{key}=.*none.ckpt: .*no such file"):
        load_checkpoint(key, tmp_path / "none.ckpt")
