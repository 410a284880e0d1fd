"""The door that Hydra finds: it names the sweeper and registers its settings."""

from ._config import register
from ._sweeper import TuneSweeper

__all__ = ["TuneSweeper"]

register()
