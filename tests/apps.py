"""The apps that the tests run, and readers of what they leave."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from hydra_plugins.tune_sweeper.run import _record

ROOT = Path(__file__).parent.parent
TRAIN = ROOT / "train.py"
APP = ROOT / "tests" / "app" / "app.py"

# Trains in the sweep's own process, which in the tests has torch already: a worker would import it.
BASIC = "hydra/launcher=basic"

Run = Callable[..., CompletedProcess[str]]


def command(script: Path, *arguments: str) -> list[str]:
    """The command line of an app, run by the interpreter of the tests."""
    return [sys.executable, str(script), *arguments]


def values_of(folder: Path) -> list[dict[str, Any]]:
    """Proposed values of a sweep, in the order of its jobs."""
    return [dict(job.proposal.values) for _, job in sorted(_record.read(folder).jobs.items())]


def statuses_of(folder: Path) -> list[str]:
    """How the jobs of a sweep ended, in their order."""
    return [end.status for _, end in sorted(_record.read(folder).ends.items())]


def progress_of(folder: Path) -> list[dict[str, float]]:
    """The metrics of each epoch that a training wrote into its folder."""
    lines = (folder / "progress.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"] for line in lines]
