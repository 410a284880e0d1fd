"""Folders, journals, configs and apps that are not what one hopes for."""

import json
from pathlib import Path

import pytest
import yaml
from apps import APP, BASIC, TRAIN, Run, statuses_of, values_of

from hydra_plugins.tune_sweeper.run import _journal, _record

RANDOM = ("-m", "hydra/sweeper=random", "hydra.sweeper.n_trials=3", "hydra.sweeper.seed=1")
SPACE = "x=interval(0.0,1.0)"


def movable_app() -> str:
    """The app's text, which finds its configs wherever it is written."""
    return APP.read_text().replace('config_path="conf"', f'config_path="{APP.parent / "conf"}"')


def rewrite(journal: Path, kind: str, **fields: object) -> None:
    """Changes the first record of a kind, with a check sum that is right."""
    records = _journal.read(journal).records
    first = next(r for r in records if r["type"] == kind)
    first |= fields
    plain = [{k: v for k, v in r.items() if k != "crc"} for r in records]
    journal.write_bytes(b"".join(_journal.encode(r) for r in plain))


@pytest.mark.parametrize("folder", ["precious", pytest.param(".", marks=pytest.mark.slow)])
def test_refused_first_trial_leaves_the_users_files(run: Run, tmp_path: Path, folder: str) -> None:
    """A folder that was there before is not deleted, nor is anything in it."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").write_text("mine")
    typed = ("batch_size=50000,100000", f"hydra.sweep.dir={folder}")
    done = run(TRAIN, "-m", "hydra/sweeper=random", *typed, BASIC, check=False)

    assert done.returncode == 2
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == [
        "precious",
        "precious/notes.txt",
    ]


def test_refused_single_run_leaves_the_users_files(run: Run, tmp_path: Path) -> None:
    """hydra.run.dir=. is the working directory."""
    (tmp_path / "notes.txt").write_text("mine")
    done = run(TRAIN, "batch_size=100000", "hydra.run.dir=.", check=False)

    assert done.returncode == 2
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("ask", {"folder": "../victim"}),
        ("end", {"checkpoint": "../../victim/checkpoints/last.ckpt"}),
    ],
)
def test_journal_that_points_outside_is_refused(
    run: Run, tmp_path: Path, kind: str, fields: dict[str, str]
) -> None:
    """Opening somebody's sweep deletes and reads nothing outside it."""
    run(APP, *RANDOM, SPACE, "hydra.sweep.dir=here")
    rewrite(tmp_path / "here" / _record.FILE, kind, **fields)
    done = run(APP, *RANDOM, SPACE, "hydra.sweep.dir=here", check=False)

    assert done.returncode == 5
    assert "victim" in done.stderr


@pytest.mark.parametrize("content", ['{"user": 1}\n{"user": 2}\n', ""])
def test_foreign_journal_is_refused_unchanged(run: Run, tmp_path: Path, content: str) -> None:
    """It is not repaired, and it does not disturb other sweeps."""
    file = tmp_path / "outputs" / "random-1" / _record.FILE
    file.parent.mkdir(parents=True)
    file.write_text(content)
    named = run(APP, *RANDOM, SPACE, "hydra.sweep.dir=outputs/random-1", check=False)
    run(APP, *RANDOM, SPACE)

    assert named.returncode == 5
    assert file.read_text() == content
    assert statuses_of(tmp_path / "outputs" / "random-2") == ["done"] * 3


def test_mended_task_runs_again(run: Run, tmp_path: Path) -> None:
    """What ended a sweep at its first trial is not held against it for ever."""
    app = tmp_path / "app.py"
    body = movable_app()
    app.write_text(body.replace('"number": score', '"number": lambda cfg: None'))
    first = run(app, *RANDOM, SPACE, check=False)
    app.write_text(body)
    run(app, *RANDOM, SPACE)

    assert first.returncode == 2
    assert statuses_of(tmp_path / "outputs" / "random-1") == ["done"] * 3


def test_folder_named_by_the_time_holds_all_jobs(run: Run, tmp_path: Path) -> None:
    """Of Hydra's own sweeper too: the name is made once, not in every worker."""
    run(APP, "-m", "hydra/launcher=workers", "hydra.sweep.dir=m/${now:%S-%f}", "x=0.1,0.2,0.3")
    (folder,) = (tmp_path / "m").iterdir()

    assert {path.name for path in folder.iterdir()} == {"0", "1", "2", "multirun.yaml"}


