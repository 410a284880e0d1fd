"""The user's app as the sweeper sees it: its configs, groups and knobs, through Hydra."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import _commands, _knobs
from ._errors import UsageError, nearest
from ._knobs import Knob
from .run._whole import write_whole

# Where a training runs and how much of it is shown: no part of what is searched.
_RESOURCES = frozenset(
    ("device", "devices", "workers", "num_workers", "threads", "display", "progress")
)


class App:
    """Composes configs of the app and answers what keys and groups it has."""

    def __init__(self, hydra_context: HydraContext, config: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self._config = config

    @property
    def name(self) -> str:
        """Hydra's name of the job: that of the script."""
        return str(self._config.hydra.job.name)

    @property
    def program(self) -> list[str]:
        """What to hand to Python to run the app once."""
        return _commands.recorded_program()

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job, with its hydra node.

        Raises:
            UsageError: Hydra refused the overrides.
        """
        try:
            return self.loader.load_sweep_config(self._config, list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            cause = (
                error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
            )
            line = str(cause).strip().split("\n")[0]
            raise UsageError(f"{' '.join(overrides)}: {line}") from error

    def options(self, group: str) -> list[str]:
        """The names in a config group; empty when there is no such group."""
        return list(self.loader.get_group_options(group, ObjectType.CONFIG))

    @cached_property
    def groups(self) -> list[str]:
        """All config groups of the app, nested ones as `a/b`."""
        return [g for g in self._walk_groups("") if not g.startswith("hydra")]

    def _walk_groups(self, parent: str) -> Iterator[str]:
        for name in self.loader.get_group_options(parent, ObjectType.GROUP):
            group = f"{parent}/{name}" if parent else name
            yield group
            yield from self._walk_groups(group)

    @cached_property
    def knobs(self) -> dict[str, Knob]:
        """The rows of the app's knobs.yaml; empty when it has none."""
        for source in self.loader.get_sources():
            if source.scheme() in ("file", "pkg") and source.is_config(_knobs.FILE):
                rows: Any = OmegaConf.to_container(source.load_config(_knobs.FILE).config)
                return _knobs.parse(rows)
        return {}


def keys_of(config: DictConfig) -> list[str]:
    """Every dotted key below a composed config, without its hydra node."""
    return [key for key in _walk(config, "") if not key.startswith("hydra.") and key != "hydra"]


def _walk(node: DictConfig, prefix: str) -> Iterator[str]:
    for key in node:
        name = f"{prefix}{key!s}"
        yield name
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _walk(child, f"{name}.")


def has_key(config: DictConfig, key: str) -> bool:
    """Whether a composed config has `key`, also when its value is null or missing (???)."""
    head, _, last = key.rpartition(".")
    parent = OmegaConf.select(config, head) if head else config
    if isinstance(parent, ListConfig):
        return last.isdecimal() and int(last) < len(parent)
    return isinstance(parent, DictConfig) and last in parent._content  # type: ignore[operator]


def value_of(config: DictConfig, key: str) -> Any:
    """The plain value at `key`; None when it is absent, missing or cannot be resolved."""
    try:
        value = OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def unknown_key(typed: str, key: str, config: DictConfig, groups: Sequence[str]) -> UsageError:
    """The sentence for a swept key that no composed config has."""
    hint = nearest(key, [*keys_of(config), *groups])
    return UsageError(f"{typed}: the config has no key {key!r}{hint} (to add one, type +{typed})")


def fingerprint_of(config: DictConfig) -> dict[str, Any]:
    """What a training depends on in a composed config: all but hydra, devices and display."""
    plain = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    return dict(_without_resources(plain))


def flat(config: DictConfig) -> dict[str, Any]:
    """The values of an app's config by dotted key."""
    return dict(_leaves(fingerprint_of(config), ""))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _without_resources(node: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(key): _without_resources(value) if isinstance(value, Mapping) else value
        for key, value in node.items()
        if key not in _RESOURCES
    }


def write_config(config: DictConfig, path: Path) -> None:
    """Writes a composed config without its hydra node, interpolations kept."""
    app_config = OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"])
    write_whole(path, OmegaConf.to_yaml(app_config))
