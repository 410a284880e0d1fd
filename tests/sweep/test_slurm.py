"""Jobs of a real SLURM, one node, without accounting: cancelled, killed, requeued."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from apps import APP, TRAIN, Run, command, progress_of
from processes import wait_until

from hydra_plugins.tune_sweeper.run import _record

DAEMONS = ("munged", "slurmctld", "slurmd")
HAS_SLURM = os.geteuid() == 0 and all(map(shutil.which, DAEMONS))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_SLURM, reason="needs root and Debian's slurm-wlm and munge"),
    pytest.mark.skipif(
        "PYTEST_XDIST_WORKER" in os.environ, reason="a machine has one SLURM: type -n0"
    ),
]

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
SlurmctldPort=16827
SlurmdPort=16828
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmUser=root
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

SLURM = (
    "-m",
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.mem_gb=null",
    "hydra.sweep.dir=here",
)
GRID = (*SLURM, "hydra/sweeper=grid", "hydra.sweeper.n_parallel=2")


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A controller and a node on this machine."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname().split(".")[0], folder=folder))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(conf)
    if subprocess.run(["munge", "-n"], capture_output=True).returncode:
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge")
        subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)
    for daemon in DAEMONS[1:]:
        subprocess.run([daemon, "-f", str(conf)], check=True, cwd=folder)
    wait_until(lambda: "idle" in queue("sinfo", "--noheader"))
    yield
    for daemon in DAEMONS[1:]:
        os.kill(int((folder / f"{daemon}.pid").read_text()), signal.SIGTERM)
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before


def queue(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def job_of(folder: Path, number: int) -> str:
    """SLURM's number of a running job, from its name."""
    rows = [row.split() for row in queue("squeue", "--noheader", "--format=%i %j").splitlines()]
    return next((row[0] for row in rows if row[1].split("-")[-2] == str(number)), "")


def start(folder: Path, script: Path, *typed: str) -> "Popen[bytes]":
    return Popen(command(script, *typed), cwd=folder, stdout=subprocess.DEVNULL)


def attempts(folder: Path) -> list[tuple[str, int]]:
    ends = _record.read(folder).ends
    return [(end.status, end.attempt) for _, end in sorted(ends.items())]


def test_slurm_runs_a_sweep(run: Run, tmp_path: Path) -> None:
    """Every job in SLURM's queue, two at a time."""
    done = run(APP, *GRID, "x=0.1,0.2,0.3,0.4")

    assert attempts(tmp_path / "here") == [("done", 1)] * 4
    assert "sacct" not in done.stdout


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_lost_job_is_noticed_and_tried_again(tmp_path: Path, how: str) -> None:
    """Within ten seconds, although submitit would wait for ever."""
    sweep = start(tmp_path, APP, *GRID, "x=0.1,0.2,0.3", "sleep_s=4")
    pid = tmp_path / "here" / "0" / "pid"
    wait_until(lambda: pid.exists() and pid.read_text())
    began = time.time()
    if how == "cancelled":
        queue("scancel", job_of(tmp_path, 0))
    else:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    assert sweep.wait(120) == 0
    lines = (tmp_path / "here" / _record.FILE).read_text().splitlines()
    lost = [_record._journal.decode(f"{line}\n".encode()) for line in lines if '"lost"' in line]

    assert attempts(tmp_path / "here") == [("done", 2), ("done", 1), ("done", 1)]
    assert len(lost) == 1 and lost[0] is not None
    assert lost[0]["time"] - began < 10


def test_requeued_job_is_no_lost_one(tmp_path: Path) -> None:
    """It was pre-empted and runs again under its number: SLURM's own second attempt counts."""
    sweep = start(tmp_path, APP, *GRID, "x=0.1,0.2", "sleep_s=3")
    pid = tmp_path / "here" / "0" / "pid"
    wait_until(lambda: pid.exists() and pid.read_text())
    queue("scontrol", "requeue", job_of(tmp_path, 0))

    assert sweep.wait(240) == 0
    assert [status for status, _ in attempts(tmp_path / "here")] == ["done", "done"]


def test_sigterm_of_the_sweep_reaches_the_trainings(run: Run, tmp_path: Path) -> None:
    """They write a checkpoint, leave the queue, and are continued."""
    typed = ("hydra/sweeper=random", "hydra.sweeper.n_trials=1", "hydra.sweeper.seed=1")
    typed = (*SLURM, *typed, "lr=interval(1e-3,1e-1)", "model=mlp", "epochs=200")
    sweep = start(tmp_path, TRAIN, *typed)
    wait_until(lambda: (tmp_path / "here" / "0" / "progress.jsonl").exists())
    sweep.terminate()

    assert sweep.wait(60) == 143
    n_before = len(progress_of(tmp_path / "here" / "0"))
    run(TRAIN, *typed)

    assert 0 < n_before < 200
    assert attempts(tmp_path / "here") == [("done", 2)]
    assert len(progress_of(tmp_path / "here" / "0")) == 200
