"""How population-based training moves the hyperparameters that a member copied."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._space import LINEAR, LOG, Choice, Interval, Parameter, Space

_MOST_TRIES = 100  # to satisfy `where`


class Explore:
    """Moves each key on its own scale, or draws it anew; the result is legal and in the bounds.

    In the last step nothing is drawn anew that can be moved: it would have no time to pay.

    Raises:
        ValueError: factors whose product is not 1: they would drift in one direction.
    """

    def __init__(
        self, space: Space, *, factors: Sequence[float], linear: float, resample: float
    ) -> None:
        _check_factors(factors)
        if not 0 < linear <= 1 or not 0 <= resample <= 1:
            raise ValueError(f"linear={linear} and resample={resample}: expected shares of 1")
        self._space = space
        self._factors = [float(f) for f in factors]
        self._linear = linear
        self._resample = resample

    def __call__(
        self, values: Mapping[str, Any], rng: np.random.Generator, *, is_last: bool = False
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The moved values, and what happened to each key that may move."""
        resample = 0.0 if is_last else self._resample
        for _ in range(_MOST_TRIES):
            moved, moves = self._move_all(values, rng, resample)
            if self._space.allows(moved):
                return moved, moves
        return dict(values), {}

    def unproven(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
        """Changed keys of which nobody said whether a training can go on with another value."""
        changed = (name for name in new if name in old and new[name] != old[name])
        return [name for name in changed if self._space[name].is_frozen is None]

    def _move_all(
        self, values: Mapping[str, Any], rng: np.random.Generator, resample: float
    ) -> tuple[dict[str, Any], dict[str, str]]:
        moved, moves = dict(values), {}
        for p in self._space.parameters:
            if p.name in values and not p.is_frozen:
                moved[p.name], moves[p.name] = self._move(p, values[p.name], rng, resample)
        moved = self._complete(moved, rng)
        # A choice that moved may have switched keys on, and off.
        switched_on = {name: "resampled" for name in moved if name not in values}
        return moved, {k: how for k, how in moves.items() if k in moved} | switched_on

    def _complete(self, values: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Keys that a moved choice switched on are drawn, those that it switched off go."""
        drawn = {p.name: p.from_unit(float(rng.random())) for p in self._space.parameters}
        return self._space.prune({**drawn, **values})

    def _move(
        self, p: Parameter, value: Any, rng: np.random.Generator, resample: float
    ) -> tuple[Any, str]:
        if rng.random() < resample or _is_unordered(p):
            return p.from_unit(float(rng.random())), "resampled"
        if isinstance(p, Choice):
            return _neighbour(p, value, rng), "neighbour"
        assert isinstance(p, Interval)
        if p.scale == LINEAR:
            shift = float(rng.uniform(-self._linear, self._linear)) * (p.high - p.low)
            return _legal(p, value, value + shift), f"{shift:+.4g}"
        factor = self._factors[int(rng.integers(len(self._factors)))]
        target = value * factor if p.scale == LOG else 1.0 - (1.0 - value) * factor
        return _legal(p, value, target), f"x{factor:g}"


def _check_factors(factors: Sequence[float]) -> None:
    if not factors or min(factors) <= 0:
        raise ValueError(f"factors={list(factors)}: expected positive numbers")
    drift = math.prod(factors)
    if not math.isclose(drift, 1.0, rel_tol=1e-6):
        raise ValueError(
            f"factors={list(factors)}: their product is {drift:.3g}, not 1, so values would drift;"
            " use pairs of a number and its reciprocal, for instance [0.8, 1.25]"
        )


def _is_unordered(p: Parameter) -> bool:
    return isinstance(p, Choice) and not p.is_ordered


def _neighbour(p: Choice, value: Any, rng: np.random.Generator) -> Any:
    index, step = p.index(value), 1 if rng.random() < 0.5 else -1
    if len(p.choices) == 1:
        return value
    inside = 0 <= index + step < len(p.choices)
    return p.choices[index + step if inside else index - step]


def _legal(p: Interval, old: float, target: float) -> float:
    """The legal value nearest to the target; stepped values move by at least one step."""
    new = p.nearest(target)
    if p.n_values is None or new != old:
        return new
    step = p.step or 1
    moved = p.nearest(old + math.copysign(step, target - old))
    return moved if moved != old else p.nearest(old - math.copysign(step, target - old))
