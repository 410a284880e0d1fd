"""What each job is told, and what a user types to train a winner again."""

import itertools
from collections.abc import Sequence

from . import _commands, _schedule
from ._app import flat, has_key, value_of
from ._config import SweeperConf
from ._overrides import as_text
from ._plan import Plan
from ._task import ATTEMPT
from .run._record import Job, Record, is_step
from .run._result import CHECKPOINT

_SWEEP_FILE = "+sweep="  # chooses strategy and space too, which a replay has not


class Jobs:
    """The overrides of the jobs of one sweep; `hydra_overrides` go to all of them."""

    def __init__(self, plan: Plan, record: Record, *, hydra_overrides: Sequence[str]) -> None:
        self._plan = plan
        self._record = record
        self._folder = record.folder.resolve()
        self._hydra_overrides = hydra_overrides

    def overrides(self, job: Job, checkpoint: str | None) -> list[str]:
        """The overrides of a job: as typed, its values, its place in its trial, its folder."""
        texts = [*self._plan.search.overrides(job.proposal.values), *self._own_of_step(job)]
        texts += self._continuation(job, checkpoint)
        texts += [f"hydra.sweep.subdir={job.folder}", *self._hydra_overrides]
        if job.attempt > 1:
            texts.append(f"+hydra.job.env_set.{ATTEMPT}='{job.attempt}'")
        return texts

    def _own_of_step(self, job: Job) -> list[str]:
        """The overrides that a replayed step brings, and its seed."""
        brought = self._plan.brought(job.proposal.step)
        has_seed = any(text.startswith(f"{self._plan.conf.keys.seed}=") for text in brought)
        return brought if has_seed else [*brought, *self._seed(job)]

    def _seed(self, job: Job) -> list[str]:
        """Repeats and the trials of a sweep in steps differ by their seed; other jobs share it."""
        key = self._plan.conf.keys.seed
        shift = job.proposal.trial if is_step(job) else job.repeat
        base = value_of(self._plan.search.base, key)
        is_ours = is_step(job) or self._plan.conf.repeats > 1
        if not is_ours or not isinstance(base, int) or key in self._plan.space.names:
            return []
        return [f"{key}={as_text(base + shift)}"]

    def _continuation(self, job: Job, checkpoint: str | None) -> list[str]:
        proposal, keys = job.proposal, self._plan.conf.keys
        texts = []
        if proposal.until_epoch is not None:
            texts.append(f"{keys.until_epoch}={proposal.until_epoch}")
            if has_key(self._plan.search.base, keys.log_dir):
                folder = self._folder / str(proposal.trial)
                texts.append(f"{keys.log_dir}={as_text(str(folder))}")
        if checkpoint is not None:
            texts.append(f"{keys.resume_from}={as_text(str(self._folder / checkpoint))}")
        return texts

    # Winners

    def is_constant(self, job: Job) -> bool:
        """Whether one command trains it from the beginning: its values never changed.

        Nor did it matter that it was trained in steps, as it does where a training stops early.
        """
        lineage = self._lineage(job)
        own = [self._own(member) for member in lineage]
        return all(texts == own[0] for texts in own) and (len(lineage) == 1 or self._can_join())

    def _can_join(self) -> bool:
        """Whether several steps with the same values are like one."""
        base, swept = self._plan.search.base, self._plan.space.names
        of_jobs = [key for key, knob in self._plan.app.knobs.items() if knob.per_job]
        return not any(
            key in swept or (has_key(base, key) and value_of(base, key)) for key in of_jobs
        )

    def reproduction(self, job: Job) -> list[str]:
        """Overrides that train a job again, exactly, on a CPU with as many threads.

        Where the values of its trial changed on the way, its last step alone.
        """
        parent = None if self.is_constant(job) else self._record.parent(job)
        source = None if parent is None else f"{self._record.jobs[parent].folder}/{CHECKPOINT}"
        log_dir = f"{self._plan.conf.keys.log_dir}="
        texts = self.overrides(job, source)
        kept = [t for t in texts if not t.lstrip("+").startswith(("hydra.", log_dir))]
        return list(dict.fromkeys([*kept, *self._threads(job)]))

    def write_schedule(self, job: Job) -> None:
        """schedule.yaml: the values with which a winner was trained, step by step."""
        lineage = self._lineage(job)
        joined = [list(piece) for _, piece in itertools.groupby(lineage, key=self._own)]
        last = [piece[-1] for piece in joined] if self._can_join() else lineage
        steps = [(member.proposal.until_epoch or 0, self._own(member)) for member in last]
        comment = ["how the best trial was trained, and to train it so again:"]
        comment.append(self.replay_command())
        fixed = [*self._without_sweep_file(), *self._threads(job)]
        _schedule.write(self._record.folder, fixed=fixed, steps=steps, comment=comment)

    def _without_sweep_file(self) -> list[str]:
        """The fixed overrides; in the place of a sweep file, what it set in the app's config."""
        fixed = self._plan.search.fixed
        kept = [text for text in fixed if not text.startswith(_SWEEP_FILE)]
        if len(kept) == len(fixed):
            return kept
        with_it, without = flat(self._plan.search.base), flat(self._plan.app.compose(kept))
        is_new = {key: value for key, value in with_it.items() if without.get(key, ...) != value}
        return [*kept, *(f"++{key}={as_text(value)}" for key, value in is_new.items())]

    def replay_command(self) -> str:
        """The command that trains the winner's schedule again."""
        setting = f"hydra.sweeper.schedule={as_text(str(self._record.folder))}"
        return _commands.train_command(["-m", "hydra/sweeper=replay", setting, *self._settings()])

    def _settings(self) -> list[str]:
        """What this sweep was told of its objective and of the app's keys."""
        conf, default = self._plan.conf, SweeperConf()
        told = {name: getattr(conf, name) for name in ("metric", "direction", "metric_agg")}
        changed = {k: v for k, v in told.items() if v != getattr(default, k)}
        keys = {k: v for k, v in vars(conf.keys).items() if v != getattr(default.keys, k)}
        changed |= {f"keys.{name}": key for name, key in keys.items()}
        return [f"hydra.sweeper.{name}={as_text(value)}" for name, value in changed.items()]

    def _lineage(self, job: Job) -> list[Job]:
        """The job and those that it goes on from, the first one first."""
        found = [job]
        while (parent := self._record.parent(found[0])) is not None:
            found.insert(0, self._record.jobs[parent])
        return found

    def _own(self, job: Job) -> list[str]:
        """The overrides in which a job may differ from the others of its lineage."""
        fixed = set(self._plan.search.fixed)
        swept = self._plan.search.overrides(job.proposal.values)
        return [*(text for text in swept if text not in fixed), *self._own_of_step(job)]

    def _threads(self, job: Job) -> list[str]:
        threads, key = self._record.ends[job.number].threads, self._plan.conf.keys.threads
        is_open = has_key(self._plan.search.base, key)
        is_open = is_open and value_of(self._plan.search.base, key) is None
        return [f"{key}={threads}"] if is_open and threads else []