@pytest.mark.parametrize(
    ("made", "named"),
    [
        ("threading.Lock()", "cannot pickle '_thread.lock'"),
        ("ctypes.pointer(ctypes.c_int(1))", "the task cannot be sent to another process"),
        ("type('Held', (), {'__reduce__': lambda self: (int, ('x',))})()", "literal for int()"),
    ],
)
def test_task_that_no_worker_can_have_is_refused(
    run: Run, tmp_path: Path, made: str, named: str
) -> None:
    """Something at the top of the script that cannot be packed, or packed and not unpacked."""
    app = tmp_path / "app.py"
    held = f"HELD = {made}\n\n\ndef score(cfg: DictConfig) -> float:\n    assert HELD\n"
    app.write_text(movable_app().replace("def score(cfg: DictConfig) -> float:\n", held))
    done = run(app, *RANDOM, SPACE, "hydra/launcher=workers", check=False)

    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["app.py"]
    run(app, *RANDOM, SPACE, BASIC)


def test_mistake_on_resume_deletes_nothing(run: Run, tmp_path: Path) -> None:
    """Trainings that were interrupted wait for it to be mended, with their checkpoints."""
    app = tmp_path / "app.py"
    body = movable_app()
    typed = (app, *RANDOM, SPACE, BASIC, "hydra.sweep.dir=here")
    app.write_text(body)
    run(*typed)
    journal, result = tmp_path / "here" / _record.FILE, tmp_path / "here" / "0" / "result.json"
    lines = journal.read_bytes().splitlines(keepends=True)
    first_start = next(i for i, line in enumerate(lines) if b'"type": "start"' in line)
    before = b"".join(lines[: first_start + 1])  # as after a kill -9 of the sweep
    journal.write_bytes(before)
    result.unlink()
    app.write_text(body.replace('"number": score', '"number": lambda cfg: None'))
    refused = run(*typed, check=False)
    app.write_text(body)
    after = journal.read_bytes()
    run(*typed)

    assert refused.returncode == 2
    assert after.startswith(before)
    assert statuses_of(tmp_path / "here") == ["done"] * 3


def test_result_of_another_sweep_is_not_taken_for_ours(run: Run, tmp_path: Path) -> None:
    """Somebody deleted the journal and sweeps into the same folder again."""
    grid = ("-m", "hydra/sweeper=grid", "hydra.sweep.dir=here", "hydra.sweeper.max_failures=null")
    run(APP, *grid, "x=0.1,0.9", "hydra/launcher=workers")
    (tmp_path / "here" / _record.FILE).unlink()
    run(APP, *grid, "x=0.1,0.9", "hydra/launcher=workers", "bad_above=0.5", "bad=leave")

    assert statuses_of(tmp_path / "here") == ["done", "died"]


def test_first_trial_is_the_default_of_the_fixed_overrides(run: Run, tmp_path: Path) -> None:
    """An experiment that chooses a group changes what the defaults are."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    experiment = {"defaults": [{"override /model": "big"}], "x": 0.25}
    text = "# @package _global_\n" + yaml.safe_dump(experiment)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
    run(APP, "--config-dir", "conf", *RANDOM, "+experiment=mine", "model=small,big", SPACE)

    assert values_of(tmp_path / "outputs" / "random-1")[0] == {"model": "big", "x": 0.25}


def test_mandatory_group_can_be_swept(run: Run, tmp_path: Path) -> None:
    """`model: ???` is no default, and needs none."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "must.yaml").write_text(
        (APP.parent / "conf" / "config.yaml").read_text().replace("model: small", "model: ???")
    )
    typed = ("--config-dir", "conf", "--config-name", "must", "-m", "hydra/sweeper=grid")
    run(APP, *typed, "model=small,big")

    assert values_of(tmp_path / "outputs" / "grid-1") == [{"model": "small"}, {"model": "big"}]


def test_where_knows_groups_and_texts(run: Run, tmp_path: Path) -> None:
    """A fixed group is its option, and comparing a text with a number is a mistake."""
    typed = ("-m", "hydra/sweeper=grid", "x=1,2")
    run(APP, *typed, "hydra.sweeper.where='model==\"small\" and x < 2'")
    done = run(APP, *typed, "hydra.sweeper.where='text < 3'", check=False)

    assert values_of(tmp_path / "outputs" / "grid-1") == [{"x": 1}]
    assert done.returncode == 2 and "text < 3" in done.stderr


@pytest.mark.parametrize(
    "name", ["müller", "a b", "it's", "x=1", "1e3", "back\\slash", "$(touch P)"]
)
def test_folder_with_any_name_holds_a_sweep(run: Run, tmp_path: Path, name: str) -> None:
    """Quotes, letters, numbers: as working directory and as the sweep's folder."""
    from hydra_plugins.tune_sweeper._overrides import as_text

    run(APP, *RANDOM, SPACE, f"hydra.sweep.dir={as_text(name)}")

    assert statuses_of(tmp_path / name) == ["done"] * 3
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_population_trains_below_a_folder_with_any_name(run: Run, tmp_path: Path) -> None:
    """Checkpoints are found where quotes and letters are in their path."""
    name = "it's müller"
    small = ("hydra.sweeper.population_size=2", "epochs=4", "model=mlp", "lr=interval(1e-3,1)")
    run(TRAIN, "-m", "hydra/sweeper=pbt", *small, "hydra.sweep.dir='it\\'s müller'")

    assert statuses_of(tmp_path / name) == ["done"] * 8


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (("+x=interval(0,1)",), "x"),
        (("x=interval(0,1)", "hydra.sweeper.initial=[1]"), "initial"),
        (("x=interval(0,1)", "hydra.sweeper.params=abc"), "params=abc"),
        (("x=interval(0,1)", "hydra.sweeper.conditions=[a]"), "conditions"),
        (("x=interval(0,1)", "hydra.sweep.dir=file/x"), "hydra.sweep.dir=file/x"),
    ],
)
def test_mistake_is_told_before_a_folder_is_made(
    run: Run, tmp_path: Path, typed: tuple[str, ...], sentence: str
) -> None:
    """One sentence, exit code 2, for any app."""
    (tmp_path / "file").write_text("")
    done = run(APP, *RANDOM, *typed, check=False)

    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("setting", ["hydra/sweeper=pbt", "hydra/sweeper=grid"])
