"""Runs real apps in real processes, in an empty folder."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from apps import BASIC, TRAIN, Run
from programs import HEAVY, LIGHT, Programs
from ray_nodes import Nodes


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One cluster for all tests of this process, which every Ray program in it finds."""
    with Nodes("6") as nodes:
        os.environ["RAY_ADDRESS"] = nodes.address
        yield
        del os.environ["RAY_ADDRESS"]
        if "ray" in sys.modules:  # else Ray ends this process when the cluster is gone
            sys.modules["ray"].shutdown()


@pytest.fixture(autouse=True)
def _cluster_where_it_is_needed(request: pytest.FixtureRequest) -> None:
    """Tests that are parametrised over launchers name theirs."""
    if "ray_workers" in request.node.name:
        request.getfixturevalue("ray_cluster")


@pytest.fixture(scope="session")
def programs() -> Iterator[Callable[..., Programs]]:
    """The servers of this process by what they import, each started when it is needed."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def server_with(*libraries: str) -> Programs:
            return stack.enter_context(contextlib.closing(Programs(libraries)))

        yield server_with


@pytest.fixture
def run(
    programs: Callable[..., Programs], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Runs an app in an empty folder and gives back what came of it."""

    def run_app(script: Path, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        trains_itself = script == TRAIN and ("-m" not in arguments or BASIC in arguments)
        server = programs(*(HEAVY if trains_itself else LIGHT))
        logs = tmp_path_factory.mktemp("logs")
        done = server.run(script, *arguments, cwd=tmp_path, logs=logs, env=os.environ)
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run_app


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out the slow ones
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray's tests are slow ones; a name that holds an address differs between processes."""
    for item in items:
        # A cluster and its actors take a minute of CPU before the first job.
        if "ray_workers" in item.nodeid or item.path.name == "test_launch_ray.py":
            item.add_marker(pytest.mark.slow)
    wrong = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if wrong:
        raise pytest.UsageError(f"names with addresses: {wrong}")
