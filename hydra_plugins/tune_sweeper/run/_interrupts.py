"""Requests to stop a sweep: Ctrl-C and the signals of terminals and schedulers, counted.

    1  no new jobs; those that run are asked to end, and may write a checkpoint
    2  end them now
    3  leave at once, whatever happens to them

SIGTERM, SIGHUP and SLURM's SIGUSR1 are a request with a deadline: who sends them will not wait.
Until it is over all of them are one, and not more than a Ctrl-C before: of a terminal that is
closed both the kernel and the shell tell.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_LONGEST_S = 3600.0  # of one wait: the system's own cannot take a month
_WITH_DEADLINE = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Interrupts:
    """How often, and by what, this process was asked to stop."""

    def __init__(self, *, grace_s: float) -> None:
        self.signum: int | None = None  # the first
        # Called with the count when jobs run in this very thread, and so cannot be asked otherwise.
        self.in_process: Callable[[int], None] | None = None
        self._count = 0
        self._grace_s = grace_s
        self._deadline: float | None = None
        self.wake_fd, self._wake_end = os.pipe()  # readable after a signal
        for fd in (self.wake_fd, self._wake_end):
            os.set_blocking(fd, False)

    @property
    def level(self) -> int:
        """0: go on; 1: end what runs in good order; 2: end it now."""
        is_late = self._deadline is not None and time.monotonic() >= self._deadline
        return 2 if is_late and self._count else min(self._count, 2)

    @property
    def exit_code(self) -> int:
        """128 + n, as shells report signal n."""
        return 128 + (self.signum or signal.SIGINT)

    @property
    def seconds_left(self) -> float | None:
        """Until level 1 becomes 2 by itself; None: never."""
        if self._deadline is None or self.level == 2:
            return None
        return min(max(0.0, self._deadline - time.monotonic()), _LONGEST_S)

    def request(self, signum: int) -> None:
        """Counts a request; the third one leaves the process."""
        has_deadline = signum in _WITH_DEADLINE
        is_more = not has_deadline or self.level != 1
        if has_deadline and self._deadline is None:
            self._deadline = time.monotonic() + self._grace_s
        self._count += is_more
        self.signum = self.signum or signum
        if self._count > 2:
            os._exit(128 + signum)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_end, b"!")
        if is_more and self.in_process is not None:
            self.in_process(self._count)

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
        numbers = (signal.SIGINT, *_WITH_DEADLINE)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                # On the way out, one more Ctrl-C would spoil the exit code.
                signal.signal(number, signal.SIG_IGN if self._count else handler)

    def close(self) -> None:
        """Gives the descriptors back."""
        os.close(self.wake_fd)
        os.close(self._wake_end)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request(number)
