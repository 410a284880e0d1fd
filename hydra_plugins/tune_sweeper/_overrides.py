"""Overrides as typed, one by one: text -> fixed value or parameter, and value -> text.

The only file that knows Hydra's override grammar.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
    ValueType,
)
from hydra.errors import HydraException
from omegaconf import DictConfig

from . import _knobs
from ._app import App, value_of
from ._errors import UsageError, nearest
from ._knobs import Knob
from .search._space import (
    LINEAR,
    SCALES,
    Choice,
    Interval,
    Parameter,
    canonical,
)

_TAGS = (*SCALES, "int", "float", "frozen", "mutable")
# Hydra's parser makes floats of the bounds, so the text tells whether they were integers.
_INTEGER_BOUNDS = r"interval\(\s*(start\s*=\s*)?-?\d+\s*,\s*(end\s*=\s*)?-?\d+\s*\)"
_LEGAL = (str, bool, int, float, list, dict, type(None), QuotedString)
_MOST_VALUES = 1_000_000  # of one range: a longer one is a typing error


@dataclass(frozen=True)
class Item:
    """One override: fixed, or swept over a parameter."""

    key: str  # as typed: with +, ++, @package
    typed: str
    text: str = ""  # the override of the job when it is fixed
    parameter: Parameter | None = None
    texts: Mapping[str, str] = field(default_factory=dict)  # of choices, by canonical value
    is_group: bool = False  # swept over the options of a config group


def as_text(value: Any) -> str:
    """A value as the right side of an override, quoted where it would else be read as another."""
    if not isinstance(value, _LEGAL):
        raise UsageError(
            f"{value!r} cannot be a value: only numbers, text, true, false, null, lists and"
            " mappings of them can be told to a job"
        )
    text = str(Override._get_value_element_as_str(value))
    plain = Override._convert_value(value)
    if isinstance(plain, int | float | None) or _reads_as(text, plain):
        return text
    return str(Override._get_value_element_as_str(_quoted(plain)))


def _reads_as(text: str, value: Any) -> bool:
    """Whether the grammar makes `value` of `text`: it does not of it's, nor of the text 1."""
    try:
        read = OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        return False
    return canonical(read) == canonical(value)


def _quoted(value: Any) -> Any:
    if isinstance(value, str):
        return QuotedString(value, Quote.single)
    if isinstance(value, dict):
        return {key: _quoted(item) for key, item in value.items()}
    return [_quoted(item) for item in value] if isinstance(value, list) else value


def typed_params(params: Mapping[str, Any]) -> list[str]:
    """A space in YAML as overrides."""
    return [f"{key}={_typed_value(value)}" for key, value in params.items()]


def _typed_value(value: Any) -> str:
    if isinstance(value, str):  # the grammar itself: "interval(0, 1)"
        return value
    if isinstance(value, list | tuple):  # not choice(...): the grammar takes no null there
        return ",".join(as_text(item) or "''" for item in value)
    return as_text(value)


def constant(typed: Any) -> Any:
    """The one value that a parameter in YAML or Python stands for when it sweeps nothing."""
    if isinstance(typed, list | tuple):
        return typed[0]
    if not isinstance(typed, str):
        return typed
    value = OverridesParser.create().parse_override(f"key={typed}").value()
    return Override._convert_value(value.list[0]) if isinstance(value, ChoiceSweep) else value


def read(app: App, texts: Sequence[str]) -> list[Override]:
    """Parsed overrides; of several for one key the last one wins, at the place of the first.

    Raises:
        UsageError: a text that the grammar does not know, or that no file can hold.
    """
    parser = OverridesParser.create(config_loader=app.loader)
    found: dict[tuple[str, bool], Override] = {}
    for text in texts:
        _check_encoding(text)
        try:
            (override,) = parser.parse_overrides([text])
        except HydraException as error:
            raise UsageError(f"{text}: {str(error).splitlines()[0]}") from error
        found[name_of(override), override.is_delete()] = override
    return list(found.values())


