"""Image classifiers by name; each is made from its settings, the image's shape and the classes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision  # type: ignore[import-untyped]
from omegaconf import DictConfig
from torch import Tensor, nn

from .check import ConfigRefused, pick


@dataclass(frozen=True)
class Shape:
    """What a model must fit: the image and the number of classes."""

    channels: int
    height: int
    width: int
    n_classes: int


def mlp(settings: DictConfig, shape: Shape) -> nn.Module:
    """`depth` hidden layers of `width` units."""
    n_inputs = shape.channels * shape.height * shape.width
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(settings.depth):
        layers += [nn.Linear(n_inputs, settings.width), nn.ReLU(), nn.Dropout(settings.dropout)]
        n_inputs = settings.width
    return nn.Sequential(*layers, nn.Linear(n_inputs, shape.n_classes))


def cnn(settings: DictConfig, shape: Shape) -> nn.Module:
    """Two convolutions with normalisation, each halving the image, and a linear layer."""
    width = settings.width
    return nn.Sequential(
        *_convolution(shape.channels, width),
        nn.MaxPool2d(2, ceil_mode=True),
        *_convolution(width, 2 * width),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(settings.dropout),
        nn.Linear(8 * width, shape.n_classes),
    )


def _convolution(n_in: int, n_out: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    ]


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2015, figure 2)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(n_in, n_out, stride),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        is_same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if is_same else nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, n_out, height / stride, width / stride)."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet8(settings: DictConfig, shape: Shape) -> nn.Module:
    """A residual network for small images: one stem and three blocks."""
    width = settings.width
    return nn.Sequential(
        *_convolution(shape.channels, width),
        ResidualBlock(width, width, 1),
        ResidualBlock(width, 2 * width, 2),
        ResidualBlock(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(settings.dropout),
        nn.Linear(4 * width, shape.n_classes),
    )


class ThreeChannels(nn.Module):
    """Repeats a grey image for networks that expect three channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, height, width)."""
        return x.expand(-1, 3, -1, -1)


def from_torchvision(settings: DictConfig, shape: Shape) -> nn.Module:
    """A classifier of torchvision by its name, with fresh weights."""
    known = {name: name for name in torchvision_names()}
    net: nn.Module = torchvision.models.get_model(
        pick("model.arch", settings.arch, known), weights=None, num_classes=shape.n_classes
    )
    if shape.channels == 3:
        return net
    if shape.channels != 1:
        raise ConfigRefused(
            f"model.arch={settings.arch}: expected images of 1 or 3 channels, got "
            f"{shape.channels}; use model=cnn."
        )
    return nn.Sequential(ThreeChannels(), net)


def torchvision_names() -> list[str]:
    """The classifiers of torchvision that give one tensor of scores."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    # These two give several outputs while they train.
    return [name for name in names if name not in ("googlenet", "inception_v3")]


MODELS: dict[str, Callable[[DictConfig, Shape], nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet8": resnet8,
    "torchvision": from_torchvision,
}


def make_model(settings: DictConfig, shape: Shape) -> nn.Module:
    """The model that the config names; its weights come from the default generator."""
    return pick("model.name", settings.name, MODELS)(settings, shape)
