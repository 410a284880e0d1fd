"""A user's own Hydra app, which knows nothing of hydra-tune."""

import asyncio
import contextlib
import ctypes
import hashlib
import json
import math
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

BEHAVIOUR = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


class Unpicklable(Exception):
    """Cannot be pickled, and cannot even be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no message")


def score(cfg: DictConfig) -> float:
    """A bowl with its minimum at x = 0.3, y = 4."""
    penalty = 0.0 if cfg.model.name == "small" else 0.5 * cfg.model.width / 100
    return (cfg.x - 0.3) ** 2 + 0.01 * (cfg.y - 4) ** 2 + penalty


def fail(error: BaseException) -> None:
    """raise, as an expression."""
    raise error


def hang_deaf() -> None:
    """A hang that no signal but SIGKILL ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(120)


def end_pool() -> None:
    """Forked children that are ended by SIGTERM."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(abs, [1, 2])


def leave_child() -> None:
    """A forked child that stays; its pid beside the task's."""
    if pid := os.fork():
        (output_dir() / "child_pid").write_text(str(pid))
        return
    time.sleep(60)
    os._exit(0)


def hear_and_go_on() -> None:
    """As a training in a long epoch, at whose end it will stop."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    while True:
        time.sleep(0.1)


def run_out_of_memory() -> None:
    """The host's, under a limit as schedulers set it."""
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    bytearray(2**32)


HOG: list[bytes] = []


def hog() -> None:
    """All memory in small pieces, which nobody gives back."""
    resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
    while True:
        HOG.append(bytes(10_000))


def load_for_ever() -> None:
    """A hang in the worker of a data loader, which leaves its pid beside the task's."""
    from torch.utils.data import DataLoader, Dataset

    folder = output_dir()

    class Stuck(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            (folder / "loader_pid").write_text(str(os.getpid()))
            time.sleep(120)
            return index

    next(iter(DataLoader(Stuck(), num_workers=1)))


def leave_daemon() -> None:
    """A process with a session of its own, below one that is gone; its pid beside the task's."""
    daemon = "sleep 120 & echo $! > daemon_pid"
    subprocess.run(["setsid", "sh", "-c", daemon], cwd=output_dir(), check=True)


class Destructor:
    """Hangs once nothing but itself refers to it."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(120)


def output_dir() -> Path:
    """The job's folder."""
    return Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)


def replace_folder() -> None:
    """A file where the job's folder was."""
    folder = output_dir()
    shutil.rmtree(folder)
    folder.write_text("mine")


def occupy_table() -> None:
    """A folder where the sweep's table is to be."""
    with contextlib.suppress(FileExistsError):
        (output_dir().parent / "trials.csv").mkdir()


def kill(number: int) -> None:
    """This process, by a signal."""
    os.kill(os.getpid(), number)


def only_at_first(behave: object) -> object:
    """Attempt 1 is bad, the next one good."""
    is_first = "HYDRA_TUNE_ATTEMPT" not in os.environ
    return lambda cfg: behave(cfg) if is_first else score(cfg)  # type: ignore[operator]


BEHAVIOURS = {
    "number": score,
    "mapping": lambda cfg: {"loss": score(cfg), "acc": 1 - score(cfg)},
    "histories": lambda cfg: {"loss": [3.0, score(cfg), 2.0], "acc": [0.1, 0.2, 0.3]},
    "nan": lambda cfg: math.nan,
    "inf": lambda cfg: math.inf,
    "minus_inf": lambda cfg: -math.inf,
    "none": lambda cfg: None,
    "text": lambda cfg: "good",
    "empty": lambda cfg: {},
    "list": lambda cfg: [1.0],
    "lock": lambda cfg: threading.Lock(),
    "raise": lambda cfg: fail(ValueError(f"x={cfg.x} is bad")),
    "unpicklable": lambda cfg: fail(Unpicklable()),
    "surrogate": lambda cfg: fail(ValueError("no file \udcff")),
    "fork": lambda cfg: score(cfg) if os.fork() else 99.0,
    "fork_and_fail": lambda cfg: score(cfg) if os.fork() else fail(ValueError("the child")),
    "surrogate_name": lambda cfg: {"value": score(cfg), "no file \udcff": 1.0},
    "hog": lambda cfg: hog(),
    "resolver": lambda cfg: OmegaConf.register_new_resolver("twice", str) or score(cfg),  # type: ignore[func-returns-value]
    "thread": lambda cfg: threading.Timer(0.3, kill, [signal.SIGKILL]).start() or score(cfg),  # type: ignore[func-returns-value]
    "garbage": lambda cfg: Destructor() and score(cfg),
    "close_output": lambda cfg: os.close(1) or score(cfg),  # type: ignore[func-returns-value]
    "cancelled": lambda cfg: fail(asyncio.CancelledError("not awaited")),
    "move": lambda cfg: os.chdir("/") or score(cfg),  # type: ignore[func-returns-value]
    "replace_folder": lambda cfg: replace_folder() or 1.0,  # type: ignore[func-returns-value]
    "occupy_result": lambda cfg: (output_dir() / "result.json").mkdir() or 1.0,  # type: ignore[func-returns-value]
    "occupy_table": lambda cfg: occupy_table() or score(cfg),  # type: ignore[func-returns-value]
    "real_time": lambda cfg: kill(signal.SIGRTMIN + 6),
    "exit": lambda cfg: sys.exit(3),
    "leave": lambda cfg: os._exit(3),
    "leave_well": lambda cfg: os._exit(0),
    "kill": lambda cfg: kill(signal.SIGKILL),
    "kill_once": lambda cfg: only_at_first(lambda _: kill(signal.SIGKILL))(cfg),  # type: ignore[operator]
    "segfault": lambda cfg: ctypes.string_at(0),
    "memory": lambda cfg: run_out_of_memory(),
    "hang": lambda cfg: time.sleep(120),
    "hang_deaf": lambda cfg: hang_deaf(),
    "hang_in_c": lambda cfg: re.match(r"(a+)+$", "a" * 60 + "b"),
    "pool": lambda cfg: end_pool() or time.sleep(2) or score(cfg),  # type: ignore[func-returns-value]
    "leave_child": lambda cfg: leave_child() or score(cfg),  # type: ignore[func-returns-value]
    "compute": lambda cfg: hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30),
    "hear_and_go_on": lambda cfg: hear_and_go_on(),
    "hang_stopped": lambda cfg: kill(signal.SIGSTOP),
    "hang_loading": lambda cfg: load_for_ever(),
    "hang_with_daemon": lambda cfg: leave_daemon() or time.sleep(120),  # type: ignore[func-returns-value]
    "leave_daemon": lambda cfg: leave_daemon() or score(cfg),  # type: ignore[func-returns-value]
    "environment": lambda cfg: {k: 1.0 for k in os.environ if k.startswith(("SLURM", "x"))} or 0.0,
}


@hydra.main(config_path="conf", config_name="config", **BEHAVIOUR)
def main(cfg: DictConfig) -> object:
    """Leaves its config beside the result and behaves as told."""
    folder = output_dir()
    seen = OmegaConf.to_container(cfg)
    (folder / "seen.json").write_text(json.dumps(seen))
    (folder / "pid").write_text(str(os.getpid()))
    print("said by the task", flush=True)
    time.sleep(cfg.sleep_s)
    is_bad = cfg.bad_above is not None and cfg.x > cfg.bad_above
    return BEHAVIOURS[cfg.bad if is_bad else cfg.behave](cfg)


if __name__ == "__main__":
    main()
