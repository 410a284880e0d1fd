"""What is believed about configurations, from what their trainings told.

Between the space and the process: configurations become features, and columns beside them say as
what they were trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ._features import Features
from ._model import Data, make_model
from ._space import Values

Array = np.ndarray

_N_TOPS = 5


@dataclass(frozen=True)
class Row:
    """What one training told.

    `away` says in which ways it was not what counts, 0 for none: trained for less long, part of an
    earlier sweep. The model learns how much each of them matters.
    """

    values: Values
    score: float | None  # smaller is better; None: it failed
    away: tuple[float, ...] = ()  # as long in all rows of a model


class Surrogate:
    """A model of rows, at least two of them with a score.

    It is asked about points U (m, d) of the unit cube, as if their trainings counted in full.
    `rng` has been drawn from; whoever goes on from the model goes on with it.
    """

    def __init__(
        self,
        features: Features,
        rows: Sequence[Row],
        pending: Sequence[Values],
        *,
        acquisition: str,
        rng: np.random.Generator,
    ) -> None:
        good = [row for row in rows if row.score is not None]
        failed = [row for row in rows if row.score is None]
        self._features = features
        self.rng = rng
        self.U = features.units([row.values for row in good])  # (n, d) of those with a score
        self.scores = np.array([row.score for row in good], dtype=float)  # (n,)
        self._n_away = len(rows[0].away)
        data = Data(
            F=self._encode(self.U, good),
            scores=self.scores,
            failed=self._encode(features.units([row.values for row in failed]), failed),
            pending=self._in_full(features.units(pending)),
            groups=self._groups(),
            places=self._in_full(self.U),
        )
        self._model = make_model(data, acquisition=acquisition, rng=rng)
        self.means = self._model.means  # (n,) predicted, on the model's scale

    def acquisition(self, U: Array) -> Array:
        """How promising points are (m,)."""
        return self._model.acquisition(self._in_full(U))

    def explain(self, values: Values) -> dict[str, float]:
        """What is predicted of a configuration."""
        return self._model.explain(self._in_full(self._features.units([values])))

    def left_out(self) -> Array:
        """What is predicted for each row with a score (n,) by all the others."""
        return self._model.left_out()

    def tops(self) -> Array:
        """The best places that were tried (k, d), the best first."""
        _, first = np.unique(self.U, axis=0, return_index=True)  # one may stand at several rungs
        order = first[np.argsort(self.means[first], kind="stable")]
        return self.U[order[:_N_TOPS]]

    def _in_full(self, U: Array) -> Array:
        """Features (m, f) of points whose trainings count in full."""
        return np.hstack([self._features.encode(U), np.zeros((len(U), self._n_away))])

    def _encode(self, U: Array, rows: Sequence[Row]) -> Array:
        """Features (m, f) of the points of rows, and columns that say as what they were trained.

        The length scale of these columns says how much the others have to do with what counts.
        """
        F = self._in_full(U)
        F[:, F.shape[1] - self._n_away :] = [row.away for row in rows] if rows else 0.0
        return F

    def _groups(self) -> Array:
        """The parameter that each feature belongs to; the columns beside them make one more."""
        groups = self._features.groups
        return np.append(groups, np.full(self._n_away, groups[-1] + 1))
