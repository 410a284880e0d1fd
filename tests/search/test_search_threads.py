"""One BLAS thread while a strategy thinks, and as many as before afterwards."""

import pytest

from hydra_plugins.tune_sweeper.search._threads import _openblas, one_blas_thread


def counts() -> list[int]:
    return [get() for get, _ in _openblas()]


@pytest.mark.skipif(not _openblas(), reason="numpy and scipy use another library")
def test_threads_come_back() -> None:
    """After the block, also when it fails."""
    before = counts()
    with pytest.raises(KeyError), one_blas_thread():
        inside = counts()
        raise KeyError

    assert set(inside) == {1}
    assert before == counts()
