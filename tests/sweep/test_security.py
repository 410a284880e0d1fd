"""Values never become code, paths or shell; a config names components and calls nothing."""

from pathlib import Path

import pytest
from apps import APP, TRAIN, Run, statuses_of, values_of

from hydra_plugins.tune_sweeper.run import _record

TARGETS = [
    "os.system",
    "subprocess.run",
    "distutils.spawn.spawn",
    "torch.load",
    "joblib.load",
    "pickle.loads",
    "builtins.eval",
    "builtins.exec",
    "shutil.rmtree",
    "train.models.cnn",
]


@pytest.mark.parametrize("target", TARGETS)
def test_target_in_the_config_is_refused(run: Run, tmp_path: Path, target: str) -> None:
    """Hydra's own list of forbidden ones is incomplete; we call none at all."""
    typed = (f"+model._target_={target}", f"+model.command='touch {tmp_path}/P'")
    done = run(TRAIN, *typed, check=False)

    assert done.returncode == 2
    assert "model._target_: components are chosen by name" in done.stderr
    assert list(tmp_path.iterdir()) == []


HOSTILE = ["../../x", "/abs", "$(touch P)", "a\nb", "x" * 300, "ünï→", "<script>alert(1)</script>"]


@pytest.mark.parametrize("launcher", ["basic", "workers"])
def test_hostile_values_stay_values(run: Run, tmp_path: Path, launcher: str) -> None:
    """They reach the job as they are, and nothing outside the sweep's folder."""
    quoted = ",".join("'" + value + "'" for value in HOSTILE)
    chosen = ("hydra/sweeper=grid", f"hydra/launcher={launcher}", "hydra.sweep.dir=here")
    run(APP, "-m", *chosen, f"text={quoted}")

    assert [values["text"] for values in values_of(tmp_path / "here")] == HOSTILE
    assert statuses_of(tmp_path / "here") == ["done"] * len(HOSTILE)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert not list(tmp_path.rglob("P"))
    for number in range(len(HOSTILE)):
        assert (tmp_path / "here" / str(number) / "seen.json").exists()


def test_nothing_in_a_sweeps_folder_is_pickled(run: Run, tmp_path: Path) -> None:
    """Whoever opens somebody else's folder runs nothing of it."""
    run(TRAIN, "-m", "epochs=1", "model=mlp", "lr=0.1,0.2", "hydra.sweep.dir=here")
    kinds = {path.suffix for path in (tmp_path / "here").rglob("*") if path.is_file()}

    assert len(_record.read(tmp_path / "here").ends) == 2
    assert not kinds & {".pkl", ".pickle", ".joblib", ".pt", ".npy"}
