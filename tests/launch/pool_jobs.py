"""Jobs for a pool, good and bad: what a worker process may live to see."""

import ctypes
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

N_CALLS = [0]


def order(name: str, argument: Any = None) -> bytes:
    """The message for one job."""
    return pickle.dumps((name, argument))


def make() -> Callable[[bytes], tuple[bool, bytes]]:
    """What the server calls to get the runner."""
    return run


def make_broken() -> Callable[[bytes], tuple[bool, bytes]]:
    """A setup that no worker can be made with."""
    raise ImportError("no module named torch")


def run(message: bytes) -> tuple[bool, bytes]:
    """Runs the job that the message names."""
    N_CALLS[0] += 1
    name, argument = pickle.loads(message)
    return name != "unclean", pickle.dumps(JOBS[name](argument))


def _child(seconds: float) -> int:
    return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"]).pid


def _hang_with_child(argument: Any) -> None:
    _child(60)
    time.sleep(60)


def _hang_with_daemon(argument: Any) -> None:
    """Below a process that is gone, in a session of its own."""
    subprocess.run(["setsid", "sh", "-c", "sleep 60 &"], check=True)
    open("daemon", "w").close()
    time.sleep(60)


def _orphans(n: int) -> list[int]:
    """The pids of processes whose parent has ended, and which end themselves."""
    script = ["setsid", "sh", "-c", "sleep 0.2 >&- & echo $!"]
    return [int(subprocess.check_output(script)) for _ in range(n)]


def _hang_deaf(argument: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(60)


def _leave_connection(argument: Any) -> None:
    os.closerange(3, 64)
    time.sleep(60)


def _litter(argument: Any) -> None:
    """Changes what the next job would feel."""
    os.environ["LEFT"] = "behind"
    os.environ.pop("WHERE")
    os.umask(0o777)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(1)
    sys.path.insert(0, "/left/behind")
    sys.stdout = io.StringIO()


def _server(argument: Any) -> int:
    """What all workers are forked from, by way of their guards."""
    return int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])


def _wrap_output(argument: Any) -> None:
    """As scripts do for their encoding; the process's own stream goes with the wrapper."""
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")


def _state(argument: Any) -> dict[str, Any]:
    """What a job may have changed."""
    mask = os.umask(0)
    os.umask(mask)
    return {
        "environ": dict(os.environ),
        "umask": mask,
        "hears": signal.getsignal(signal.SIGTERM) != signal.SIG_DFL,
        "alarm": signal.alarm(0),
        "path": list(sys.path),
        "stdout": sys.stdout is sys.__stdout__,
    }


class Destructor:
    """Ends the process once nothing but itself refers to it."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        os._exit(3)


JOBS: dict[str, Callable[[Any], Any]] = {
    "echo": lambda argument: argument,
    "sleep": lambda seconds: time.sleep(seconds or 60),
    "pid": lambda argument: os.getpid(),
    "guard": lambda argument: os.getppid(),
    "server": _server,
    "calls": lambda argument: N_CALLS[0],
    "unclean": lambda argument: os.getpid(),
    "environment": lambda argument: dict(os.environ),
    "signals": lambda argument: signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
    "big": lambda argument: b"x" * argument,
    "exit": os._exit,
    "stop_guard": lambda argument: os.kill(os.getppid(), signal.SIGSTOP) or time.sleep(60),
    "kill_guard": lambda number: os.kill(os.getppid(), number) or time.sleep(60),
    "kill": lambda number: os.kill(os.getpid(), number),
    "segfault": lambda argument: ctypes.string_at(0),
    "hang_in_c": lambda argument: re.match(r"(a+)+$", "a" * 60 + "b"),
    "hang_deaf": _hang_deaf,
    "orphans": _orphans,
    "hang_with_child": _hang_with_child,
    "hang_with_daemon": _hang_with_daemon,
    "leave_child": _child,
    "leave_destructor": lambda argument: bool(Destructor()),
    "litter": _litter,
    "wrap_output": _wrap_output,
    "state": _state,
    "leave_connection": _leave_connection,
    "stop": lambda argument: os.kill(os.getpid(), signal.SIGSTOP),
    "random": lambda argument: __import__("numpy").random.random(),
}
