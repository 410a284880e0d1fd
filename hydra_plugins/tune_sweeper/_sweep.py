"""One sweep on its way: the record is open, the launcher is ready; run, show, sum up."""

import contextlib
import logging
import shlex
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from . import _commands, _exit
from ._adapter import Adapter, Around
from ._adapters import adapt, make_launcher
from ._app import has_key, value_of, write_config
from ._errors import UsageError
from ._folder import PARENT, told
from ._jobs import Jobs
from ._overrides import as_text
from ._plan import Plan
from ._settings import limits_of, rules_of
from ._task import RecordedTask
from .run._interrupts import Interrupts
from .run._loop import Loop, TaskRefused
from .run._record import COMPLETE, TIME_S, Job, Record, is_step
from .run._result import INTERRUPTED
from .run._rules import FAIL_FAST, MAX_FAILURES, Rules
from .run._whole import write_whole
from .search._space import Parameter
from .show._display import closing_metrics, number
from .show._watch import Watch


class Sweep:
    """Everything of one sweep that is made once."""

    def __init__(
        self,
        plan: Plan,
        record: Record,
        *,
        context: HydraContext,
        task: TaskFunction,
        config: DictConfig,
    ) -> None:
        self._plan = plan
        self._record = record
        self._folder = record.folder.resolve()
        self._configs: dict[tuple[str, ...], DictConfig] = {}
        config = _with_folder(config, record.folder)
        with told(record.folder):
            write_whole(record.folder / "multirun.yaml", OmegaConf.to_yaml(_without_env(config)))
        self._interrupts = Interrupts(grace_s=plan.conf.grace_s)
        self._jobs = Jobs(plan, record, hydra_overrides=_quiet(config))
        self._launcher = self._adapted(context, task, config)
        self._strategy = plan.strategy(record.header["seed"], in_batches=self._launcher.in_batches)
        self._watch = Watch(
            record,
            plan.space,
            plan.objective,
            display=plan.conf.display,
            n_jobs=plan.n_jobs(self._strategy, is_extended=record.is_extended),
            compare=self._compared,
            horizon=self._horizon(),
            on_best=self._write_best,
        )
        self._loop = Loop(
            self._strategy,
            self._launcher,
            record,
            objective=plan.objective,
            rules=self._rules(self._launcher.n_slots),
            interrupts=self._interrupts,
            may_be_best=self._is_in_space if record.is_extended else lambda values: True,
            on_restored=self._watch.restore,
            on_start=self._watch.started,
            on_end=self._watch.ended,
        )

    def _adapted(self, context: HydraContext, task: TaskFunction, config: DictConfig) -> Adapter:
        conf = self._plan.conf
        recorded = RecordedTask(task, threads_key=conf.keys.threads)
        around = Around(
            command=self._jobs.overrides,
            sweep_folder=self._folder,
            config=config,
            interrupts=self._interrupts,
            limits=limits_of(conf),
        )
        return adapt(make_launcher(context, recorded, config), around)

    def _is_in_space(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial of an earlier space lies in the present one."""
        return self._plan.space.contains(self._plan.space.cast(values))

    def run(self) -> int:
        """Runs to the end; gives back the exit code.

        Raises:
            TaskRefused: the first trial showed that no trial can work.
            UsageError: the launcher cannot start any.
        """
        try:
            with self._interrupts.installed():  # to the end: it may take a while to end processes
                return self._run()
        finally:
            self._interrupts.close()

    def _run(self) -> int:
        self._watch.display.say(self._opening())
        n_before = len(self._record.ends)
        try:
            self._launcher.start()
            reason = self._loop.run()
        except TaskRefused as refused:
            self._launcher.close()
            if not refused.has_trained:
                self._remove()
            raise
        except CompactHydraException as error:  # no job of this launcher can begin
            self._launcher.close()
            if not self._has_trained():
                self._remove()
            raise UsageError(str(error)) from error
        finally:
            self._launcher.close()
        if reason == INTERRUPTED:
            self._watch.display.say(["interrupted; type the same command to go on"])
            return self._interrupts.exit_code
        if reason == COMPLETE and 0 < n_before == len(self._record.ends):
            self._watch.display.say(["nothing to do: all jobs of this sweep have ended"])
        self._watch.display.say(self._closing(reason))
        is_failure = reason in (FAIL_FAST, MAX_FAILURES) or self._loop.progress.best is None
        return _exit.FAILED if is_failure else _exit.DONE

    def _write_best(self, job: Job) -> None:
        config = self._plan.app.compose(self._jobs.reproduction(job))
        write_config(config, self._folder / "best.yaml")
        if is_step(job):
            self._jobs.write_schedule(job)

    # What is shown

    def _opening(self) -> list[str]:
        objective, record = self._plan.objective, self._record
        verb = {"min": "minimising", "max": "maximising"}[objective.direction[:3]]
        n_jobs = self._plan.n_jobs(self._strategy, is_extended=record.is_extended)
        count = f"{n_jobs} jobs, " if n_jobs else ""
        lines = [
            f"{self._plan.conf.name}: {count}{verb} {objective.name},"
            f" seed {record.header['seed']}, in {record.folder}"
        ]
        lines += [f"  {p.describe()}{self._note_on(p)}" for p in self._plan.space.parameters]
        if self._plan.own.get("population_size", _FEWEST_MEMBERS) < _FEWEST_MEMBERS:
            lines.append("  a population of so few hardly has a quarter to copy: better 4 or more")
        if record.torn:
            lines.append("  a torn record at the journal's end was set aside (trials.torn)")
        if record.ends:
            lines.append(
                f"  continues with {len(record.ends)} ended jobs"
                " (for a fresh start: hydra.sweeper.resume=never)"
            )
        command = _commands.sweep_command(f"hydra.sweep.dir={as_text(str(record.folder))}")
        return [*lines, f"  to continue it: {command}"]

    def _note_on(self, parameter: Parameter) -> str:
        """What a population may not do with it."""
        is_constant = self._plan.is_population and parameter.is_frozen
        return ", constant along a training" if is_constant else ""

    def _closing(self, reason: str) -> list[str]:
        progress = self._loop.progress
        lines = self._used_up() if reason == COMPLETE else [f"stopped: {_REASONS[reason]}"]
        lines += self._watch.errors()
        if reason in (FAIL_FAST, MAX_FAILURES) or progress.best is None:
            lines += (self._watch.first_traceback() or "").splitlines()
        if progress.best is None:
            return [*lines, f"no best: none of {progress.n_ended} jobs is done"]
        value, first = progress.best
        job, folder = self._record.jobs[first], self._record.folder
        tensorboard = [*_commands.runner(), "tensorboard", "--logdir", str(folder.parent)]
        return [
            *lines,
            self._winner(job, value),
            f"{self._again(job)} {_commands.train_command(self._jobs.reproduction(job))}",
            *self._replay(job),
            f"or from a file:  {self._best_command(folder)}",
            f"compare:         {shlex.join(tensorboard)}",
        ]

    def _used_up(self) -> list[str]:
        """Why a sweep is complete before its n_trials or its budget, when it is."""
        n = len({job.proposal.trial for job in self._record.jobs.values()})
        budget, wanted = self._plan.own.get("max_epochs_total"), self._plan.conf.n_trials
        if budget and wanted and n >= wanted:
            return self._left_over(budget)
        is_short = wanted and n < wanted and not budget
        return [f"the space has no more than {n} configurations"] if is_short else []

    def _left_over(self, budget: int) -> list[str]:
        """Says that n_trials left epochs for at least one more full training."""
        epochs: dict[int, int] = {}  # by trial, whose jobs continue each other
        for job in self._record.jobs.values():
            trial, until = job.proposal.trial, job.proposal.until_epoch or 0
            epochs[trial] = max(epochs.get(trial, 0), until)
        plan, n_epochs = self._plan, sum(epochs.values())
        full = plan.own["max_epochs"] or value_of(plan.search.base, plan.conf.keys.epochs)
        if budget - n_epochs < full:
            return []
        more = f"hydra.sweeper.n_trials=null hydra.sweep.dir={as_text(str(self._record.folder))}"
        return [
            f"all {plan.conf.n_trials} trials took {n_epochs} of max_epochs_total={budget} epochs:"
            f" type {more} for more trials"
        ]

    def _winner(self, job: Job, value: float) -> str:
        """`best val/loss 0.0097 in trial 7 (test/loss 0.16, test/acc 0.95)`."""
        objective, n = self._plan.objective.name, self._plan.conf.repeats
        metrics = closing_metrics(self._record.ends[job.number].metrics, objective)
        mean, of = (f" (mean of {n} seeds)", "first seed: ") if n > 1 else ("", "")
        others = f" ({of}{metrics})" if metrics else ""
        return f"best {objective} {number(value)}{mean} in trial {job.proposal.trial}{others}"

    def _again(self, job: Job) -> str:
        """What the printed command repeats: of a winner whose values changed, the last step."""
        if not self._jobs.is_constant(job):
            return "train its last step:"
        return "train it again: " if self._plan.conf.repeats == 1 else "train its first seed:"

    def _replay(self, job: Job) -> list[str]:
        """The command that trains all of a winner whose values changed on the way."""
        if self._jobs.is_constant(job):
            return []
        return [f"train all of it: {self._jobs.replay_command()}"]

    def _best_command(self, folder: Path) -> str:
        return _commands.train_command(["--config-dir", str(folder), "--config-name", "best"])

    def _horizon(self) -> int | None:
        """The epoch with which every trial is over; None where some are over before."""
        plan = self._plan
        is_whole = plan.is_population and plan.own["init_candidates"] is None
        return value_of(plan.search.base, plan.conf.keys.epochs) if is_whole else None

    def _compared(self, job: Job) -> dict[str, Any]:
        """Keys that TensorBoard shows for every sweep, with the values that this job gets."""
        config = self._config_of(self._plan.search.options(job.proposal.values))
        return {k: value_of(config, k) for k in self._plan.conf.compare_keys if has_key(config, k)}

    def _config_of(self, options: tuple[str, ...]) -> DictConfig:
        """The config with these options of the swept groups, composed once."""
        if options not in self._configs:
            self._configs[options] = self._plan.app.compose([*self._plan.search.fixed, *options])
        return self._configs[options]

    # Settings

    def _rules(self, n_slots: int) -> Rules:
        conf = self._plan.conf
        return rules_of(
            conf,
            n_slots=n_slots,
            can_resume=has_key(self._plan.search.base, conf.keys.resume_from),
            in_process=self._launcher.in_batches,
            replaces_dead=self._plan.is_population,
        )

    def _has_trained(self) -> bool:
        """Whether any job began: Hydra then wrote its config into its folder."""
        folders = (self._folder / job.folder for job in self._record.jobs.values())
        return any((folder / ".hydra").exists() for folder in folders)

    def _remove(self) -> None:
        """A sweep whose first configuration was refused leaves nothing behind.

        One of an earlier process stays: its trainings may go on once the mistake is mended.
        """
        if self._record.ends or self._record.events:
            return
        self._record.remove()
        if self._record.folder.parent == PARENT:
            with contextlib.suppress(OSError):  # other sweeps live there too
                PARENT.rmdir()


_REASONS = {
    FAIL_FAST: "the first jobs all failed",
    MAX_FAILURES: "too many jobs failed",
    TIME_S: "its time is over (hydra.sweeper.stop.time_s)",
    "target": "the target is reached (hydra.sweeper.stop.target)",
    "patience": "no better trial for a while (hydra.sweeper.stop.patience)",
}


_FEWEST_MEMBERS = 4  # a population below it is warned of

_LAUNCHER_LOGGERS = (
    "hydra._internal.core_plugins.basic_launcher",
    "hydra_plugins.hydra_joblib_launcher",
    "hydra_plugins.hydra_submitit_launcher",
)


def _with_folder(config: DictConfig, folder: Path) -> DictConfig:
    """A copy of Hydra's config whose jobs go into the sweep's folder."""
    config = deepcopy(config)
    sweep, typed = config.hydra.sweep, config.hydra.overrides.hydra
    with read_write(sweep), read_write(typed):  # Hydra 1.4 hands over a read-only config
        sweep.dir = str(folder)
        typed.append(f"hydra.sweep.dir={as_text(str(folder))}")
    return config


def _without_env(config: DictConfig) -> DictConfig:
    """A copy without the values of the variables that `hydra.job.env_copy` names."""
    config = deepcopy(config)
    job = config.hydra.job
    with read_write(job.env_set), open_dict(job.env_set):
        for name in job.env_copy:
            job.env_set.pop(name, None)
    return config


def _quiet(config: DictConfig) -> list[str]:
    """Silences Hydra's line per launch, which would double ours; overrides that silence the jobs.

    What a job logs goes to its own file alone, unless `hydra.verbose` asks for everything.
    """
    if config.hydra.verbose:
        return []
    for name in _LAUNCHER_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    handlers = OmegaConf.select(config, "hydra.job_logging.root.handlers") or []
    return ["hydra.job_logging.root.handlers=[file]"] if "file" in handlers else []
