"""Commands that the user can copy: how this process was started, and variations of it."""

import os
import shlex
import sys
from collections.abc import Sequence

_FLAGS_WITH_VALUE = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd")


def program() -> list[str]:
    """`python train.py`, or `python -m package`, as this process was started."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return [*runner(), "python", "-m", spec.name.removesuffix(".__main__")]
    return [*runner(), "python", os.path.relpath(sys.argv[0])]


def recorded_program() -> list[str]:
    """The program as a record keeps it, for `hydra-tune rerun` from anywhere."""
    words = program()
    words = words[words.index("python") + 1 :]
    named = words if words[0] == "-m" else [os.path.abspath(words[0])]
    return [*named, *_config_flags(sys.argv[1:])]


def runner() -> list[str]:
    """`uv run` when that is how the user gets at this environment."""
    return ["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []


def train_command(overrides: Sequence[str]) -> str:
    """The command that runs the app once with these overrides, quoted for a shell."""
    return shlex.join([*program(), *_config_flags(sys.argv[1:]), *overrides])


def sweep_command(*extra: str) -> str:
    """The command of this sweep with further overrides, quoted for a shell."""
    keys = tuple(f"{text.partition('=')[0]}=" for text in extra)
    typed = [arg for arg in sys.argv[1:] if not arg.startswith(keys or ("\0",))]
    return shlex.join([*program(), *typed, *extra])


def _config_flags(arguments: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=False):
        if flag in _FLAGS_WITH_VALUE:
            kept += [flag, value]
        elif flag.startswith(tuple(f"{f}=" for f in _FLAGS_WITH_VALUE)):
            kept.append(flag)
    return kept
