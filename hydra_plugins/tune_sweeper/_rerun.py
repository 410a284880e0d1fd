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
    kept = _without_last(recorded, keys["log_dir"]) if is_step(job) else list(recorded)
    if parent is None:
        own = f"/{job.folder}/{CHECKPOINT}"  # which an attempt may have found
        return _without_last(kept, keys["resume_from"], own) if job.attempt > 1 else kept
    kept = _without_last(kept, keys["resume_from"])
    checkpoint = folder.resolve() / summary.jobs[parent].folder / CHECKPOINT
    if not checkpoint.exists():
        raise UsageError(
            f"{folder / job.folder} went on from {checkpoint}, which is not there any more: a sweep"
            " keeps the checkpoints of its best trials (hydra.sweeper.keep_checkpoints)"
        )
    return [*kept, f"{keys['resume_from']}={as_text(str(checkpoint))}"]


def _without_last(texts: Sequence[str], key: str, end: str = "") -> list[str]:
    """Without the last override of a key: a sweep adds its own behind what was typed.

    It is the sweep's where its value has this end.
    """
    places = [i for i, text in enumerate(texts) if text.lstrip("+").startswith(f"{key}=")]
    is_ours = bool(places) and texts[places[-1]].rstrip("'\"").endswith(end)
    return [text for i, text in enumerate(texts) if not (is_ours and i == places[-1])]


def _keys(summary: Summary) -> dict[str, str]:
    """The names of the app's keys, as far as the record tells."""
    settings = summary.header.get("settings")
    told = settings.get("keys") if isinstance(settings, Mapping) else None
    known = vars(KeysConf())
    return known | {k: str(v) for k, v in (told or {}).items() if k in known}
