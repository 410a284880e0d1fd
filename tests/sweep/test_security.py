"""Values never become code, paths or shell; a config names components and calls nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from apps import APP, BASIC, TRAIN, Run, command, statuses_of, values_of

from hydra_plugins.tune_sweeper.run import _journal, _record

TOOL = "from hydra_plugins.tune_sweeper._command import main; main()"
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


# Folders that somebody else made

SPAWN = "+hydra.job_logging.formatters.evil={\\(\\):distutils.spawn.spawn,cmd:[touch,P]}"
SWEEP = ("-m", "hydra/sweeper=random", "hydra.sweeper.seed=1", "hydra.sweeper.n_trials=3", BASIC)


def forge(folder: Path, **changes: object) -> None:
    """Takes the end of a sweep's last job back and changes what was asked for, check sums right."""
    journal = folder / _record.FILE
    records = [{k: v for k, v in r.items() if k != "crc"} for r in _journal.read(journal).records]
    last = max(r["job"] for r in records if r["type"] == "ask")
    kept = [
        {**r, **changes} if r["type"] == "ask" and r["job"] == last else r
        for r in records
        if r["type"] != "stop" and not (r["type"] in ("start", "end") and r["job"] == last)
    ]
    lines = [_journal.encode({**record, "seq": seq}) for seq, record in enumerate(kept)]
    journal.write_bytes(b"".join(lines))


@pytest.mark.parametrize("named", [("hydra.sweep.dir=outputs/random-1",), ()])
def test_overrides_in_a_record_are_not_for_jobs(
    run: Run, tmp_path: Path, named: tuple[str, ...]
) -> None:
    """What the user types decides; also where a sweep of the same search only lies about."""
    run(APP, *SWEEP, "x=interval(0.0,1.0)")
    folder = tmp_path / "outputs" / "random-1"
    forge(folder, info={"overrides": [SPAWN]})
    run(APP, *SWEEP, "x=interval(0.0,1.0)", *named)

    assert statuses_of(folder) == ["done"] * 3
    assert not list(tmp_path.rglob("P"))


def test_text_in_a_record_that_was_no_choice_is_refused(run: Run, tmp_path: Path) -> None:
    """An interpolation may call whatever the app registered."""
    typed = (APP, *SWEEP, "x=interval(0.0,1.0)", "hydra.sweep.dir=here")
    run(*typed)
    forge(tmp_path / "here", values={"x": "${oc.env:HOME}"})
    done = run(*typed, check=False)

    assert done.returncode == 2
    assert "x='${oc.env:HOME}', which is none of the choices" in done.stderr


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("fixed", SPAWN),
        ("steps", SPAWN),
        ("fixed", "hydra.sweep.dir=/elsewhere"),
        ("steps", "+model@hydra.job_logging=big"),
        ("fixed", "+model={_target_:os.system}"),
        ("steps", "++model._target_=os.system"),
        ("fixed", "note=${eval:1}"),
        ("steps", "model=../../evil"),
        ("fixed", "model=[../evil]"),
        ("fixed", "note=${${part}:rm}"),
        ("steps", "+model@a.b=../../evil"),
    ],
)
def test_schedule_sets_values_alone(run: Run, tmp_path: Path, place: str, text: str) -> None:
    """Anything else in it has to be typed by the one who runs it."""
    steps = [{"until_epoch": 1, "overrides": ["lr=0.1", *[text] * (place == "steps")]}]
    content = {"fixed": [text] * (place == "fixed"), "steps": steps}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    done = run(
        TRAIN, "-m", "hydra/sweeper=replay", "hydra.sweeper.schedule=mine.yaml", BASIC, check=False
    )

    assert done.returncode == 2
    assert "which can do more than set a value" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_links_in_a_folder_of_trials_lead_nowhere(run: Run, tmp_path: Path) -> None:
    """What a job writes stays in the sweep, whatever lay in its place before."""
    victim = tmp_path / "victim"
    (victim / "checkpoints").mkdir(parents=True)
    for name in ("result.json", "app.log", "checkpoints/last.ckpt"):
        (victim / name).write_text("precious")
    place = tmp_path / "here" / "1"
    (place / ".hydra").mkdir(parents=True)
    (place / "checkpoints").symlink_to(victim / "checkpoints")
    (place / "result.json.new").symlink_to(victim / "result.json")
    (place / "app.log").symlink_to(victim / "app.log")
    (place / ".hydra" / "config.yaml").symlink_to(victim / "app.log")
    run(APP, *SWEEP, "x=interval(0.0,1.0)", "hydra.sweep.dir=here")

    assert statuses_of(tmp_path / "here") == ["done"] * 3
    assert {p.read_text() for p in victim.rglob("*") if p.is_file()} == {"precious"}


ESCAPES = "\x1b]0;OWNED\x07\x1b[2J\rbest loss 0.0"


def test_what_a_terminal_would_obey_is_shown_as_text(run: Run, tmp_path: Path) -> None:
    """Of values, of exceptions and of a record: no screen is cleared, no line faked."""
    app = tmp_path / "app.py"
    body = APP.read_text().replace('config_path="conf"', f'config_path="{APP.parent / "conf"}"')
    app.write_text(body.replace('f"x={cfg.x} is bad"', "cfg.text"))
    typed = ("-m", "hydra/sweeper=grid", "hydra.sweep.dir=here", "bad_above=0.5", "x=0.1,0.9")
    done = run(app, *typed, f"text='{ESCAPES}',plain", BASIC)
    status = subprocess.run(
        [sys.executable, "-c", TOOL, "status", "here"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    table = (tmp_path / "here" / "trials.csv").read_text()

    for shown in (done.stdout, status.stdout, table):
        assert r"\x1b]0;OWNED\x07\x1b[2J\rbest loss 0.0" in shown
        assert not set(shown) & set("\x1b\x07\r")


def test_sweep_whose_reader_is_gone_goes_on_in_silence(tmp_path: Path) -> None:
    """As behind `| head -1`."""
    typed = ("-m", "hydra/sweeper=grid", "hydra/launcher=workers", "hydra.sweep.dir=here")
    words = command(APP, *typed, "x=0.1,0.2,0.3")
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert statuses_of(tmp_path / "here") == ["done"] * 3
    assert "Traceback" not in errors


def test_copied_variables_are_written_nowhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials have them, and a folder that is passed on has not."""
    monkeypatch.setenv("x_secret", "hunter2secret")
    typed = ("hydra/launcher=workers", "hydra.job.env_copy=[x_secret]", "behave=environment")
    typed = (*typed, "hydra.sweeper.metric=x_secret")
    run(APP, "-m", "hydra/sweeper=grid", *typed, "x=0.1,0.2", "hydra.sweep.dir=here")
    ends = _record.read(tmp_path / "here").ends.values()
    texts = [p.read_bytes() for p in (tmp_path / "here").rglob("*") if p.is_file()]

    assert [end.metrics for end in ends] == [{"x_secret": 1.0}] * 2
    assert not [text for text in texts if b"hunter2secret" in text]
