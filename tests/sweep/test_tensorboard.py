"""What TensorBoard shows, read back through its own HTTP API."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import APP, BASIC, TRAIN
from programs import HEAVY, Programs

from hydra_plugins.tune_sweeper.run import _record

SWEEPS = {
    "random": (
        TRAIN,
        "hydra/sweeper=random",
        "hydra.sweeper.n_trials=4",
        "lr=interval(1e-4,1e-1)",
        "batch_size=64,512",
        "optimizer.nesterov=true,false",
        "epochs=3",
    ),
    "pbt": (
        TRAIN,
        "hydra/sweeper=pbt",
        "hydra.sweeper.population_size=3",
        "lr=interval(1e-3,1)",
        "epochs=4",
        "model=mlp",
    ),
    "asha": (
        TRAIN,
        "hydra/sweeper=asha",
        "hydra.sweeper.n_trials=5",
        "lr=interval(1e-3,1)",
        "epochs=4",
        "model=mlp",
    ),
    "failing": (
        APP,
        "hydra/sweeper=random",
        "hydra.sweep.dir=outputs/failing",
        "hydra.sweeper.n_trials=6",
        "hydra.sweeper.seed=1",
        "x=interval(0.0,1.0)",
        "bad_above=0.5",
        "hydra.sweeper.max_failures=null",
    ),
}


def ask(url: str, body: Any = None) -> Any:
    """The JSON answer to a GET, or to a POST of `body`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def logdir(programs: Callable[..., Programs], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four real sweeps: trainings, a population, halving, and trials of which some fail."""
    folder, logs = tmp_path_factory.mktemp("tensorboard"), tmp_path_factory.mktemp("logs")
    for script, *typed in SWEEPS.values():
        server, words = programs(*HEAVY), ("-m", *typed, BASIC)
        done = server.run(script, *words, cwd=folder, logs=logs, env=os.environ)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "outputs"


@pytest.fixture(scope="module", params=["fast", "slow"])
def url(request: pytest.FixtureRequest, logdir: Path) -> Iterator[str]:
    """TensorBoard on loopback, with each of its two loaders."""
    port = free_port()
    flags = ["--host", "127.0.0.1", "--port", str(port), "--logdir", str(logdir)]
    loading = ["--load_fast", "true" if request.param == "fast" else "false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *flags, *loading],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield wait_for(f"http://127.0.0.1:{port}/data")
    process.terminate()
    process.wait()


def wait_for(url: str) -> str:
    """Waits until the runs are loaded."""
    for _ in range(300):
        try:
            if len(ask(f"{url}/runs")) >= 4 + 3 + 5 + 6 and len(sessions(url)) >= 18:
                return url
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.2)
    raise AssertionError(f"TensorBoard shows {ask(url + '/runs')}")


def experiment(url: str) -> dict[str, Any]:
    answer = ask(f"{url}/plugin/hparams/experiment", {"experimentName": ""})
    assert isinstance(answer, dict)
    return answer


def sessions(url: str) -> dict[str, dict[str, Any]]:
    """One row per trial, by its run's name."""
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    columns = [{"metric": m["name"]} for m in experiment(url)["metricInfos"]]
    body = {"experimentName": "", "allowedStatuses": statuses, "colParams": columns}
    body |= {"startIndex": 0, "sliceSize": 1000}
    groups = ask(f"{url}/plugin/hparams/session_groups", body)["sessionGroups"]
    return {s["name"]: {**s, "hparams": g["hparams"]} for g in groups for s in g["sessions"]}


def values(session: dict[str, Any]) -> dict[str, float]:
    return {m["name"]["tag"]: m["value"] for m in session["metricValues"]}


def test_page_has_one_row_per_trial(url: str) -> None:
    """Steps of a population share the row of their trial."""
    expected = {f"random-1/{i}" for i in range(4)} | {f"pbt-1/{i}" for i in range(3)}
    expected |= {f"asha-1/{i}" for i in range(5)}

    assert set(sessions(url)) == expected | {f"failing/{i}" for i in range(6)}


def test_row_tells_how_the_trial_ended(url: str) -> None:
    """Failed trials are failures, and only finished ones have an objective."""
    rows = sessions(url)
    for i in range(6):
        row = rows[f"failing/{i}"]
        is_bad = row["hparams"]["x"] > 0.5

        assert row["status"] == ("STATUS_FAILURE" if is_bad else "STATUS_SUCCESS")
        assert ("objective/value" in values(row)) is not is_bad


def test_row_of_a_paused_trial_shows_how_far_it_came(url: str, logdir: Path) -> None:
    """Most trials of successive halving are over before the last rung."""
    rows = sessions(url)
    summary = _record.read(logdir / "asha-1")
    last = {job.proposal.trial: summary.ends[n].value for n, job in sorted(summary.jobs.items())}

    for trial, value in last.items():
        row = rows[f"asha-1/{trial}"]
        assert row["status"] == "STATUS_SUCCESS"
        assert values(row)["objective/val_loss"] == pytest.approx(value, rel=1e-5)


def test_row_has_hyperparameters_with_their_types(url: str) -> None:
    """Numbers are numbers, booleans are booleans, and fixed keys make sweeps comparable."""
    rows = sessions(url)
    random = rows["random-1/1"]["hparams"]

    assert {type(random[key]) for key in ("lr", "batch_size", "weight_decay")} <= {int, float}
    assert type(random["optimizer.nesterov"]) is bool
    assert {"lr", "batch_size", "weight_decay"} <= set(rows["pbt-1/0"]["hparams"])


def test_page_has_no_column_that_means_nothing(url: str) -> None:
    """No hp_metric, no epoch."""
    tags = {m["name"]["tag"] for m in experiment(url)["metricInfos"]}

    assert "objective/val_loss" in tags
    assert not {t for t in tags if "hp_metric" in t or t == "epoch"}


def test_objective_is_the_number_that_counted(url: str, logdir: Path) -> None:
    """objective/val_loss equals the value in the record."""
    ends = _record.read(logdir / "random-1").ends
    rows = sessions(url)

    for number, end in ends.items():
        shown = values(rows[f"random-1/{number}"])["objective/val_loss"]
        assert shown == pytest.approx(end.value, rel=1e-6)


def curve(url: str, run: str, tag: str) -> list[list[float]]:
    return ask(f"{url}/plugin/scalars/scalars?run={run.replace('/', '%2F')}&tag={tag}")  # type: ignore[no-any-return]


def test_curves_of_all_batch_sizes_end_at_the_same_step(url: str) -> None:
    """The x axis is the epoch."""
    rows = sessions(url)
    last = {
        row["hparams"]["batch_size"]: curve(url, name, "val/loss")[-1][1]
        for name, row in rows.items()
        if name.startswith("random-1")
    }

    assert set(last) == {64, 512}
    assert set(last.values()) == {3}


def test_curve_of_a_member_is_one_line(url: str) -> None:
    """All steps of a population's member, each epoch once."""
    for i in range(3):
        deadline = time.monotonic() + 60  # TensorBoard reads the files of a run one by one
        while len(curve(url, f"pbt-1/{i}", "val/loss")) < 4 and time.monotonic() < deadline:
            time.sleep(0.5)

        assert [point[1] for point in curve(url, f"pbt-1/{i}", "val/loss")] == [1, 2, 3, 4]
