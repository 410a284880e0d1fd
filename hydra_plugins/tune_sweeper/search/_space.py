"""The search space: parameters, the conditions between them, and their map to the unit cube.

Values are what a job gets (numbers, strings, lists, ...); a unit value is a float in [0, 1] that a
strategy reasons about. Nothing here knows Hydra, and nothing needs numpy.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast

Value = Any  # what JSON can hold: None, bool, int, float, str, or a list or dict of these
Values = Mapping[str, Value]

LINEAR, LOG, REVERSE_LOG = "linear", "log", "reverse_log"
SCALES = (LINEAR, LOG, REVERSE_LOG)


class Parameter(Protocol):
    """One dimension of a space."""

    @property
    def name(self) -> str: ...
    @property
    def is_frozen(self) -> bool | None: ...
    @property
    def prior(self) -> Value | None:
        """Where the user believes the optimum, None when he said nothing."""
        ...

    @property
    def n_values(self) -> int | None:
        """Number of distinct values, None for a continuous parameter."""
        ...

    def to_unit(self, value: Value) -> float: ...
    def from_unit(self, u: float) -> Value: ...
    def contains(self, value: Value) -> bool: ...
    def cast(self, value: Value) -> Value: ...
    def grid(self, points: int | None) -> Sequence[Value]: ...
    def describe(self) -> str: ...


@dataclass(frozen=True)
class Interval:
    """Numbers between `low` and `high`, both included.

    `reverse_log` is a log scale in 1 - x: dense just below 1, as momentum needs.

    Raises:
        ValueError: bounds that are not finite, reversed, equal, or outside what the scale allows.

    >>> round(Interval("lr", 1e-4, 1e-1, scale="log").from_unit(0.5), 5)
    0.00316
    """

    name: str
    low: float
    high: float
    scale: str = LINEAR
    is_integer: bool = False
    step: float | None = None
    is_frozen: bool | None = None  # None: nobody said
    prior: float | None = None  # where the user believes the optimum

    def __post_init__(self) -> None:
        _check_bounds(self)
        _check_scale(self)
        _check_step(self)
        if self.prior is not None and not self.low <= self.prior <= self.high:
            raise ValueError(
                f"prior={self.prior:g} must lie between {self.low:g} and {self.high:g}"
            )

    @property
    def n_values(self) -> int | None:
        """Number of distinct values, None when continuous."""
        step = self._step
        return None if step is None else math.floor((self.high - self.low) / step + 1e-9) + 1

    def to_unit(self, value: float) -> float:
        """Position of `value` on the scale, in [0, 1]."""
        low, high = self._edges
        warp = _WARPS[self.scale]
        u = (warp(value) - warp(low)) / (warp(high) - warp(low))
        return min(max(u, 0.0), 1.0)

    def from_unit(self, u: float) -> float:
        """The legal value nearest to the position `u`."""
        low, high = self._edges
        warp, unwarp = _WARPS[self.scale], _UNWARPS[self.scale]
        return self.nearest(unwarp(warp(low) + u * (warp(high) - warp(low))))

    def contains(self, value: Value) -> bool:
        """Whether `value` is a number within the bounds that the step and the type allow."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        inside = self.low <= value <= self.high
        return inside and math.isclose(self.nearest(value), value, rel_tol=1e-9, abs_tol=1e-12)

    def cast(self, value: Value) -> Value:
        """The same number in this parameter's type; anything else unchanged."""
        return self.nearest(value) if self.contains(value) else value

    def grid(self, points: int | None) -> list[float]:
        """`points` values evenly spaced on the scale; every value of a stepped range when None."""
        n = self.n_values
        if points is None and n is None:
            raise ValueError(
                f"{self.describe()} is continuous: a grid needs points, for instance points=5"
            )
        if n is not None and (points is None or points >= n):
            return [self.nearest(self.low + i * cast(float, self._step)) for i in range(n)]
        n_points = cast(int, points)
        if n_points == 1:
            return [self.from_unit(0.5)]
        values = [self._between(i / (n_points - 1)) for i in range(n_points)]
        return list(dict.fromkeys(values))

    def describe(self) -> str:
        """The parameter in a user's words: `lr in [0.0001, 0.1], log`."""
        notes = [self.scale] if self.scale != LINEAR else []
        notes += ["integers"] if self.is_integer else []
        notes += [f"step {self.step:g}"] if self.step is not None else []
        return ", ".join([f"{self.name} in [{self.low:g}, {self.high:g}]", *notes])

    def _between(self, u: float) -> float:
        """Like from_unit, but 0 and 1 are the bounds (from_unit gives integers fair bins)."""
        warp, unwarp = _WARPS[self.scale], _UNWARPS[self.scale]
        return self.nearest(unwarp(warp(self.low) + u * (warp(self.high) - warp(self.low))))

    @property
    def _step(self) -> float | None:
        return self.step if self.step is not None else (1 if self.is_integer else None)

    @property
    def _edges(self) -> tuple[float, float]:
        """Bounds widened by half a step, so that every value of a stepped range has its own bin."""
        half = 0.0 if self._step is None else self._step / 2
        top = self.low + (cast(int, self.n_values) - 1) * 2 * half if half else self.high
        low = max(self.low - half, self.low / 2) if self.scale == LOG else self.low - half
        high = min(top + half, (1 + top) / 2) if self.scale == REVERSE_LOG else top + half
        return low, high

    def nearest(self, value: float) -> float:
        """The legal value nearest to any number."""
        step = self._step
        if step is None:
            return self._clipped(value)
        index = min(max(round((value - self.low) / step), 0), cast(int, self.n_values) - 1)
        snapped = self.low + index * step
        # 12 digits: 0.3, not 0.30000000000000004.
        return round(snapped) if self.is_integer else self._clipped(float(f"{snapped:.12g}"))

    def _clipped(self, value: float) -> float:
        return float(min(max(value, self.low), self.high))


