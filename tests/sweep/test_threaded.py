"""Launchers with a thread a job, when what they launch into loses one."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hydra_plugins.tune_sweeper._threaded import ThreadedLauncher
from hydra_plugins.tune_sweeper.run._interrupts import Interrupts
from hydra_plugins.tune_sweeper.run._record import Job
from hydra_plugins.tune_sweeper.search._trial import Proposal


class Cluster:
    """Breaks at first; then it never tells the end of job 0, which is gone, and runs job 1."""

    def __init__(self) -> None:
        self.n_launched = 0
        self.is_gone = threading.Event()
        self.forever = threading.Event()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        self.n_launched += 1
        if self.n_launched == 1:
            raise RuntimeError("broken")
        if initial_job_idx == 0:
            self.is_gone.set()
            self.forever.wait(60)
        empty = OmegaConf.create()
        return [JobReturn(job_overrides[0], empty, empty, status=JobStatus.COMPLETED)]


class Watching(ThreadedLauncher):
    """Notices what is gone, as the launcher for SLURM does from its queue."""

    def _timeout_s(self) -> float | None:
        return 0.05

    def _lost(self) -> Sequence[Job]:
        is_lost = self._launcher.is_gone.is_set() and 0 in self._running
        return [self._running.pop(0)] if is_lost else []


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Watching]:
    """With a job that broke it, and runs alone now, and one that waits."""
    interrupts = Interrupts(grace_s=1.0)
    around: Any = SimpleNamespace(
        command=lambda job, checkpoint: [f"x={job.number}"],
        sweep_folder=tmp_path,
        interrupts=interrupts,
    )
    launcher = Watching(Cluster(), around)  # type: ignore[arg-type]
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        launcher.submit(Job(number, Proposal(number, {"x": number}), 0, str(number)), None)
        while not launcher._launcher.is_gone.is_set():
            assert launcher.wait() == []
    yield launcher
    launcher._launcher.forever.set()
    interrupts.close()


def test_suspect_that_is_lost_makes_way_for_others(launcher: Watching) -> None:
    """Whoever was cancelled while it ran alone does not hold up the sweep."""
    ended = [number for _ in range(40) for number in launcher.wait()]

    assert ended == [0, 1]
