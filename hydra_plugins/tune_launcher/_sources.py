"""Config files for many jobs: read and merged once for each choice of groups, not once a job.

Hydra composes every job from its files: it reads them, follows their defaults lists, merges what it
finds, and then applies the values that the job overrides. Only the last differs between most jobs
of a sweep; the rest is four fifths of composing. A job is composed by Hydra all the same, from
what is remembered here. So a file that is edited while a sweep runs changes no later job of the
same worker, and a resolver in a defaults list is asked once in a worker.
"""

import copy
import pickle
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import hydra._internal.config_loader_impl as implementation
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

_MOST = 200  # choices of groups that are remembered; one takes some 100 kB


def remember_sources(loader: ConfigLoader) -> None:
    """Makes Hydra's loader remember what it reads; one of another kind is left as it is."""
    if isinstance(loader, ConfigLoaderImpl) and type(loader.repository) is ConfigRepository:
        loader.repository = _Remembered(loader.repository)
        # What is neither ours nor of such a loader goes through both of these as without.
        implementation.create_defaults_list = _create_defaults_list  # type: ignore[attr-defined]
        loader._compose_config_from_defaults_list = partial(_compose, loader)  # type: ignore[method-assign]


@dataclass
class _Memory:
    """What was read from the sources of one search path, and made of it."""

    read: dict[str, Any] = field(default_factory=dict)
    lists: dict[tuple[object, ...], DefaultsList] = field(default_factory=dict)
    merged: dict[tuple[object, ...], bytes] = field(default_factory=dict)


class _Remembered(ConfigRepository):
    """A repository of configs that reads each of them once."""

    def __init__(self, repository: ConfigRepository) -> None:
        self.sources = repository.sources
        self.memory = _Memory()
        self._memories: dict[tuple[object, ...], _Memory] = {}

    def load_config(self, config_path: str) -> Any:
        """A copy of the config, which Hydra may change."""
        if config_path not in self.memory.read:
            self.memory.read[config_path] = super().load_config(config_path)
        return copy.deepcopy(self.memory.read[config_path])

    def initialize_sources(self, config_search_path: Any) -> None:
        """Other sources, for an app or a job that names its own hydra.searchpath."""
        super().initialize_sources(config_search_path)
        places = tuple((place.provider, place.path) for place in config_search_path.get_path())
        self.memory = self._memories.setdefault(places, _Memory())

    def __deepcopy__(self, memo: object) -> "_Remembered":
        """Hydra copies the repository for a job lest that one's search path changes ours."""
        return copy.copy(self)


def _create_defaults_list(
    repo: Any,
    config_name: str | None,
    overrides_list: list[Override],
    prepend_hydra: bool,
    skip_missing: bool,
) -> DefaultsList:
    """Hydra's function of this name, which does not ask what values a job overrides."""
    how = (config_name, overrides_list, prepend_hydra, skip_missing)
    if not isinstance(repository := getattr(repo, "delegate", None), _Remembered):
        return defaults_list.create_defaults_list(repo, *how)
    lists = repository.memory.lists
    values = Overrides(repo, overrides_list).config_overrides
    groups = [override.input_line for override in overrides_list if override not in values]
    key = (config_name, *groups, prepend_hydra, skip_missing)
    if key not in lists:
        _make_room(lists)
        lists[key] = defaults_list.create_defaults_list(repo, *how)
    return replace(lists[key], config_overrides=values)


def _compose(loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: Any) -> DictConfig:
    """Hydra's method of this name: the configs of a defaults list, merged."""
    memory: _Memory = repo.delegate.memory
    key = tuple((found.config_path, found.package, found.primary) for found in defaults)
    if key in memory.merged:
        remembered: DictConfig = pickle.loads(memory.merged[key])  # a fifth of a deepcopy
        return remembered
    merged = ConfigLoaderImpl._compose_config_from_defaults_list(loader, defaults, repo)
    _make_room(memory.merged)
    with suppress(Exception):  # a value of a class that cannot be pickled, or not be read back
        pickle.loads(copied := pickle.dumps(merged))
        memory.merged[key] = copied
    return merged


def _make_room(remembered: dict[Any, Any]) -> None:
    if len(remembered) >= _MOST:
        remembered.clear()
