"""schedule.yaml: how the winner of a sweep in steps was trained, and that file read again."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ._app import has_key, value_of
from ._errors import UsageError
from ._search import Search
from .run._whole import write_whole
from .search._replay import Step

FILE = "schedule.yaml"


def write(
    folder: Path,
    *,
    fixed: Sequence[str],
    steps: Sequence[tuple[int, Sequence[str]]],
    comment: Sequence[str],
) -> None:
    """Overrides that all steps share, and per step its last epoch and its own overrides."""
    rows = [{"until_epoch": until, "overrides": list(texts)} for until, texts in steps]
    content = {"fixed": list(fixed), "steps": rows}
    text = "".join(f"# {line}\n" for line in comment)
    text += yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    write_whole(folder / FILE, text)


def read(setting: str | None, arguments: Sequence[str]) -> Mapping[str, Any]:
    """The content of a schedule; `setting` is the file, or the folder of the sweep.

    Raises:
        UsageError: no such file, none that `write` wrote, or an override in it that could do more
            than set a value, and that was not typed in `arguments` too.
    """
    typed = f"hydra.sweeper.schedule={setting}"
    if setting is None:
        raise UsageError(
            "hydra/sweeper=replay: which schedule? For instance"
            " hydra.sweeper.schedule=outputs/pbt-1/schedule.yaml"
        )
    path = Path(setting) / FILE if Path(setting).is_dir() else Path(setting)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(
            f"{typed}: {path} cannot be read as a schedule ({type(error).__name__}); pbt and asha"
            " write one into their folders"
        ) from error
    if not _is_schedule(content):
        raise UsageError(f"{typed}: {path} is no schedule; pbt and asha write one")
    texts = [*content["fixed"], *(text for row in content["steps"] for text in row["overrides"])]
    for text in texts:
        if _may_run_code(text) and text not in arguments:
            raise UsageError(
                f"{typed}: {path} has the override {shlex.quote(text)}, which can do more than set"
                " a value; if that is what you want, type it yourself too"
            )
    return dict(content)


def _may_run_code(text: str) -> bool:
    """Whether an override reaches into Hydra, names code, calls a resolver or leaves its folder."""
    key, _, value = text.partition("=")
    is_hydras = "hydra" in re.split(r"[./@:]", key.lstrip("+~"))
    calls = ":" in text.partition("${")[2]  # ${resolver:...}, where ${key} is only another value
    is_group = "." not in key.partition("@")[0]  # its value is the name of a file
    leaves = is_group and ".." in re.split(r"[][,/'\"\s]", value)
    return is_hydras or "_target_" in text or calls or leaves


def _is_schedule(content: Any) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("fixed"), list):
        return False
    steps = content.get("steps")
    is_fixed = all(isinstance(text, str) for text in content["fixed"])
    return is_fixed and isinstance(steps, list) and bool(steps) and all(map(_is_step, steps))


def _is_step(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("overrides"), list):
        return False
    is_typed = all(isinstance(text, str) and "=" in text for text in row["overrides"])
    return isinstance(row.get("until_epoch"), int) and is_typed


def steps(schedule: Mapping[str, Any], arguments: Sequence[str]) -> list[Step]:
    """The steps; what the user types anew counts in all of them."""
    typed = {_name(text) for text in arguments}
    return [
        Step(row["until_epoch"], [text for text in row["overrides"] if _name(text) not in typed])
        for row in schedule["steps"]
    ]


def _name(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")


def check(
    search: Search, schedule: Mapping[str, Any], arguments: Sequence[str], *, epochs: str
) -> None:
    """Holds what was typed beside a schedule against it.

    Raises:
        UsageError: something is to be searched, or `epochs` is not the schedule's.
    """
    if len(search.space):
        raise UsageError(
            f"{search.space.names[0]}: hydra/sweeper=replay trains one schedule again and searches"
            " nothing; type one value, or leave the key out"
        )
    typed = [text for text in arguments if _name(text) == epochs]
    own = [text for text in schedule["fixed"] if _name(text) == epochs]
    if typed and own and typed != own:
        raise UsageError(f"{typed[0]}: the schedule was found with {own[0]}; leave {epochs} out")
    last = schedule["steps"][-1]["until_epoch"]
    if has_key(search.base, epochs) and last > value_of(search.base, epochs):
        raise UsageError(
            f"{epochs}={value_of(search.base, epochs)}: the schedule ends with epoch {last}; type"
            f" {epochs}={last} or more"
        )
