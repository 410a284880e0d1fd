"""Requests to stop a sweep, heard: Ctrl-C and the signals of terminals and schedulers."""

import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

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
        self._before: dict[int, Any] = {}  # handlers, while ours are installed
        self._listener: Listener | None = None
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
        """Until to look at the level again, which may become 2 by itself; None: it cannot."""
        return self._requests.seconds_left

    def request(self, signum: int) -> None:
        """Counts a request; the third one leaves the process."""
        is_more = self._requests.add(signum)
        if self._requests.count > 2:
            os._exit(self.exit_code)
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
        self._before = {number: signal.signal(number, self._handle) for number in _NUMBERS}
        in_child = weakref.WeakMethod(self._in_child)
        os.register_at_fork(after_in_child=lambda: (forget := in_child()) and forget())
        try:
            with self._listening():
                yield
        finally:
            for number, handler in self._before.items():
                # On the way out, one more Ctrl-C would spoil the exit code.
                signal.signal(number, signal.SIG_IGN if self._requests.count else handler)
            self._before = {}

    def close(self) -> None:
        """Gives the descriptors back."""
        os.close(self.wake_fd)
        os.close(self._wake_end)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Where jobs run in this very thread, which may be deaf, another one listens too."""
        if self.in_process is None:
            yield
            return
        listener = Listener(self._requests, grace_s=self._grace_s, counts=self._counts)
        with listener.listening():
            self._listener = listener
            yield
            self._listener = None

    def _counts(self, number: int) -> bool:
        """Whether a signal asks the sweep to stop; trainings take SIGTERM over to hear it too."""
        is_ours = getattr(signal.getsignal(number), "__self__", None) is self
        return number in _NUMBERS and (is_ours or number == signal.SIGTERM)

    def _in_child(self) -> None:
        """What a job forked ends as it would without us, but Ctrl-C is ours to decide about."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else handler)
        if self._before and self._listener is not None:
            self._listener.forget()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request(number)
