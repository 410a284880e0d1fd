"""What the workers remember of the app's config files: nothing of the configs becomes different."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig

from hydra_plugins.tune_launcher._sources import remember_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The configs of a small app, and other ones beside them."""
    texts = {
        "conf/config.yaml": "defaults: [_self_, model: small]\nx: 1\nitems: [1]\n",
        "conf/model/small.yaml": "width: 4\n",
        "conf/model/big.yaml": "width: 64\n",
        "more/model/huge.yaml": "width: 512\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def loader(folder: Path) -> ConfigLoaderImpl:
    """Hydra's loader of the app."""
    Plugins.instance()
    return ConfigLoaderImpl(create_config_search_path(str(folder / "conf")))


def compose(loader: ConfigLoaderImpl, *overrides: str) -> DictConfig:
    return loader.load_configuration("config", list(overrides), RunMode.RUN)


JOBS = [
    [],
    ["x=2", "model=big"],
    ["+items=[1,2]"],
    ["model=big", "model.width=7", "hydra.job.num=3"],
    [],
]


def test_jobs_are_composed_as_without(loader: ConfigLoaderImpl) -> None:
    """One job after the other, whatever the ones before it changed in their configs."""
    expected = [compose(loader, *job) for job in JOBS]
    remember_sources(loader)

    assert [compose(loader, *job) for job in JOBS] == expected
    assert [compose(loader, *job) for job in JOBS] == expected


def test_file_is_read_once(loader: ConfigLoaderImpl, folder: Path) -> None:
    """An editor's half-written file does not reach a running sweep."""
    remember_sources(loader)
    compose(loader)
    (folder / "conf/config.yaml").write_text("x: [")

    assert compose(loader, "x=2").x == 2


def test_search_path_of_a_job_is_its_own(loader: ConfigLoaderImpl, folder: Path) -> None:
    """A job that names further sources sees them, the next one does not."""
    remember_sources(loader)
    compose(loader)

    assert compose(loader, f"hydra.searchpath=[{folder}/more]", "model=huge").model.width == 512
    assert compose(loader, "model=big").model.width == 64
    with pytest.raises(Exception, match="Could not find 'model/huge'"):
        compose(loader, "model=huge")


def test_loader_of_another_kind_is_left_as_it_is() -> None:
    """Only what Hydra itself uses is known well enough to be changed."""
    loader = SimpleNamespace(repository=(repository := object()))

    remember_sources(loader)  # type: ignore[arg-type]

    assert loader.repository is repository
