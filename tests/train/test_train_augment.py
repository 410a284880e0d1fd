"""Augmentation against torchvision, one image at a time."""

from collections.abc import Callable

import pytest
import torch
import torchvision.transforms.v2.functional as tv  # type: ignore[import-untyped]
from omegaconf import DictConfig

from train.augment import (
    adjust_colour,
    draw_boxes,
    make_augmentation,
    random_crop,
    random_flip,
    random_shift,
    resized_crop,
    shift,
    turn_hue,
)
from train.check import ConfigRefused

Compose = Callable[..., DictConfig]

ALL = ("augment=colour", "shift=2", "flip_direction=both")


@pytest.fixture
def images() -> torch.Tensor:
    """Twelve colour images of 16 x 20 pixels."""
    torch.manual_seed(0)
    return torch.rand(12, 3, 16, 20)


def test_resized_crop_equals_torchvision(images: torch.Tensor) -> None:
    """The same antialiased pixels, for boxes that shrink and boxes that do not."""
    torch.manual_seed(1)
    boxes = draw_boxes(len(images), (16, 20), scale=0.05, ratio=2.0)
    expected = [
        tv.resized_crop(image, *map(int, box), size=[16, 20], antialias=True)
        for image, box in zip(images, boxes, strict=True)
    ]

    assert torch.allclose(resized_crop(images, boxes), torch.stack(expected), atol=1e-6)


def test_draw_boxes_lie_inside_and_keep_the_scale() -> None:
    """Boxes are whole pixels within the image, of about the area that was asked for."""
    torch.manual_seed(0)
    top, left, height, width = draw_boxes(5000, (24, 32), scale=0.3, ratio=1.5).unbind(1)

    assert torch.equal(height, height.round())
    assert (top >= 0).all() and (top + height <= 24).all()
    assert (left >= 0).all() and (left + width <= 32).all()
    assert (height * width).min() > 0.25 * 24 * 32
    assert top.max() > 0 and left.max() > 0


@pytest.mark.parametrize(("name", "position"), [("brightness", 0), ("contrast", 1)])
def test_brightness_and_contrast_equal_torchvision(
    images: torch.Tensor, name: str, position: int
) -> None:
    """One factor per image, the same pixels as one call per image."""
    factors = [torch.ones(len(images)) for _ in range(3)]
    factors[position] = torch.linspace(0.4, 1.6, len(images))
    adjust = getattr(tv, f"adjust_{name}")
    expected = [adjust(im, float(f)) for im, f in zip(images, factors[position], strict=True)]

    assert torch.allclose(adjust_colour(images, *factors), torch.stack(expected), atol=1e-6)


def test_colour_folds_what_torchvision_does_in_three_steps(images: torch.Tensor) -> None:
    """Brightness, contrast, saturation in one product; inputs that nothing clamps."""
    dim = 0.3 + 0.3 * images
    brightness, contrast, saturation = (torch.linspace(a, 1.2, len(dim)) for a in (0.8, 0.7, 0.6))
    expected = [
        tv.adjust_saturation(tv.adjust_contrast(tv.adjust_brightness(im, b), c), s)
        for im, b, c, s in zip(
            dim, brightness.tolist(), contrast.tolist(), saturation.tolist(), strict=True
        )
    ]
    changed = adjust_colour(dim, brightness, contrast, saturation)

    # torchvision's grey weights sum to 0.9999, which shows in the fourth digit only once mixed.
    assert torch.allclose(changed, torch.stack(expected), atol=2e-4)


def test_turn_hue_equals_torchvision(images: torch.Tensor) -> None:
    """The same pixels through HSV, grey pixels included."""
    images[0] = images[0, :1]
    turns = torch.linspace(-0.5, 0.5, len(images))
    expected = [tv.adjust_hue(im, t) for im, t in zip(images, turns.tolist(), strict=True)]

    assert torch.allclose(turn_hue(images, turns), torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize(("direction", "dimension"), [("horizontal", 3), ("vertical", 2)])
def test_flip_mirrors_some_images_along_its_direction(
    images: torch.Tensor, direction: str, dimension: int
) -> None:
    """Each image is either itself or its mirror image, and both occur."""
    torch.manual_seed(0)
    flipped = random_flip(images, probability=0.5, direction=direction)
    is_same = (flipped == images).flatten(1).all(1)
    is_mirror = (flipped == images.flip(dimension)).flatten(1).all(1)

    assert (is_same ^ is_mirror).all()
    assert is_same.any() and is_mirror.any()


def test_shift_equals_torchvisions_crop_from_padding(images: torch.Tensor) -> None:
    """Whole pixels in every direction, black where nothing was."""
    down, right = torch.arange(12) - 6, torch.arange(12).flip(0) - 5
    padded = tv.pad(images, [8, 8, 8, 8])
    expected = [
        tv.crop(image, 8 - int(d), 8 - int(r), 16, 20)
        for image, d, r in zip(padded, down, right, strict=True)
    ]

    assert torch.equal(shift(images, down, right), torch.stack(expected))


def test_random_shift_draws_each_image_its_own_within_the_limit() -> None:
    """All nine moves of one pixel occur among many images, and no other."""
    torch.manual_seed(0)
    dot = torch.zeros(500, 1, 5, 5)
    dot[:, :, 2, 2] = 1
    places = {tuple(place.tolist()) for place in random_shift(dot, pixels=1).nonzero()[:, 2:]}

    assert places == {(y, x) for y in (1, 2, 3) for x in (1, 2, 3)}


def test_flip_both_gives_all_four_orientations(images: torch.Tensor) -> None:
    """The two directions are drawn by themselves."""
    torch.manual_seed(0)
    same = images[:1].expand(200, -1, -1, -1)
    flipped = random_flip(same, probability=0.5, direction="both")

    assert len(torch.unique(flipped.flatten(1), dim=0)) == 4


def test_crop_differs_between_images_of_a_batch(images: torch.Tensor) -> None:
    """Equal images of a batch get boxes of their own."""
    torch.manual_seed(0)
    cropped = random_crop(images[:1].expand(50, -1, -1, -1), scale=0.3, ratio=1.3)

    assert len(torch.unique(cropped.flatten(1), dim=0)) > 40


def test_augmentation_repeats_with_the_seed(config: Compose, images: torch.Tensor) -> None:
    """All its randomness comes from torch's default generator."""
    operations = make_augmentation(config(*ALL), channels=3)

    def augmented() -> torch.Tensor:
        torch.manual_seed(7)
        changed = images
        for operation in operations:
            changed = operation(changed)
        return changed

    assert torch.equal(augmented(), augmented())
    assert len(operations) == 5


def test_augmentation_skips_what_has_no_strength(config: Compose) -> None:
    """Strength 0 costs nothing: the operation is not there."""
    assert make_augmentation(config("augment=none"), channels=1) == []
    assert make_augmentation(config("flip_probability=1", "flip_direction=none"), channels=1) == []
    assert len(make_augmentation(config("brightness=0.1"), channels=1)) == 1


@pytest.mark.parametrize("key", ["hue", "saturation"])
def test_colour_of_grey_images_is_refused(config: Compose, key: str) -> None:
    """The sentence names the key, the value and what to type."""
    with pytest.raises(ConfigRefused, match=rf"{key}=0.2: .*1 channel.*type {key}=0"):
        make_augmentation(config(f"{key}=0.2"), channels=1)
