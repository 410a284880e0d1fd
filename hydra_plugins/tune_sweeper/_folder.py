"""Where a sweep lives: a new folder, the unfinished one of the same search, or the one named."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

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
    may_extend = all(change.startswith(_extensible(plan)) for change in changes)
    if changes and not (may_extend and plan.conf.on_change == "extend"):
        record.close()
        how = ", or hydra.sweeper.on_change=extend for another space" if may_extend else ""
        raise UsageError(
            f"{folder} holds another search: {'; '.join(changes[:5])}. Type the old values or"
            f" another hydra.sweep.dir{how}"
        )
    if old != new or record.header["n_trials"] != plan.conf.n_trials:
        record.change({**plan.header(record.header["seed"])})
    return record


def _extensible(plan: Plan) -> tuple[str, ...]:
    """What may differ while the old trials stay observations; another task may not.

    Where jobs continue checkpoints, one training has one config and one horizon; the members of a
    population are in its space and stay there.
    """
    if plan.is_population:
        return ()
    in_space = ("space.", "fixed", "initial")
    return in_space if plan.trains_in_steps else (*in_space, "config.")
