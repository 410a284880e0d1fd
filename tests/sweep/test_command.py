"""The console command `hydra-tune`, and sweeps whose folder came to harm."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from apps import APP, BASIC, TRAIN, Run, command, progress_of, statuses_of, values_of
from processes import wait_until

from hydra_plugins.tune_sweeper.run import _record

RANDOM = ("-m", "hydra/sweeper=random", "hydra.sweeper.seed=5", "hydra.sweep.dir=here")
SWEEP = (*RANDOM, "hydra.sweeper.n_trials=5", "x=interval(0.0,1.0)")
TOOL = [sys.executable, "-c", "from hydra_plugins.tune_sweeper._command import main; main()"]


def tool(folder: Path, *arguments: str) -> CompletedProcess[str]:
    """hydra-tune, in a folder."""
    return subprocess.run([*TOOL, *arguments], cwd=folder, capture_output=True, text=True)


def test_status_tells_how_a_sweep_stands(run: Run, tmp_path: Path) -> None:
    """Counts, and the best trials, best first."""
    run(APP, *SWEEP, "bad_above=0.8")
    done = tool(tmp_path, "status", "here")
    ends = _record.read(tmp_path / "here").ends
    best = min(ends, key=lambda n: 9.0 if ends[n].value is None else float(ends[n].value or 0.0))

    assert done.returncode == 0
    assert "random, minimize value" in done.stdout and "over" in done.stdout
    assert done.stdout.splitlines()[2].split()[0] == str(best)


@pytest.mark.slow
def test_trial_can_be_run_again_by_itself(run: Run, tmp_path: Path) -> None:
    """The same command in this terminal, from any folder, exactly."""
    small = ("hydra.sweeper.n_trials=2", "lr=interval(1e-3,1e-1)", "epochs=2", "model=mlp")
    run(TRAIN, *RANDOM, *small)
    (tmp_path / "elsewhere").mkdir()
    done = tool(tmp_path / "elsewhere", "rerun", str(tmp_path / "here"), "1")
    (again,) = (tmp_path / "elsewhere").rglob("progress.jsonl")

    assert done.returncode == 0, done.stderr
    assert progress_of(again.parent) == progress_of(tmp_path / "here" / "1")


def test_step_that_is_run_again_leaves_its_sweep_alone(run: Run, tmp_path: Path) -> None:
    """Its curves go into a folder of their own, also when the sweep's was moved."""
    pbt = ("-m", "hydra/sweeper=pbt", "hydra.sweeper.population_size=2", "hydra.sweeper.seed=3")
    small = ("epochs=4", "model=mlp", "lr=interval(1e-3,1e-1)", "hydra.sweep.dir=here")
    run(TRAIN, *pbt, *small, "hydra.sweeper.keep_checkpoints=null", BASIC)
    (tmp_path / "here").rename(tmp_path / "moved")
    before = files_of(tmp_path / "moved")
    done = tool(tmp_path, "rerun", "moved", "1/1")
    (again,) = (tmp_path / "outputs").rglob("progress.jsonl")

    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "moved") == before and not (tmp_path / "here").exists()
    assert progress_of(again.parent) == progress_of(tmp_path / "moved" / "1" / "1")
    for checkpoint in (tmp_path / "moved").glob("*/0/checkpoints/*.ckpt"):
        checkpoint.unlink()
    done = tool(tmp_path, "rerun", "moved", "1/1")
    assert done.returncode == 2 and "which is not there any more" in done.stderr


