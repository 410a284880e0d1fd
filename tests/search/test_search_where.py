"""Constraints: what they may say, and what they mean."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_cases import law

from hydra_plugins.tune_sweeper.search._where import Where

NAMES = ("x", "y", "model", "data.size")


def where(text: str, **constants: Any) -> Where:
    return Where(text, constants, NAMES)


MEANS: list[tuple[str, dict[str, Any], bool]] = [
    ("x + y * 2 - 1 < 5", {"x": 1, "y": 2}, True),
    ("x + y * 2 - 1 < 5", {"x": 3, "y": 2}, False),
    ("x / y == 0.5 and x // y == 0 and x % y == 1", {"x": 1, "y": 2}, True),
    ("-x < 0", {"x": 1}, True),
    ("0 < x <= y", {"x": 2, "y": 2}, True),
    ("0 < x <= y", {"x": 3, "y": 2}, False),
    ("0 < x <= y", {"x": 0, "y": 2}, False),
    ("x != y", {"x": 1, "y": 1}, False),
    ("x >= 1 or y > 9", {"x": 0, "y": 10}, True),
    ("not (x > 1 or y > 1)", {"x": 0, "y": 0}, True),
    ("model in ['cnn', 'mlp']", {"model": "cnn"}, True),
    ("model not in ('cnn', 'mlp')", {"model": "cnn"}, False),
    ("model == 'a b'", {"model": "a b"}, True),
    ("x == true", {"x": True}, True),
    ("x == None and y == null", {"x": None, "y": None}, True),
    ("(x == false) == False", {"x": 1}, True),
    ("data.size * x < 10", {"data.size": 3, "x": 3}, True),
    ("  x < 1\n", {"x": 0}, True),
]


@pytest.mark.parametrize(("text", "values", "expected"), MEANS, ids=[m[0] for m in MEANS])
def test_where_means_what_it_says(text: str, values: dict[str, Any], expected: bool) -> None:
    """Arithmetic, comparisons, membership and logic as in Python; true, null as in YAML."""
    assert expected is where(text)(values)


@law
@given(st.sampled_from("+-*"), st.integers(-99, 99), st.integers(-99, 99), st.floats(-9, 9))
def test_where_computes_as_python(op: str, x: int, y: int, bound: float) -> None:
    """Also with precedence and brackets."""
    text = f"(x {op} y) * 2 {op} x < {bound!r}"

    assert eval(text, {}, {"x": x, "y": y}) == where(text)({"x": x, "y": y})


REFUSED = [
    "__import__('os').system('true')",
    "x.__class__",
    "(1).real",
    "'a'.upper()",
    "abs(x)",
    "x[0]",
    "lambda: x",
    "[i for i in (1, 2)]",
    "x if y else 1",
    "(x := 1)",
    "f'{x}'",
    "{'a': x}",
    "{x, y}",
    "x ** y",
    "x << 2",
    "x & y",
    "~x",
    "x is None",
    "1j < x",
    "b'a' == x",
    "...",
    "[*x]",
]


@pytest.mark.parametrize("text", REFUSED)
def test_where_refuses_everything_else(text: str) -> None:
    """No call, no subscript, no attribute of a value; the message shows the whole expression."""
    with pytest.raises(ValueError) as caught:
        where(text)

    assert f"where={text!r}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "x <", "x = 1", "import os", "x < 1; y", "((x)", "\0"])
def test_where_refuses_what_is_no_expression(text: str) -> None:
    """With the text as it was typed."""
    with pytest.raises(ValueError) as caught:
        where(text)

    assert f"where={text!r} is not an expression" in str(caught.value)


def test_where_names_what_the_config_has_not() -> None:
    """A misspelt name is found before anything runs."""
    with pytest.raises(ValueError, match=r"names 'data\.sizes', which the config has not"):
        where("data.sizes < x", n=3)


@pytest.mark.parametrize("text", ["x < 1", "not x < 1", "y < 1 and x < 1", "x in [1]"])
def test_where_passes_when_a_name_is_absent(text: str) -> None:
    """A parameter whose condition does not hold constrains nothing."""
    assert where(text)({"y": 0})


@pytest.mark.parametrize("text", ["x / y < 1", "x // y < 1", "not x % y < 1"])
def test_where_is_false_when_it_divides_by_zero(text: str) -> None:
    """Such a configuration cannot be what the user meant to allow."""
    assert not where(text)({"x": 1, "y": 0})


def test_where_shows_the_configuration_that_it_cannot_judge() -> None:
    """Comparing a text with a number is the user's mistake, not a verdict."""
    with pytest.raises(ValueError, match=r"fails for \{'model': 'cnn'\}: '<' not"):
        where("model < 3")({"model": "cnn"})


def test_where_reads_constants_of_the_config() -> None:
    """A searched value of the same name wins."""
    rule = where("x < n", n=3, x=99)

    assert rule({"x": 2})
    assert not rule({"x": 3})


class Counting(Mapping[str, Any]):
    """Constants that are found by key only, as in a nested config, and that count look-ups."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.found = found
        self.n_looked_up = 0

    def __getitem__(self, key: str) -> Any:
        self.n_looked_up += 1
        return self.found[key]

    def __iter__(self) -> Iterator[str]:
        return iter({key.split(".")[0] for key in self.found})

    def __len__(self) -> int:
        return len(list(iter(self)))


def test_where_finds_constants_deep_in_a_config() -> None:
    """By the dotted key that `where` names, though the config lists only its first level."""
    rule = Where("x < optimizer.momentum", Counting({"optimizer.momentum": 0.5}), NAMES)

    assert [rule({"x": 0.4}), rule({"x": 0.6})] == [True, False]


def test_where_looks_constants_up_once() -> None:
    """A config is slow to read, and a strategy asks thousands of times."""
    constants = Counting({"n": 3, "other": 1})
    rule = Where("x < n", constants, NAMES)
    n_before = constants.n_looked_up
    for x in range(100):
        rule({"x": x})

    assert n_before == constants.n_looked_up
