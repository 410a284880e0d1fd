"""Trainings on few images, in pieces that continue each other: 400 train, 400 validate, the others
test. Whoever searches calls `train`.
"""

import logging
import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from train.source import Source
from train.sources import SOURCES
from train.task import LAST, task

from .measure import ROOT

MODELS = {"digits": "mlp", "shapes": "cnn"}


def prepare() -> None:
    """One thread, no log lines, and the data set; in every process that trains."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    for data in MODELS:
        SOURCES[f"few_{data}"] = partial(_load, SOURCES[data])


def _load(load_all: Callable[[DictConfig], Source], settings: DictConfig) -> Source:
    """The images with 800 that train or validate."""
    source = load_all(settings)
    order = torch.randperm(len(source.labels), generator=torch.Generator().manual_seed(0))
    is_test = torch.ones(len(order), dtype=torch.bool)
    is_test[order[:800]] = False
    return Source(source.images, source.labels, is_test, source.classes)


def config(data: str, epochs: int) -> DictConfig:
    """A small net with a cosine schedule over `epochs`."""
    typed = [f"data={data}", f"model={MODELS[data]}", f"epochs={epochs}", "val_fraction=0.5"]
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = compose("config", typed)
    OmegaConf.set_struct(cfg, False)
    return OmegaConf.merge(cfg, {"data": {"name": f"few_{data}"}})  # type: ignore[return-value]


def train(
    cfg: DictConfig,
    values: Mapping[str, Any],
    folder: Path,
    *,
    seed: int,
    until_epoch: int | None,
    source: Path | None,
) -> tuple[dict[str, float] | None, int]:
    """Trains with these values to the end of an epoch, from the checkpoint in `source` on.

    The last metrics, None when it diverged; and the number of epochs.
    """
    own = {
        **values,
        "seed": seed,
        "until_epoch": until_epoch,
        "resume_from": None if source is None else str(source / LAST),
        "log_dir": None,
    }
    returned = task(OmegaConf.merge(cfg, own), folder)  # type: ignore[arg-type]
    last = {k: v[-1] if isinstance(v, list) else v for k, v in returned.items()}
    history = returned["val/loss"]
    n_epochs = len(history) if isinstance(history, list) else 0
    return (last if math.isfinite(last["val/loss"]) else None), n_epochs