def _check_bounds(p: Interval) -> None:
    for name, bound in (("low", p.low), ("high", p.high)):
        if not math.isfinite(bound):
            raise ValueError(f"{name}={bound} is not a finite number")
    if p.low > p.high:
        raise ValueError(f"low={p.low:g} is above high={p.high:g}: swap the bounds")
    if p.low == p.high:
        raise ValueError(f"low and high are both {p.low:g}: nothing to search; fix the value")
    if p.is_integer and (p.low != round(p.low) or p.high != round(p.high)):
        raise ValueError(f"integer bounds expected, got {p.low:g} and {p.high:g}")


def _check_scale(p: Interval) -> None:
    if p.scale not in SCALES:
        raise ValueError(f"scale {p.scale!r} is unknown: one of {', '.join(SCALES)}")
    if p.scale == LOG and p.low <= 0:
        raise ValueError(f"a log scale needs low > 0, got {p.low:g}")
    if p.scale == REVERSE_LOG and p.high >= 1:
        raise ValueError(f"a reverse_log scale needs high < 1, got {p.high:g}")


def _check_step(p: Interval) -> None:
    if p.step is None:
        return
    if not 0 < p.step <= p.high - p.low:
        raise ValueError(f"step={p.step:g} must lie between 0 and {p.high - p.low:g}")
    if p.is_integer and p.step != round(p.step):
        raise ValueError(f"step={p.step:g} of an integer parameter must be an integer")


_WARPS: dict[str, Callable[[float], float]] = {
    LINEAR: lambda x: x,
    LOG: math.log,
    REVERSE_LOG: lambda x: -math.log1p(-x),
}
_UNWARPS: dict[str, Callable[[float], float]] = {
    LINEAR: lambda x: x,
    LOG: math.exp,
    REVERSE_LOG: lambda x: -math.expm1(-x),
}


@dataclass(frozen=True)
class Choice:
    """One of a list of values; ordered when neighbours in the list are alike (numbers).

    Raises:
        ValueError: an empty list, or a value that stands in it twice.
    """

    name: str
    choices: tuple[Value, ...]
    is_ordered: bool = False
    is_frozen: bool | None = None
    prior: Value | None = None  # the choice that the user believes in

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("there is no value to choose from")
        if self.prior is not None and not self.contains(self.prior):
            raise ValueError(f"prior={self.prior!r} is none of the choices")
        if len(self.places) < len(self.choices):
            counts = Counter(canonical(c) for c in self.choices)
            twice = next(c for c in self.choices if counts[canonical(c)] > 1)
            raise ValueError(f"the value {twice!r} is listed twice")

    @cached_property
    def places(self) -> dict[str, int]:
        """Places by canonical value: a list of 100,000 would be searched for each of them."""
        return {canonical(c): i for i, c in enumerate(self.choices)}

    @property
    def n_values(self) -> int:
        """Number of choices."""
        return len(self.choices)

    def index(self, value: Value) -> int:
        """Place of `value` in the list."""
        return self.places[canonical(value)]

    def to_unit(self, value: Value) -> float:
        """Middle of the value's share of [0, 1]."""
        return (self.index(value) + 0.5) / len(self.choices)

    def from_unit(self, u: float) -> Value:
        """The choice whose share of [0, 1] holds `u`."""
        n = len(self.choices)
        return self.choices[min(int(u * n), n - 1)]

    def contains(self, value: Value) -> bool:
        """Whether `value` is one of the choices."""
        return canonical(value) in self.places

    def cast(self, value: Value) -> Value:
        """The choice that equals the value; anything else unchanged."""
        equal = (c for c in self.choices if c == value and isinstance(c, bool) == _is_bool(value))
        return next(equal, value)

    def grid(self, points: int | None) -> Sequence[Value]:
        """All choices: `points` is for intervals."""
        return self.choices

    def describe(self) -> str:
        """The parameter in a user's words: `model in {cnn, mlp}`."""
        shown = [str(c) for c in self.choices[:8]]
        more = [f"... {len(self.choices)} values"] if len(self.choices) > 8 else []
        return f"{self.name} in {{{', '.join(shown + more)}}}"


