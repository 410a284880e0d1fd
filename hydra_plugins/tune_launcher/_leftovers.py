"""What a job changes in its process, taken back before the next one feels it.

Only what is plain to see: an app whose jobs leave more behind asks for a fresh process for each,
`jobs_per_worker: 1`.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

_Setting = tuple[Callable[[], Any], Callable[[Any], Any]]  # how it is read, how it is set
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


@contextmanager
def undone() -> Iterator[None]:
    """Takes back what happens to the process's settings inside."""
    before = [(read, write, read()) for read, write in _settings()]
    yield
    for timer in _TIMERS:
        signal.setitimer(timer, 0)
    for read, write, value in before:
        if read() != value:
            write(value)


def _settings() -> Iterator[_Setting]:
    yield lambda: dict(os.environ), _set_environment
    yield _umask, os.umask
    yield sys.path.copy, _set_path
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
    yield torch.get_default_device, torch.set_default_device
    yield torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode
    yield _attribute(torch.backends.cudnn, "benchmark")
    yield _attribute(torch.backends.cudnn, "deterministic")


def _attribute(owner: Any, name: str) -> _Setting:
    return partial(getattr, owner, name), partial(setattr, owner, name)


def _set_environment(environ: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environ)


def _set_path(path: list[str]) -> None:
    sys.path[:] = path


def _umask() -> int:
    mask = os.umask(0)  # there is no other way to read it
    os.umask(mask)
    return mask
