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
