"""How a Gaussian process sees a space."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_cases import SPACES, law, spaces, unit

from hydra_plugins.tune_sweeper.search._features import Features
from hydra_plugins.tune_sweeper.search._space import (
    LOG,
    Choice,
    Condition,
    Interval,
    Parameter,
    Space,
    canonical,
)


def encoded(space: Space, *configurations: dict[str, object]) -> np.ndarray:
    """Features (n, f) of configurations."""
    features = Features(space)
    return features.encode(features.snap(np.array([space.to_unit(c) for c in configurations])))


@law
@given(spaces(), st.data())
def test_snapping_agrees_with_the_values(space: Space, data: st.DataObject) -> None:
    """A snapped point is the point of the configuration that it stands for."""
    U = np.array([[data.draw(unit) for _ in space.names]])
    snapped = Features(space).snap(U)
    values = space.from_unit([float(u) for u in snapped[0]])

    assert snapped[0] == pytest.approx(space.to_unit(values), abs=1e-6)


@law
@given(spaces(), st.data())
def test_snapping_twice_changes_nothing(space: Space, data: st.DataObject) -> None:
    """And the argument stays as it was."""
    U = np.array([[data.draw(unit) for _ in space.names] for _ in range(3)])
    before = U.copy()
    snapped = Features(space).snap(U)

    assert np.array_equal(snapped, Features(space).snap(snapped))
    assert np.array_equal(before, U)


@law
@given(spaces(), st.data())
def test_equal_configurations_have_equal_features(space: Space, data: st.DataObject) -> None:
    """Where an absent parameter stands in the unit cube does not matter; different ones differ."""
    U = np.array([[data.draw(unit) for _ in space.names] for _ in range(4)])
    features = Features(space)
    F = features.encode(features.snap(U))
    values = [space.from_unit([float(x) for x in u]) for u in features.snap(U)]

    assert F.shape == (4, len(features.groups))
    for i in range(4):
        for j in range(i):
            same = canonical(values[i]) == canonical(values[j])
            assert same == np.allclose(F[i], F[j], atol=1e-9)


def test_unordered_choices_are_equally_far_apart() -> None:
    """No order is read into `cnn, mlp, vit`; the distance is that of an interval's ends."""
    space = Space((Choice("model", ("cnn", "mlp", "vit", None)),))
    F = encoded(space, *({"model": m} for m in ("cnn", "mlp", "vit", None)))
    far = np.sqrt(((F[:, None] - F[None]) ** 2).sum(axis=2))

    assert far == pytest.approx(1 - np.eye(4))


def test_ordered_choices_keep_their_order() -> None:
    """Neighbours are near."""
    space = Space((Choice("batch_size", (16, 32, 64), is_ordered=True),))
    F = encoded(space, *({"batch_size": b} for b in (16, 32, 64)))[:, 0]

    assert F[0] < F[1] < F[2]


def test_absent_parameters_do_not_matter() -> None:
    """Two trainings with adam are equal, wherever momentum would stand."""
    space = Space(
        (Choice("optimizer", ("adam", "sgd")), Interval("momentum", 0, 1), Choice("x", (1, 2, 3))),
        (Condition("momentum", "optimizer", ("sgd",)), Condition("x", "optimizer", ("sgd",))),
    )
    features = Features(space)
    U = np.array([[0.1, 0.2, 0.3], [0.1, 0.9, 0.9], [0.9, 0.2, 0.3], [0.9, 0.9, 0.9]])
    F = features.encode(features.snap(U))

    assert np.array_equal(F[0], F[1])
    assert not np.array_equal(F[2], F[3])


def test_chain_of_conditions_reaches_the_features() -> None:
    """A grandchild of an absent parameter is absent."""
    space = Space(
        tuple(Choice(name, (1, 2)) for name in "abc"),
        (Condition("b", "a", (1,)), Condition("c", "b", (1,))),
    )
    features = Features(space)
    U = np.array([[0.9, 0.1, 0.1], [0.9, 0.1, 0.9], [0.1, 0.9, 0.9], [0.1, 0.9, 0.1]])
    F = features.encode(features.snap(U))

    assert np.array_equal(F[0], F[1])
    assert np.array_equal(F[2], F[3])


@pytest.mark.parametrize(
    "parameter",
    [
        Interval("n", 0, 99_999, is_integer=True),
        Interval("n", 1, 99_999, is_integer=True, scale=LOG),
    ],
)
def test_many_integers_are_as_good_as_continuous(parameter: Parameter) -> None:
    """A range of 100,000 values is not listed."""
    U = np.array([[0.1234567]])

    assert np.array_equal(U, Features(Space((parameter,))).snap(U))


def test_groups_name_the_parameter_of_each_feature() -> None:
    """One feature a parameter, and one a value of unordered choices of more than two."""
    assert list(Features(SPACES["mixed"]).groups) == [0, 0, 0, 1, 2, 3, 4, 4, 4, 4, 5]
