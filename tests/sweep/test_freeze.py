"""Config files that change while a sweep runs."""

from pathlib import Path

import pytest
import yaml
from apps import Run, statuses_of

APP = """
from pathlib import Path
import hydra
from hydra.utils import get_original_cwd

@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg):
    conf = Path(get_original_cwd()) / "conf"
    (conf / "config.yaml").write_text("x: [1,")
    (conf / "model" / "small.yaml").unlink(missing_ok=True)
    (conf / "pair" / "two_large.yaml").unlink(missing_ok=True)
    return cfg.x + cfg.y + cfg.model.width + cfg.pair.z

if __name__ == "__main__":
    main()
"""
LAUNCHERS = [
    ("hydra/launcher=workers", "hydra.launcher.cpu_slots=1", "hydra.launcher.jobs_per_worker=1"),
    ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_parallel=2"),
    ("hydra/launcher=basic",),
    pytest.param(("hydra/launcher=submitit_local",), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("has_searchpath", [False, True], ids=["", "searchpath"])
@pytest.mark.parametrize("launcher", LAUNCHERS, ids=["workers", "joblib", "basic", "submitit"])
def test_files_edited_in_mid_sweep_are_for_the_next_one(
    run: Run, tmp_path: Path, launcher: tuple[str, ...], has_searchpath: bool
) -> None:
    """Half saved or deleted: all jobs and best.yaml are composed from what the sweep began with."""
    searchpath = "hydra: {searchpath: ['file://${oc.env:PWD}']}\n" if has_searchpath else ""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "config.yaml").write_text(
        "defaults: [model: small, n: one, pair: '${n}_${model}', _self_]\n"
        f"x: 0\ny: 2\n{searchpath}"
    )
    (tmp_path / "conf" / "model" / "small.yaml").write_text("width: 10\n")
    (tmp_path / "conf" / "model" / "large.yaml").write_text("width: 20\n")
    (tmp_path / "conf" / "n").mkdir()
    (tmp_path / "conf" / "pair").mkdir()
    for n in ("one", "two"):
        (tmp_path / "conf" / "n" / f"{n}.yaml").write_text("")
        for model in ("small", "large"):
            (tmp_path / "conf" / "pair" / f"{n}_{model}.yaml").write_text(f"z: {len(n + model)}\n")
    typed = (
        "-m",
        "hydra/sweeper=grid",
        "hydra.sweep.dir=here",
        "x=1",
        "n=one,two",
        "model=small,large",
    )
    run(tmp_path / "app.py", *typed, *launcher)
    best = yaml.safe_load((tmp_path / "here" / "best.yaml").read_text())

    assert statuses_of(tmp_path / "here") == ["done"] * 4
    assert best == {"x": 1, "y": 2, "n": {}, "model": {"width": 10}, "pair": {"z": 8}}
