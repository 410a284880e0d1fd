"""A pool on a Ray cluster, kept for all tests of a process: its actors take a second to come."""

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pool_jobs
import pytest
from pool_jobs import order


@pytest.fixture(scope="session")
def make_ray_pool(ray_cluster: None) -> Callable[..., Any]:
    """Makes pools on the cluster of the tests."""
    from hydra_plugins.tune_launcher._ray_cluster import Share, connect

    connect("auto")

    def make(share: Share = Share(1, 0), **changes: Any) -> Any:  # noqa: B008
        from hydra_plugins.tune_launcher._ray_actor import Setup
        from hydra_plugins.tune_launcher._ray_pool import RayPool

        settings: dict[str, Any] = {
            "folder": os.getcwd(),
            "path": [os.path.abspath(p) for p in sys.path],
            "env": {},
            "make_runner": pickle.dumps(pool_jobs.make),
            "modules": ["pool_jobs"],
            "threads": 1,
            "jobs_per_worker": 100,
        }
        return RayPool(share, Setup(**{**settings, **changes}))

    return make


@pytest.fixture(scope="session")
def ray_pool(make_ray_pool: Callable[..., Any]) -> Iterator[Any]:
    """Two actors, both there."""
    pool = make_ray_pool()
    while len(pool._idle) < 2:
        for number in (0, 1):
            pool.submit(number, order("sleep", 0.2))
        while pool.n_running:
            pool.wait(60)
    yield pool
    pool.close()