def _check_encoding(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text.encode(errors="backslashreplace").decode()
        raise UsageError(f"{shown}: these bytes are no text in UTF-8") from error


def name_of(override: Override) -> str:
    """The key without +, ++ or ~."""
    return override.get_key_element().lstrip("+~")


def _line(override: Override) -> str:
    return str(override.input_line)


def fixed_of(overrides: Sequence[Override]) -> list[str]:
    """The overrides that sweep nothing, as typed."""
    return [_line(o) for o in overrides if not o.is_sweep_override()]


# One override -> one parameter


def first_choices(app: App, overrides: Sequence[Override]) -> list[str]:
    """For each swept group, the override with its first option."""
    groups = [o for o in overrides if o.is_discrete_sweep() and app.options(o.key_or_group)]
    return [f"{o.get_key_element()}={as_text(_choices(app, o)[0])}" for o in groups]


def item_of(app: App, override: Override, base: DictConfig) -> Item:
    """An override as a fixed text or as a parameter.

    Raises:
        UsageError: a parameter that cannot be searched.
    """
    key, typed = override.get_key_element(), _line(override)
    if not override.is_sweep_override():
        return Item(key, typed, text=typed)
    if len(re.findall(r"\btag\s*\(", _unquoted(override.get_value_string()))) > 1:
        raise UsageError(f"{typed}: tags do not nest, write them side by side: tag(log,int,...)")
    if override.is_interval_sweep() and app.options(override.key_or_group):
        options = ", ".join(app.options(override.key_or_group))
        raise UsageError(f"{typed}: {key} is a config group; list some of its options: {options}")
    try:
        if override.is_interval_sweep():
            return _interval_item(app, override, base)
        return _choice_item(app, override)
    except UsageError:
        raise
    except (ValueError, HydraException) as error:
        raise UsageError(f"{typed}: {str(error).splitlines()[0]}") from error


def _unquoted(text: str) -> str:
    return re.sub(r"'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"", "''", text)


def _interval_item(app: App, override: Override, base: DictConfig) -> Item:
    sweep, name, typed = override.value(), name_of(override), _line(override)
    assert isinstance(sweep, IntervalSweep) and sweep.start is not None and sweep.end is not None
    tags = _Tags.read(typed, sweep)
    knob = app.knobs.get(name)
    is_integer = _is_integer(override, tags, knob, value_of(base, name))
    is_frozen = _is_frozen(typed, tags, knob)
    scale = tags.scale or (knob.scale if knob else LINEAR)
    try:
        parameter = Interval(
            name=name,
            low=_number(sweep.start, is_integer),
            high=_number(sweep.end, is_integer),
            scale=scale,
            is_integer=is_integer,
            step=tags.step,
            is_frozen=is_frozen,
            prior=_believed_number(typed, tags),
        )
    except ValueError as error:
        is_natural = tags.scale is None and "scale" in str(error)
        hint = _scale_hint(name, sweep, knob) if is_natural and knob is not None else ""
        raise UsageError(f"{typed}: {error}{hint}") from error
    if knob is not None:
        _knobs.check(typed, parameter, knob)
    return Item(override.get_key_element(), typed, parameter=parameter)


def _number(bound: float, is_integer: bool) -> float:
    return int(bound) if is_integer and bound == round(bound) else float(bound)


def _scale_hint(name: str, sweep: IntervalSweep, knob: Knob) -> str:
    """Where a scale comes from, and what to type instead: only what would be accepted."""
    bounds = [sweep.start, sweep.end]
    is_legal = all(knob.complaint(bound) is None for bound in bounds)
    linear = f", or {name}=tag(linear,interval({sweep.start:g},{sweep.end:g}))" if is_legal else ""
    example = f", for instance {name}={knob.sweep}" if knob.sweep else ""
    return f" ({_knobs.FILE}.yaml gives {name} its scale). Type other bounds{example}{linear}"


def _is_integer(override: Override, tags: "_Tags", knob: Knob | None, default: Any) -> bool:
    """Explicit type first, then what the app says, then what default and bounds look like."""
    if tags.is_integer is not None:
        return tags.is_integer
    if cast := re.search(r"\b(int|float)\s*\(", override.get_value_string()):
        return cast[1] == "int"
    if knob is not None:
        return knob.is_integer
    # `weight_decay: 0` must not make an integer of interval(0,1e-2): the bounds are typed as one.
    is_typed_so = re.search(_INTEGER_BOUNDS, override.get_value_string()) is not None
    return is_typed_so and isinstance(default, int) and not isinstance(default, bool)


@dataclass(frozen=True)
class _Tags:
    """What tag(...) says of a parameter."""

    scale: str | None = None
    is_integer: bool | None = None
    is_frozen: bool | None = None
    step: float | None = None
    prior: str | None = None

    @classmethod
    def read(cls, typed: str, sweep: Sweep) -> "_Tags":
        tags = {str(tag) for tag in sweep.tags}
        steps = [tag for tag in tags if tag.startswith("step:")]
        priors = [tag for tag in tags if tag.startswith("prior:")]
        for tag in tags - {*_TAGS, *steps, *priors}:
            raise UsageError(
                f"{typed}: tag {tag!r} is unknown{nearest(tag, _TAGS)}"
                f" (known: {', '.join(_TAGS)}, step:<number>, prior:<value>)"
            )
        return cls(
            scale=_only(typed, tags, SCALES),
            is_integer={"int": True, "float": False, None: None}[
                _only(typed, tags, ("int", "float"))
            ],
            is_frozen={"frozen": True, "mutable": False, None: None}[
                _only(typed, tags, ("frozen", "mutable"))
            ],
            step=_step(typed, steps),
            prior=_prior(typed, priors),
        )


def _only(typed: str, tags: set[str], names: Sequence[str]) -> str | None:
    found = [name for name in names if name in tags]
    if len(found) > 1:
        raise UsageError(f"{typed}: the tags {' and '.join(found)} exclude each other")
    return found[0] if found else None


def _step(typed: str, steps: Sequence[str]) -> float | None:
    try:
        return float(steps[0].removeprefix("step:")) if steps else None
    except ValueError as error:
        raise UsageError(f"{typed}: {steps[0]!r} needs a number, for instance step:8") from error


def _prior(typed: str, priors: Sequence[str]) -> str | None:
    if len(priors) > 1:
        raise UsageError(f"{typed}: {' and '.join(sorted(priors))} exclude each other")
    return priors[0].removeprefix("prior:").strip() if priors else None


def _believed_number(typed: str, tags: _Tags) -> float | None:
    try:
        return None if tags.prior is None else float(tags.prior)
    except ValueError as error:
        raise UsageError(
            f"{typed}: 'prior:{tags.prior}' needs a number, for instance prior:3e-3"
        ) from error


def _believed_choice(typed: str, tags: _Tags, values: Sequence[Any], texts: Sequence[str]) -> Any:
    if tags.prior is None:
        return None
    if tags.prior not in texts:
        raise UsageError(
            f"{typed}: 'prior:{tags.prior}' names none of the choices{nearest(tags.prior, texts)}"
            f" ({', '.join(texts)})"
        )
    return values[texts.index(tags.prior)]


def _is_frozen(typed: str, tags: _Tags, knob: Knob | None) -> bool | None:
    if knob is None or knob.mutable is not False:
        is_said = knob is not None and knob.mutable is not None
        return False if tags.is_frozen is None and is_said else tags.is_frozen
    if tags.is_frozen is False:
        raise UsageError(
            f"{typed}: {knob.name} cannot change in mid-training, so tag(mutable,...) is refused"
        )
    return True


def _choice_item(app: App, override: Override) -> Item:
    name, typed, key = name_of(override), _line(override), override.get_key_element()
    raw = _choices(app, override)
    texts = [as_text(value) for value in raw]
    if len(raw) == 1:
        return Item(key, typed, text=f"{key}={texts[0]}")
    values = tuple(Override._convert_value(value) for value in raw)
    sweep = override.value()
    tags = _Tags.read(typed, sweep) if isinstance(sweep, Sweep) else _Tags()
    if tags.scale or tags.step or tags.is_integer is not None:
        raise UsageError(f"{typed}: scale, type and step are tags of interval(...) alone")
    is_ordered = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    knob = app.knobs.get(name)
    believed = _believed_choice(typed, tags, values, texts)
    parameter = Choice(name, values, is_ordered, _is_frozen(typed, tags, knob), believed)
    if knob is not None:
        _knobs.check(typed, parameter, knob)
    by_value = dict(zip(parameter.places, texts, strict=True))
    is_group = bool(app.options(override.key_or_group))
    return Item(key, typed, parameter=parameter, texts=by_value, is_group=is_group)


def _choices(app: App, override: Override) -> list[Any]:
    sweep = override.value()
    if isinstance(sweep, ChoiceSweep) and any(isinstance(v, Sweep) for v in sweep.list):
        raise UsageError(
            f"{_line(override)}: a list of values cannot hold interval(...) or range(...);"
            " search one interval that holds them all"
        )
    is_shuffled = bool(getattr(sweep, "shuffle", False))
    if is_shuffled and isinstance(sweep, ChoiceSweep | RangeSweep):
        override = replace(override, _value=replace(sweep, shuffle=False))
    raw = list(islice(override.sweep_iterator(), _MOST_VALUES + 1))
    if len(raw) > _MOST_VALUES:
        raise UsageError(f"{_line(override)}: more than {_MOST_VALUES:,} values")
    if is_shuffled:  # the same order in every process, so that a sweep can be continued
        random.Random(_line(override)).shuffle(raw)
    if not raw:
        raise UsageError(f"{_line(override)}: {_nothing(app, override)}")
    _check_options(app, override, raw)
    return raw


def _nothing(app: App, override: Override) -> str:
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        options = app.options(override.key_or_group)
        have = f"its options are {', '.join(options)}" if options else "it is no config group"
        return f"the pattern matches nothing in {override.key_or_group}: {have}"
    return "the range is empty: start, stop (excluded) and step give no value"


def _check_options(app: App, override: Override, raw: Sequence[Any]) -> None:
    options = app.options(override.key_or_group)
    for value in raw:
        if options and isinstance(value, str) and value not in options:
            raise UsageError(
                f"{_line(override)}: {override.key_or_group} has no option {value!r}"
                f"{nearest(value, options)} (options: {', '.join(options)})"
            )
