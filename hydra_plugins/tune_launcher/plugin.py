"""The door that Hydra finds: it names the launchers and registers their settings."""

from ._config import register
from ._launcher import WorkersLauncher
from ._ray import RayWorkersLauncher

__all__ = ["RayWorkersLauncher", "WorkersLauncher"]

register()
