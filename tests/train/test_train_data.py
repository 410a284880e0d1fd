"""Splits, packaged and drawn data, folders, and torchvision's files."""

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from train.check import ConfigRefused
from train.data import Data, Part, load_data, mean_and_std
from train.folder import fingerprint
from train.sources import DIGITS_FILE
from train.split import stratified

Compose = Callable[..., DictConfig]


def rows(part: Part) -> set[bytes]:
    """The images of a part, as bytes."""
    return {image.numpy().tobytes() for image in part.images}


def test_digits_file_is_the_one_its_readme_describes() -> None:
    """1797 images, the class counts of the UCI file, and not a byte changed since."""
    digest = hashlib.sha256(DIGITS_FILE.read_bytes()).hexdigest()
    with np.load(DIGITS_FILE, allow_pickle=False) as stored:
        images, labels = stored["images"], stored["labels"]

    assert digest == "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"
    assert (images.shape, images.dtype, images.max()) == ((1797, 8, 8), np.uint8, 16)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert "CC BY 4.0" in (DIGITS_FILE.parent / "README.md").read_text()


@pytest.mark.parametrize("data", ["digits", "shapes"])
def test_split_uses_each_image_once(config: Compose, data: str) -> None:
    """No image is in two parts, and none is lost."""
    loaded = load_data(config(f"data={data}"))
    parts = [rows(part) for part in (loaded.train, loaded.val, loaded.test)]

    assert sum(map(len, parts)) == len(set.union(*parts))
    assert len(loaded.train) + len(loaded.val) + len(loaded.test) in (1797, 2000)


def test_test_part_ignores_the_split(config: Compose) -> None:
    """Neither the split's seed nor its share moves an image into the test part or out of it."""
    first = load_data(config())
    second = load_data(config("split_seed=7", "val_fraction=0.4", "seed=3"))

    assert torch.equal(first.test.images, second.test.images)
    assert rows(first.val) != rows(second.val)
    assert len(second.val) == pytest.approx(0.4 * 1438, abs=5)  # each class is rounded by itself


def test_split_is_stratified_and_depends_on_its_seed_only() -> None:
    """Every class gives the same share, rounded; the same seed gives the same mask."""
    labels = torch.arange(3).repeat_interleave(torch.tensor([50, 20, 3]))
    mask = stratified(labels, ("a", "b", "c"), fraction=0.2, seed=1)

    assert torch.bincount(labels[mask]).tolist() == [10, 4, 1]
    assert torch.equal(mask, stratified(labels, ("a", "b", "c"), fraction=0.2, seed=1))
    assert not torch.equal(mask, stratified(labels, ("a", "b", "c"), fraction=0.2, seed=2))


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_split_leaves_each_side_one_image_of_each_class(fraction: float) -> None:
    """An extreme share empties no class."""
    labels = torch.arange(4).repeat(5)
    mask = stratified(labels, ("a", "b", "c", "d"), fraction=fraction, seed=0)

    assert (torch.bincount(labels[mask]) >= 1).all()
    assert (torch.bincount(labels[~mask]) >= 1).all()


def test_split_of_a_class_of_one_is_refused() -> None:
    """A class that cannot be on both sides is named."""
    with pytest.raises(ConfigRefused, match="class 'b' has 1 image"):
        stratified(torch.tensor([0, 0, 1]), ("a", "b"), fraction=0.5, seed=0)


def test_mean_and_std_are_of_the_training_part(config: Compose) -> None:
    """Per channel, over pixels in [0, 1], against numpy."""
    data = load_data(config("data=shapes"))
    pixels = data.train.images.numpy().astype(np.float64) / 255

    assert data.mean.numpy() == pytest.approx(pixels.mean((0, 2, 3)), abs=1e-6)
    assert data.std.numpy() == pytest.approx(pixels.std((0, 2, 3)), abs=1e-6)


def test_mean_and_std_of_a_constant_channel_divides_by_no_zero() -> None:
    """A black channel keeps a positive deviation."""
    _, std = mean_and_std(torch.zeros(5, 1, 2, 2, dtype=torch.uint8))

    assert std.item() > 0


def test_batch_larger_than_the_data_is_refused(config: Compose) -> None:
    """The sentence names the key, the number of images, and what to type."""
    with pytest.raises(ConfigRefused, match=r"batch_size=5000: .*1149; type batch_size=1149"):
        load_data(config("batch_size=5000"))