def test_setting_without_a_use_is_refused(run: Run, setting: str) -> None:
    """n_trials of a population, initial of a grid."""
    useless = "n_trials=3" if "pbt" in setting else "initial=[{lr: 0.1}]"
    done = run(TRAIN, "-m", setting, "lr=0.1,0.2", f"hydra.sweeper.{useless}", check=False)

    assert done.returncode == 2
    assert "has no use for it" in done.stderr


def test_unrelated_knobs_file_is_left_alone(run: Run, tmp_path: Path) -> None:
    """Another app may mean something else by knobs.yaml."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "knobs.yaml").write_text("volume: 3\nx: {min: 0}\n")
    run(APP, "--config-dir", "conf", *RANDOM, SPACE)

    assert statuses_of(tmp_path / "outputs" / "random-1") == ["done"] * 3


def test_list_item_can_be_swept(run: Run, tmp_path: Path) -> None:
    """items.0 is a key, as it is for Hydra."""
    run(APP, "-m", "hydra/sweeper=grid", "items.0=5,6")
    seen = json.loads((tmp_path / "outputs" / "grid-1" / "1" / "seen.json").read_text())

    assert seen["items"] == [6, 2]


@pytest.mark.slow
def test_devices_may_change_on_resume(run: Run, tmp_path: Path) -> None:
    """Where a training runs is no part of the search, nor is how a number is written."""
    small = ("-m", "hydra/sweeper=random", "lr=interval(1e-3,1)", "epochs=1", "model=mlp")
    run(TRAIN, *small, "hydra.sweeper.n_trials=1", "hydra.sweeper.seed=1", "hydra.sweep.dir=here")
    more = ("hydra.sweeper.n_trials=2", "hydra.sweeper.seed=1", "hydra.sweep.dir=here")
    run(TRAIN, *small, *more, "trainer.device=cpu")

    assert statuses_of(tmp_path / "here") == ["done"] * 2


def test_sweep_whose_time_was_over_goes_on(run: Run, tmp_path: Path) -> None:
    """stop.time_s is the time of one process."""
    typed = (*RANDOM, SPACE, "sleep_s=0.3")
    stopped = run(APP, *typed, "hydra.sweeper.stop.time_s=0.2")
    run(APP, *typed)

    assert "its time is over" in stopped.stdout
    assert statuses_of(tmp_path / "outputs" / "random-1") == ["done"] * 3


@pytest.mark.slow
def test_interrupted_repeats_are_completed(run: Run, tmp_path: Path) -> None:
    """A process that ended between the two seeds of a configuration loses neither."""
    typed = ("-m", "hydra/sweeper=random", "lr=interval(1e-3,1)", "epochs=1", "model=mlp")
    more = ("hydra.sweeper.repeats=2", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=here")
    run(TRAIN, *typed, *more, "hydra.sweeper.seed=1")
    journal = tmp_path / "here" / _record.FILE
    lines = journal.read_bytes().splitlines(keepends=True)
    second = [i for i, line in enumerate(lines) if b'"type": "ask"' in line][2]
    journal.write_bytes(b"".join(lines[: second + 1]))
    run(TRAIN, *typed, *more, "hydra.sweeper.seed=1")

    assert statuses_of(tmp_path / "here") == ["done"] * 4


def test_page_shows_what_a_swept_group_changes(run: Run, tmp_path: Path) -> None:
    """Each optimizer brings its own lr; TensorBoard shows the lr that was used."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams import plugin_data_pb2

    run(TRAIN, "-m", "optimizer=sgd,adamw", "epochs=1", "model=mlp", BASIC)
    shown = []
    for folder in ("0", "1"):
        file = next((tmp_path / "outputs" / "grid-1" / folder).glob("*sweep.start"))
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                data = plugin_data_pb2.HParamsPluginData.FromString(
                    value.metadata.plugin_data.content
                )
                shown.append(data.session_start_info.hparams["lr"].number_value)

    assert shown == [0.01, 0.002]
