"""The console command `hydra-tune`, for sweeps that are there already.

    hydra-tune status outputs/bayes-3        how it stands
    hydra-tune config outputs/bayes-3 7      the config that trial 7 ran with
    hydra-tune rerun outputs/bayes-3 7       that trial again, in this terminal, with its traceback
    hydra-tune repair outputs/bayes-3        a damaged journal made readable

Only `rerun` runs anything that a folder names, and says what before it does.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from . import _exit
from ._errors import UsageError, nearest
from .run import _record
from .run._journal import JournalUnwritable
from .run._record import FILE, Job, Summary
from .run._repair import repair
from .show._display import harmless, number, shown

_BEST = 5  # trials in `status`


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command; leaves with the exit codes of a sweep."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = parsed.run
    with _exit.codes() as outcome:
        command(parsed)
    sys.exit(outcome.code)


def _parser() -> argparse.ArgumentParser:
    lines = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        prog="hydra-tune",
        description=lines[1],
        epilog=lines[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, run, help_text in (
        ("status", _status, "how a sweep stands"),
        ("config", _config, "the config that a trial ran with"),
        ("rerun", _rerun, "run a trial again, here"),
        ("repair", _repair, "make a damaged journal readable"),
    ):
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.add_argument("folder", type=Path, help="of the sweep, such as outputs/bayes-3")
        if name in ("config", "rerun"):
            command.add_argument("trial", help="its folder's name: 7, or 7/2 for a step or a seed")
        command.set_defaults(run=run)
    return parser


# The commands


def _status(parsed: argparse.Namespace) -> None:
    summary = _summary(parsed.folder)
    header, ends = summary.header, summary.ends
    n_running = len(summary.jobs) - len(ends)
    counts: dict[str, int] = {}
    for end in ends.values():
        counts[end.status] = counts.get(end.status, 0) + 1
    states = ", ".join(f"{n} {status}" for status, n in sorted(counts.items())) or "none ended"
    end_of_it = "over" if summary.is_over else f"{n_running} running or to be run again"
    _say(f"{parsed.folder}: {header['strategy']}, {header['direction']} {header['metric']}")
    _say(f"  {states}; {end_of_it}")
    if summary.is_extended:
        _say("  the best, also of the spaces that it had before it was extended:")
    for job_number in _best(summary):
        job, value = summary.jobs[job_number], ends[job_number].value
        _say(f"  {job.folder:>7}  {number(value):<10}  {shown(job.proposal.values)}")


def _best(summary: Summary) -> list[int]:
    sign = -1.0 if summary.header["direction"].startswith("max") else 1.0
    done = [n for n, end in summary.ends.items() if end.value is not None]
    return sorted(done, key=lambda n: sign * (summary.ends[n].value or 0.0))[:_BEST]


def _config(parsed: argparse.Namespace) -> None:
    job = _job(_summary(parsed.folder), parsed)
    for line in _file(parsed.folder, job, "config.yaml").read_text("utf-8").splitlines():
        _say(line)


def _rerun(parsed: argparse.Namespace) -> None:
    from ._rerun import again  # it knows Hydra, whose import takes a while

    summary = _summary(parsed.folder)
    job = _job(summary, parsed)
    program = summary.header.get("program")
    if not program:
        raise UsageError(f"{parsed.folder}: its record does not say which app it ran")
    file = _file(parsed.folder, job, "overrides.yaml")
    overrides = yaml.safe_load(file.read_text("utf-8"))
    if not isinstance(overrides, list) or not all(isinstance(text, str) for text in overrides):
        raise UsageError(f"{file} holds no list of overrides")
    typed = [sys.executable, *program, *again(summary, parsed.folder, job, overrides)]
    _say(shlex.join(typed))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # the whole traceback
    os.execv(sys.executable, typed)


def _repair(parsed: argparse.Namespace) -> None:
    try:
        found = repair(parsed.folder)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise JournalUnwritable(f"{parsed.folder / FILE} is as it was: {error}") from error
    if found is None:
        print(f"{parsed.folder / FILE}: nothing is wrong with it")
        return
    print(f"{parsed.folder / FILE}: kept {found.kept} records; as it was: {found.backup}")
    if found.damaged:
        print(f"  lost: line {', '.join(map(str, found.damaged))}")
    if found.foreign:
        print(f"  of another sweep, left out: line {', '.join(map(str, found.foreign))}")
    if found.orphaned:
        print(f"  of jobs whose values are lost: line {', '.join(map(str, found.orphaned))}")


# What they say and read


def _say(line: str) -> None:
    print(harmless(line), flush=True)


def _summary(folder: Path) -> Summary:
    try:
        return _record.read(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{folder} holds no sweep: there is no {FILE}") from error


def _job(summary: Summary, parsed: argparse.Namespace) -> Job:
    """The job in the folder of that name; of a trial in steps or seeds, the last one."""
    folder, name, jobs = parsed.folder, parsed.trial, summary.jobs.values()
    found = [j for j in jobs if j.folder == name] or [
        j for j in jobs if str(j.proposal.trial) == name
    ]
    if not found:
        names = [job.folder for job in jobs]
        raise UsageError(f"{folder} holds no trial {name!r}{nearest(name, names)}")
    return found[-1]


def _file(folder: Path, job: Job, name: str) -> Path:
    file = folder / job.folder / ".hydra" / name
    if not file.exists():
        raise UsageError(f"{folder / job.folder} has no .hydra/{name}: the trial never began")
    return file
