"""The overrides with which a trial is run again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hydra_plugins.tune_sweeper._rerun import again
from hydra_plugins.tune_sweeper.run._record import Job
from hydra_plugins.tune_sweeper.search._trial import Proposal

TYPED = "resume_from=/data/bayes-1/3/checkpoints/last.ckpt"
SUMMARY: Any = SimpleNamespace(header={}, parent=lambda job: None)


def test_checkpoint_that_was_typed_is_kept(tmp_path: Path) -> None:
    """Also where it has the name that the sweep's own would have."""
    job = Job(3, Proposal(3, {"lr": 0.1}), 0, "3")

    assert again(SUMMARY, tmp_path, job, ["lr=0.1", TYPED]) == ["lr=0.1", TYPED]


def test_checkpoint_of_an_attempt_is_not(tmp_path: Path) -> None:
    """A trial that was interrupted is run again from where it began."""
    job = Job(3, Proposal(3, {"lr": 0.1}), 0, "3", attempt=2)
    own = f"resume_from={tmp_path}/3/checkpoints/last.ckpt"

    assert again(SUMMARY, tmp_path, job, [TYPED, "lr=0.1", own]) == [TYPED, "lr=0.1"]
    typed = "resume_from=/data/pretrained.ckpt"
    assert again(SUMMARY, tmp_path, job, [typed, "lr=0.1"]) == [typed, "lr=0.1"]