def files_of(folder: Path) -> dict[Path, bytes]:
    """All files at any depth, with their contents."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_rerun_shows_the_traceback(run: Run, tmp_path: Path) -> None:
    """A debugger would stop where the trial failed."""
    run(APP, *SWEEP, "bad_above=0.0", "hydra.sweeper.fail_fast=1", check=False)
    done = tool(tmp_path, "rerun", "here", "0")

    assert done.returncode != 0
    assert "Traceback" in done.stderr and "is bad" in done.stderr


def test_config_is_that_of_the_trial(run: Run, tmp_path: Path) -> None:
    """With the values that were proposed."""
    run(APP, *SWEEP)
    done = tool(tmp_path, "config", "here", "3")

    assert f"x: {values_of(tmp_path / 'here')[3]['x']}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["status", "nowhere"], 2, "nowhere holds no sweep"),
        (["repair", "nowhere"], 2, "nowhere holds no sweep"),
        (["status", str(APP)], 2, "app.py holds no sweep"),
        (["repair", str(APP)], 2, "app.py holds no sweep"),
        (["rerun", "here", "77"], 2, "no trial '77'"),
        (["config", "here", "7.7"], 2, "no trial '7.7'"),
        (["restart", "here"], 2, "invalid choice"),
    ],
)
def test_mistake_gets_one_sentence(
    run: Run, tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    """And the exit code of wrong input."""
    run(APP, *SWEEP)
    done = tool(tmp_path, *arguments)

    assert done.returncode == code
    assert sentence in done.stderr and "Traceback" not in done.stderr


# Damage


def flip(lines: list[bytes]) -> list[bytes]:
    return [*lines[:6], lines[6].replace(b"1", b"2", 1), *lines[7:]]


DAMAGES: list[Callable[[list[bytes]], list[bytes]]] = [
    flip,
    lambda lines: [*lines[:6], *lines[7:]],
    lambda lines: [*lines[:6], lines[6], *lines[6:]],
]


@pytest.mark.parametrize("damage", DAMAGES, ids=["flipped", "missing", "doubled"])
def test_damaged_journal_is_refused_and_can_be_repaired(
    run: Run, tmp_path: Path, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    """Exit 5, the line and the command that mends it; all good records stay, the sweep goes on."""
    run(APP, *SWEEP)
    journal = tmp_path / "here" / _record.FILE
    good = journal.read_bytes()
    lines = good.splitlines(keepends=True)
    damaged = b"".join(damage(lines))
    journal.write_bytes(damaged)
    refused = run(APP, *SWEEP, check=False)

    assert refused.returncode == 5
    assert "line " in refused.stderr and "hydra-tune repair here" in refused.stderr
    assert journal.read_bytes() == damaged
    assert tool(tmp_path, "repair", "here").returncode == 0
    assert "nothing is wrong" in tool(tmp_path, "repair", "here").stdout
    kept = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len(kept) >= len(lines) - 4  # the damaged one, and what it makes meaningless
    run(APP, *SWEEP, "hydra.sweeper.n_trials=7")
    assert statuses_of(tmp_path / "here") == ["done"] * 7


def test_lost_header_cannot_be_repaired(run: Run, tmp_path: Path) -> None:
    """It says what the sweep is about; where its copy is lost too, the file stays as it was."""
    run(APP, *SWEEP)
    journal = tmp_path / "here" / _record.FILE
    header, session, *others = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([header[1:], session[1:], *others]))
    before = journal.read_bytes()
    done = tool(tmp_path, "repair", "here")

    assert (done.returncode, journal.read_bytes()) == (5, before)
    assert "the header is lost" in done.stderr


def limited_to(n: int, kind: int, folder: Path, *words: str) -> CompletedProcess[str]:
    """A command under a limit of the kernel's."""
    return subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(kind, (n, n)),
    )


def with_little_room(folder: Path, n_bytes: int, *typed: str) -> CompletedProcess[str]:
    """A sweep none of whose files may be larger, as on a disk that is full."""
    return limited_to(n_bytes, resource.RLIMIT_FSIZE, folder, *command(APP, *SWEEP, *typed))


def test_repair_without_room_changes_nothing(run: Run, tmp_path: Path) -> None:
    """The journal is as it was, and no half copy stays."""
    run(APP, *SWEEP)
    journal = tmp_path / "here" / _record.FILE
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:6], *lines[7:]]))
    before = journal.read_bytes()
    done = limited_to(1000, resource.RLIMIT_FSIZE, tmp_path, *TOOL, "repair", "here")

    assert (done.returncode, journal.read_bytes()) == (6, before)
    assert "is as it was" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "here").glob("*damaged*"))


