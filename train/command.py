"""The command line around Hydra: `--help` with every knob, one sentence per mistake, exit codes."""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from .check import ConfigRefused, as_typed, expectation, load_knobs
from .mistakes import sentence_of

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
        _refuse(sentence_of(error))


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
    for trace in (f"{config.job.name}.log", "progress.jsonl", "events.out.tfevents.*"):
        for file in folder.glob(trace):
            file.unlink()
    _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    """Remove a folder and its parents below the working directory as far as they are empty."""
    while folder != Path.cwd() and Path.cwd() in folder.parents and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _refuse(sentence: str) -> None:
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    raise SystemExit(USAGE)


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
