"""The door for Python code: `sweep`, `Outcome`, `Trial`, `Step`; each is imported when asked for.

Hydra imports this module in every program of the environment, so it defines and loads nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._python import Outcome, Step, TaskRefused, Trial, UsageError, sweep

__all__ = ["Outcome", "Step", "TaskRefused", "Trial", "UsageError", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _python

    return getattr(_python, name)
