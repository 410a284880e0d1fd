"""Hydra's own suites for launchers, which ship in its wheel."""

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

LAUNCHERS = ["workers", "ray_workers"]


@pytest.fixture(scope="module", autouse=True)
def _plugins_are_known() -> None:
    """Hydra's suites put its state back as it was before each test; they expect to find plugins in
    it."""
    Plugins.instance().discover(Launcher)


@pytest.mark.parametrize("name", ["WorkersLauncher", "RayWorkersLauncher"])
def test_launcher_is_found(name: str) -> None:
    """Hydra discovers it as a plugin."""
    assert name in [p.__name__ for p in Plugins.instance().discover(Launcher)]


@pytest.mark.parametrize("overrides", [[]])
@pytest.mark.parametrize("launcher_name", LAUNCHERS)
class TestLauncher(LauncherTestSuite):
    """Sweeps of Hydra's basic sweeper, in this process."""


@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [
        pytest.param({}, ["-m", "hydra/launcher=workers"], id="workers"),
        # Each of its ten apps connects to the cluster for 3 s.
        pytest.param(
            {}, ["-m", "hydra/launcher=ray_workers"], id="ray_workers", marks=pytest.mark.slow
        ),
    ],
)
class TestIntegration(IntegrationTestSuite):
    """Apps in processes of their own."""
