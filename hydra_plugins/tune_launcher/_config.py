"""The settings of the launchers, as Hydra's config store knows them: the only defaults."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType


@dataclass
class WorkersConf:
    """Warm processes on this machine, each with its own share of the devices."""

    _target_: str = "hydra_plugins.tune_launcher._launcher.WorkersLauncher"
    # auto: every GPU that CUDA_VISIBLE_DEVICES leaves, else the CPU; cpu; or a list, [0, 1]. A GPU
    # that stands in the list twice has two slots.
    devices: Any = "auto"
    slots_per_device: int = 1  # jobs at once on one GPU
    devices_per_job: int = 1  # GPUs that one job sees
    cpu_slots: int | None = None  # jobs at once without GPUs; null: one per core
    threads: int | None = None  # of each job; null: the cores shared out evenly
    # Modules that every job needs are imported once. Those that the task function names are found
    # without being listed here.
    preload: list[str] = field(default_factory=list)
    jobs_per_worker: int = 100  # then a fresh process: whatever leaks does not leak for ever


@dataclass
class RayWorkersConf:
    """Warm processes on the nodes of a Ray cluster, each with its own share of a node."""

    _target_: str = "hydra_plugins.tune_launcher._ray.RayWorkersLauncher"
    # auto: the cluster that RAY_ADDRESS names or that this machine belongs to, else a fresh one of
    # this machine alone, so that the same command works with and without a cluster; local: always
    # a fresh one; or host:port.
    address: str = "auto"
    cpus_per_job: float = 1  # Ray's own default for what it counts; it does not pin cores
    gpus_per_job: float | None = None  # 0.5: two jobs share a GPU; null: 1 where there are any
    # null: what all living nodes have room for. More wait for room; an autoscaler sees them.
    max_jobs_at_once: int | None = None
    threads: int | None = None  # of each job; null: as many as it has CPUs
    preload: list[str] = field(default_factory=list)  # as for workers
    jobs_per_worker: int = 100  # as for workers


def register() -> None:
    """Makes `hydra/launcher=workers` and `ray_workers` known to Hydra, once."""
    store, group = ConfigStore.instance(), "hydra/launcher"
    for name, node in (("workers", WorkersConf), ("ray_workers", RayWorkersConf)):
        # A worker has the store of the sweep's process before Hydra finds this plugin there.
        if store.get_type(f"{group}/{name}.yaml") == ObjectType.NOT_FOUND:
            store.store(group=group, name=name, node=node, provider="hydra_tune")
