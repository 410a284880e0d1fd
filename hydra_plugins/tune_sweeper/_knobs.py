"""What an app says of its own keys in `knobs.yaml`: type, range, natural scale, and more.

An app without that file is swept all the same: then every key is free and every scale linear.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._errors import UsageError, nearest
from .search._space import LINEAR, Choice, Interval, Parameter

FILE = "knobs"

_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}

_GROUP = "group"  # a config group; which options it has is Hydra's to say
_KINDS = (*_TYPES, "choice", _GROUP)


@dataclass(frozen=True)
class Knob:
    """One row of knobs.yaml."""

    name: str
    type: str = "str"
    range: str | None = None  # "(0, 1]": a round bracket leaves the bound out
    choices: tuple[Any, ...] = ()
    nullable: bool = False
    scale: str = LINEAR
    mutable: bool | None = None  # in mid-training; None: it does not say
    per_job: bool = False  # it acts on what one job has seen, not on what its parents had
    sweep: str = ""
    help: str = ""

    @property
    def is_integer(self) -> bool:
        """Whether an interval over this key means whole numbers."""
        return self.type == "int"

    @property
    def is_boolean(self) -> bool:
        """Whether the key takes true and false alone."""
        return self.type == "bool"

    def complaint(self, value: Any) -> str | None:
        """What was expected instead of `value`; None when it is legal."""
        if self.type == _GROUP or (value is None and self.nullable):
            return None
        if self.choices:
            is_known = value in self.choices
            return None if is_known else f"one of {', '.join(map(str, self.choices))}"
        if not isinstance(value, _TYPES[self.type]) or isinstance(value, bool) != self.is_boolean:
            return f"{'an' if self.type == 'int' else 'a'} {self.type}"
        if isinstance(value, int | float) and self.range and not _holds(self.range, value):
            return f"a number in {self.range}"
        return None


def parse(rows: Mapping[str, Any]) -> dict[str, Knob]:
    """The rows of knobs.yaml by key; fields that this version does not know are left out."""
    known = set(Knob.__dataclass_fields__)
    knobs = {}
    for name, row in rows.items():
        if not isinstance(row, Mapping) or row.get("type") not in _KINDS:
            continue  # another app may have a file of this name for something else
        fields = {k: v for k, v in row.items() if k in known}
        choices = tuple(fields.pop("choices", ()))
        knobs[name] = Knob(name=name, choices=choices, **fields)
    return knobs


def check(typed: str, parameter: Parameter, knob: Knob) -> None:
    """Holds a swept parameter against what the app says of the key.

    Raises:
        UsageError: a value or a bound that a training would refuse.
    """
    for value in _extremes(parameter):
        expected = knob.complaint(value)
        if expected is not None:
            hint = nearest(str(value), map(str, knob.choices))
            example = f", for instance {knob.name}={knob.sweep}" if knob.sweep else ""
            raise UsageError(f"{typed}: {value!r} is not {expected}{hint}{example}")


def _extremes(parameter: Parameter) -> list[Any]:
    if isinstance(parameter, Interval):
        return [parameter.from_unit(0.0), parameter.from_unit(1.0)]
    return list(parameter.choices) if isinstance(parameter, Choice) else []


def _holds(text: str, value: float) -> bool:
    low, high = (float(bound) for bound in text.strip("[]() ").split(","))
    above = value >= low if text.startswith("[") else value > low
    below = value <= high if text.endswith("]") else value < high
    return above and below and math.isfinite(value)
