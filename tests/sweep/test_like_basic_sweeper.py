"""What Hydra's BasicSweeper promises for a plain grid holds for hydra/sweeper=grid."""

from pathlib import Path

import pytest
from apps import APP, Run
from omegaconf import OmegaConf

SWEEPER = "hydra/sweeper=grid"
GRID = ("x=1,2", "model=small,big", "text=choice('a b',c)", "y=7")

CALLBACK = """
from pathlib import Path
from typing import Any
from hydra.experimental.callback import Callback

class Log(Callback):
    def _note(self, *words: object) -> None:
        with open(self.file, "a") as file:
            print(*words, file=file)
    def __init__(self, file: str) -> None:
        self.file = file
    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        self._note("multirun_start")
    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        self._note("multirun_end")
    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        self._note("job_start", config.hydra.job.num, config.x)
    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        self._note("job_end", config.hydra.job.num, job_return.status.name)
"""


@pytest.fixture
def callback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An override that logs all callbacks, with the file's name to append."""
    (tmp_path / "noting.py").write_text(CALLBACK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "+hydra.callbacks.log={_target_: noting.Log, file: %s}"


def files(folder: Path) -> dict[str, str]:
    """Task overrides and configs of all jobs, by the job's folder and the file."""
    found = {}
    for path in sorted(folder.glob("*/.hydra/*.yaml")):
        if path.name != "hydra.yaml":
            found[str(path.relative_to(folder))] = path.read_text()
    return found


def test_grid_makes_the_same_jobs(run: Run, tmp_path: Path, callback: str) -> None:
    """Order, numbering, overrides, configs, callbacks: equal to the BasicSweeper's."""
    for sweeper in ("basic", "grid"):
        settings = (f"hydra/sweeper={sweeper}", f"hydra.sweep.dir={sweeper}")
        run(APP, "-m", *settings, *GRID, callback % f"{tmp_path}/{sweeper}.log")

    assert files(tmp_path / "grid") == files(tmp_path / "basic")
    assert (tmp_path / "grid.log").read_text() == (tmp_path / "basic.log").read_text()


def test_grid_writes_multirun_yaml(run: Run, tmp_path: Path) -> None:
    """The config of the whole sweep stands in its folder."""
    run(APP, "-m", SWEEPER, "x=1,2", "hydra.sweep.dir=here")
    saved = OmegaConf.load(tmp_path / "here" / "multirun.yaml")

    assert saved.hydra.overrides.task == ["x=1,2"]


def test_job_knows_its_number_and_folder(run: Run, tmp_path: Path) -> None:
    """hydra.job.num counts jobs, and the output folder is the trial's."""
    run(APP, "-m", SWEEPER, "x=1,2,3", "hydra.sweep.dir=here")

    for number in range(3):
        hydra = OmegaConf.load(tmp_path / "here" / str(number) / ".hydra" / "hydra.yaml").hydra
        assert hydra.job.num == number
        assert Path(hydra.runtime.output_dir) == tmp_path / "here" / str(number)


def test_chdir_and_env_set_reach_the_job(run: Run, tmp_path: Path) -> None:
    """A job that changes into its folder finds its files there, and the sweep its own."""
    run(APP, "-m", SWEEPER, "x=1,2", "hydra.job.chdir=true", "hydra.sweep.dir=here")

    assert (tmp_path / "here" / "1" / "seen.json").exists()
    assert (tmp_path / "here" / "1" / "result.json").exists()


def test_sweep_without_a_swept_key_is_one_job(run: Run, tmp_path: Path) -> None:
    """As in Hydra, -m alone runs once."""
    run(APP, "-m", SWEEPER, "hydra.sweep.dir=here")

    assert [f.name for f in (tmp_path / "here").iterdir() if f.is_dir()] == ["0"]


def test_multirun_end_is_called_when_the_sweep_fails(
    run: Run, tmp_path: Path, callback: str
) -> None:
    """Hydra itself skips it when a sweeper leaves by an exception."""
    log = tmp_path / "end.log"
    run(APP, "-m", SWEEPER, "x=1,2,3", "behave=raise", callback % log, check=False)

    assert log.read_text().splitlines()[-1] == "multirun_end"
    assert log.read_text().count("multirun_end") == 1


def test_failed_job_is_failed_for_callbacks_too(run: Run, tmp_path: Path, callback: str) -> None:
    """on_job_end sees the status that the task really had."""
    log = tmp_path / "status.log"
    run(APP, "-m", SWEEPER, "x=1,2", "bad_above=1.5", callback % log)

    assert [line for line in log.read_text().splitlines() if "job_end" in line] == [
        "job_end 0 COMPLETED",
        "job_end 1 FAILED",
    ]


def test_large_grid_starts_at_once(run: Run, tmp_path: Path) -> None:
    """A million combinations: only those that run are made, and the sweep can be stopped."""
    axes = ("x=range(0,1000)", "y=range(0,1000)")
    run(APP, "-m", SWEEPER, *axes, "hydra.sweeper.n_trials=2", "hydra.sweep.dir=here")

    assert (tmp_path / "here" / "1" / "result.json").exists()
