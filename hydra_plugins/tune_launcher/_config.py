"""The settings of the launchers, as Hydra's config store knows them: the only defaults."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore


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


def register() -> None:
    """Makes `hydra/launcher=workers` known to Hydra."""
    ConfigStore.instance().store(
        group="hydra/launcher", name="workers", node=WorkersConf, provider="hydra_tune"
    )
