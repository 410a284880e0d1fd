"""Hears requests to stop beside the main thread, where jobs run in that thread.

Python's handlers run between two steps of the main thread, which may compute in C for hours or go
on in spite of them. What holds the interpreter's lock all the time can only be ended from outside.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator

from ._requests import Requests

_LOOK_EVERY_S = 0.2
_OVER = b"\0"  # no signal has this number
_DEAF_S = 1.0  # Python's handlers run after microseconds


class Listener:
    """A thread that counts what arrives, and compares it with what the main thread has `heard`.

    Where that falls behind a request to end at once, it gets a Ctrl-C of ours; where that does not
    help either, the process ends. `counts` tells whether a signal is a request: a job may have
    taken one over for what it likes.
    """

    def __init__(self, heard: Requests, *, grace_s: float, counts: Callable[[int], bool]) -> None:
        self._heard = heard
        self._counts = counts
        self._arrived = Requests(grace_s)
        self._main = threading.get_ident()
        self._n_own = 0  # signals of ours that are under way
        self._behind_since: float | None = None
        self._is_poked = False
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._ring, False)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listens; to be called in the main thread."""
        self._thread.start()
        before = signal.set_wakeup_fd(self._ring, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.write(self._ring, _OVER)  # others may have the pipe too, so it would not end
            self._thread.join()
            self.forget()

    def forget(self) -> None:
        """Closes the pipe; in a child that a job forked, whose signals are none of ours."""
        if (other := signal.set_wakeup_fd(-1)) != self._ring and other != -1:
            signal.set_wakeup_fd(other)
        os.close(self._ring)
        os.close(self._bell)

    def _listen(self) -> None:
        while True:
            is_quiet = not self._arrived.count
            ready, _, _ = select.select([self._bell], [], [], None if is_quiet else _LOOK_EVERY_S)
            arrived = os.read(self._bell, 512) if ready else b""
            if _OVER in arrived:
                return
            for number in arrived:
                self._take(number)
            self._look()

    def _take(self, number: int) -> None:
        if number == signal.SIGINT and self._n_own:
            self._n_own -= 1
        elif self._counts(number):
            self._arrived.add(number)

    def _look(self) -> None:
        wanted = max(self._arrived.count, self._arrived.level)
        if wanted < 2 or self._heard.count >= wanted:
            self._behind_since, self._is_poked = None, False
            return
        self._behind_since = self._behind_since or time.monotonic()
        behind_s = time.monotonic() - self._behind_since
        if behind_s > 2 * _DEAF_S:
            os._exit(self._arrived.exit_code)
        if behind_s > _DEAF_S and not self._is_poked:
            self._is_poked = True
            self._poke()

    def _poke(self) -> None:
        """A job may have taken over what asked first; Ctrl-C is left to us."""
        if not self._heard.count:
            self._heard.add(self._arrived.signum or signal.SIGINT)
        self._n_own += 1
        signal.pthread_kill(self._main, signal.SIGINT)
