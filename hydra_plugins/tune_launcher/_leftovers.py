"""What a job changes in its process, taken back before the next one feels it.

Only what is plain to see, and only where that is safe: else the process is not used again. An app
whose jobs leave more behind asks for a fresh process for each, `jobs_per_worker: 1`.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

_Setting = tuple[Callable[[], Any], Callable[[Any], Any]]  # how it is read, how it is set
_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGALRM,
    signal.SIGCHLD,
)
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Leftovers:
    """The settings of this process as they are now, and the way back to them."""

    def __init__(self) -> None:
        self._before = [(read, write, read()) for read, write in _settings()]
        self._imports = _imports()
        self._n_modules = len(sys.modules)

    def take_back(self) -> bool:
        """Sets everything as it was; whether the process is as good as before."""
        flush()  # what was printed through streams of the job's own
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        # Modules that the job imported may count on paths and variables that they added.
        is_clean = _imports() == self._imports or len(sys.modules) == self._n_modules
        try:
            for read, write, value in self._before:
                if read() != value:
                    write(value)
        except Exception:
            return False
        return flush() and is_clean


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
    yield _umask, os.umask
    yield lambda: list(sys.path), _set_path
    yield _attribute(sys, "stdout")
    yield _attribute(sys, "stderr")
    for number in _SIGNALS:
        if signal.getsignal(number) is not None:  # else C code handles it
            yield partial(signal.getsignal, number), partial(signal.signal, number)
    yield from _of_numpy(sys.modules.get("numpy"))
    yield from _of_torch(sys.modules.get("torch"))


def _of_numpy(numpy: Any) -> Iterator[_Setting]:
    if numpy is not None:
        yield numpy.geterr, lambda errors: numpy.seterr(**errors)


def _of_torch(torch: Any) -> Iterator[_Setting]:
    if torch is None:
        return
    yield torch.is_grad_enabled, torch.set_grad_enabled
    yield torch.get_num_threads, torch.set_num_threads
    yield torch.get_default_dtype, torch.set_default_dtype
    yield partial(_determinism, torch), partial(_set_determinism, torch)
    yield _attribute(torch.backends.cudnn, "benchmark")
    yield _attribute(torch.backends.cudnn, "deterministic")


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
