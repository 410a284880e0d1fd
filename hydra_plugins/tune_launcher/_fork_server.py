"""The driver's end of the fork server (`_server.py`): how it is started, asked and ended."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

from ._server import environment

_SERVER = "from hydra_plugins.tune_launcher import _server; _server.main({fd}, is_apart={is_apart})"
_CLOSE_S = 5.0  # it takes milliseconds to end its workers
_DEAF_S = 30.0  # and to answer, once its imports are done


class ForkServer:
    """One server, its process and the connection to it."""

    def __init__(self, setup: bytes, threads: int, *, is_apart: bool) -> None:
        ours, theirs = socket.socketpair()
        self.is_ready = False  # its imports are done
        self._n_asked = 0  # requests without an answer
        self._heard = time.monotonic()  # or asked for the first of them
        self.connection = Connection(ours.detach())
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVER.format(fd=theirs.fileno(), is_apart=is_apart)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is for the driver alone
                env={**environment(os.environ.items(), threads=threads), **_python_path()},
            )
        send(self.connection, setup)

    def connect(self, key: int, env: Mapping[str, str]) -> Connection:
        """A connection to a worker that the server is about to fork."""
        ours, theirs = socket.socketpair()
        with theirs:
            request = json.dumps({"worker": key, "env": dict(env)}).encode()
            self._expect_answer()
            if send(self.connection, request):
                with contextlib.suppress(OSError):  # its end is noticed where we read
                    reduction.send_handle(self.connection, theirs.fileno(), self._process.pid)
        return Connection(ours.detach())

    def read(self) -> dict[str, Any] | None:
        """The next message; None when the server is gone."""
        try:
            message: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None
        self.is_ready |= "ready" in message
        self._n_asked -= bool(message.keys() & {"began", "unborn", "pong"})
        self._heard = time.monotonic()
        return message

    def ping(self) -> None:
        """Asks for a sign of life."""
        self._expect_answer()
        send(self.connection, json.dumps({"ping": True}).encode())

    def _expect_answer(self) -> None:
        self._heard = time.monotonic() if not self._n_asked else self._heard
        self._n_asked += 1

    @property
    def patience(self) -> float | None:
        """Seconds in which it has to answer; None: as long as it likes, as for its imports."""
        if not self.is_ready or not self._n_asked:
            return None
        return max(0.0, self._heard + _DEAF_S - time.monotonic())

    def kill(self) -> None:
        """Ends the server at once, whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """Ends the server, and so its workers."""
        self.connection.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:  # it imports, or is stuck: guards see its end
            self._process.kill()
            self._process.wait()


def _python_path() -> dict[str, str]:
    """The server finds this package where the driver did, also when a script's folder has it."""
    return {"PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path)}


def send(connection: Connection, message: bytes) -> bool:
    """Whether the other end was there to be sent to."""
    try:
        connection.send_bytes(message)
    except OSError:
        return False
    return True
