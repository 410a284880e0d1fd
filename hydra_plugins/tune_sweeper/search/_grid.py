"""Grid search: every combination, made one at a time, in the user's order."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ._space import Space, canonical
from ._trial import Count, Observation, Proposal

_ROUNDS = 8  # of the shuffle


class Grid:
    """Every combination of a space; the last parameter varies fastest.

    Combinations that `where` forbids, and repetitions that conditions cause, are left out. Nothing
    is stored per combination: the first trial of a grid of a million starts at once.

    Raises:
        ValueError: an interval without `points`.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        n_trials: int | None = None,
        points: int | dict[str, int] | None = None,
        shuffle: bool = False,
    ) -> None:
        _check_points(space, points)
        self._space = space
        self._axes = [p.grid(_points_of(p.name, points)) for p in space.parameters]
        self._n = math.prod(len(axis) for axis in self._axes)
        self._order = _Shuffled(self._n, seed) if shuffle else range(self._n)
        self._recorded: set[str] = set()
        self._pending = self._combinations()
        self._count = Count(n_trials)

    def __len__(self) -> int:
        return self._n

    def ask(self, n: int) -> list[Proposal]:
        """The next combinations."""
        proposals: list[Proposal] = []
        while len(proposals) < n and not self._count.is_full:
            values = next(self._pending, None)
            if values is None:
                break
            proposals.append(Proposal(trial=self._count.next_trial, values=values))
            self._count.add(self._count.next_trial)
        return proposals

    def accept(self, proposals: Sequence[Proposal]) -> None:
        """Leaves out the combinations that an earlier process proposed, wherever they stand."""
        self._recorded |= {canonical(proposal.values) for proposal in proposals}
        for proposal in proposals:
            self._count.add(proposal.trial)

    def tell(self, observations: Sequence[Observation]) -> None:
        """A grid looks at no result."""

    def needed_checkpoints(self) -> set[int]:
        """None: every combination is trained from scratch."""
        return set()

    def _combinations(self) -> Iterator[dict[str, Any]]:
        for index in self._order:
            values = self._at(index)
            active = self._space.prune(values)
            is_distinct = self._is_first(values, active) and self._is_new(active)
            if is_distinct and self._space.allows(active):
                yield active

    def _at(self, index: int) -> dict[str, Any]:
        values = {}
        for name, axis in zip(reversed(self._space.names), reversed(self._axes), strict=True):
            index, place = divmod(index, len(axis))
            values[name] = axis[place]
        return {name: values[name] for name in self._space.names}

    def _is_first(self, values: dict[str, Any], active: dict[str, Any]) -> bool:
        """Whether every parameter that does not exist here stands at its axis' first value."""
        return all(
            name in active or values[name] is axis[0]
            for name, axis in zip(self._space.names, self._axes, strict=True)
        )

    def _is_new(self, active: dict[str, Any]) -> bool:
        return not self._recorded or canonical(active) not in self._recorded


_MOST_POINTS = 1_000_000  # of one axis: more is a typing error


def _check_points(space: Space, points: Any) -> None:
    counts = points if isinstance(points, dict) else {"": points}
    for name, n in counts.items():
        if name and name not in space.names:
            raise ValueError(f"points={points}: {name} is not searched")
        is_number = isinstance(n, int) and not isinstance(n, bool)
        if n is not None and not (is_number and 1 <= n <= _MOST_POINTS):
            raise ValueError(
                f"points={points}: expected an integer from 1 to {_MOST_POINTS:,}, or one for each"
                " key, as {lr: 5}"
            )


def _points_of(name: str, points: int | dict[str, int] | None) -> int | None:
    return points.get(name) if isinstance(points, dict) else points


class _Shuffled:
    """A random order of range(n) that stores nothing: a Feistel network walked in cycles.

    Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, method 3.
    """

    def __init__(self, n: int, seed: int) -> None:
        self._n = n
        self._seed = seed
        self._half_bits = max(1, math.ceil(n.bit_length() / 2))

    def __iter__(self) -> Iterator[int]:
        for i in range(self._n):
            while (i := self._encrypt(i)) >= self._n:
                pass
            yield i

    def _encrypt(self, x: int) -> int:
        mask = (1 << self._half_bits) - 1
        left, right = x >> self._half_bits, x & mask
        for i in range(_ROUNDS):
            # A real hash: multiplications leave grids of a few combinations in the user's order.
            digest = hashlib.blake2b(f"{self._seed}/{i}/{right}".encode()).digest()
            left, right = right, left ^ (int.from_bytes(digest) & mask)
        return left << self._half_bits | right
