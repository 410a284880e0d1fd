"""A sweep that is killed again and again ends as if nobody had touched it."""

import json
import random
import subprocess
import time
from pathlib import Path
from subprocess import Popen

import pytest
from apps import APP, Run, command, statuses_of, values_of

from hydra_plugins.tune_sweeper.run import _record

N_KILLS, N_TRIALS, N_SLOTS = 20, 100, 2


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "n_slots"), [("random", N_SLOTS), ("bayes", 1)])
def test_twenty_kills_change_nothing(run: Run, tmp_path: Path, strategy: str, n_slots: int) -> None:
    """kill -9 of the driver: no trial lost or doubled, and the same proposals."""
    typed = (
        "-m",
        f"hydra/sweeper={strategy}",
        "hydra/launcher=workers",
        f"hydra.launcher.cpu_slots={n_slots}",
        f"hydra.sweeper.n_trials={N_TRIALS}",
        "hydra.sweeper.seed=11",
        "x=interval(0.0,1.0)",
        "y=1,2,3,4",
        "sleep_s=0.2",
    )
    rng = random.Random(7)
    for _ in range(N_KILLS):
        process = Popen(
            command(APP, *typed, "hydra.sweep.dir=here"),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(3 + 2 * rng.random())
        process.kill()
        process.wait()
    run(APP, *typed, "hydra.sweep.dir=here")
    run(APP, *typed, "hydra.sweep.dir=unbroken")
    lines = (tmp_path / "here" / _record.FILE).read_text().splitlines()
    kinds = [json.loads(line)["type"] for line in lines]

    assert values_of(tmp_path / "here") == values_of(tmp_path / "unbroken")
    assert statuses_of(tmp_path / "here") == ["done"] * N_TRIALS
    assert kinds.count("end") == N_TRIALS
    assert kinds.count("start") <= N_TRIALS + n_slots * N_KILLS
