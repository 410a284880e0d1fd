"""How often a sweep was asked to stop, and what that means.

    1  no new jobs; those that run are asked to end, and may write a checkpoint
    2  end them now
    3  leave at once, whatever happens to them

SIGTERM, SIGHUP and SLURM's SIGUSR1 are a request with a deadline: who sends them will not wait.
Until it is over all of them are one, and not more than a Ctrl-C before: of a terminal that is
closed both the kernel and the shell tell.
"""

import signal
import time

WITH_DEADLINE = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_LOOK_AGAIN_S = 0.1  # once it is over, until all has ended
_LONGEST_S = 3600.0  # of one wait: the system's own cannot take a month


class Requests:
    """A count of signals."""

    def __init__(self, grace_s: float) -> None:
        self.count = 0
        self.signum: int | None = None  # the first
        self._grace_s = grace_s
        self._deadline: float | None = None

    def add(self, signum: int) -> bool:
        """Whether this one is a request of its own."""
        has_deadline = signum in WITH_DEADLINE
        is_late = self.level > self.count
        is_more = not has_deadline or not self.count or is_late
        if has_deadline and self._deadline is None:
            self._deadline = time.monotonic() + self._grace_s
        self.count += is_more
        self.signum = self.signum or signum
        return is_more

    @property
    def level(self) -> int:
        """0: go on; 1: end what runs in good order; 2: end it now."""
        is_late = self._deadline is not None and time.monotonic() >= self._deadline
        return 2 if is_late and self.count else min(self.count, 2)

    @property
    def exit_code(self) -> int:
        """128 + n, as shells report signal n."""
        return 128 + (self.signum or signal.SIGINT)

    @property
    def seconds_left(self) -> float | None:
        """Until to look at the level again, which may become 2 by itself; None: it cannot."""
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        return min(left, _LONGEST_S) if left > 0 else _LOOK_AGAIN_S