def test_too_many_open_files_are_told_in_a_sentence(run: Run, tmp_path: Path) -> None:
    """Each slot has a connection; the same command goes on under a higher limit."""
    typed = (*SWEEP, "hydra/launcher=workers", "hydra.launcher.cpu_slots=40")
    more = ("hydra.sweeper.n_trials=40", "sleep_s=0.5")
    done = limited_to(30, resource.RLIMIT_NOFILE, tmp_path, *command(APP, *typed, *more))
    run(APP, *SWEEP, *more, "hydra/launcher=workers", "hydra.launcher.cpu_slots=9")

    assert done.returncode == 2
    assert "ulimit -n" in done.stderr and "Traceback" not in done.stderr
    assert statuses_of(tmp_path / "here") == ["done"] * 40


def test_full_disk_ends_the_sweep_and_loses_nothing(run: Run, tmp_path: Path) -> None:
    """Exit 6; what ran may end; with room again the same command goes on."""
    typed = ("hydra/launcher=workers", "hydra.launcher.cpu_slots=2", "hydra.sweeper.n_trials=30")
    limited = with_little_room(tmp_path, 12_000, *typed)
    n_before = len(_record.read(tmp_path / "here").ends)
    n_results = len(list((tmp_path / "here").glob("*/result.json")))
    run(APP, *SWEEP, *typed)
    ends = _record.read(tmp_path / "here").ends

    assert limited.returncode == 6, limited.stderr
    assert "the disk is full" in limited.stderr and "Traceback" not in limited.stderr
    assert 0 < n_before <= n_results < 30
    assert [ends[n].status for n in range(30)] == ["done"] * 30
    assert [ends[n].attempt for n in range(n_results)] == [1] * n_results


def test_trial_that_had_no_room_did_not_die(run: Run, tmp_path: Path) -> None:
    """Small records may still fit where a trial could not write; it runs again with room."""
    typed = ("hydra/launcher=workers", "behave=kill_once", "hydra.sweeper.retries=0")
    limited = with_little_room(tmp_path, 50_000, *typed)
    n_before = len(_record.read(tmp_path / "here").ends)
    run(APP, *SWEEP, *typed, "hydra.sweeper.retries=1")

    assert (limited.returncode, n_before) == (6, 0)
    assert set(statuses_of(tmp_path / "here")) == {"done"}


@pytest.mark.parametrize("is_deleted", [False, True], ids=["moved", "deleted"])
def test_sweep_whose_folder_goes_away_ends(tmp_path: Path, is_deleted: bool) -> None:
    """What it would record from now on, nobody would find."""
    folder = tmp_path / "here"
    typed = command(APP, *SWEEP, "hydra/launcher=workers", "sleep_s=0.5")
    with subprocess.Popen(typed, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: list(folder.glob("*/pid")))
        folder.rename(tmp_path / "there")
        if is_deleted:
            shutil.rmtree(tmp_path / "there", ignore_errors=True)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 6, errors
    assert errors.splitlines()[-1].startswith("error: the sweep cannot write any more")
    assert "Traceback" not in errors


def test_sweep_that_cannot_write_any_more_loses_nothing(run: Run, tmp_path: Path) -> None:
    """Exit 6, and the same command goes on once the place is free."""
    typed = ("hydra/launcher=workers", "hydra.launcher.cpu_slots=2", "hydra.sweeper.n_trials=9")
    typed = (*typed, "behave=occupy_table")
    stopped = run(APP, *SWEEP, *typed, check=False)
    (tmp_path / "here" / "trials.csv").rmdir()
    run(APP, *SWEEP, *typed)
    ends = _record.read(tmp_path / "here").ends

    assert stopped.returncode == 6, stopped.stderr
    assert "trials.csv" in stopped.stderr and "Traceback" not in stopped.stderr
    assert [(ends[n].status, ends[n].attempt) for n in range(9)] == [("done", 1)] * 9


def test_folder_that_cannot_be_written_is_refused(run: Run, tmp_path: Path) -> None:
    """In one sentence, before anything is launched."""
    (tmp_path / "here").write_text("a file")
    done = run(APP, *SWEEP, check=False)

    assert done.returncode == 2
    assert "hydra.sweep.dir=here: the folder cannot be made" in done.stderr
