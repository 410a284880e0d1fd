"""Config files for many jobs: read once, not once a job.

Hydra composes every job from its files and copies its whole config store for each, which is a third
of composing. A job is composed by Hydra all the same; only what it would read again is remembered.
So a file that is edited while a sweep runs changes no later job of the same worker.
"""

import copy
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_loader import ConfigLoader


def remember_sources(loader: ConfigLoader) -> None:
    """Makes Hydra's loader remember what it reads; one of another kind is left as it is."""
    if type(getattr(loader, "repository", None)) is ConfigRepository:
        loader.repository = _Remembered(loader.repository)  # type: ignore[attr-defined]


class _Remembered(ConfigRepository):
    """A repository of configs that reads each of them once."""

    def __init__(self, repository: ConfigRepository) -> None:
        self.sources = repository.sources
        self._seen: dict[str, Any] = {}

    def load_config(self, config_path: str) -> Any:
        """A copy of the config, which Hydra may change."""
        if config_path not in self._seen:
            self._seen[config_path] = super().load_config(config_path)
        return copy.deepcopy(self._seen[config_path])

    def initialize_sources(self, config_search_path: Any) -> None:
        """Other sources, as a job asks for that names its own hydra.searchpath."""
        super().initialize_sources(config_search_path)
        self._seen = {}

    def __deepcopy__(self, memo: object) -> "_Remembered":
        """Hydra copies the repository for a job lest that one's search path changes ours."""
        return copy.copy(self)
