"""A sweep over a Python function: the same strategies, loop and record, without a Hydra app."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import _config, _folder, _overrides, _search, _settings
from ._app import fingerprint_of
from ._errors import UsageError, nearest
from ._knobs import Knob
from ._plan import Plan
from .run import _result
from .run._loop import Loop, TaskRefused
from .run._objective import Objective
from .run._record import Job, Record
from .show._watch import Watch

__all__ = ["Outcome", "Step", "TaskRefused", "Trial", "UsageError", "sweep"]

# A schedule holds overrides of a command line, which a function has not.
_CONFS = {c.name: c for c in _config.STRATEGIES if c is not _config.ReplayConf}


@dataclass(frozen=True)
class Trial:
    """One job of a sweep and how it ended."""

    number: int
    values: Mapping[str, Any]
    status: str  # done, failed, invalid, ...
    value: float | None  # the objective; None unless it is done
    metrics: Mapping[str, float]
    seconds: float
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What a sweep found."""

    folder: Path
    best: Trial | None  # with repeats, the first of the best configuration's trials
    best_value: float | None  # with repeats, the mean over them
    trials: Sequence[Trial]
    reason: str  # why it ended: complete, target, patience, time_s, fail_fast, max_failures


@dataclass(frozen=True)
class Step:
    """What a training in steps needs to know; a task gets it as its second argument.

    It trains from `resume_from` (None: from scratch) to the end of epoch `until_epoch`, and leaves
    `checkpoints/last.ckpt` in `folder`. After an interruption `resume_from` is the step's own
    checkpoint, which may have all its epochs: then only the result is missing.
    """

    folder: Path
    until_epoch: int | None
    resume_from: Path | None


Task = Callable[..., Any]


def sweep(
    task: Task,
    space: Mapping[str, Any],
    *,
    strategy: str = "bayes",
    folder: str | Path | None = None,
    epochs: int | None = None,
    **settings: Any,
) -> Outcome:
    """Searches for the `values` that minimise `task(values)`, and gives back all trials.

    `space` maps names to the grammar of the command line ("tag(log, interval(1e-4, 1e-1))") or to
    lists of choices. The task returns a number, or a mapping of metrics of which
    `metric=` names the one that counts. `settings` are those of `hydra.sweeper`. A `folder` that
    holds an unfinished sweep of the same space is continued. For "pbt" and "asha" the task takes a
    Step as second argument, and `epochs` is the length of a training.

    Raises:
        UsageError: a setting or a parameter that cannot be searched.
        TaskRefused: the first trial returned no such metric, or nothing that is one.

    >>> from hydra_plugins.tune_sweeper.api import sweep
    >>> outcome = sweep(
    ...     lambda values: (values["x"] - 0.3) ** 2,
    ...     {"x": "interval(0.0, 1.0)"},
    ...     n_trials=12,
    ...     seed=0,
    ... )
    >>> abs(outcome.best.values["x"] - 0.3) < 0.05
    True
    """
    # Two tasks may search the same space: only a folder that is named is continued.
    settings = {"resume": "never" if folder is None else "auto", **settings}
    plan = _plan(space, strategy, settings, epochs)
    record = _folder.open_record(plan, _sweep_config(folder))
    try:
        return _run(plan, record, task)
    finally:
        record.close()


def _plan(
    space: Mapping[str, Any], strategy: str, settings: Mapping[str, Any], epochs: int | None
) -> Plan:
    if strategy not in _CONFS:
        known = ", ".join(_CONFS)
        raise UsageError(f"strategy={strategy!r}: one of {known}{nearest(strategy, _CONFS)}")
    defaults: Any = OmegaConf.to_container(OmegaConf.structured(_CONFS[strategy]))
    unknown = sorted(set(settings) - set(defaults))
    if unknown:
        raise UsageError(f"{unknown[0]} is no setting{nearest(unknown[0], defaults)}")
    hidden = ("_target_", "_recursive_", "_convert_")
    merged = _merged(_CONFS[strategy], settings)
    conf, own = _settings.read({k: v for k, v in merged.items() if k not in hidden})
    app = _NoApp(OmegaConf.create({} if epochs is None else {conf.keys.epochs: epochs}))
    if not isinstance(space, Mapping):
        raise UsageError(f"space={space!r}: expected names and what to search, {{'x': [1, 2]}}")
    params = {f"+{name}": typed for name, typed in space.items()}
    search = _search.parse(app, [], params, conf.conditions or {}, conf.where)  # type: ignore[arg-type]
    fixed = [name for name in space if name not in search.space.names]
    app.config.update({name: _overrides.constant(space[name]) for name in fixed})
    objective = Objective(conf.metric, conf.direction or "minimize", conf.metric_agg)
    plan = Plan(app, conf, own, search, objective)  # type: ignore[arg-type]
    _check(plan, space, epochs)
    return plan


