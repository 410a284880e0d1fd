"""The app's config files as they were when a sweep began.

Hydra reads them for each job anew, and people edit them while a sweep runs: for the next
experiment, or half saved. Jobs of one sweep are composed from one state of them, wherever they run:
what was read goes with Hydra's loader to every launcher.
"""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

_MOST_OPTIONS = 200  # of a group that are read ahead, a millisecond or two each


def freeze(loader: ConfigLoader) -> None:
    """Makes Hydra's loader answer as it did the first time; one of another kind stays as it is."""
    if type(loader) is ConfigLoaderImpl and type(loader.repository) is ConfigRepository:
        loader.repository = _Frozen(loader.repository)


def read_ahead(loader: ConfigLoader, config: DictConfig) -> None:
    """Reads what another choice of a composed config's groups may need, as `db: ${a}_${b}` does.

    A file that cannot be read is told of by the job that needs it.
    """
    if not isinstance(loader, ConfigLoaderImpl) or not isinstance(loader.repository, _Frozen):
        return
    groups = {str(choice).partition("@")[0] for choice in config.hydra.runtime.choices}
    for repository in loader.repository.all():
        for group in sorted(g for g in groups if not g.startswith("hydra/")):
            for name in repository.get_group_options(group)[:_MOST_OPTIONS]:
                with contextlib.suppress(Exception):
                    repository.load_config(f"{group}/{name}")


class _Frozen(ConfigRepository):
    """A repository of configs that asks the disk everything once."""

    def __init__(self, repository: ConfigRepository) -> None:
        self.sources = repository.sources
        self._places: tuple[object, ...] = ()  # of the sources, where a job or an app names others
        self._answers: dict[tuple[object, ...], Any] = {}
        self._others: dict[tuple[object, ...], _Frozen] = {}  # with such sources, by their places

    def all(self) -> "list[_Frozen]":
        """This one, and those with other sources that were asked so far."""
        return [self, *self._others.values()]

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A copy of the config, which Hydra may change; None where there is none."""
        found: ConfigResult | None = self._answer(super().load_config, config_path)
        return copy.deepcopy(found)

    def config_exists(self, config_path: str) -> bool:
        """Whether it did."""
        return bool(self._answer(super().config_exists, config_path))

    def group_exists(self, config_path: str) -> bool:
        """Whether it did."""
        return bool(self._answer(super().group_exists, config_path))

    def get_group_options(
        self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG
    ) -> list[str]:
        """The names in a group, or of the groups in it."""
        return list(self._answer(super().get_group_options, group_name, results_filter))

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Takes other sources, for an app or a job that names its own hydra.searchpath."""
        super().initialize_sources(config_search_path)
        places = config_search_path.get_path()
        self._places = tuple((place.provider, place.path) for place in places)
        self._others.setdefault(self._places, self)

    def __deepcopy__(self, memo: object) -> "_Frozen":
        """Hydra copies the repository for a job lest that one's search path changes ours."""
        return copy.copy(self)

    def _answer(self, ask: Callable[..., Any], *request: object) -> Any:
        key = (self._places, ask.__name__, *request)
        if key not in self._answers:
            self._answers[key] = ask(*request)
        return self._answers[key]
