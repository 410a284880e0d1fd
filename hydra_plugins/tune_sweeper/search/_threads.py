"""One thread for numpy and scipy while a strategy thinks.

The matrices are small and the cores are busy with trainings: OpenBLAS' threads then wait for each
other at every product. On 2 cores with 4 other processes, 20 trials took over 60 s with two threads
and 4 s with one. An environment variable would come too late, and would reach the trainings.
"""

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import scipy

_FOLDERS = ("../{}.libs", ".dylibs")  # where wheels keep their libraries, by system
_NAMES = [f"{a}openblas_{{}}_num_threads{b}" for a in ("scipy_", "") for b in ("64_", "")]


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Inside, OpenBLAS uses one thread; another library is left as it is."""
    before = [get() for get, _ in _openblas()]
    for _, put in _openblas():
        put(1)
    try:
        yield
    finally:
        for (_, put), n in zip(_openblas(), before, strict=True):
            put(n)


@functools.cache
def _openblas() -> list[tuple[Callable[[], int], Callable[[int], None]]]:
    """How to read and set the number of threads of each copy that is loaded."""
    found = []
    for package in (numpy, scipy):
        here = Path(str(package.__file__)).parent
        folders = [here / pattern.format(package.__name__) for pattern in _FOLDERS]
        for path in (p for folder in folders for p in sorted(folder.glob("*openblas*"))):
            found += _functions(ctypes.CDLL(str(path)))
    return found


def _functions(library: ctypes.CDLL) -> list[tuple[Callable[[], int], Callable[[int], None]]]:
    for name in _NAMES:
        if hasattr(library, name.format("set")):
            return [(getattr(library, name.format("get")), getattr(library, name.format("set")))]
    return []
