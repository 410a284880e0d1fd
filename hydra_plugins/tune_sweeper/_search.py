"""All overrides together: what is searched, what is fixed, and the overrides of a job."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from . import _overrides
from ._app import App, has_key, unknown_key, value_of
from ._errors import UsageError
from ._knobs import Knob
from ._overrides import Item, as_text
from .search._space import Choice, Condition, Parameter, Space, canonical
from .search._where import Where


@dataclass(frozen=True)
class Search:
    """What the user typed, understood."""

    items: tuple[Item, ...]
    space: Space  # without parameters when nothing is swept
    defaults: Mapping[str, Any]  # the config's own value of each swept key
    base: DictConfig  # composed with the fixed overrides

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Overrides of the job with these values, in the order typed."""
        texts = (_text(item, values) for item in self.items)
        return [text for text in texts if text is not None]

    def options(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The overrides of swept groups among those of a job with these values."""
        groups = (item for item in self.items if item.is_group)
        return tuple(text for text in (_text(item, values) for item in groups) if text is not None)

    @property
    def fixed(self) -> list[str]:
        """The overrides that all jobs share."""
        return [item.text for item in self.items if item.parameter is None]

    @property
    def added(self) -> dict[str, str]:
        """Keys that the user added to the config (+key=value), as typed."""
        fixed = (item for item in self.items if item.parameter is None)
        return {item.key: item.text for item in fixed if item.key.startswith("+")}

    @property
    def base_configuration(self) -> dict[str, Any] | None:
        """The config's own defaults as a configuration; None when the space leaves them out."""
        values = self.space.prune(self.space.cast(self.defaults))
        return values if self.space.contains(values) else None


def _text(item: Item, values: Mapping[str, Any]) -> str | None:
    if item.parameter is None:
        return item.text
    name = item.parameter.name
    if name not in values:
        return None
    text = item.texts.get(canonical(values[name]))
    return f"{item.key}={as_text(values[name]) if text is None else text}"


def parse(
    app: App,
    arguments: Sequence[str],
    params: Mapping[str, Any],
    conditions: Mapping[str, Any],
    where: str | None,
) -> Search:
    """Understands the typed overrides and the space in YAML; typed ones win.

    Raises:
        UsageError: anything that no job could run with, or that the grammar does not know.
    """
    overrides = _overrides.read(app, [*_overrides.typed_params(params), *arguments])
    base = _base(app, overrides)
    items = tuple(_overrides.item_of(app, override, base) for override in overrides)
    swept = [item for item in items if item.parameter is not None]
    configs = _compose_choices(app, items, base)
    automatic = _conditions(app, swept, configs)
    parameters = tuple(item.parameter for item in swept if item.parameter is not None)
    space = _space(parameters, [*automatic, *_declared(conditions)], where, base)
    defaults = {p.name: _default(app, p.name, base, configs) for p in parameters}
    return Search(items, space, defaults, base)


def _base(app: App, overrides: Sequence[Override]) -> DictConfig:
    """The config without the sweep; a group that must be chosen stands at its first option."""
    fixed = _overrides.fixed_of(overrides)
    try:
        return app.compose(fixed)
    except UsageError:
        return app.compose([*fixed, *_overrides.first_choices(app, overrides)])


Configs = Mapping[tuple[str, str], DictConfig]  # by (group, canonical choice); ("", "") is the base


def _compose_choices(app: App, items: Sequence[Item], base: DictConfig) -> Configs:
    """One composed config for every choice of every swept group, the others at their first."""
    fixed = [item.text for item in items if item.parameter is None]
    groups = [item for item in items if item.parameter is not None and item.is_group]
    first = {g.key: f"{g.key}={next(iter(g.texts.values()))}" for g in groups}
    configs = {("", ""): app.compose([*fixed, *first.values()]) if groups else base}
    for group in groups:
        for value, text in group.texts.items():
            others = [o for key, o in first.items() if key != group.key]
            name = group.parameter.name if group.parameter else ""
            configs[name, value] = app.compose([*fixed, *others, f"{group.key}={text}"])
    return configs


def _conditions(app: App, swept: Sequence[Item], configs: Configs) -> list[Condition]:
    """Conditions that follow from the groups: a key exists where the composed config has it."""
    conditions = []
    for item in swept:
        assert item.parameter is not None
        if not item.is_group and not item.key.startswith("+"):
            conditions += _conditions_of(app, item.typed, item.parameter.name, swept, configs)
    return conditions


def _conditions_of(
    app: App, typed: str, key: str, swept: Sequence[Item], configs: Configs
) -> list[Condition]:
    if not any(has_key(config, key) for config in configs.values()):
        raise unknown_key(typed, key, configs["", ""], app.groups)
    found = []
    groups = (i.parameter for i in swept if i.is_group and isinstance(i.parameter, Choice))
    for group in groups:
        of_group = [(v, configs.get((group.name, canonical(v)))) for v in group.choices]
        values = tuple(v for v, config in of_group if config is not None and has_key(config, key))
        if values and len(values) < len(of_group):
            found.append(Condition(key, group.name, values))
    return found


def _declared(conditions: Mapping[str, Any]) -> list[Condition]:
    found = []
    for child, parents in conditions.items():
        if not isinstance(parents, Mapping):
            raise UsageError(
                f"hydra.sweeper.conditions.{child}={parents!r}: expected parent and values,"
                f" for instance {{{child}: {{optimizer: [sgd]}}}}"
            )
        for parent, values in parents.items():
            legal = tuple(values) if isinstance(values, list) else (values,)
            found.append(Condition(child, parent, legal))
    return found


def _space(
    parameters: tuple[Parameter, ...],
    conditions: Sequence[Condition],
    where: str | None,
    base: DictConfig,
) -> Space:
    names = tuple(p.name for p in parameters)
    try:
        rule = None if where is None else Where(where, _Constants(base), names)
        return Space(parameters, tuple(conditions), rule)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _choices_of(config: DictConfig) -> Mapping[str, Any]:
    """The option of each group in a composed config."""
    return dict(value_of(config, "hydra.runtime.choices") or {})


class _Constants(Mapping[str, Any]):
    """The fixed values of a config by dotted key, and the options of its groups, for `where`."""

    def __init__(self, config: DictConfig) -> None:
        self._config = config

    def __getitem__(self, key: str) -> Any:
        choices = _choices_of(self._config)
        if key in choices:
            return choices[key]
        if not has_key(self._config, key):
            raise KeyError(key)
        return value_of(self._config, key)

    def __iter__(self) -> Iterator[str]:
        return (k for k in map(str, self._config) if k != "hydra")

    def __len__(self) -> int:
        return len(list(iter(self)))


def _default(app: App, name: str, base: DictConfig, configs: Configs) -> Any:
    """The config's own value of a key, a group's own choice."""
    if app.options(name.partition("@")[0]):
        return _choices_of(base).get(name)
    config = next((c for c in configs.values() if has_key(c, name)), configs["", ""])
    return value_of(config, name)


def check_fixed(search: Search, knobs: Mapping[str, Knob]) -> None:
    """Holds the fixed values of the composed config against what the app says of its keys.

    Raises:
        UsageError: a value that every training would refuse.
    """
    for key, knob in knobs.items():
        if key in search.space.names or not has_key(search.base, key):
            continue
        value = value_of(search.base, key)
        if (expected := knob.complaint(value)) is not None:
            raise UsageError(f"{key}={value}: expected {expected}")
