"""Where a sweep lives: a new folder, the unfinished one of the same search, or the one named."""

import contextlib
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ._errors import UsageError
from ._plan import Plan
from .run import _record
from .run._journal import is_disk_full
from .run._record import Record

PARENT = Path("outputs")  # of the sweeps' folders, unless hydra.sweep.dir says another
HYDRA_DIR = "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"  # Hydra's own default: nobody chose it


def open_record(plan: Plan, config: DictConfig) -> Record:
    """The record to write: of a new sweep, or of the one that this command continues.

    Raises:
        UsageError: the folder belongs to another search, or there is nothing to continue.
        JournalError: the record is damaged, of a later format, or in use.
    """
    raw = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    is_named = isinstance(raw, dict) and raw["dir"] != HYDRA_DIR
    if is_named and not str(config.hydra.sweep.dir):
        raise UsageError("hydra.sweep.dir=: expected a folder, for instance outputs/mine")
    if is_named:
        return _open_named(plan, Path(str(config.hydra.sweep.dir)))
    found = None
    if plan.conf.resume != "never":
        found = _record.newest_unfinished(PARENT, plan.conf.name, plan.fingerprint())
    if found is not None:
        return _continue(plan, found)
    if plan.conf.resume == "must":
        raise UsageError(
            f"hydra.sweeper.resume=must: {PARENT}/ holds no unfinished {plan.conf.name} sweep"
            " of this search; type resume=auto to start one"
        )
    return _create(plan, _record.next_folder(PARENT, plan.conf.name))


def _open_named(plan: Plan, folder: Path) -> Record:
    with told(folder):
        exists = (folder / _record.FILE).exists()
    if exists and plan.conf.resume == "never":
        raise UsageError(
            f"hydra.sweep.dir={folder} holds a sweep already, and resume=never asks for a new one:"
            " name another folder"
        )
    if not exists and plan.conf.resume == "must":
        raise UsageError(f"hydra.sweep.dir={folder} holds no sweep to continue (resume=must)")
    return _continue(plan, folder) if exists else _create(plan, folder)


def _create(plan: Plan, folder: Path) -> Record:
    seed = plan.conf.seed
    drawn = random.SystemRandom().randrange(2**31) if seed is None else seed
    with told(folder):
        return Record.create(folder, plan.header(drawn))


@contextlib.contextmanager
def told(folder: Path) -> Iterator[None]:
    """A folder that cannot be used, in one sentence; a full disk has its own."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise
        raise UsageError(
            f"hydra.sweep.dir={folder}: the folder cannot be made, written or locked"
            f" ({error.strerror})"
        ) from error


def _continue(plan: Plan, folder: Path) -> Record:
    with told(folder):
        record = Record.resume(folder)
    old, new = record.header["fingerprint"], plan.fingerprint()
    changes = _record.differences(old, new)
    may_extend = all(change.startswith(_extensible(plan, old)) for change in changes)
    if changes and not (may_extend and plan.conf.on_change == "extend"):
        record.close()
        how = ", or hydra.sweeper.on_change=extend for another space" if may_extend else ""
        raise UsageError(
            f"{folder} holds another search: {'; '.join(changes[:5])}. Type the old values or"
            f" another hydra.sweep.dir{how}"
        )
    if (foreign := _foreign(plan, record)) is not None:
        record.close()
        raise UsageError(f"{folder} is not as a sweep left it: {foreign}; name another folder")
    if old != new or record.header["n_trials"] != plan.conf.n_trials:
        record.change({**plan.header(record.header["seed"])})
    return record


def _foreign(plan: Plan, record: Record) -> str | None:
    """A text that stands for a value of a job to be run, and was never one of the choices.

    It would become a part of the job's config, as an interpolation or the name of a file.
    """
    groups = {i.parameter.name for i in plan.search.items if i.is_group and i.parameter}
    jobs = (job for number, job in record.jobs.items() if number not in record.ends)
    for job in jobs:
        for name, value in job.proposal.values.items():
            may_call = name in groups or "${" in str(value)
            if may_call and name in plan.space.names and not plan.space[name].contains(value):
                return f"job {job.number} has {name}={value!r}, which is none of the choices"
    return None


def _extensible(plan: Plan, old: Mapping[str, Any]) -> tuple[str, ...]:
    """What may differ while the old trials stay observations; another task may not.

    A key that is searched no more, or was not before, has another value in the config as well.
    Where jobs continue checkpoints, one training has one config and one horizon; the members of a
    population are in its space and stay there.
    """
    if plan.is_population:
        return ()
    in_space = ("space.", "fixed", "initial")
    if plan.trains_in_steps:
        return in_space
    names = {*plan.space.names, *old.get("space", {}).get("parameters", {})}
    of_names = (f"config.{name}{end}" for name in sorted(names) for end in (":", "."))
    return (*in_space, *of_names)
