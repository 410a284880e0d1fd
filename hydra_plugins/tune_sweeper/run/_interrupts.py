"""Requests to stop a sweep, heard: Ctrl-C and the signals of terminals and schedulers."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ._listener import Listener
from ._requests import WITH_DEADLINE, Requests

_NUMBERS = (signal.SIGINT, *WITH_DEADLINE)


class Interrupts:
    """How often, and by what, this process was asked to stop."""

    def __init__(self, *, grace_s: float) -> None:
        # Called with the count when jobs run in this very thread, and so cannot be asked otherwise.
        self.in_process: Callable[[int], None] | None = None
        self._requests = Requests(grace_s)
        self._grace_s = grace_s
        self.wake_fd, self._wake_end = os.pipe()  # readable after a signal
        for fd in (self.wake_fd, self._wake_end):
            os.set_blocking(fd, False)

    @property
    def level(self) -> int:
        """0: go on; 1: end what runs in good order; 2: end it now."""
        return self._requests.level

    @property
    def exit_code(self) -> int:
        """128 + n, as shells report signal n."""
        return self._requests.exit_code

    @property
    def seconds_left(self) -> float | None:
        """Until level 1 becomes 2 by itself; None: never."""
        return self._requests.seconds_left

    def request(self, signum: int) -> None:
        """Counts a request; the third one leaves the process."""
        is_more = self._requests.add(signum)
        if self._requests.count > 2:
            os._exit(128 + signum)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_end, b"!")
        if is_more and self.in_process is not None:
            self.in_process(self._requests.count)

    def drain(self) -> None:
        """Makes `wake_fd` silent until the next signal."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_fd, 4096)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Listens to the signals; also to Ctrl-C in a process that a shell started with `&`."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in _NUMBERS}
        try:
            with self._listening():
                yield
        finally:
            for number, handler in before.items():
                # On the way out, one more Ctrl-C would spoil the exit code.
                signal.signal(number, signal.SIG_IGN if self._requests.count else handler)

    def close(self) -> None:
        """Gives the descriptors back."""
        os.close(self.wake_fd)
        os.close(self._wake_end)

    def _listening(self) -> contextlib.AbstractContextManager[None]:
        if self.in_process is None:
            return contextlib.nullcontext()
        return Listener(self._requests, grace_s=self._grace_s).listening(_NUMBERS)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request(number)
