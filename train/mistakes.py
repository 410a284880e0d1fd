"""What Hydra complains about, in one sentence with the nearest legal names.

Knows no torch, numpy or scipy.
"""

import re
import sys
from collections.abc import Iterable

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from .check import nearest

LISTING = "python train.py --help"

FUNCTIONS = ("interval", "range", "choice", "glob", "tag", "int", "float", "sort", "shuffle")
"""Of the override grammar, as far as they search for anything."""


def sentence_of(error: HydraException) -> str:
    """What Hydra complains about, in one sentence with the nearest legal names."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(error)
    text = str(error).strip()
    if found := re.search(r"(?:Sweep parameters|Ambiguous value for argument) '(.*?)'", text):
        return f"{found[1]}: a sweep needs -m: python train.py -m '{found[1]}'"
    if hint := _meant_a_group(sys.argv[1:]):
        return hint
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _wrong_key(cause)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {_unreadable(error.override, text)}"
    return " ".join(text.split("\n")[:2])


def _meant_a_group(typed: Iterable[str]) -> str | None:
    """hydra.sweeper=bayes sets a key; hydra/sweeper=bayes chooses an option."""
    for word in typed:
        found = re.fullmatch(r"(?:hydra[./])?(sweeper|launcher)s?=(\w+)", word)
        if found and not word.startswith(f"hydra/{found[1]}="):
            return f"{word}: did you mean hydra/{found[1]}={found[2]}?"
    return None


def _unreadable(override: str, text: str) -> str:
    """Why the override grammar does not know it, in the words of somebody who types."""
    if "=" not in override:
        return f"expected key=value, for instance lr=0.1, or +{override}=<value> for a new key"
    if any(override.count(a) != override.count(b) for a, b in ("()", "[]", "{}")):
        return "a bracket is not closed"
    if found := re.search(r"Unknown function '(\w+)'", text):
        near = nearest(found[1], FUNCTIONS)
        hint = f"; did you mean {near}(...)?" if near else ""
        return f"there is no function {found[1]}{hint} (known: {', '.join(FUNCTIONS)})"
    if "positional arguments" in text:
        return f"{text.splitlines()[0]}; a scale is a tag, as lr=tag(log,interval(1e-4,1e-1))"
    return (
        "cannot be read; no blanks round =, a list as lr=0.1,0.2, a range of numbers as"
        " 'lr=interval(1e-4,1e-1)', and text with special characters in quotes"
    )


def _missing_option(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = sorted(error.options or [])
    near = nearest(name, options)
    if not group:
        hint = f"; did you mean {near}?" if near else ""
        return f"--config-name {name}: there is no such config{hint}"
    hint = f"; did you mean {group}={near}?" if near else ""
    listed = f" (options: {', '.join(options)})" if options else ""
    return f"{group}={name}: there is no such option{hint}{listed}"


def _wrong_key(cause: OmegaConfBaseException) -> str:
    """A key that the config has not, or a value of the wrong type."""
    key = cause.full_key or ""
    first = str(cause).strip().split("\n")[0]
    if "not in" not in first:
        return f"{key}: {first}"
    head, _, last = key.rpartition(".")
    siblings = [str(k) for k in cause.parent_node or {}]
    near = nearest(last, siblings)
    prefix = f"{head}." if head else ""
    hint = f"; did you mean {prefix}{near}?" if near else ""
    where = "python train.py --cfg hydra -p hydra.sweeper" if head == "hydra.sweeper" else LISTING
    return f"{key}: there is no such key{hint} (`{where}` lists them)"
