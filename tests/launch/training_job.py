"""The bundled trainer as a job of a pool, to see what many trainings do to one process."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir

CONF = Path(__file__).parents[2] / "conf"


def make() -> Callable[[bytes], tuple[bool, bytes]]:
    """What the server calls to get the runner."""
    return run


def run(message: bytes) -> tuple[bool, bytes]:
    """Trains with the overrides in the message: metrics, resident memory in pages, process."""
    from train.task import task

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", pickle.loads(message))
    metrics = task(cfg)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return True, pickle.dumps((metrics, pages, os.getpid()))
