"""GPUs and the slots on them: which part of the machine a job sees. Creates no CUDA context."""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

CUDA = "CUDA_VISIBLE_DEVICES"
SLOT = "HYDRA_TUNE_SLOT"  # tells a job which slot it has


@dataclass(frozen=True)
class Slot:
    """Room for one job at a time."""

    number: int
    label: str  # "cuda:0", "cpu:3"
    env: dict[str, str] = field(default_factory=dict)


def make_slots(
    devices: Any,
    *,
    slots_per_device: int,
    devices_per_job: int,
    cpu_slots: int | None,
) -> list[Slot]:
    """The slots that the settings describe, GPU by GPU; all counts are from 1 on.

    Raises:
        ValueError: a GPU that is not there, or settings that contradict each other.
    """
    if slots_per_device > 1 and devices_per_job > 1:
        raise ValueError(
            f"hydra.launcher.slots_per_device={slots_per_device} shares a GPU between jobs, and"
            f" devices_per_job={devices_per_job} gives a job several: one of them must be 1"
        )
    gpus = _chosen(devices, visible_gpus())
    if not gpus:
        n = cpu_slots or n_cores()
        return [_slot(i, f"cpu:{i}", "") for i in range(n)]
    groups = _groups(gpus, devices_per_job)
    shared = [group for group in groups for _ in range(slots_per_device)]
    return [_slot(i, f"cuda:{g}", g) for i, g in enumerate(shared)]


def _slot(number: int, label: str, gpus: str) -> Slot:
    return Slot(number, label, {CUDA: gpus, SLOT: label})


def _chosen(devices: Any, visible: Sequence[str]) -> list[str]:
    """The GPUs to use, by the names that CUDA_VISIBLE_DEVICES knows them by; none: the CPU."""
    if devices in ("auto", None):
        return list(visible)
    if devices == "cpu":
        return []
    wanted = [devices] if type(devices) is int else devices
    if not isinstance(wanted, list) or not wanted or {type(i) for i in wanted} != {int}:
        raise ValueError(
            f"hydra.launcher.devices={devices}: expected auto, cpu, or numbers of GPUs as [0,1]"
        )
    for i in wanted:
        if not 0 <= i < len(visible):
            raise ValueError(
                f"hydra.launcher.devices={devices}: there is no GPU {i}, only {len(visible)}"
                f" GPU(s) are visible; type hydra.launcher.devices=auto"
            )
    return [visible[i] for i in wanted]


def _groups(gpus: Sequence[str], size: int) -> list[str]:
    if size > len(gpus):
        raise ValueError(
            f"hydra.launcher.devices_per_job={size}: only {len(gpus)} GPU(s) are there to share"
        )
    starts = range(0, len(gpus) - size + 1, size)
    return [",".join(gpus[start : start + size]) for start in starts]


def visible_gpus() -> list[str]:
    """Names of the GPUs that CUDA would see here: numbers, or what the user's variable says."""
    named = os.environ.get(CUDA)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return [str(i) for i in range(_count_by_nvml())]


def _count_by_nvml() -> int:
    """The driver's own count: unlike torch's it needs no import of 3 s and no CUDA context."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    count = ctypes.c_uint()
    if nvml.nvmlInit_v2() != 0:
        return 0
    try:
        return count.value if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0
    finally:
        nvml.nvmlShutdown()


def n_cores() -> int:
    """Cores that this process may use: fewer than the machine's under SLURM or taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
