"""Runs programs in processes forked from one that has imported the large libraries already.

The suite runs hundreds of programs, and each would spend seconds on importing numpy, scipy, Hydra
or torch. What is ours is never imported here: every program does that by itself.

Started as a program this file is that server: it reads a request per line from its standard input,
and answers with a line, the program's exit code.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

LIGHT = ("numpy", "scipy.stats", "scipy.optimize", "scipy.linalg", "hydra", "hydra._internal.hydra")
HEAVY = (*LIGHT, "torch", "torchvision", "pytorch_lightning")
_LIMIT_S = 300  # of a program, which is killed then


class Programs:
    """A server; its programs run one at a time."""

    def __init__(self, libraries: Sequence[str]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__, *libraries],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "default"},
        )

    def run(
        self, script: Path, *arguments: str, cwd: Path, logs: Path, env: Mapping[str, str]
    ) -> CompletedProcess[str]:
        """Runs a program to its end; what it prints goes through two files in `logs`."""
        out, err = logs / "stdout", logs / "stderr"
        request = {"argv": [str(script), *arguments], "cwd": str(cwd), "env": dict(env)}
        assert self._server.stdin is not None and self._server.stdout is not None
        print(json.dumps({**request, "out": str(out), "err": str(err)}), file=self._server.stdin)
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        return CompletedProcess(request["argv"], code, out.read_text(), err.read_text())

    def close(self) -> None:
        """Ends the server."""
        self._server.communicate()


def main() -> None:
    """Serves until its input ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the libraries
        for library in sys.argv[1:]:
            importlib.import_module(library)
    gc.freeze()  # or the first collection of each program would copy all of the memory
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if not process:
            _exit_after(lambda request=request: _run(request))
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    _exit_after(lambda: None)


def _run(request: Mapping[str, Any]) -> None:
    """Becomes the program."""
    signal.alarm(_LIMIT_S)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, name in enumerate((os.devnull, request["out"], request["err"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.argv = request["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    sys.path[1:1] = filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))
    runpy.run_path(sys.argv[0], run_name="__main__")


def _exit_after(program: Callable[[], None]) -> None:
    """Ends the process as Python does, but for taking the libraries apart: that takes longer than
    most programs."""
    code: Any = 0
    try:
        program()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
