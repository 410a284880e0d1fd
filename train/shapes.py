"""A drawn data set of coloured arrows: its classes need colour and orientation.

Flips and hue shifts change the class here, which digits cannot show.
"""

import torch
from omegaconf import DictConfig
from torch import Tensor

from .randomness import generator
from .source import Source, last_share

DIRECTIONS = ("up", "right", "down", "left")
COLOURS = {"red": (0.9, 0.35, 0.3), "blue": (0.3, 0.4, 0.9)}
CLASSES = tuple(f"{colour}_{direction}" for colour in COLOURS for direction in DIRECTIONS)


def load_shapes(settings: DictConfig) -> Source:
    """Arrows of two colours and four directions; the same settings give the same images."""
    n, size = int(settings.n_images), int(settings.image_size)
    random = generator(settings.seed)
    labels = torch.arange(n) % len(CLASSES)
    inside = draw_arrows(labels % len(DIRECTIONS), size=size, random=random)
    colour = torch.tensor(list(COLOURS.values()))[labels // len(DIRECTIONS)]
    colour = colour + 0.25 * (torch.rand(n, 3, generator=random) - 0.5)
    background = torch.rand(n, 3, generator=random)
    pixels = torch.where(inside[:, None], colour[:, :, None, None], background[:, :, None, None])
    pixels = pixels + settings.noise * torch.randn(pixels.shape, generator=random)
    images = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return Source(images, labels, last_share(n, 0.2), CLASSES)


def draw_arrows(direction: Tensor, *, size: int, random: torch.Generator) -> Tensor:
    """Triangles that point into a direction, as masks (n, size, size), at random places."""
    n = len(direction)
    place = torch.linspace(-1, 1, size)
    centre = 0.5 * (torch.rand(n, 2, generator=random) - 0.5)
    extent = 0.45 + 0.35 * torch.rand(n, 1, 1, generator=random)
    y = place[None, :, None] - centre[:, 0, None, None]
    x = place[None, None, :] - centre[:, 1, None, None]
    # `along` grows towards the tip, `across` is the distance from the axis.
    is_upright = (direction % 2 == 0)[:, None, None]
    sign = torch.where((direction == 0) | (direction == 3), -1.0, 1.0)[:, None, None]
    along = sign * torch.where(is_upright, y, x)
    across = torch.where(is_upright, x, y).abs()
    return (along > -extent) & (across < 0.5 * (extent - along))
