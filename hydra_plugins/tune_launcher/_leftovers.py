"""What a job changes in its process, taken back before the next one feels it.

Only what is plain to see, and only where that is safe: else the process is not used again. An app
whose jobs leave more behind asks for a fresh process for each, `jobs_per_worker: 1`.
"""

import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from . import _guard

_Setting = tuple[Callable[[], Any], Callable[[Any], Any]]  # how it is read, how it is set
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_STANDARD = (0, 1, 2)  # descriptors: whatever is opened next would get the number of a closed one
_JOIN_S = 0.1  # for threads that were told to end and are about to


class Leftovers:
    """The settings of this process as they are now, and the way back to them."""

    def __init__(self) -> None:
        self._before = [(read, write, read()) for read, write in _settings()]
        self._marks = [(read, read()) for read in _marks()]
        self._threads = set(threading.enumerate())
        self._imports = _imports()
        self._n_modules = len(sys.modules)

    def take_back(self) -> bool:
        """Sets everything as it was; whether the process is as good as before."""
        flush()  # what was printed through streams of the job's own
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        # A warm process would keep every training's cycles, 3 MB each; and what destructors do is
        # this job's doing, not the next one's.
        gc.collect()
        # Modules that the job imported may count on paths and variables that they added.
        has_imported = len(sys.modules) != self._n_modules
        is_clean = not has_imported or _imports() == self._imports
        try:
            for read, write, value in self._before:
                if read() != value:
                    write(value)
                    is_clean &= not has_imported or write in _OF_ANY_IMPORT
            is_clean &= self._is_unmarked()
        except Exception:
            return False
        return flush() and is_clean

    def _is_unmarked(self) -> bool:
        return all(read() == value for read, value in self._marks) and self._has_no_new_threads()

    def _has_no_new_threads(self) -> bool:
        """A thread may do anything at any time, to whatever job runs then."""
        new = [t for t in threading.enumerate() if t not in self._threads and not _is_harmless(t)]
        for thread in new:
            thread.join(_JOIN_S / len(new))
        return not any(thread.is_alive() for thread in new)


def _is_harmless(thread: threading.Thread) -> bool:
    """The one that looks after progress bars stays for good; of C's own Python knows no end."""
    return type(thread).__name__ in ("TMonitor", "_DummyThread")


def flush() -> bool:
    """Writes out what was printed; whether the streams were there to be written to."""
    is_whole = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # a program may be started without an output
                stream.flush()
        except (ValueError, OSError):  # closed or taken apart
            is_whole = False
    return is_whole


def _imports() -> tuple[list[str], dict[str, str]]:
    """What decides where modules are found, and much of what they do."""
    return list(sys.path), dict(os.environ)


def _settings() -> Iterator[_Setting]:
    yield lambda: dict(os.environ), _set_environment
    yield partial(signal.pthread_sigmask, signal.SIG_BLOCK, ()), _set_mask
    yield gc.isenabled, lambda is_on: (gc.enable if is_on else gc.disable)()
    yield gc.get_threshold, lambda threshold: gc.set_threshold(*threshold)
    yield _umask, os.umask
    yield lambda: list(sys.path), _set_path
    yield sys.getrecursionlimit, sys.setrecursionlimit
    yield sys.getswitchinterval, sys.setswitchinterval
    yield sys.gettrace, sys.settrace
    yield sys.getprofile, sys.setprofile
    yield lambda: list(warnings.filters), _set_filters
    yield lambda: logging.root.manager.disable, logging.disable
    yield _log_files, _close_log_files
    yield socket.getdefaulttimeout, socket.setdefaulttimeout
    for name in ("stdin", "stdout", "stderr"):
        yield _attribute(sys, name)
    for number in _SIGNALS:
        if signal.getsignal(number) is not None:  # else C code handles it
            yield partial(signal.getsignal, number), partial(signal.signal, number)
    yield from _of_multiprocessing(sys.modules.get("multiprocessing"))
    yield from _of_decimal(sys.modules.get("decimal"))
    yield from _of_numpy(sys.modules.get("numpy"))
    yield from _of_torch(sys.modules.get("torch"))