@dataclass(frozen=True)
class Condition:
    """`child` exists only while `parent` has one of `values`."""

    child: str
    parent: str
    values: tuple[Value, ...]


def _is_bool(value: Value) -> bool:
    return isinstance(value, bool)


_SORTED = json.JSONEncoder(sort_keys=True)  # made once: json.dumps makes one a call


def canonical(value: Value) -> str:
    """A text that is equal exactly for equal values: 1, 1.0 and True are three values."""
    return _SORTED.encode(value)


@dataclass(frozen=True)
class Space:
    """Parameters with their conditions, and a test that every proposed configuration passes.

    Raises:
        ValueError: a parameter twice, an unknown name in a condition, conditions in a circle.
    """

    parameters: tuple[Parameter, ...]
    conditions: tuple[Condition, ...] = ()
    where: Callable[[Values], bool] | None = None
    _parents: Mapping[str, tuple[Condition, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in self.names:
            if self.names.count(name) > 1:
                raise ValueError(f"{name} is searched twice")
        _check_conditions(self.parameters, self.conditions)
        parents = {n: tuple(c for c in self.conditions if c.child == n) for n in self.names}
        object.__setattr__(self, "_parents", parents)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in the user's order."""
        return tuple(p.name for p in self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        return self.parameters[self.names.index(name)]

    def prune(self, values: Values) -> dict[str, Value]:
        """The values whose conditions hold."""
        return {n: values[n] for n in self.names if n in values and self._is_active(n, values)}

    def from_unit(self, u: Sequence[float]) -> dict[str, Value]:
        """Configuration at the point `u` (d,) of the unit cube."""
        return self.prune({p.name: p.from_unit(x) for p, x in zip(self.parameters, u, strict=True)})

    def to_unit(self, values: Values) -> list[float]:
        """Point (d,) of the unit cube; a parameter that does not exist stands in the middle."""
        return [p.to_unit(values[p.name]) if p.name in values else 0.5 for p in self.parameters]

    def allows(self, values: Values) -> bool:
        """Whether the configuration satisfies `where`."""
        return self.where is None or self.where(values)

    def cast(self, values: Values) -> dict[str, Value]:
        """The values as this space writes them: 2 becomes 2.0 where floats are searched."""
        return {n: self[n].cast(v) if n in self.names else v for n, v in values.items()}

    def contains(self, values: Values) -> bool:
        """Whether the configuration is complete, legal and allowed."""
        if set(self.prune(values)) != set(values):
            return False
        wanted = {n for n in self.names if self._is_active(n, values)}
        legal = wanted == set(values) and all(self[n].contains(v) for n, v in values.items())
        return legal and self.allows(values)

    def _is_active(self, name: str, values: Values) -> bool:
        return all(
            c.parent in values
            and self._is_active(c.parent, values)
            and canonical(values[c.parent]) in [canonical(v) for v in c.values]
            for c in self._parents[name]
        )


def _check_conditions(parameters: tuple[Parameter, ...], conditions: tuple[Condition, ...]) -> None:
    by_name = {p.name: p for p in parameters}
    names = tuple(by_name)
    for c in conditions:
        for name in (c.child, c.parent):
            if name not in names:
                raise ValueError(f"the condition on {c.child} names {name}, which is not searched")
        parent = by_name[c.parent]
        never = [v for v in c.values if parent.n_values is None or not parent.contains(v)]
        if never or not c.values:
            raise ValueError(
                f"the condition on {c.child}: {c.parent} is never {never[0] if never else 'that'!r}"
                f" ({parent.describe()})"
            )
    edges = {(c.child, c.parent) for c in conditions}
    reached = set(edges)
    while more := {(a, d) for a, b in reached for c, d in edges if b == c} - reached:
        reached |= more
    if loops := sorted(a for a, b in reached if a == b):
        raise ValueError(f"the condition on {loops[0]} depends on itself")
