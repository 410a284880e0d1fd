"""Runs real apps in real processes, in an empty folder."""

import os
import subprocess
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from apps import Run, command


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs an app in an empty folder and gives back what came of it."""

    def run_app(script: Path, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        done = subprocess.run(
            command(script, *arguments),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONWARNINGS": "default"},
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run_app


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's name that holds an address differs between processes, and none would run."""
    wrong = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if wrong:
        raise pytest.UsageError(f"names with addresses: {wrong}")
