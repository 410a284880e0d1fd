"""The scale on which a Gaussian process sees scores: relative to the best, and often logarithmic.

scores (n,) as told     r (n,) relative: the best is 0, the median 1     y (n,) mean 0, sd 1
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Array = np.ndarray

LOWEST, HIGHEST = np.log(0.01), np.log(1e4)  # bounds of log c; far above all scores: no warp
_MOST_GAP = 3.0  # between neighbouring scores, in units of the range below or of the median


def relative(scores: Array) -> Array:
    """Scores from the best, 0, over the median, 1; all 0 when they are equal.

    A gap between neighbours may be three times as large as the range of all better scores: a cliff
    of diverged trainings stays a cliff, but one in sight of the rest.
    """
    above = scores / 4.0 - scores.min() / 4.0  # a quarter, so that nothing overflows
    median, top = np.median(above), above.max()
    unit = median if median > 1e-9 * top else top  # half of the scores may be equal
    return _with_small_gaps(above / unit) if unit > 0 else np.zeros(len(scores))


def _with_small_gaps(r: Array) -> Array:
    order = np.argsort(r, kind="stable")
    out = np.zeros(len(r))
    for below, here in pairwise(order):
        gap = min(r[here] - r[below], _MOST_GAP * max(out[below], 1.0))
        out[here] = out[below] + gap
    return out


def standardise(scores: Array) -> Array:
    """Scores with mean 0 and standard deviation 1; all 0 when they are equal."""
    sd = float(np.std(scores))
    return np.asarray((scores - np.mean(scores)) / sd if sd > 0 else np.zeros(len(scores)))


def warp(r: Array, log_c: float) -> Array:
    """Relative scores on the scale log(1 + r / c), standardised."""
    return standardise(np.log1p(r * np.exp(-log_c)))


def warp_slopes(r: Array, log_c: float) -> tuple[Array, Array, float, float]:
    """Warped scores (n,), their slopes (n,) by log c, the log Jacobian and its slope by log c.

    The Jacobian makes likelihoods on different scales comparable: Snelson, Ghahramani and
    Rasmussen, "Warped Gaussian processes" (NeurIPS 2003), equation 6.
    """
    ratio = r * np.exp(-log_c)
    raw, slope = np.log1p(ratio), -ratio / (1.0 + ratio)
    sd = float(np.std(raw))
    y = (raw - raw.mean()) / sd
    sd_slope = float(np.mean(y * slope))
    y_slope = (slope - slope.mean() - y * sd_slope) / sd
    log_jacobian = -np.sum(raw) - len(r) * (log_c + np.log(sd))
    jacobian_slope = -np.sum(slope) - len(r) * (1.0 + sd_slope / sd)
    return y, y_slope, float(log_jacobian), float(jacobian_slope)


@dataclass(frozen=True)
class Scale:
    """The way from scores to targets and back."""

    scores: Array  # (n,) in increasing order
    r: Array  # (n,) the same, relative
    log_c: float

    @classmethod
    def of(cls, scores: Array, log_c: float) -> "Scale":
        """The scale that these scores define."""
        order = np.argsort(scores, kind="stable")
        return cls(scores[order], relative(scores)[order], log_c)

    def to_scores(self, y: Array) -> Array:
        """Scores (m,) that stand at y (m,); beyond the worst of all the worst."""
        raw = np.log1p(self.r * np.exp(-self.log_c))
        r = np.expm1(np.clip(raw.mean() + y * raw.std(), -1.0, 50.0)) * np.exp(self.log_c)
        inside = np.interp(r, self.r, self.scores)
        return np.asarray(inside + np.minimum(r, 0.0) * self._unit)

    @property
    def _unit(self) -> float:
        """Of scores per relative one, at the best."""
        i = int(np.searchsorted(self.r, 0.0, side="right"))
        return float((self.scores[i] - self.scores[0]) / self.r[i]) if i < len(self.r) else 0.0
