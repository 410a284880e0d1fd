"""Whether results of earlier sweeps help to predict those of the present one.

The ranking loss of Feurer, Letham, Hutter and Bakshy, "Practical transfer learning for Bayesian
optimization" (2018), section 4: it does not ask for equal units, only for the same order.
"""

import numpy as np

Array = np.ndarray

FEWEST_RANKED = 4  # present trials before their order says anything: of 3, one order in 6 is right
_MOST_MISRANKED = 0.25  # of the pairs; half of them are by chance


def deserve_trust(scores: Array, with_them: Array, without: Array) -> bool:
    """Whether present scores (n,) are ranked well, and not worse than without the earlier results.

    `with_them` and `without` (n,) are predictions, each of a trial's score from all other trials.

    >>> scores, right, wrong = np.array([[1.0, 2.0, 4.0], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    >>> deserve_trust(scores, right, wrong), deserve_trust(scores, wrong, right)
    (True, False)
    """
    wrong, wrong_without = (n_misranked(scores, p) for p in (with_them, without))
    n_pairs = len(scores) * (len(scores) - 1) // 2
    return wrong <= min(wrong_without, _MOST_MISRANKED * n_pairs)


def n_misranked(scores: Array, predicted: Array) -> int:
    """Pairs that are predicted in the wrong order."""
    is_wrong = np.less.outer(scores, scores) != np.less.outer(predicted, predicted)
    return int(np.triu(is_wrong, 1).sum())
