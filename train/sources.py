"""Where images come from: a registry of functions, chosen by `data.name`.

A source gives all images and says which of them are the test part; it does not split the rest.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets as tv  # type: ignore[import-untyped]
from omegaconf import DictConfig
from torch import Tensor

from .check import ConfigRefused
from .folder import load_folder
from .shapes import load_shapes
from .source import Source, absolute, last_share

DIGITS_FILE = Path(__file__).parent / "datasets" / "digits.npz"


def load_digits(settings: DictConfig) -> Source:
    """The packaged digits: 1797 real grey images of 8 x 8 pixels, the last fifth for testing."""
    with np.load(DIGITS_FILE) as stored:
        images = torch.from_numpy(stored["images"])[:, None]
        labels = torch.from_numpy(stored["labels"]).long()
    # Stored as 0 to 16; 15 * 16 = 240 fills the range of a byte.
    return Source(images * 15, labels, last_share(len(labels), 0.2), tuple("0123456789"))


def load_torchvision(settings: DictConfig, *, dataset: Callable[..., Any]) -> Source:
    """A data set of torchvision with its own test part."""
    train, test = (_stored_part(settings, dataset, is_train) for is_train in (True, False))
    images = [_channels_first(part.data) for part in (train, test)]
    labels = [_labels(part) for part in (train, test)]
    is_test = torch.arange(len(labels[0]) + len(labels[1])) >= len(labels[0])
    numbers = range(int(max(part.max() for part in labels)) + 1)
    classes = tuple(map(str, getattr(train, "classes", numbers)))
    return Source(torch.cat(images), torch.cat(labels), is_test, classes)


def _stored_part(settings: DictConfig, dataset: Callable[..., Any], is_train: bool) -> Any:
    root = absolute(settings.root)
    which = (
        {"split": "train" if is_train else "test"} if dataset is tv.SVHN else {"train": is_train}
    )
    try:
        return dataset(str(root), download=bool(settings.download), **which)
    except RuntimeError as error:
        if settings.download:
            raise RuntimeError(
                f"data.name={settings.name}: the download failed: {error}"
            ) from error
        raise ConfigRefused(
            f"data.root={settings.root}: expected the files of {settings.name} below {root}; "
            "type data.download=true to fetch them."
        ) from error


def _channels_first(pixels: Any) -> Tensor:
    """Images as (n, channels, height, width), from any layout that torchvision stores."""
    images = torch.as_tensor(pixels)
    if images.ndim == 3:
        return images[:, None].contiguous()
    return (images if images.shape[1] == 3 else images.permute(0, 3, 1, 2)).contiguous()


def _labels(part: Any) -> Tensor:
    return torch.as_tensor(part.labels if isinstance(part, tv.SVHN) else part.targets).long()


SOURCES: dict[str, Callable[[DictConfig], Source]] = {
    "digits": load_digits,
    "shapes": load_shapes,
    "folder": load_folder,
    "mnist": partial(load_torchvision, dataset=tv.MNIST),
    "fashion_mnist": partial(load_torchvision, dataset=tv.FashionMNIST),
    "kmnist": partial(load_torchvision, dataset=tv.KMNIST),
    "cifar10": partial(load_torchvision, dataset=tv.CIFAR10),
    "cifar100": partial(load_torchvision, dataset=tv.CIFAR100),
    "svhn": partial(load_torchvision, dataset=tv.SVHN),
}
