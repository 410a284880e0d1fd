"""A guard stands between the fork server and each worker, and ends what the worker leaves behind.

    server --fork--> guard --fork--> worker --> what its jobs start

A job may kill its parent, or start processes in sessions of their own: that is its guard's business
and no other worker feels it. Guards also clean up when all that is above them is killed at once.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STDERR = 2
_CLEANING_S = 1.0  # for what was killed to be gone, which takes the kernel milliseconds
_CLEANING_LOOK_S = 0.005
_PARENT_LOOK_S = 0.5


def start(work: Callable[[], NoReturn]) -> tuple[int, int]:
    """Forks a guard, which forks the process that does `work`; gives back both pids.

    A guard that cannot fork ends at once, and stands for its worker.

    Raises:
        OSError: nothing can be forked.
    """
    parent = os.getpid()
    read, write = os.pipe()
    with open(read, "rb") as told:
        # What SIGTERM means here is not for a child that has no handler of its own yet.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            guard = _fork()
            if guard == 0:
                _guard(work, parent, write)
        finally:
            os.close(write)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return guard, int(told.read() or guard)


def _guard(work: Callable[[], NoReturn], parent: int, tell: int) -> NoReturn:
    try:
        _begin(parent, signal.SIGTERM)
        adopt_orphans()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        guard = os.getpid()
        worker = _fork()
        if worker == 0:
            _begin(guard, signal.SIGKILL)
            os.write(tell, str(os.getpid()).encode())  # whoever knows it can kill its session
            os.close(tell)
            work()
        _watch(worker)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _watch(worker: int) -> NoReturn:
    """Ends as the worker does, once nothing that it started is left."""
    _close_all()  # so that others see the ends of connections

    def end(*_: object) -> None:
        kill_group(worker)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)  # it may have no session of its own yet

    signal.signal(signal.SIGTERM, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    pid = 0
    while pid != worker:  # else it was an orphan
        pid, status = os.waitpid(-1, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what it asks for is under way
    kill_group(worker)
    _end_children()
    _leave_as(os.waitstatus_to_exitcode(status))


def _close_all() -> None:
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = list(range(os.sysconf("SC_OPEN_MAX")))
    for number in numbers:
        if number > _STDERR:
            with contextlib.suppress(OSError):
                os.close(number)


def _end_children() -> None:
    deadline = time.monotonic() + _CLEANING_S
    with contextlib.suppress(ChildProcessError):  # none is left
        while time.monotonic() < deadline:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                kill_children(but=set())
                time.sleep(_CLEANING_LOOK_S)


def _leave_as(code: int) -> NoReturn:
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _begin(parent: int, number: signal.Signals) -> None:
    """A session of its own, to be killed as one; `number` comes when the parent ends."""
    os.setsid()
    if sys.platform == "linux":
        die_with_parent(number)
    else:
        threading.Thread(target=_look_up, args=(parent, number), daemon=True).start()
    if os.getppid() != parent:  # it ended before the lines above
        os._exit(0)


def _look_up(parent: int, number: signal.Signals) -> None:
    """Where the kernel does not tell of a parent's end."""
    main = threading.main_thread().ident
    assert main is not None, "this thread was started by it"
    while os.getppid() == parent:
        time.sleep(_PARENT_LOOK_S)
    signal.pthread_kill(main, number)


def _fork() -> int:
    with warnings.catch_warnings():  # Python 3.12 warns of threads, which an import may have made
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def die_with_parent(number: signal.Signals) -> None:
    """Linux sends this process `number` when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def adopt_orphans() -> None:
    """Linux makes this process the parent of all descendants that lose theirs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_group(pid: int) -> None:
    """Ends a worker and all of its session; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def kill_children(*, but: set[int]) -> None:
    """Ends the children of this process, those that it adopted too; theirs come next."""
    for pid in children() - but:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def children() -> set[int]:
    """Living processes whose parent is this one, where there is a /proc that tells."""
    found, own = set(), str(os.getpid()).encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            # In bytes: whoever named a process need not have known UTF-8.
            state, parent, *_ = (folder / "stat").read_bytes().rpartition(b") ")[2].split()
            if parent == own and state != b"Z":
                found.add(int(folder.name))
    return found
