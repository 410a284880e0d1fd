"""Checks of the settings under hydra.sweeper that need no config and no space."""

import dataclasses
import importlib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ._config import KeysConf, StopConf, SweeperConf
from ._errors import UsageError, nearest
from .run._limits import Limits
from .run._objective import AGGREGATES, DIRECTIONS
from .run._rules import Rules
from .run._shapes import LARGEST

_COMMON = {f.name for f in dataclasses.fields(SweeperConf)} - {"_target_", "_recursive_"}

Check = tuple[Callable[[Any], bool], str]

_CHOICES: dict[str, tuple[str, ...]] = {
    "direction": tuple(DIRECTIONS),
    "metric_agg": tuple(AGGREGATES),
    "resume": ("auto", "never", "must"),
    "on_change": ("refuse", "extend"),
    "display": ("auto", "plain", "none"),
}
_RANGES: dict[str, Check] = {
    # It becomes a folder's name.
    "name": (
        lambda v: re.fullmatch(r"\w[\w.-]*", v) is not None,
        "letters, digits, dot, dash, as my_sweep",
    ),
    "n_trials": (lambda v: v >= 1, "an integer from 1 on, for instance 20"),
    "n_parallel": (lambda v: v >= 1, "an integer from 1 on, for instance 2"),
    "repeats": (lambda v: v >= 1, "an integer from 1 on, for instance 3"),
    "seed": (lambda v: 0 <= v < LARGEST, "an integer from 0 to 2**53 - 1"),
    "fail_fast": (lambda v: v >= 1, "an integer from 1 on, or null to go on for ever"),
    "max_failures": (lambda v: v > 0, "a number above 0, or null to go on for ever"),
    "retries": (lambda v: v >= 0, "an integer from 0 on"),
    "trial_timeout_s": (lambda v: v > 0, "seconds above 0, or null for no limit"),
    "stall_timeout_s": (lambda v: v > 0, "seconds above 0, or null for no limit"),
    "grace_s": (lambda v: v >= 0, "seconds from 0 on"),
    "keep_checkpoints": (lambda v: v >= 0, "an integer from 0 on, or null to keep all"),
}
_STOP_RANGES: dict[str, Check] = {
    "time_s": (lambda v: v > 0, "seconds above 0"),
    "patience": (lambda v: v >= 1, "an integer from 1 on"),
    "target": (math.isfinite, "a finite value of the metric"),
}


def read(settings: Mapping[str, Any]) -> tuple[SweeperConf, dict[str, Any]]:
    """The common settings, checked, and the strategy's own.

    Raises:
        UsageError: a value outside what the setting allows.
    """
    common = {k: v for k, v in settings.items() if k in _COMMON}
    own = {k: v for k, v in settings.items() if k not in _COMMON}
    _check_kinds(common)
    common["stop"] = StopConf(**common["stop"])
    common["keys"] = KeysConf(**common["keys"])
    conf = SweeperConf(**common)
    _check_choices(conf)
    _check_ranges(vars(conf), _RANGES, "hydra.sweeper.")
    _check_ranges(vars(conf.stop), _STOP_RANGES, "hydra.sweeper.stop.")
    return conf, own


def _check_kinds(settings: Mapping[str, Any]) -> None:
    """The settings that Hydra's own types leave open."""
    kinds = {
        "params": (Mapping, "{lr: interval(1e-4, 1e-1)}"),
        "conditions": (Mapping, "{momentum: {optimizer: [sgd]}}"),
        "stop": (Mapping, "{patience: 5}"),
        "keys": (Mapping, "{seed: seed}"),
    }
    for name, (kind, example) in kinds.items():
        value = settings[name]
        if not isinstance(value, kind) and not (value is None and name in ("params", "conditions")):
            raise UsageError(f"hydra.sweeper.{name}={value}: expected keys, for instance {example}")
    for values in settings["initial"]:
        if not isinstance(values, Mapping):
            raise UsageError(f"hydra.sweeper.initial: {values!r}: expected keys, as [{{lr: 0.01}}]")


def _check_choices(conf: SweeperConf) -> None:
    for name, legal in _CHOICES.items():
        value = getattr(conf, name)
        if value is not None and value not in legal:
            raise UsageError(
                f"hydra.sweeper.{name}={value}: expected one of {', '.join(legal)}"
                f"{nearest(str(value), legal)}"
            )


def _check_ranges(values: Mapping[str, Any], checks: Mapping[str, Check], prefix: str) -> None:
    for name, (is_legal, expected) in checks.items():
        value = values[name]
        if value is not None and not is_legal(value):
            raise UsageError(f"{prefix}{name}={value}: expected {expected}")


def strategy_class(path: str) -> type:
    """The class that `module:class` names; its module may import numpy and scipy."""
    module, _, name = path.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"hydra.sweeper.strategy={path}: {error}; choose one with hydra/sweeper=<name>"
        ) from error
    if not isinstance(cls, type) or not hasattr(cls, "ask"):
        raise UsageError(f"hydra.sweeper.strategy={path}: that is no class with ask and tell")
    return cls


_VANISH_LIMIT = 3  # a user may kill a sweep twice during one long training


def rules_of(
    conf: SweeperConf,
    *,
    n_slots: int,
    can_resume: bool,
    replaces_dead: bool,
    in_process: bool = True,
) -> Rules:
    """When a sweep with these settings ends, and what it keeps.

    A task that cannot continue a checkpoint keeps its checkpoints: we delete only what we use.
    """
    return Rules(
        n_parallel=conf.n_parallel or n_slots,
        repeats=conf.repeats,
        retries=conf.retries,
        can_resume=can_resume,
        vanish_limit=_VANISH_LIMIT if in_process else None,
        fail_fast=conf.fail_fast,
        max_failures=conf.max_failures,
        replaces_dead=replaces_dead,
        time_s=conf.stop.time_s,
        target=conf.stop.target,
        patience=conf.stop.patience,
        keep_checkpoints=conf.keep_checkpoints if can_resume else None,
    )


def limits_of(conf: SweeperConf) -> Limits:
    """How long a job of a sweep with these settings may take, and be silent."""
    return Limits(job_s=conf.trial_timeout_s, silence_s=conf.stall_timeout_s)
