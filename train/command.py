"""The command line around Hydra: `--help` with every knob, one sentence per mistake, exit codes."""

import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .check import ConfigRefused, as_typed, expectation, load_knobs, nearest

# Hydra 1.3 warns when version_base is missing, later ones when it is there.
BEHAVIOUR = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}

USAGE = 2  # exit code of wrong input


def run(main: Callable[[], Any]) -> None:
    """Run Hydra's main; a user's mistake ends with one sentence on stderr and exit code 2."""
    OmegaConf.register_new_resolver("knob_table", knob_table, replace=True)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise instead of printing its own lines
    try:
        main()
    except ConfigRefused as error:
        _refuse(str(error))
    except HydraException as error:
        _refuse(_sentence(error))


@contextmanager
def clean_refusal() -> Iterator[None]:
    """Leave nothing on disk of a single run whose configuration the data refused."""
    try:
        yield
    except ConfigRefused as error:
        if HydraConfig.get().mode != RunMode.RUN:
            raise  # a sweep records it
        _remove_traces()
        _refuse(str(error))


def _remove_traces() -> None:
    """Remove what Hydra put into the output folder, and folders that are empty then."""
    config = HydraConfig.get()
    folder = Path(config.runtime.output_dir)
    if config.output_subdir:
        shutil.rmtree(folder / config.output_subdir, ignore_errors=True)
    logging.shutdown()
    (folder / f"{config.job.name}.log").unlink(missing_ok=True)
    _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    """Remove a folder and its parents below the working directory as far as they are empty."""
    while folder != Path.cwd() and Path.cwd() in folder.parents and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _refuse(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(USAGE)


def _sentence(error: HydraException) -> str:
    """What Hydra complains about, in one sentence with the nearest legal names."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(error)
    text = str(error).strip()
    if found := re.search(r"(?:Sweep parameters|Ambiguous value for argument) '(.*?)'", text):
        return f"{found[1]}: a sweep needs -m: python train.py -m '{found[1]}'"
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _wrong_key(cause, text)
    return " ".join(text.split("\n")[:2])


def _missing_option(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = sorted(error.options or [])
    near = nearest(name, options)
    hint = f"; did you mean {group}={near}?" if near else ""
    listed = f" (options: {', '.join(options)})" if options else ""
    return f"{group}={name}: there is no such option{hint}{listed}"


def _wrong_key(cause: OmegaConfBaseException, text: str) -> str:
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
    return f"{key}: there is no such key{hint} (`python train.py --help` lists them)"


def knob_table(*, _root_: DictConfig) -> str:
    """Every knob that this config has, with its default, its range and how to sweep it."""
    rows: list[tuple[str, ...]] = [("knob", "default", "takes", "to sweep it", "")]
    for key, knob in load_knobs().items():
        value = OmegaConf.select(_root_, key, default=_root_)
        if value is not _root_:
            takes = expectation({**knob, "nullable": False})
            sweep = f"{key}={knob['sweep']}" if "sweep" in knob else "-"
            rows.append((key, as_typed(value), takes, sweep, str(knob.get("help", ""))))
    return "\n".join(_aligned(rows))


def _aligned(rows: list[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield ("  " + "  ".join(cells)).rstrip()
