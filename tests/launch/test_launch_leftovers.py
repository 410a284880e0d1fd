"""Global settings that a job leaves behind."""

import _thread
import decimal
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
    "thresholds": (gc.get_threshold, lambda: gc.set_threshold(7)),
    "user's signal": (
        lambda: signal.getsignal(signal.SIGUSR2),
        lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
    ),
    "warnings": (lambda: list(warnings.filters), lambda: warnings.simplefilter("ignore")),
    "logging": (lambda: logging.root.manager.disable, lambda: logging.disable(logging.ERROR)),
    "log files": (
        lambda: list(logging.getLogger("left").handlers),
        lambda: logging.getLogger("left").addHandler(logging.FileHandler(os.devnull)),
    ),
    "recursion": (sys.getrecursionlimit, lambda: sys.setrecursionlimit(5000)),
    "profile": (sys.getprofile, lambda: sys.setprofile(lambda *_: None)),
    "sockets": (socket.getdefaulttimeout, lambda: socket.setdefaulttimeout(3.0)),
    "decimals": (
        lambda: decimal.getcontext().prec,
        lambda: setattr(decimal.getcontext(), "prec", 5),
    ),
    "start method": (
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda: multiprocessing.set_start_method("spawn", force=True),
    ),
    "errors": (np.geterr, lambda: np.seterr(all="raise")),
    "grad": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "device": (torch.get_default_device, lambda: torch.set_default_device("meta")),
    "matmul": (
        torch.get_float32_matmul_precision,
        lambda: torch.set_float32_matmul_precision("medium"),
    ),
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


@contextmanager
def lower_limit() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def running_child() -> Iterator[None]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield
        child.kill()


@contextmanager
def running_thread() -> Iterator[None]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield
    end.set()
    thread.join()


@contextmanager
def forbidden_module() -> Iterator[None]:
    sys.modules["no_such_module"] = None  # type: ignore[assignment]
    yield
    del sys.modules["no_such_module"]


@contextmanager
def closed_stream() -> Iterator[None]:
    copy = os.dup(0)
    os.close(0)
    yield
    os.dup2(copy, 0)
    os.close(copy)


REMAINS = [closed_stream, lower_limit, running_child, running_thread, forbidden_module]


@pytest.mark.parametrize("remains", REMAINS, ids=lambda change: change.__name__)
def test_what_cannot_be_taken_back_costs_the_process(
    remains: Callable[[], AbstractContextManager[None]],
) -> None:
    """Whatever a thread or a child does, it does to no other job."""
    leftovers = Leftovers()
    with remains():
        assert not leftovers.take_back()

    assert Leftovers().take_back()


def test_thread_and_child_that_end_cost_nothing() -> None:
    """A pool that was shut down a moment ago, a child that nobody waited for."""
    leftovers = Leftovers()
    threading.Thread(target=time.sleep, args=(0.02,)).start()
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert leftovers.take_back()
    child.wait()


def test_thread_that_c_started_costs_nothing() -> None:
    """Python cannot wait for it, and does not know whether it still runs."""
    leftovers = Leftovers()
    _thread.start_new_thread(threading.current_thread, ())
    time.sleep(0.05)

    assert leftovers.take_back()


def test_child_that_a_cycle_holds_ends_with_it() -> None:
    """As the workers of a data loader that a trainer refers to, and which refers to it."""
    leftovers = Leftovers()
    held = Holder()
    held.itself = held
    del held

    assert leftovers.take_back()


class Holder:
    """A child that ends with its owner."""

    def __init__(self) -> None:
        self.itself: object = None
        self.child = subprocess.Popen(["sleep", "60"])

    def __del__(self) -> None:
        self.child.kill()
        self.child.wait()
