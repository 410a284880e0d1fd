"""What a source of images gives, and what sources share."""

from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from torch import Tensor


@dataclass(frozen=True)
class Source:
    """Images in memory with their labels; the test part is fixed, the rest is split later."""

    images: Tensor  # (n, channels, height, width) uint8
    labels: Tensor  # (n,) int64, in [0, len(classes))
    is_test: Tensor  # (n,) bool
    classes: tuple[str, ...]


def last_share(n: int, share: float) -> Tensor:
    """Mask of the last `share` of n images."""
    return torch.arange(n) >= n - round(n * share)


def absolute(path: str) -> Path:
    """A path of the config, relative to where the program was started."""
    start = HydraConfig.get().runtime.cwd if HydraConfig.initialized() else "."
    return Path(start, path).absolute()
