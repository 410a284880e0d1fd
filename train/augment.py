"""Random changes of whole batches, drawn for each image by itself.

torchvision's transforms draw one random number for a whole batch, and one image at a time is 24
times slower. Images are float in [0, 1], (n, channels, height, width), before normalisation.
All numbers are drawn on the CPU from torch's default generator, which the caller has seeded; an
operation whose strength is 0 is skipped.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from omegaconf import DictConfig
from torch import Tensor

from .check import ConfigRefused

Augmentation = Callable[[Tensor], Tensor]

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey, as torchvision rounds them."""


def make_augmentation(cfg: DictConfig, *, channels: int) -> list[Augmentation]:
    """The operations whose strength is not 0, in the order in which they apply."""
    _refuse_colour_of_grey(cfg, channels)
    operations: list[Augmentation] = []
    if cfg.crop_scale < 1:
        operations.append(partial(random_crop, scale=cfg.crop_scale, ratio=cfg.crop_ratio))
    if cfg.shift > 0:
        operations.append(partial(random_shift, pixels=cfg.shift))
    if cfg.flip_probability > 0 and cfg.flip_direction != "none":
        operations.append(
            partial(random_flip, probability=cfg.flip_probability, direction=cfg.flip_direction)
        )
    strengths = {name: cfg[name] for name in ("brightness", "contrast", "saturation")}
    if any(strengths.values()):
        operations.append(partial(random_colour, **strengths))
    if cfg.hue > 0:
        operations.append(partial(random_hue, strength=cfg.hue))
    return operations


def _refuse_colour_of_grey(cfg: DictConfig, channels: int) -> None:
    for key in ("saturation", "hue"):
        if cfg[key] > 0 and channels != 3:
            raise ConfigRefused(
                f"{key}={cfg[key]}: expected 0, because the images have {channels} channel(s) "
                f"and {key} needs 3; type {key}=0."
            )


def random_crop(images: Tensor, *, scale: float, ratio: float) -> Tensor:
    """Each image's own box of `scale` to 1 of its area, resized to the whole.

    The box's aspect ratio is drawn log-uniform from [1 / ratio, ratio].
    """
    boxes = draw_boxes(len(images), (images.shape[2], images.shape[3]), scale=scale, ratio=ratio)
    return resized_crop(images, boxes.to(images.device))


def draw_boxes(n: int, size: tuple[int, int], *, scale: float, ratio: float) -> Tensor:
    """Boxes (n, 4) of whole pixels: top, left, height, width."""
    drawn = torch.rand(4, n)
    area = size[0] * size[1] * (scale + (1 - scale) * drawn[0])
    aspect = torch.exp((2 * drawn[1] - 1) * math.log(ratio))
    height = (area / aspect).sqrt().round().clamp(1, size[0])
    width = (area * aspect).sqrt().round().clamp(1, size[1])
    top = (drawn[2] * (size[0] - height + 1)).floor()
    left = (drawn[3] * (size[1] - width + 1)).floor()
    return torch.stack([top, left, height, width], dim=1)


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Each image's box (top, left, height, width) resized to the image's size, antialiased.

    Two batched matrix products; the same numbers as torchvision's resized_crop to 1e-6.
    """
    rows = resize_matrices(boxes[:, 0], boxes[:, 2], images.shape[2])
    columns = resize_matrices(boxes[:, 1], boxes[:, 3], images.shape[3])
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def resize_matrices(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Matrices (n, size, size) that resize the pixels [start, start + length) to `size`.

    The triangular filter of torch's antialiased bilinear interpolation: support 1, wider when it
    shrinks; neighbours outside the box do not count.
    """
    pixel = torch.arange(size, device=start.device, dtype=start.dtype)
    scale = (length / size)[:, None, None]
    centre = (pixel[None, :, None] + 0.5) * scale + start[:, None, None]
    weight = (1 - (pixel + 0.5 - centre).abs() / scale.clamp_min(1)).clamp_min(0)
    is_inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    weight = weight * is_inside[:, None]
    return weight / weight.sum(2, keepdim=True)


