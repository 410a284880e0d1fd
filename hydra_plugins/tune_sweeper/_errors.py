"""How a user's mistake travels to the terminal."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """A user's mistake, told in one sentence: what is wrong, what was expected, what to type."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'lr'?` with the known names most like `name`, or nothing."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
