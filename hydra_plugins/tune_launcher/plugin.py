"""The door that Hydra finds: it names the launcher and registers its settings."""

from ._config import register
from ._launcher import WorkersLauncher

__all__ = ["WorkersLauncher"]

register()
