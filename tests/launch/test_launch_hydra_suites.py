"""Hydra's own suites for launchers, which ship in its wheel."""

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

from hydra_plugins.tune_launcher._launcher import WorkersLauncher

LAUNCHERS = ["workers"]


def test_launcher_is_found() -> None:
    """Hydra discovers it as a plugin."""
    assert WorkersLauncher.__name__ in [p.__name__ for p in Plugins.instance().discover(Launcher)]


@pytest.mark.parametrize("overrides", [[]])
@pytest.mark.parametrize("launcher_name", LAUNCHERS)
class TestLauncher(LauncherTestSuite):
    """Sweeps of Hydra's basic sweeper, in this process."""


@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [({}, ["-m", f"hydra/launcher={name}"]) for name in LAUNCHERS],
    ids=LAUNCHERS,
)
class TestIntegration(IntegrationTestSuite):
    """Apps in processes of their own."""
