"""Configs as the command line composes them, and small trainings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

CONF = Path(__file__).parents[2] / "conf"

Compose = Callable[..., DictConfig]


@pytest.fixture(scope="session")
def config() -> Compose:
    """A function from overrides to the config that `python train.py` would compose."""

    def composed(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", overrides=["hydra/sweeper=basic", *overrides])

    return composed


@pytest.fixture
def train(config: Compose, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A function that trains with overrides and writes to a folder below the test's own."""
    from train.task import task

    def trained(*overrides: str, folder: str = "out") -> dict[str, Any]:
        return dict(task(config(*overrides), tmp_path / folder))

    return trained