def _merged(conf: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with the settings over them, each of its type, as Hydra would check it."""
    try:
        merged: Any = OmegaConf.merge(OmegaConf.structured(conf), dict(settings))
    except (OmegaConfBaseException, ValueError) as error:
        key = getattr(error, "full_key", None) or next(iter(settings), "")
        raise UsageError(f"{key}={settings.get(key)!r}: {str(error).splitlines()[0]}") from error
    return dict(OmegaConf.to_container(merged))  # type: ignore[arg-type]


def _check(plan: Plan, space: Mapping[str, Any], epochs: int | None) -> None:
    if not len(plan.space):
        raise UsageError(f"space={dict(space)}: nothing to search; name at least one parameter")
    if plan.trains_in_steps and epochs is None:
        raise UsageError(f"strategy={plan.conf.name!r} trains in steps: say epochs=<number>")
    if plan.conf.repeats > 1:
        raise UsageError(f"repeats={plan.conf.repeats}: a function gets no seed to differ by")
    for name in ("trial_timeout_s", "stall_timeout_s"):
        if (value := getattr(plan.conf, name)) is not None:
            raise UsageError(
                f"{name}={value}: a function that runs in this process cannot be ended; for limits"
                " sweep a Hydra app, whose trials have processes of their own"
            )
    plan.strategy(0, in_batches=True)


class _NoApp:
    """Stands for the Hydra app where there is none: no groups, no knobs, an empty config."""

    loader = None
    name = "python"
    program: Sequence[str] = ()  # a function cannot be found again
    groups: Sequence[str] = ()
    knobs: Mapping[str, Knob] = {}

    def __init__(self, config: DictConfig) -> None:
        self.config = config

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        return self.config

    def options(self, group: str) -> list[str]:
        return []


def _sweep_config(folder: str | Path | None) -> DictConfig:
    """What _folder reads of Hydra's config."""
    text = _folder.HYDRA_DIR if folder is None else str(folder)
    return OmegaConf.create({"hydra": {"sweep": {"dir": text}}})


def _run(plan: Plan, record: Record, task: Task) -> Outcome:
    conf = plan.conf
    strategy = plan.strategy(record.header["seed"], in_batches=True)
    watch = Watch(
        record,
        plan.space,
        plan.objective,
        display=conf.display,
        n_jobs=plan.n_jobs(strategy),
    )
    loop = Loop(
        strategy,
        _InProcess(task, record.folder, _constants(plan)),
        record,
        objective=plan.objective,
        rules=_settings.rules_of(
            conf,
            n_slots=1,
            can_resume=plan.trains_in_steps,
            replaces_dead=plan.is_population,
        ),
        on_restored=watch.restore,
        on_start=watch.started,
        on_end=watch.ended,
    )
    reason = loop.run()
    trials = {number: _trial(record, number) for number in record.ends}
    best = loop.progress.best
    return Outcome(
        folder=record.folder,
        best=trials[best[1]] if best else None,
        best_value=best[0] if best else None,
        trials=list(trials.values()),
        reason=reason,
    )


def _constants(plan: Plan) -> dict[str, Any]:
    """The parameters of the space that have one value only."""
    plain = fingerprint_of(plan.search.base)
    return {name: value for name, value in plain.items() if name != plan.conf.keys.epochs}


def _trial(record: Record, number: int) -> Trial:
    job, end = record.jobs[number], record.ends[number]
    values, folder = job.proposal.values, record.folder / job.folder
    return Trial(number, values, end.status, end.value, end.metrics, end.seconds, folder)


class _InProcess:
    """Runs each job in this process, one after the other."""

    n_slots = 1

    def __init__(self, task: Task, sweep_folder: Path, constants: Mapping[str, Any]) -> None:
        self._task = task
        self._constants = constants
        self._sweep_folder = sweep_folder
        parameters = inspect.signature(task).parameters.values()
        self._wants_step = sum(p.default is p.empty for p in parameters) > 1
        self._queue: list[tuple[Job, str | None]] = []

    def submit(self, job: Job, checkpoint: str | None) -> None:
        self._queue.append((job, checkpoint))

    def wait(self) -> Sequence[int]:
        job, checkpoint = self._queue.pop(0)
        folder = self._sweep_folder / job.folder
        folder.mkdir(parents=True, exist_ok=True)
        values = {**self._constants, **job.proposal.values}
        source = None if checkpoint is None else self._sweep_folder / checkpoint
        step = Step(folder, job.proposal.until_epoch, source)
        arguments = [values, step] if self._wants_step else [values]
        cwd = os.getcwd()
        _result.record(lambda: self._task(*arguments), folder.resolve(), attempt=job.attempt)
        os.chdir(cwd)  # a task may go elsewhere and stay there
        return [job.number]

    def terminate(self) -> None:
        """Nothing runs beside this process."""

    def kill(self) -> None:
        """Nothing runs beside this process."""
