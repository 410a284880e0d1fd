"""What an actor does on its node: a pool of one worker, as on the driver's machine. No Hydra.

A job is not run by Ray's own process but by a worker that is forked from a warm server, so that
signals, crashes, children and replacement are the pool's, and a lost job costs no actor.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import ray

from ._devices import CUDA, SLOT, Slot
from ._workers import Ended, Pool


@dataclass(frozen=True)
class Setup:
    """What every actor of a sweep needs to know."""

    folder: str  # the driver's working folder: relative paths mean the same everywhere
    path: Sequence[str]  # the driver's sys.path
    env: dict[str, str]
    make_runner: bytes
    modules: Sequence[str]
    threads: int
    jobs_per_worker: int


class SlotActor:
    """One slot: runs one job at a time; signals for it may come in while it runs."""

    def __init__(self) -> None:
        self._signals: SimpleQueue[tuple[int, int]] = SimpleQueue()
        self._wake, self._ring = os.pipe()
        os.set_blocking(self._wake, False)

    def open(self, setup: Setup) -> str:
        """Imports what the jobs need, before the time of any of them runs; gives the slot's label.

        Raises:
            FileNotFoundError: the node does not share the driver's files.
            PoolBroken: it cannot import what the jobs need.
        """
        _enter(setup.folder)
        sys.path[:] = dict.fromkeys([*setup.path, *sys.path])
        os.environ.update(setup.env)
        slot = _slot()
        self._pool = Pool(
            [slot],
            make_runner=setup.make_runner,
            modules=setup.modules,
            threads=setup.threads,
            jobs_per_worker=setup.jobs_per_worker,
            # Ray kills the children of an actor one by one; a server that is none of them sees
            # its connection end, and has the time to end what the job started too.
            is_server_apart=True,
        )
        self._pool.wait_until_ready()
        return slot.label

    def run(self, number: int, message: bytes) -> Ended:
        """Runs a job to its end."""
        self._pool.submit(number, message)
        while not (ended := self._pool.wait(None, self._wake)):
            self._pass_on_signals()
        return ended[0]

    def signal(self, number: int, signum: int) -> None:
        """Sends a signal to a job, from another thread than the one that runs it."""
        self._signals.put((number, signum))
        os.write(self._ring, b"!")

    def _pass_on_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while not self._signals.empty():
            self._pool.signal(*self._signals.get())


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise FileNotFoundError(
            f"{folder} cannot be entered on the node {_node_ip()} ({error.strerror}):"
            " hydra/launcher=ray_workers needs a file system that all nodes share"
        ) from error


def _slot() -> Slot:
    gpus = ",".join(ray.get_runtime_context().get_accelerator_ids().get("GPU", []))
    label = f"ray:{_node_ip()}/{gpus or 'cpu'}"
    return Slot(0, label, {CUDA: gpus, SLOT: label})


def _node_ip() -> str:
    return str(ray.util.get_node_ip_address())
