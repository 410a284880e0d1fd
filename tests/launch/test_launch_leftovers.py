"""Global settings of numpy and torch that a job leaves behind."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hydra_plugins.tune_launcher._leftovers import undone

CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "errors": (np.geterr, lambda: np.seterr(all="raise")),
    "grad": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "device": (torch.get_default_device, lambda: torch.set_default_device("meta")),
    "deterministic": (
        torch.are_deterministic_algorithms_enabled,
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
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
    with undone():
        change()
        changed = read()

    assert changed != before
    assert read() == before