def random_shift(images: Tensor, *, pixels: int) -> Tensor:
    """Each image moved by up to so many whole pixels in both directions; black comes in."""
    down, right = torch.randint(-pixels, pixels + 1, (2, len(images)))
    return shift(images, down.to(images.device), right.to(images.device))


def shift(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images moved down and to the right by whole pixels (n,), as cropping from padding does."""
    rows = _shift_matrices(down, images.shape[2]).to(images.dtype)
    columns = _shift_matrices(right, images.shape[3]).to(images.dtype)
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _shift_matrices(by: Tensor, size: int) -> Tensor:
    """Matrices (n, size, size) that move a column of pixels by whole pixels."""
    pixel = torch.arange(size, device=by.device)
    return pixel[None, :, None] - by[:, None, None] == pixel[None, None, :]


def random_flip(images: Tensor, *, probability: float, direction: str) -> Tensor:
    """Images mirrored with a probability; for "both", each direction by itself."""
    for name, dimension in (("horizontal", 3), ("vertical", 2)):
        if direction in (name, "both"):
            flips = (torch.rand(len(images)) < probability).to(images.device)
            images = torch.where(flips[:, None, None, None], images.flip(dimension), images)
    return images


def random_colour(
    images: Tensor, *, brightness: float, contrast: float, saturation: float
) -> Tensor:
    """Brightness, contrast and saturation multiplied by factors of [1 - strength, 1 + strength]."""
    factors = (_draw_factors(len(images), s) for s in (brightness, contrast, saturation))
    return adjust_colour(images, *(factor.to(images.device) for factor in factors))


def _draw_factors(n: int, strength: float) -> Tensor:
    return (1 + strength * (2 * torch.rand(n) - 1)).clamp_min(0) if strength else torch.ones(n)


def adjust_colour(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor
) -> Tensor:
    """Images with brightness, contrast and saturation scaled by factors (n,), in this order.

    All three are linear: x' = b c S x + (1 - c) m, with S = s I + (1 - s) 1 luma^T and m the mean
    grey of the brightened image. Clamped once, at the end.
    """
    luma = _luma(images)
    mean = brightness * torch.einsum("nchw,c->n", images, luma) / images[0, 0].numel()
    eye = torch.eye(len(luma), device=images.device)
    mix = saturation[:, None, None] * eye + (1 - saturation)[:, None, None] * luma
    matrix = (brightness * contrast)[:, None, None] * mix
    changed = torch.einsum("ndc,nchw->ndhw", matrix, images)
    return (changed + ((1 - contrast) * mean)[:, None, None, None]).clamp(0, 1)


def _luma(images: Tensor) -> Tensor:
    channels = images.shape[1]
    # Grey images, and those of other channel counts, weigh their channels alike.
    weights = LUMA if channels == 3 else (1 / channels,) * channels
    return torch.tensor(weights, device=images.device)


def random_hue(images: Tensor, *, strength: float) -> Tensor:
    """Each image's hue turned by up to `strength` of the colour circle."""
    turns = strength * (2 * torch.rand(len(images)) - 1)
    return turn_hue(images, turns.to(images.device))


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Images (n, 3, h, w) with their hue turned by `turns` (n,) of the circle, through HSV.

    Without leaving RGB: hue is an angle in the plane of pure colours, and a channel's value follows
    from it alone (https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative).
    """
    value, chroma, hue = _value_chroma_hue(images)
    hue = hue + 6 * turns[:, None, None]
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device)[None, :, None, None]
    k = (offsets + hue[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def _value_chroma_hue(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value and chroma in [0, 1], hue in sixths of the circle; each (n, h, w)."""
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    divisor = torch.where(chroma > 0, chroma, 1)
    of_red, of_green = (green - blue) / divisor, 2 + (blue - red) / divisor
    of_blue = 4 + (red - green) / divisor
    hue = torch.where(value == red, of_red, torch.where(value == green, of_green, of_blue))
    return value, chroma, hue
