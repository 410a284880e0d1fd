"""The Ray cluster: connecting to it, and how many jobs it has room for. Knows no Hydra."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# With `uv run`, Ray would copy the working folder to every node and install from it; the folder
# is shared and the environment is there. Read when Ray is imported.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import ray
from ray.exceptions import AuthenticationError

from ._devices import n_cores

_OBJECT_STORE = 128 * 2**20  # bytes, of a cluster of our own: it holds only what jobs return


def connect(address: str) -> None:
    """Connects this process to a cluster, if it is not connected yet.

    Raises:
        ValueError: no cluster answers at the address.
    """
    if ray.is_initialized():
        return
    with _same_sigterm():
        if address == "local":
            _start()
            return
        try:
            _init(address=address)
        except (ConnectionError, RuntimeError, AuthenticationError) as error:
            is_none_there = isinstance(error, ConnectionError) and "RAY_ADDRESS" not in os.environ
            if address != "auto" or not is_none_there:
                raise ValueError(_no_answer(address, error)) from error
            _start()


def _start() -> None:
    """A cluster of this machine alone, which ends with this process.

    Its ports listen on all interfaces, whatever address Ray is given. Only who has the token is
    heard: Ray makes one for every cluster that it starts so, and says it in a warning each time.
    """
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _init(
        address="local",
        num_cpus=n_cores(),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE,
        _node_ip_address="127.0.0.1",
    )


def _init(**settings: Any) -> None:
    ray.init(**settings, log_to_driver=False, logging_level=logging.WARNING)


def _no_answer(address: str, error: Exception) -> str:
    named = os.environ.get("RAY_ADDRESS") if address == "auto" else None
    what = f"RAY_ADDRESS={named}" if named else f"hydra.launcher.address={address}"
    reason = str(error).strip().split("\n")[0]
    return (
        f"{what}: Ray cannot connect to a cluster there ({reason});"
        " type hydra.launcher.address=local for a fresh one on this machine"
    )


@contextlib.contextmanager
def _same_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM over and would leave the sweep without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Share:
    """What one job takes of a node."""

    cpus: float
    gpus: float  # 0.5: two jobs share a GPU; above 1 whole numbers only

    def n_slots(self) -> int:
        """How many jobs the living nodes have room for, if nobody else uses them."""
        return sum(self.room(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def room(self, resources: Mapping[str, float]) -> int:
        """How many jobs a node has room for."""
        limits = []
        if self.cpus:
            limits.append(int(resources.get("CPU", 0) / self.cpus))
        if self.gpus:
            limits.append(_jobs_on_gpus(int(resources.get("GPU", 0)), self.gpus))
        return min(limits)

    def check_room(self) -> None:
        """A job that no node can hold would wait for ever.

        Raises:
            ValueError: there is no such node.
        """
        if not self.n_slots():
            raise ValueError(
                f"hydra.launcher.cpus_per_job={self.cpus:g} gpus_per_job={self.gpus:g}: no node of"
                " the Ray cluster has as many; ask for less, or type"
                " hydra.launcher.max_jobs_at_once=<number> to wait for nodes that will come"
            )


def make_share(cpus: float, gpus: float | None) -> Share:
    """The share that the settings describe; without a number of GPUs, one where there are any.

    Raises:
        ValueError: Ray cannot hand out such a share.
    """
    if cpus < 0 or (gpus or 0) < 0 or not (cpus or gpus):
        raise ValueError(
            f"hydra.launcher.cpus_per_job={cpus} gpus_per_job={gpus}: expected numbers from 0 on,"
            " and not both 0"
        )
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        raise ValueError(
            f"hydra.launcher.gpus_per_job={gpus}: expected a part of one GPU, such as 0.5, or a"
            " whole number"
        )
    has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
    return Share(cpus, gpus if gpus is not None else float(has_gpus))


def _jobs_on_gpus(n_gpus: int, gpus_per_job: float) -> int:
    if gpus_per_job > 1:
        return n_gpus // int(gpus_per_job)
    return n_gpus * int(1 / gpus_per_job + 1e-9)  # 0.1 ten times, whatever floats say
