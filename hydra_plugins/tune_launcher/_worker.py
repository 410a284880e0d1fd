"""A worker's side: one job after the other, as long as each ends cleanly. Knows no Hydra."""

import os
import random
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NoReturn

from ._leftovers import Leftovers

KEEP, REPLACE = b"+", b"-"
"""First byte of an answer: whether the process that gives it may run another job."""

Runner = Callable[[bytes], tuple[bool, bytes]]
"""Runs the job that a message describes; whether the process may go on, and what to send back."""


def work(driver: Connection, run: Runner) -> NoReturn:
    """Runs jobs until the driver closes the connection or one of them does not end cleanly."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to decide about
    # A job is asked to end by SIGTERM. One that does not know this goes on to its end.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _reseed()
    is_clean, pid = True, os.getpid()
    while is_clean:
        try:
            message = driver.recv_bytes()
        except (EOFError, OSError):
            break
        leftovers = Leftovers()
        is_clean, answer = run(message)
        if os.getpid() != pid:  # the job forked, and its child came back here too
            os._exit(0)
        is_clean = leftovers.take_back() and is_clean
        driver.send_bytes((KEEP if is_clean else REPLACE) + answer)
    os._exit(0)


def _reseed() -> None:
    """Generators whose state the fork copied: unseeded jobs must not draw the same numbers."""
    fresh = random.SystemRandom().randrange(2**32)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(fresh)
    if torch is not None:
        torch.manual_seed(fresh)
