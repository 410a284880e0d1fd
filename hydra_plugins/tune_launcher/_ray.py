"""The launcher `ray_workers`: warm processes on the nodes of a Ray cluster.

Imported whenever Hydra looks for plugins, so Ray is imported inside the functions.
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ._pool_launcher import PoolLauncher, check_counts

if TYPE_CHECKING:
    from ._ray_pool import RayPool


class RayWorkersLauncher(PoolLauncher):
    """Runs jobs on a Ray cluster, each slot an actor that keeps its process warm.

    Raises:
        ValueError: Ray is not installed, no cluster answers, or no node of it can hold a job.
    """

    has_queue = True  # the cluster may have no room yet

    def __init__(
        self,
        *,
        address: str,
        cpus_per_job: float,
        gpus_per_job: float | None,
        max_jobs_at_once: int | None,
        threads: int | None,
        preload: Sequence[str],
        jobs_per_worker: int,
    ) -> None:
        super().__init__(threads=threads, preload=preload, jobs_per_worker=jobs_per_worker)
        check_counts(max_jobs_at_once=max_jobs_at_once)
        _check_ray()
        from ._ray_cluster import connect, make_share

        connect(address)
        self._share = make_share(cpus_per_job, gpus_per_job)
        self._max_jobs_at_once = max_jobs_at_once
        if max_jobs_at_once is None:
            self._share.check_room()

    @property
    def n_slots(self) -> int:
        """How many jobs run at once: what the cluster has room for now, if nobody else uses it."""
        return self._max_jobs_at_once or max(1, self._share.n_slots())

    def _make_pool(self) -> "RayPool":
        from ._ray_actor import Setup
        from ._ray_pool import RayPool

        setup = Setup(
            folder=os.getcwd(),
            path=[os.path.abspath(p) for p in sys.path],
            env={key: os.environ[key] for key in self._config.hydra.job.env_copy},
            make_runner=self._runner(),
            modules=self._modules(self._preload),
            threads=self._threads or max(1, int(self._share.cpus)),
            jobs_per_worker=self._jobs_per_worker,
        )
        return RayPool(self._share, setup)


def _check_ray() -> None:
    spec = find_spec("ray")
    if spec is None or spec.origin is None:  # a folder that happens to be called ray has no origin
        raise ValueError("hydra/launcher=ray_workers needs Ray: pip install 'hydra-tune[ray]'")
