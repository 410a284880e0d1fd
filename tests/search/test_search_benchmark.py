"""The adapter that benchmarks use, and the examples of the strategy."""

import doctest
import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from hydra_plugins.tune_sweeper.search import _bayes, _transfer


def load() -> ModuleType:
    """The adapter as a benchmark loads it: by its path."""
    path = Path(__file__).parents[2] / "benchmarks" / "adapter.py"
    spec = importlib.util.spec_from_file_location("adapter", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parameter(name: str, kind: str, **fields: Any) -> SimpleNamespace:
    empty = {"low": 0.0, "high": 1.0, "log": False, "choices": ()}
    return SimpleNamespace(name=name, type=kind, **{**empty, **fields})


SPACE = [
    parameter("lr", "float", low=1e-4, high=1.0, log=True),
    parameter("width", "int", low=4, high=128, log=True),
    parameter("shrinking", "cat", choices=(True, False)),
]


def test_examples_run() -> None:
    """Those of the strategy and of the adapter."""
    for module in (_bayes, _transfer, load()):
        found = doctest.testmod(module)

        assert found.attempted > 0 and found.failed == 0


def test_adapter_asks_and_tells_in_any_order() -> None:
    """Batches told backwards, failures as NaN; the types are those of the space."""
    search = load().Bayes(SPACE, seed=0, n=12, batch=4)
    for _ in range(3):
        for values in reversed([search.ask() for _ in range(4)]):
            search.tell(values, float("nan") if values["lr"] > 0.5 else values["lr"])

            assert [type(v) for v in values.values()] == [float, int, bool]
            assert 4 <= values["width"] <= 128


def test_adapter_counts_injected_trials() -> None:
    """After eight trials of others the model proposes at once, near the best of them."""
    search = load().Bayes(SPACE, seed=0, n=12)
    for i in range(8):
        search.inject({"lr": 10 ** (-i / 2), "width": 32, "shrinking": True}, abs(i - 5))

    assert 3e-4 < search.ask()["lr"] < 3e-2
