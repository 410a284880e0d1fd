"""Checkpoints: plain types, written whole or not at all, never changed by those who continue them.

A checkpoint holds the weights, the optimizer's buffers, and how many epochs were trained. It holds
no hyperparameters: those come from the config of whoever continues it.
"""

import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .check import ConfigRefused

FORMAT = 1


class CheckpointUnreadable(ConfigRefused):
    """A file that is damaged, or is no checkpoint of this program; nothing in it was run."""

    is_unreadable_checkpoint = True
    """Lets a sweep try again without the file; it knows nothing of this class."""


Checkpoint = dict[str, Any]


def signature(net: nn.Module, optimizer: Optimizer) -> dict[str, str]:
    """What a training must share with the one it continues: parameter shapes, optimizer class."""
    shapes = {name: str(list(value.shape)) for name, value in net.state_dict().items()}
    return {**shapes, "optimizer": type(optimizer).__name__}


def make_checkpoint(net: nn.Module, optimizer: Optimizer, *, epoch: int) -> Checkpoint:
    """The state of a training after `epoch` epochs."""
    return {
        "format": FORMAT,
        "epoch": epoch,
        "signature": signature(net, optimizer),
        "state_dict": dict(net.state_dict()),
        "optimizer": optimizer.state_dict()["state"],
    }


def save_checkpoint(checkpoint: Checkpoint, file: Path) -> None:
    """Write a checkpoint under its name only when it is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        torch.save(checkpoint, temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(key: str, file: Path) -> Checkpoint:
    """A checkpoint that `save_checkpoint` wrote; `key` is the config's name for it.

    Raises ConfigRefused when there is no such file, CheckpointUnreadable when it is damaged or
    holds anything but plain types, none of which is run.
    """
    if not file.is_file():
        raise ConfigRefused(f"{key}={file}: expected a checkpoint, but there is no such file.")
    try:
        checkpoint = _load_plain(file)
    except Exception as error:  # of any kind: whatever the bytes make torch's reader stumble over
        raise CheckpointUnreadable(
            f"{key}={file}: the file is damaged or is no checkpoint of this program; "
            "nothing in it was run. Continue from another checkpoint, or start anew."
        ) from error
    return _of_our_format(key, file, checkpoint)


def _load_plain(file: Path) -> object:
    with zipfile.ZipFile(file) as archive:  # torch writes check sums and does not look at them
        if (part := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{part} has another check sum than when it was written")
    with warnings.catch_warnings():
        # torch would like to hear of other pickles; this one is refused in any case.
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(file, map_location="cpu", weights_only=True)


def _of_our_format(key: str, file: Path, checkpoint: object) -> Checkpoint:
    found = checkpoint.get("format") if isinstance(checkpoint, dict) else None
    if not isinstance(checkpoint, dict) or found != FORMAT:
        raise CheckpointUnreadable(
            f"{key}={file}: expected a checkpoint of format {FORMAT}, got format {found}."
        )
    return checkpoint


def continue_training(
    checkpoint: Checkpoint, net: nn.Module, optimizer: Optimizer, *, file: Path
) -> None:
    """Give a training the weights and buffers of a checkpoint; the optimizer keeps its settings."""
    _require_same("resume_from", file, checkpoint["signature"], signature(net, optimizer))
    net.load_state_dict(checkpoint["state_dict"])
    # Only the buffers: the groups, and so lr, momentum and weight decay, are the config's.
    state = {**optimizer.state_dict(), "state": checkpoint["optimizer"]}
    optimizer.load_state_dict(state)
    _lay_out_like_parameters(optimizer)
    _add_missing_buffers(optimizer)


def load_weights(checkpoint: Checkpoint, net: nn.Module, optimizer: Optimizer, file: Path) -> None:
    """Give a net the weights of a checkpoint, whatever optimizer trained them."""
    mine = signature(net, optimizer)
    theirs = {**checkpoint["signature"], "optimizer": mine["optimizer"]}
    _require_same("init_from", file, theirs, mine)
    net.load_state_dict(checkpoint["state_dict"])


def _require_same(key: str, file: Path, theirs: Mapping[str, str], mine: Mapping[str, str]) -> None:
    names = [*mine, *(name for name in theirs if name not in mine)]
    different = [name for name in names if mine.get(name) != theirs.get(name)]
    if different:
        name = different[0]
        more = f" and {len(different) - 1} more differ" if len(different) > 1 else ""
        raise ConfigRefused(
            f"{key}={file}: {name} is {mine.get(name, 'absent')} in this configuration but "
            f"{theirs.get(name, 'absent')} in the checkpoint{more}; the model's shape, the data "
            "and the optimizer must stay as they were."
        )


def _lay_out_like_parameters(optimizer: Optimizer) -> None:
    """Buffers in their parameter's memory format: another device may have trained them in its own.

    A fused optimizer reads both by the parameter's strides.
    """
    for parameter, buffers in optimizer.state.items():
        for name, value in buffers.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                buffers[name] = torch.empty_like(parameter).copy_(value)


def _add_missing_buffers(optimizer: Optimizer) -> None:
    """Momentum of RMSprop, when the checkpoint was trained without any.

    SGD makes a missing buffer at its next step, RMSprop only at its first one.
    """
    if isinstance(optimizer, torch.optim.RMSprop):
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] > 0 else ():
                state = optimizer.state[parameter]
                if state:
                    state.setdefault("momentum_buffer", torch.zeros_like(parameter))