def _of_multiprocessing(multiprocessing: Any) -> Iterator[_Setting]:
    if multiprocessing is not None:
        set_it = partial(multiprocessing.set_start_method, force=True)
        yield partial(multiprocessing.get_start_method, allow_none=True), set_it


def _of_decimal(decimal: Any) -> Iterator[_Setting]:
    if decimal is not None:
        for name in ("prec", "rounding"):
            yield _attribute(decimal.getcontext(), name)


def _of_numpy(numpy: Any) -> Iterator[_Setting]:
    if numpy is not None:
        yield numpy.geterr, lambda errors: numpy.seterr(**errors)


def _of_torch(torch: Any) -> Iterator[_Setting]:
    if torch is None:
        return
    yield torch.is_grad_enabled, torch.set_grad_enabled
    yield torch.get_num_threads, torch.set_num_threads
    yield torch.get_default_dtype, torch.set_default_dtype
    if hasattr(torch, "get_default_device"):  # since 2.3
        yield torch.get_default_device, partial(_set_default_device, torch)
    yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    yield partial(_determinism, torch), partial(_set_determinism, torch)
    yield _attribute(torch.backends.cudnn, "benchmark")
    yield _attribute(torch.backends.cudnn, "deterministic")


def _set_default_device(torch: Any, device: Any) -> None:
    """To be told "cpu" costs torch time at every call; not to be told is the same device."""
    torch.set_default_device(None if device.type == "cpu" else device)


def _determinism(torch: Any) -> tuple[bool, bool]:
    is_on = torch.are_deterministic_algorithms_enabled()
    return is_on, torch.is_deterministic_algorithms_warn_only_enabled()


def _set_determinism(torch: Any, mode: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])


def _attribute(owner: Any, name: str) -> _Setting:
    return partial(getattr, owner, name), partial(setattr, owner, name)


def _set_environment(environ: dict[str, str]) -> None:
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update(environ)


def _set_mask(mask: set[signal.Signals]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _set_path(path: list[str]) -> None:
    sys.path[:] = path


def _set_filters(filters: list[Any]) -> None:
    warnings.resetwarnings()  # which also says that they changed
    warnings.filters[:] = filters  # type: ignore[index]


def _log_files() -> set[tuple[logging.Logger, logging.Handler]]:
    """Whoever writes into a file of its job's; the root's handlers Hydra sets for each job anew."""
    places = logging.root.manager.loggerDict.values()
    loggers = [place for place in list(places) if isinstance(place, logging.Logger)]
    found = {(logger, handler) for logger in loggers for handler in logger.handlers}
    return {pair for pair in found if isinstance(pair[1], logging.FileHandler)}


def _close_log_files(before: set[tuple[logging.Logger, logging.Handler]]) -> None:
    for logger, handler in _log_files() - before:
        logger.removeHandler(handler)
        handler.close()


# Much that is imported sets them, and needs not.
_OF_ANY_IMPORT = (_set_filters, logging.disable, _close_log_files)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _marks() -> Iterator[Callable[[], Any]]:
    """What cannot be taken back, or is too rare to be: a change costs the process."""
    for limit in _LIMITS:
        yield partial(resource.getrlimit, limit)
    yield partial(os.getpriority, os.PRIO_PROCESS, 0)
    yield lambda: (os.getuid(), os.geteuid(), os.getgid(), os.getegid())
    if hasattr(os, "waitid"):
        yield _children
    yield lambda: {name for name, module in sys.modules.items() if module is None}
    yield lambda: sys.stdin is None or sys.stdin.closed
    yield lambda: [fd for fd in _STANDARD if _is_open(fd)]
    if hasattr(os, "sched_getaffinity"):
        yield partial(os.sched_getaffinity, 0)
    torch = sys.modules.get("torch")
    if torch is not None:
        yield torch.get_num_interop_threads


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _children() -> set[int]:
    """The living processes that this one started; one call of the system where there are none."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    return _guard.children() - {_tracker_pid()}


def _tracker_pid() -> Any:
    """The process of Python's own that looks after shared memory, and stays."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    return None if tracker is None else tracker._resource_tracker._pid
