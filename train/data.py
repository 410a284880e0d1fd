"""A config's images, split into training, validation and test part, in memory as unsigned bytes.

Knows nothing of models. Where the images come from is in sources.py and folder.py.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from .check import ConfigRefused, pick
from .source import Source
from .sources import SOURCES
from .split import stratified


@dataclass(frozen=True)
class Part:
    """Images of one part and their labels."""

    images: Tensor  # (n, channels, height, width) uint8
    labels: Tensor  # (n,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Part":
        """The same part on another device."""
        return Part(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """What a training needs to know about its images."""

    train: Part
    val: Part
    test: Part
    classes: tuple[str, ...]
    mean: Tensor  # (channels,) of the training part, pixels in [0, 1]
    std: Tensor  # (channels,)

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image."""
        return int(self.train.images.shape[2]), int(self.train.images.shape[3])

    def to(self, device: torch.device) -> "Data":
        """The same data on another device."""
        parts = {name: getattr(self, name).to(device) for name in ("train", "val", "test")}
        return replace(self, **parts, mean=self.mean.to(device), std=self.std.to(device))


def load_data(cfg: DictConfig) -> Data:
    """The data that `cfg.data` names; its test part never depends on the split or its seed."""
    name = str(cfg.data.name)
    pick("data.name", name, SOURCES)
    source = _load_source(name, OmegaConf.to_yaml(cfg.data, resolve=True, sort_keys=True))
    rest = (~source.is_test).nonzero().flatten()
    labels = source.labels[rest]
    in_val = torch.zeros(len(labels), dtype=torch.bool)
    if cfg.val_fraction > 0:
        in_val = stratified(labels, source.classes, fraction=cfg.val_fraction, seed=cfg.split_seed)
    train, val = _part(source, rest[~in_val]), _part(source, rest[in_val])
    _refuse_large_batches(cfg.batch_size, len(train))
    mean, std = mean_and_std(train.images)
    test = _part(source, source.is_test.nonzero().flatten())
    return Data(train, val, test, source.classes, mean, std)


@lru_cache(maxsize=2)  # trials that follow each other in one process mostly share their data
def _load_source(name: str, settings: str) -> Source:
    return SOURCES[name](DictConfig(OmegaConf.create(settings)))


def _part(source: Source, index: Tensor) -> Part:
    return Part(source.images[index], source.labels[index])


def _refuse_large_batches(batch_size: int, n_train: int) -> None:
    if batch_size > n_train:
        raise ConfigRefused(
            f"batch_size={batch_size}: expected at most the number of training images, {n_train}; "
            f"type batch_size={n_train} or less, or a smaller val_fraction."
        )


def mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, pixels in [0, 1]."""
    n = images.shape[0] * images.shape[2] * images.shape[3]
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    total_square = torch.zeros_like(total)
    # In pieces: a float copy of a large data set would take eight times its memory.
    for piece in torch.split(images, 4096):
        pixels = piece.double() / 255
        total += pixels.sum((0, 2, 3))
        total_square += pixels.square().sum((0, 2, 3))
    mean = total / n
    std = (total_square / n - mean.square()).clamp_min(0).sqrt()
    # A channel that never changes would be divided by 0.
    return mean.float(), std.clamp_min(1e-3).float()
