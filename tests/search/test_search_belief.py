"""Beliefs about where the optimum lies: what they weigh, and when they are forgotten."""

import numpy as np
import pytest
from search_cases import LR, Tell, drive, make_bayes

from hydra_plugins.tune_sweeper.search._belief import Belief, most_believed
from hydra_plugins.tune_sweeper.search._space import LOG, Choice, Interval, Space

NOTHING = np.zeros((0, 2))
PLANE = Space((Interval("a", 0.0, 1.0), Interval("b", 0.0, 1.0)))
BELIEVED = Space((Interval("lr", 1e-4, 1e-1, scale=LOG, prior=1e-2), Interval("b", 0.0, 1.0)))


def weights(space: Space, U: list[list[float]], told: np.ndarray, means: list[float]) -> np.ndarray:
    """Log weights of points after trials with these posterior means."""
    return Belief(space).log_weight(np.array(U), told, np.array(means))


def test_edges_are_avoided_at_first() -> None:
    """The inside weighs nothing, a corner twice as much as an edge, and after 40 trials nothing."""
    inside, edge, corner = weights(PLANE, [[0.5, 0.2], [0.0, 0.5], [1.0, 0.0]], NOTHING, [])
    late = weights(PLANE, [[0.0, 0.0]], np.full((40, 2), 0.5), [0.0] * 40)

    assert inside == 0.0
    assert edge < 0.0
    assert corner == pytest.approx(2 * edge)
    assert late[0] == 0.0


def test_few_values_have_no_edges() -> None:
    """The ends of three choices are as good as the middle."""
    space = Space((Choice("n", (1, 2, 3), is_ordered=True), Choice("model", ("cnn", "mlp"))))

    assert list(weights(space, [[1 / 6, 0.25], [0.5, 0.75]], NOTHING, [])) == [0.0, 0.0]


def test_prior_is_tried_first_and_the_middle_without_one() -> None:
    """What the user believes, the rest in the middle of its scale; unordered choices by chance."""
    space = Space((*BELIEVED.parameters, Choice("model", ("cnn", "mlp", "vit"))))
    values = most_believed(space, np.array([0.9, 0.9, 0.9]))

    assert values == {"lr": pytest.approx(1e-2), "b": 0.5, "model": "vit"}
    assert make_bayes(BELIEVED).ask(1)[0].values == {"lr": pytest.approx(1e-2), "b": 0.5}
    assert make_bayes(Space((LR,))).ask(1)[0].values == {"lr": pytest.approx(10**-2.5)}


def test_prior_stands_behind_what_is_given() -> None:
    """`initial` configurations come first, then the prior."""
    first, second = make_bayes(BELIEVED, initial=[{"lr": 1e-3, "b": 0.1}]).ask(2)

    assert [first.values["lr"], second.values["lr"]] == pytest.approx([1e-3, 1e-2])


def test_prior_fades_with_the_trials() -> None:
    """Half of its weight is left after ten trials."""
    far, near = [0.2, 0.5], [2 / 3, 0.5]
    start = np.diff(weights(BELIEVED, [far, near], NOTHING, []))[0]
    told = np.full((10, 2), 0.5)
    later = np.diff(weights(BELIEVED, [far, near], told, [0.0] * 10))[0]

    assert start > 1.0
    assert later == pytest.approx(start / 2)


def test_prior_is_forgotten_when_trials_near_it_are_worse() -> None:
    """Two standard deviations worse: less than a twentieth is left; equally good: all of it."""
    points, told = [[0.2, 0.5], [2 / 3, 0.5]], np.array([[2 / 3, 0.5], [0.2, 0.5]])
    agree, equal, disagree = (
        np.diff(weights(BELIEVED, points, told, means))[0]
        for means in ([-1.0, 1.0], [0.0, 0.0], [1.0, -1.0])
    )

    assert agree == equal
    assert disagree < equal / 20


@pytest.mark.parametrize("prior", ["cnn", "vit"])
def test_prior_of_a_choice(prior: str) -> None:
    """The named choice weighs more than each other one."""
    space = Space((Choice("model", ("cnn", "mlp", "vit"), prior=prior),))
    weight = weights(space, [[1 / 6], [0.5], [5 / 6]], np.zeros((0, 1)), [])

    assert np.argmax(weight) == ("cnn", "mlp", "vit").index(prior)
    assert sorted(weight)[0] == sorted(weight)[1]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Interval("lr", 1e-4, 1e-1, prior=1.0), "prior=1 must lie between 0.0001 and 0.1"),
        (lambda: Choice("m", ("a", "b"), prior="c"), "prior='c' is none of the choices"),
    ],
)
def test_prior_outside_the_range_is_refused(make, text) -> None:  # type: ignore[no-untyped-def]
    """With the value."""
    with pytest.raises(ValueError, match=text):
        make()


def best_of(space: Space, optimum: float, seed: int) -> float:
    """The best score after 14 trials of a bowl in log lr and b."""

    def score(_: Space, p: object) -> float:
        u = space.to_unit(p.values)  # type: ignore[attr-defined]
        return float((u[0] - optimum) ** 2 + (u[1] - 0.3) ** 2)

    events = drive(make_bayes(space, seed=seed, n_trials=14), space, score=score)  # type: ignore[arg-type]
    scores = [o.score for e in events if isinstance(e, Tell) for o in e.observations]
    return float(min(s for s in scores if s is not None))


def test_wrong_prior_does_little_harm() -> None:
    """A belief 0.57 of the range off: after 14 trials the median regret of 6 seeds is small all the
    same. Measured: at most 5e-5.
    """
    assert np.median([best_of(BELIEVED, 0.1, seed) for seed in range(6)]) < 1e-3
