"""What the workers remember of the app's config files: nothing of the configs becomes different."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, Node, OmegaConf

from hydra_plugins.tune_launcher import _sources
from hydra_plugins.tune_launcher._sources import remember_sources

ANYTHING = {"allow_objects": True}


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
    ["model=small", "model=big"],
    ["+model@other=big"],
    ["model@other=big"],  # refused
    ["~model"],
    ["model=none"],  # refused
    ["hydra/job_logging=none"],
    ["x=3", "~x"],
    ["y=1"],  # refused
    ["model={width: 9}"],
    ["+when=${now:%Y}", "+hydra.job.env_set.A=1"],
    [],
]


def composed(loader: ConfigLoaderImpl, overrides: list[str]) -> object:
    """All that a job can see of its config, or the words of its refusal."""
    try:
        config = compose(loader, *overrides)
    except HydraException as refusal:
        return str(refusal)
    return OmegaConf.to_yaml(config), list(_nodes(config))


def _nodes(node: Node) -> Iterator[object]:
    """Types and flags, also of what is not shown."""
    known = dict(vars(node._metadata))
    yield type(node), {name: known[name] for name in known if name != "resolver_cache"}
    keys = {DictConfig: list, ListConfig: lambda items: range(len(items))}.get(type(node))
    for key in keys(node) if keys else ():
        yield from _nodes(node._get_node(key))


def test_jobs_are_composed_as_without(loader: ConfigLoaderImpl) -> None:
    """One job after the other, whatever the ones before it changed in their configs."""
    expected = [composed(loader, job) for job in JOBS]
    remember_sources(loader)

    assert [composed(loader, job) for job in JOBS] == expected
    assert [composed(loader, job) for job in JOBS] == expected


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


def test_app_that_names_sources_is_remembered_too(loader: ConfigLoaderImpl, folder: Path) -> None:
    """Hydra looks at a search path for each job anew."""
    main = folder / "conf/config.yaml"
    main.write_text(f"hydra: {{searchpath: [{folder}/more]}}\n{main.read_text()}")
    expected = compose(loader, "model=huge")
    remember_sources(loader)
    compose(loader, "model=huge")
    (folder / "more/model/huge.yaml").write_text("width: [")

    assert compose(loader, "model=huge") == expected


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> ConfigStore:
    """Hydra's store of configs, for one test."""
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", copy.deepcopy(store.repo))
    return store


def test_objects_in_configs_stay_the_same_ones(
    loader: ConfigLoaderImpl, store: ConfigStore
) -> None:
    """Hydra's store may hold anything; jobs get the thing itself, as they do without."""
    thing = object()
    store.store("odd", OmegaConf.create({"thing": thing}, flags=ANYTHING), group="model")
    remember_sources(loader)

    assert all(compose(loader, "model=odd").model.thing is thing for _ in range(3))


def test_schema_of_the_main_script_is_remembered(
    loader: ConfigLoaderImpl, store: ConfigStore
) -> None:
    """A class that no other process can import, as those of the script that was started."""

    @dataclass
    class Model:
        width: int = 5

    store.store("own", Model, group="model")
    remember_sources(loader)
    jobs = [compose(loader, "model=own", f"model.width={width}") for width in (2, 3)]

    assert [job.model.width for job in jobs] == [2, 3]
    assert all(OmegaConf.get_type(job.model) is Model for job in jobs)
    assert len(loader.repository.memory.merged) == 1


def test_memory_is_bounded(loader: ConfigLoaderImpl, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search may choose among more groups than a process can remember."""
    monkeypatch.setattr(_sources, "_N_CHOICES", 3)
    remember_sources(loader)
    names = [[f"+model@m{i}=big"] for i in range(8)]

    assert [compose(loader, *name)[f"m{i}"].width for i, name in enumerate(names)] == [64] * 8
    memory = loader.repository.memory
    assert (len(memory.lists), len(memory.merged)) == (2, 2)


def test_loader_of_another_kind_is_left_as_it_is(loader: ConfigLoaderImpl) -> None:
    """Only what Hydra itself uses is known well enough to be changed."""

    class Other(ConfigLoaderImpl):
        pass

    other = Other(loader.config_search_path)
    for unknown in (other, SimpleNamespace(repository=object())):
        before = dict(vars(unknown))
        remember_sources(unknown)  # type: ignore[arg-type]

        assert vars(unknown) == before
