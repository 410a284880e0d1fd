"""Which processes are below and above this one, whatever else runs on the machine."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
from apps import ROOT

from hydra_plugins.tune_launcher import _guard
from hydra_plugins.tune_sweeper.run import _processes


@pytest.fixture
def foreign_name() -> Iterator[int]:
    """A child whose name is no text in UTF-8, as the kernel makes some by cutting them short."""
    code = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'\\xff)', 0, 0, 0); print(flush=True)"
    code += "; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        child.kill()


def test_names_of_processes_may_be_anything(foreign_name: int) -> None:
    """One of them, anybody's, would else be the end of every sweep on the machine."""
    assert foreign_name in _guard.children()
    assert foreign_name in _processes.descendants()


def test_what_cannot_be_read_is_not_taken_for_an_end() -> None:
    """A job that opens too many files is not ended as if its sweep had been."""
    code = f"""
        import os, resource, sys
        sys.path.insert(0, {str(ROOT)!r})
        from hydra_plugins.tune_sweeper.run import _processes
        above = int(sys.argv[1])
        found = [_processes._is_above(above), _processes._is_above(2**22 + 1)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        print(*found, _processes._is_above(above))
    """
    script = [sys.executable, "-c", textwrap.dedent(code), str(os.getpid())]
    between = [sys.executable, "-c", f"import subprocess; subprocess.run({script!r}, check=True)"]

    assert subprocess.check_output(between, text=True).split() == ["True", "False", "True"]
