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
from collections.abc import Collection, Iterator

from ._requests import Requests

_LOOK_EVERY_S = 0.2
_DEAF_S = 1.0  # Python's handlers run after microseconds


class Listener:
    """A thread that counts what arrives, and compares it with what the main thread has `heard`.

    Where that falls behind a request to end at once, it gets a Ctrl-C of ours; where that does not
    help either, the process ends.
    """

    def __init__(self, heard: Requests, *, grace_s: float) -> None:
        self._heard = heard
        self._main = 0
        self._arrived = Requests(grace_s)
        self._n_own = 0  # signals of ours that are under way
        self._behind_since: float | None = None
        self._is_poked = False

    @contextlib.contextmanager
    def listening(self, numbers: Collection[int]) -> Iterator[None]:
        """Listens to these signals; to be called in the main thread."""
        self._main = threading.get_ident()
        bell, ring = os.pipe()
        os.set_blocking(ring, False)
        thread = threading.Thread(target=self._listen, args=(bell, numbers), daemon=True)
        thread.start()
        before = signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(ring)
            thread.join()
            os.close(bell)

    def _listen(self, bell: int, numbers: Collection[int]) -> None:
        while True:
            is_quiet = not self._arrived.count
            ready, _, _ = select.select([bell], [], [], None if is_quiet else _LOOK_EVERY_S)
            arrived = os.read(bell, 512) if ready else b"\0"
            if not arrived:
                return
            for number in arrived:
                if number in numbers:
                    self._take(number)
            self._look()

    def _take(self, number: int) -> None:
        if self._n_own:
            self._n_own -= 1
        else:
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
