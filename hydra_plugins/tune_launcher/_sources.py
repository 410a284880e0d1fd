"""Config files for many jobs: read and merged once for each choice of groups, not once a job.

Hydra composes every job from its files: it reads them, follows their defaults lists, merges what it
finds, and then applies the values that the job overrides. Only the last differs between most jobs
of a sweep, and it is the smallest part. A job is composed by Hydra all the same, from copies of
what is remembered here.

So what changes while a worker lives reaches no later job of it: a file that is edited, a config
that a job stores, an answer of a resolver that Hydra asks while it merges, a warning of Hydra's.
"""

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import hydra._internal.config_loader_impl as implementation
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import (
    CachingConfigRepository,
    ConfigRepository,
    IConfigRepository,
)
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

_N_CHOICES = 50  # choices of groups that are remembered; a config is some 200 kB


def remember_sources(loader: ConfigLoader) -> None:
    """Makes Hydra's loader remember what it reads and merges; one of another kind stays as it is.

    A function of Hydra's is replaced in its module; for all other loaders it does what it did.
    """
    if type(loader) is ConfigLoaderImpl and isinstance(loader.repository, ConfigRepository):
        loader.repository = _Remembering(loader.repository)
        implementation.create_defaults_list = _create_defaults_list  # type: ignore[attr-defined]
        loader._compose_config_from_defaults_list = partial(_merge, loader)  # type: ignore[method-assign]


@dataclass
class _Memory:
    """What was read from the sources of one search path, and made of it."""

    configs: dict[str, ConfigResult | None] = field(default_factory=dict)  # by path
    lists: dict[tuple[object, ...], DefaultsList] = field(default_factory=dict)  # by choice
    merged: dict[tuple[object, ...], DictConfig] = field(default_factory=dict)  # by their configs


class _Remembering(ConfigRepository):
    """A repository of configs that reads each of them once."""

    def __init__(self, repository: ConfigRepository) -> None:
        self._repository = repository  # a sweeper may have put one there that knows more than disks
        self.sources = repository.sources
        self.memory = _Memory()
        self._memories: dict[tuple[object, ...], _Memory] = {}  # by search path

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A copy of the config, which Hydra may change; None where there is none."""
        configs = self.memory.configs
        if config_path not in configs:
            configs[config_path] = self._repository.load_config(config_path)
        return copy.deepcopy(configs[config_path])

    def config_exists(self, config_path: str) -> bool:
        """Whether there is one."""
        return self._repository.config_exists(config_path)

    def group_exists(self, config_path: str) -> bool:
        """Whether there is one."""
        return self._repository.group_exists(config_path)

    def get_group_options(
        self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG
    ) -> list[str]:
        """The names in a group, or of the groups in it."""
        return self._repository.get_group_options(group_name, results_filter)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Takes other sources, for an app or a job that names its own hydra.searchpath."""
        self._repository = copy.deepcopy(self._repository)
        self._repository.initialize_sources(config_search_path)
        self.sources = self._repository.sources
        places = tuple((place.provider, place.path) for place in config_search_path.get_path())
        self.memory = self._memories.setdefault(places, _Memory())

    def __deepcopy__(self, memo: object) -> "_Remembering":
        """Hydra copies the repository for a job lest that one's search path changes ours."""
        return copy.copy(self)


def _create_defaults_list(
    repo: IConfigRepository,
    config_name: str | None,
    overrides_list: list[Override],
    prepend_hydra: bool,
    skip_missing: bool,
) -> DefaultsList:
    """Which configs a job consists of; Hydra's function of this name, which no value can change."""
    request = (config_name, overrides_list, prepend_hydra, skip_missing)
    if not isinstance(repository := getattr(repo, "delegate", None), _Remembering):
        return defaults_list.create_defaults_list(repo, *request)
    lists = repository.memory.lists
    values = Overrides(repo, overrides_list).config_overrides
    groups = [override.input_line for override in overrides_list if override not in values]
    choice = (config_name, *groups, prepend_hydra, skip_missing)
    if choice not in lists:
        _make_room(lists)
        lists[choice] = defaults_list.create_defaults_list(repo, *request)
    return replace(lists[choice], config_overrides=values)


def _merge(
    loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository
) -> DictConfig:
    """What stands for Hydra's method: these configs as one, which the caller may change."""
    assert isinstance(repo, CachingConfigRepository), "Hydra makes one for each job"
    assert isinstance(repo.delegate, _Remembering), "the loader's own"
    merged = repo.delegate.memory.merged
    key = tuple((found.config_path, found.package, found.primary) for found in defaults)
    if key not in merged:
        _make_room(merged)
        merged[key] = ConfigLoaderImpl._compose_config_from_defaults_list(loader, defaults, repo)
    return copy.deepcopy(merged[key])  # not by pickle: objects in configs stay the same ones


def _make_room(remembered: dict[tuple[object, ...], Any]) -> None:
    """Forgets all when it is full."""
    if len(remembered) >= _N_CHOICES:
        remembered.clear()
