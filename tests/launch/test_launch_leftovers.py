"""Global settings that a job leaves behind."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hydra_plugins.tune_launcher._leftovers import Leftovers


def ignore_children() -> None:
    """As a server does that never waits."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "path": (lambda: list(sys.path), lambda: setattr(sys, "path", ["/left", *sys.path])),
    "variable": (lambda: os.environ.get("LEFT"), lambda: os.environ.__setitem__("LEFT", "1")),
    "children": (lambda: signal.getsignal(signal.SIGCHLD), ignore_children),
    "mask": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}),
    ),
    "collection": (gc.isenabled, gc.disable),
    "errors": (np.geterr, lambda: np.seterr(all="raise")),
    "grad": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "deterministic": (
        torch.are_deterministic_algorithms_enabled,
        # The public way imports a compiler, and so costs the process.
        lambda: torch._C._set_deterministic_algorithms(True, warn_only=True),
    ),
    "cudnn": (
        lambda: torch.backends.cudnn.benchmark,
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_setting_is_taken_back(name: str) -> None:
    """Whatever an evaluation turned off at its end."""
    read, change = CHANGES[name]
    before = read()
    leftovers = Leftovers()
    change()
    changed = read()

    assert leftovers.take_back()
    assert changed != before
    assert read() == before


def test_module_keeps_the_path_that_it_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not imported again, so the process is of no use to a job without that path."""
    (tmp_path / "adds_a_path.py").write_text("import sys; sys.path.append('/its/own')")
    monkeypatch.syspath_prepend(tmp_path)
    leftovers = Leftovers()
    __import__("adds_a_path")

    assert not leftovers.take_back()
