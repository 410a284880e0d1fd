"""Images of a folder of class folders, decoded once into a cache of unsigned bytes.

    root/cat/1.png  root/cat/2.jpg  root/dog/1.png

Every image is resized to a square; the cache lies in the folder and is named after its files.
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image, UnidentifiedImageError

from .check import ConfigRefused
from .source import Source, absolute
from .split import stratified

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
"""Files with another ending are not images and are passed over."""

PART_NAMES = frozenset({"train", "val", "valid", "test"})
"""Folders with these names hold class folders; taken as classes they would be learnt."""

TEST_SEED = 0
"""The test part is the same whatever seed and split_seed are."""


def load_folder(settings: DictConfig) -> Source:
    """The images of every class folder below `data.root`."""
    root = absolute(settings.root)
    files = find_images(root, typed=str(settings.root))
    classes = tuple(sorted(files))
    paths = [path for name in classes for path in files[name]]
    size, channels = int(settings.image_size), int(settings.channels)
    images = torch.from_numpy(_cached(root, paths, size=size, channels=channels))
    counts = torch.tensor([len(files[name]) for name in classes])
    labels = torch.arange(len(classes)).repeat_interleave(counts)
    is_test = stratified(labels, classes, fraction=settings.test_fraction, seed=TEST_SEED)
    return Source(images, labels, is_test, classes)


def find_images(root: Path, *, typed: str) -> dict[str, list[Path]]:
    """The image files of each class folder, sorted; refuses a missing folder or an empty class."""
    if not root.is_dir():
        raise ConfigRefused(
            f"data.root={typed}: expected a folder of class folders, but {root} is not there."
        )
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "."]
    files = {folder.name: _image_files(folder) for folder in folders}
    if set(files) & PART_NAMES:
        part = next(name for name in files if name in PART_NAMES)
        raise ConfigRefused(
            f"data.root={typed}: expected class folders, found {part!r}, which names a part of the "
            f"data; type data.root={typed}/{part}."
        )
    if len(files) < 2:
        raise ConfigRefused(
            f"data.root={typed}: expected at least two class folders, found {len(files)}; "
            "put the images of each class into a folder of its own."
        )
    empty = [name for name, paths in files.items() if not paths]
    if empty:
        raise ConfigRefused(
            f"data.root={typed}: class {empty[0]!r} holds no image "
            f"({', '.join(sorted(SUFFIXES))}); add images or remove the folder."
        )
    return files


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _cached(root: Path, paths: list[Path], *, size: int, channels: int) -> np.ndarray:
    """All images as (n, channels, size, size) uint8, read from the cache when it is there."""
    file = root / f".cache-{fingerprint(root, paths)}-{size}x{channels}.npy"
    if file.is_file():
        return np.asarray(np.load(file, allow_pickle=False))
    images = decode(paths, size=size, channels=channels)
    _store(images, file)
    return images


def fingerprint(root: Path, paths: Iterable[Path]) -> str:
    """A short name for these files: changes when one is added, removed, or written again."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def decode(paths: list[Path], *, size: int, channels: int) -> np.ndarray:
    """The images of `paths` as (n, channels, size, size) uint8."""
    # Threads do: Pillow decodes and resizes without holding the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(partial(_decode_one, size=size, channels=channels), paths))
    return np.stack(images)


def _decode_one(path: Path, *, size: int, channels: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            small = image.convert("L" if channels == 1 else "RGB").resize(
                (size, size), Image.Resampling.BILINEAR
            )
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ConfigRefused(
            f"data.root: {path} cannot be read as an image ({error}); repair or remove it."
        ) from error
    return np.asarray(small).reshape(size, size, channels).transpose(2, 0, 1)


def _store(images: np.ndarray, file: Path) -> None:
    # Several trials may decode at the same time: each writes its own file, one name wins.
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            np.save(stream, images, allow_pickle=False)
        os.replace(temporary, file)
    except OSError as error:
        log.warning("%s could not be written (%s): the next run decodes again", file, error)
        temporary.unlink(missing_ok=True)
