"""The launcher `workers`: warm processes on this machine.

Imported whenever Hydra looks for plugins, so everything else is imported inside the functions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from ._pool_launcher import PoolLauncher, check_counts

if TYPE_CHECKING:
    from ._devices import Slot
    from ._workers import Pool


class WorkersLauncher(PoolLauncher):
    """Runs jobs in warm processes, one per slot of this machine's GPUs or cores.

    Raises:
        ValueError: settings that this machine does not allow, or that contradict each other.
    """

    def __init__(
        self,
        *,
        devices: Any,
        slots_per_device: int,
        devices_per_job: int,
        cpu_slots: int | None,
        threads: int | None,
        preload: Sequence[str],
        jobs_per_worker: int,
    ) -> None:
        from ._devices import make_slots

        super().__init__(threads=threads, preload=preload, jobs_per_worker=jobs_per_worker)
        check_counts(
            slots_per_device=slots_per_device,
            devices_per_job=devices_per_job,
            cpu_slots=cpu_slots,
        )
        self._slots: list[Slot] = make_slots(
            OmegaConf.to_container(devices) if OmegaConf.is_config(devices) else devices,
            slots_per_device=slots_per_device,
            devices_per_job=devices_per_job,
            cpu_slots=cpu_slots,
        )

    @property
    def n_slots(self) -> int:
        """How many jobs run at once."""
        return len(self._slots)

    def _make_pool(self) -> "Pool":
        from ._devices import n_cores
        from ._workers import Pool

        return Pool(
            self._slots,
            make_runner=self._runner(),
            modules=self._modules(self._preload),
            threads=self._threads or max(1, n_cores() // self.n_slots),
            jobs_per_worker=self._jobs_per_worker,
        )
