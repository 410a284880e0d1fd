"""Sequences of configurations that look at no result: the whole of random search, the start of the
other strategies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import qmc

from ._space import Space, canonical

SAMPLERS = ("sobol", "iid")
# A discrete space can run out of new configurations: so many misses in a row end the sequence.
_MAX_MISSES = 2000
_BLOCK = 64  # points of the Sobol sequence that are drawn at once; one costs as much as these
_INNER = 0.75  # corners tell little of the rest


class Design:
    """New configurations one after the other: the `initial` ones, then points of the unit cube.

    `sobol` is a scrambled Sobol sequence (Owen, "Scrambling Sobol' and Niederreiter-Xing points",
    J. Complexity 14, 1998, as scipy does it), `iid` draws independently. The k-th configuration
    depends on the seed and k alone; none comes twice, and none that `where` forbids. The first
    `n_inner` points come from the inner three quarters of each range.

    Raises:
        ValueError: an unknown sampler.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        initial: Sequence[Mapping[str, Any]] = (),
        sampler: str = "sobol",
        n_inner: int = 0,
    ) -> None:
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler={sampler!r} is unknown: one of {', '.join(SAMPLERS)}")
        self._space = space
        self._seed = seed
        self._initial = list(initial)
        self._block: list[list[float]] = []  # points to come, the next one last
        self._engine = qmc.Sobol(len(space), rng=seed) if sampler == "sobol" else None
        self._n_inner = n_inner
        self._n_drawn = 0
        self._seen: set[str] = set()
        self._is_over = False

    def skip(self, values: Mapping[str, Any]) -> None:
        """A configuration that must not come (again)."""
        self._seen.add(canonical(values))

    def skip_canonical(self, text: str) -> None:
        """The same for a configuration's canonical text."""
        self._seen.add(text)

    def next(self) -> dict[str, Any] | None:
        """The next new configuration; None, for ever, when the space seems to have no more."""
        values, _ = self._new()
        return values

    def accept(self, values: Mapping[str, Any]) -> None:
        """Draws what an earlier process drew; what differs, in another space, comes later."""
        drawn, text = self._new()
        if drawn == values:
            return
        if drawn is not None:
            self._seen.discard(text)
            self._initial.insert(0, drawn)
        self.skip(values)

    def _new(self) -> tuple[dict[str, Any] | None, str]:
        """The next configuration that was not seen before, and its canonical text."""
        for _ in range(0 if self._is_over else _MAX_MISSES):
            values = self._draw()
            text = canonical(values)
            if text not in self._seen and self._space.allows(values):
                self._seen.add(text)
                return values, text
        self._is_over = True
        return None, ""

    def _draw(self) -> dict[str, Any]:
        if self._initial:
            return dict(self._initial.pop(0))
        self._n_drawn += 1
        reach = _INNER if self._n_drawn <= self._n_inner else 1.0
        return self._space.from_unit([0.5 + reach * (u - 0.5) for u in self._point()])

    def _point(self) -> list[float]:
        """The next point of the unit cube."""
        if self._engine is None:
            rng = np.random.default_rng([self._seed, self._n_drawn])
            return [float(u) for u in rng.random(len(self._space))]
        if not self._block:
            self._block = self._engine.random(_BLOCK)[::-1].tolist()
        return self._block.pop()
