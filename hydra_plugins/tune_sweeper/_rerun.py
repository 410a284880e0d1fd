"""What to type to run a trial of a finished sweep again, so that the sweep's folder stays as it is.

The overrides of a trial name places in its sweep: the checkpoint that it continued, which may have
moved with the folder, and for a step of a training the folder of its curves, which is not to get
others.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ._config import KeysConf
from ._errors import UsageError
from ._overrides import as_text
from .run._record import Job, Summary, is_step
from .run._result import CHECKPOINT


def again(summary: Summary, folder: Path, job: Job, recorded: Sequence[str]) -> list[str]:
    """The recorded overrides of a job, with places that are right for another run of it.

    Raises:
        UsageError: the checkpoint that the job continued is not there any more.
    """
    keys = _keys(summary)
    parent = summary.parent(job)
    own = [job.folder] if parent is None else [job.folder, summary.jobs[parent].folder]
    kept = [text for text in recorded if not _is_ours(text, keys, own, has_curves=is_step(job))]
    if parent is None:
        return kept
    checkpoint = folder.resolve() / summary.jobs[parent].folder / CHECKPOINT
    if not checkpoint.exists():
        raise UsageError(
            f"{folder / job.folder} went on from {checkpoint}, which is not there any more: a sweep"
            " keeps the checkpoints of its best trials (hydra.sweeper.keep_checkpoints)"
        )
    return [*kept, f"{keys['resume_from']}={as_text(str(checkpoint))}"]


def _is_ours(text: str, keys: Mapping[str, str], folders: Sequence[str], has_curves: bool) -> bool:
    """Whether the sweep added this override: it leads into the folder of one of its jobs."""
    name, _, value = text.lstrip("+").partition("=")
    if name == keys["log_dir"]:
        return has_curves
    ends = tuple(f"/{folder}/{CHECKPOINT}" for folder in folders)
    return name == keys["resume_from"] and value.strip("'\"").endswith(ends)


def _keys(summary: Summary) -> dict[str, str]:
    """The names of the app's keys, as far as the record tells."""
    settings = summary.header.get("settings")
    told = settings.get("keys") if isinstance(settings, Mapping) else None
    known = vars(KeysConf())
    return known | {k: str(v) for k, v in (told or {}).items() if k in known}
