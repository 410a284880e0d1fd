"""conf/knobs.yaml applied to a config: one sentence per wrong value.

Knows no torch, numpy or scipy: a misspelt number is answered before anything heavy is imported.

    ValueError
      ConfigRefused    a value that cannot be trained with; the sentence is meant for the user
"""

import difflib
import math
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, ListConfig, OmegaConf

KNOBS_FILE = Path(__file__).parent.parent / "conf" / "knobs.yaml"

Knob = Mapping[str, Any]
Entry = TypeVar("Entry")

_ABSENT = object()
_INTERVAL = re.compile(r"([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])")


class ConfigRefused(ValueError):
    """A configuration that cannot be trained with; its text is one sentence for the user."""

    is_refusal = True


class KnobCheck(Callback):
    """Hydra callback that ends a run with exit code 2 before it leaves anything on disk."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check a single run."""
        _exit_if_wrong(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the fixed values of a sweep; the sweeper checks the swept ones."""
        _exit_if_wrong(config)


def _exit_if_wrong(config: DictConfig) -> None:
    sentences = check(config, load_knobs())
    if sentences:
        print("\n".join(f"error: {sentence}" for sentence in sentences), file=sys.stderr)
        # Hydra turns an ordinary exception of a callback into a warning and goes on.
        raise SystemExit(2)


def refuse_wrong_knobs(cfg: DictConfig) -> None:
    """Raise ConfigRefused when a fixed value of `cfg` contradicts conf/knobs.yaml."""
    sentences = check(cfg, load_knobs())
    if sentences:
        raise ConfigRefused("\n".join(sentences))


@lru_cache  # a tenth of a short training, and the file stays as it is
def load_knobs(file: Path = KNOBS_FILE) -> dict[str, Knob]:
    """The rows of knobs.yaml by their dotted key, without those of config groups."""
    knobs = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(knobs, dict), f"{file} must be a mapping of keys"
    return {str(key): knob for key, knob in knobs.items() if knob["type"] != "group"}


def check(cfg: DictConfig, knobs: Mapping[str, Knob]) -> list[str]:
    """One sentence for each value of `cfg` that its knob does not allow."""
    found = (_check_key(cfg, key, knob) for key, knob in knobs.items())
    sentences = [
        *_targets(cfg),
        *_missing(cfg, knobs),
        *(sentence for sentence in found if sentence),
    ]
    return sentences or [sentence for sentence in [_check_direction(cfg)] if sentence]


def _targets(node: Any, prefix: str = "") -> list[str]:
    """`_target_` names code to call; nothing of a config is ever called, so it is refused."""
    if isinstance(node, ListConfig):
        children = [(str(i), node._get_node(i)) for i in range(len(node))]
    elif isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        # Hydra's own node is not the trainer's to judge.
        keys = [key for key in node if prefix or key != "hydra"]
        children = [(str(key), node._get_node(key)) for key in keys]
    else:
        return []
    found = [name for name, _ in children if name == "_target_"]
    sentences = [f"{prefix}{name}: components are chosen by name, as model=cnn" for name in found]
    deeper = (_targets(child, f"{prefix}{name}.") for name, child in children)
    return [*sentences, *(sentence for some in deeper for sentence in some)]


GROUPS = ("data", "model", "optimizer", "schedule", "trainer", "objective")
"""Parts that every configuration has; beside them the knobs without a dot."""


def _missing(cfg: DictConfig, knobs: Mapping[str, Knob]) -> list[str]:
    """What ~key took out of the config, although every training needs it."""
    needed = [*(key for key in knobs if "." not in key), *GROUPS]
    gone = [key for key in needed if key not in cfg]
    return [f"{key}: expected in every configuration; leave ~{key} out" for key in gone]


def _check_direction(cfg: DictConfig) -> str | None:
    """A sweep that minimises the accuracy would end with the worst model, and look well."""
    metric = str(OmegaConf.select(cfg, "objective.metric"))
    wanted = "maximize" if metric.endswith("/acc") else "minimize"
    if OmegaConf.select(cfg, "objective.direction") in (wanted, None):
        return None
    return f"objective.metric={metric}: type objective.direction={wanted} with it"


def _check_key(cfg: DictConfig, key: str, knob: Knob) -> str | None:
    value = OmegaConf.select(cfg, key, default=_ABSENT)
    return None if value is _ABSENT else check_value(key, value, knob)


def check_value(key: str, value: object, knob: Knob) -> str | None:
    """What is wrong with `value`, as a sentence, or None."""
    if (value is None and knob.get("nullable", False)) or _is_allowed(value, knob):
        return None
    expected = expectation(knob)
    return f"{key}={as_typed(value)}: expected {expected}{_instead(key, value, knob)}"


def _is_allowed(value: object, knob: Knob) -> bool:
    kind = knob["type"]
    if kind == "choice":
        # By type too: True == 1 in Python.
        return any(value == choice and type(value) is type(choice) for choice in knob["choices"])
    if kind in ("str", "bool"):
        return isinstance(value, str if kind == "str" else bool)
    number_types = (int,) if kind == "int" else (int, float)
    if isinstance(value, bool) or not isinstance(value, number_types):
        return False
    return is_inside(value, knob.get("range", "(-inf, inf)"))


def is_inside(value: float, interval: str) -> bool:
    """Whether a number lies in an interval such as "(0, 10]"; nan lies in none."""
    match = _INTERVAL.fullmatch(interval.strip())
    if match is None:
        raise ValueError(f"range {interval!r}: expected an interval such as (0, 10] or [1, inf)")
    low, high = float(match[2]), float(match[3])
    above = value >= low if match[1] == "[" else value > low
    below = value <= high if match[4] == "]" else value < high
    return above and below


def expectation(knob: Knob) -> str:
    """What a knob takes, in words: "a number in (0, 1)"."""
    kind = knob["type"]
    if kind == "choice":
        words = "one of " + ", ".join(map(str, knob["choices"]))
    elif kind in ("int", "float"):
        noun = "a whole number" if kind == "int" else "a number"
        words = f"{noun} in {knob['range']}" if "range" in knob else noun
    else:
        words = "true or false" if kind == "bool" else "a text"
    return f"{words} or null" if knob.get("nullable", False) else words


def _instead(key: str, value: object, knob: Knob) -> str:
    """The end of the sentence that names a value which would do, when one is known."""
    if knob["type"] == "choice":
        near = nearest(str(value), map(str, knob["choices"]))
        return f"; did you mean {key}={near}?" if near else ""
    # The first argument of an example such as interval(1e-3,1e-1).
    example = re.search(r"\(\s*([^(),\s]+)", knob.get("sweep", ""))
    return f", for instance {key}={example[1]}" if example else ""


def as_typed(value: object) -> str:
    """A value as one would type it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The legal name that looks most like `name`, if any looks like it."""
    close = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.5)
    return close[0] if close else None


def pick(key: str, name: str, registry: Mapping[str, Entry]) -> Entry:
    """The entry of a registry that a config names."""
    if name not in registry:
        raise ConfigRefused(check_value(key, name, {"type": "choice", "choices": sorted(registry)}))
    return registry[name]