def test_shapes_need_colour_and_orientation(config: Compose) -> None:
    """Drawn alike from the same seed, eight balanced classes, mean colour and place differ."""
    data = load_data(config("data=shapes", "data.noise=0"))
    again = load_data(config("data=shapes", "data.noise=0", "data.image_size=16"))
    other = load_data(config("data=shapes", "data.noise=0", "data.seed=1"))

    assert torch.equal(data.train.images, again.train.images)
    assert not torch.equal(data.train.images[:50], other.train.images[:50])
    assert data.classes[:2] == ("red_up", "red_right")
    assert torch.bincount(data.test.labels).tolist() == [50] * 8


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes with odd names, of ten images each."""
    root = tmp_path / "my pictures"
    for number, name in enumerate(("cat, black", "dog's")):
        (root / name).mkdir(parents=True)
        for i in range(10):
            colour = (200 * number, 20 * i, 100)
            Image.new("RGB", (30 + i, 20), colour).save(root / name / f"{i}.png")
    return root


def folder_data(config: Compose, root: Path, *overrides: str) -> Data:
    """The data of a folder, with batches that fit it."""
    cfg = config("data=folder", "batch_size=4", *overrides)
    cfg.data.root = str(root)
    return load_data(cfg)


def test_folder_gives_classes_and_parts(config: Compose, pictures: Path) -> None:
    """Class folders become classes, images are resized, and each part has both classes."""
    data = folder_data(config, pictures)

    assert data.classes == ("cat, black", "dog's")
    assert data.train.images.shape == (12, 3, 32, 32)
    assert torch.bincount(data.test.labels).tolist() == [2, 2]
    assert (data.train.images[data.train.labels == 1][:, 0] == 200).all()


def test_folder_grey_has_one_channel(config: Compose, pictures: Path) -> None:
    """data.channels=1 reads colour images as grey."""
    data = folder_data(config, pictures, "data.channels=1", "data.image_size=8")

    assert data.train.images.shape == (12, 1, 8, 8)


def test_folder_is_decoded_once(config: Compose, pictures: Path) -> None:
    """The second load reads the cache; a changed file makes a new one."""
    first = folder_data(config, pictures, "data.image_size=16")
    (cache,) = pictures.glob(".cache-*.npy")
    np.save(cache, np.full_like(np.load(cache), 7))
    second = folder_data(config, pictures, "data.image_size=16", "data.test_fraction=0.3")

    assert first.train.images.max() > 7
    assert (second.train.images == 7).all()


def test_fingerprint_changes_with_the_files(pictures: Path) -> None:
    """A new file and a file written again are both noticed."""
    paths = sorted(pictures.rglob("*.png"))
    before = fingerprint(pictures, paths)
    paths[0].write_bytes(paths[0].read_bytes() + b"x")

    assert fingerprint(pictures, paths) != before
    assert fingerprint(pictures, paths[:-1]) != before


def break_missing(root: Path) -> None:
    """Take the folder away."""
    root.rename(root.with_name("elsewhere"))


def break_empty(root: Path) -> None:
    """Add a class without images."""
    (root / "bird").mkdir()


def break_file(root: Path) -> None:
    """Add a file that is no image."""
    (root / "dog's" / "x.jpg").write_text("no image")


def break_layout(root: Path) -> None:
    """Put the classes below a folder named after a part."""
    (root / "train").mkdir()


def break_single(root: Path) -> None:
    """Leave one class only."""
    (root / "dog's").rename(root.parent / "dog")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (break_missing, "is not there"),
        (break_empty, "class 'bird' holds no image"),
        (break_file, "x.jpg cannot be read as an image"),
        (break_layout, "type data.root=.*/train"),
        (break_single, "at least two class folders, found 1"),
    ],
)
def test_folder_that_cannot_be_used_is_refused(
    config: Compose, pictures: Path, damage: object, sentence: str
) -> None:
    """One sentence says what is wrong with the folder."""
    damage(pictures)  # type: ignore[operator]

    with pytest.raises(ConfigRefused, match=sentence):
        folder_data(config, pictures)


def test_folder_that_is_read_only_still_loads(
    config: Compose, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a place for the cache the images are decoded again."""

    def no_rename(source: object, target: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("train.folder.os.replace", no_rename)
    data = folder_data(config, pictures, "data.image_size=12")

    assert len(data.train) == 12
    assert list(pictures.glob(".cache-*")) == []


def write_mnist(raw: Path, prefix: str, n: int) -> None:
    """Files as MNIST's, with n images."""
    labels = np.arange(n, dtype=np.uint8) % 10
    images = np.broadcast_to(labels[:, None, None] * 25, (n, 28, 28)).astype(np.uint8)
    raw.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
            f">{array.ndim}I", *array.shape
        )
        (raw / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
        with gzip.open(raw / f"{prefix}-{kind}-ubyte.gz", "wb") as stream:
            stream.write(header + array.tobytes())


def test_mnist_is_read_from_its_files(config: Compose, tmp_path: Path) -> None:
    """torchvision's files give its own test part and one channel."""
    for prefix, n in (("train", 100), ("t10k", 30)):
        write_mnist(tmp_path / "MNIST" / "raw", prefix, n)
    data = load_data(config("data=mnist", f"data.root={tmp_path}"))

    assert (len(data.train), len(data.val), len(data.test)) == (80, 20, 30)
    assert data.train.images.shape == (80, 1, 28, 28)
    assert (data.test.images[:, 0, 0, 0] == data.test.labels * 25).all()


@pytest.mark.parametrize(
    "name", ["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"]
)
def test_torchvision_set_that_is_absent_is_refused(
    config: Compose, tmp_path: Path, name: str
) -> None:
    """Nothing is fetched unasked; the sentence says how to ask."""
    with pytest.raises(ConfigRefused, match=rf"files of {name} .*type data.download=true"):
        load_data(config(f"data={name}", f"data.root={tmp_path}"))
