"""What a sweep will do, understood and checked before anything is written or launched."""

import importlib.metadata
import inspect
import os
import platform
from collections.abc import Collection, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, fields
from typing import Any

from hydra.types import HydraContext
from omegaconf import DictConfig

from . import _earlier, _schedule, _search, _settings
from ._app import App, fingerprint_of, has_key, value_of
from ._config import STRATEGIES, SweeperConf
from ._errors import UsageError, nearest
from ._search import Search
from .run._journal import plain
from .run._objective import Objective
from .search._space import Space
from .search._trial import Strategy

_OF_STEPS = {"step_epochs", "min_epochs", "schedule"}  # settings that only such strategies have
_OBJECTIVE = "objective.metric"  # the app's own key for what counts


@dataclass(frozen=True)
class Plan:
    """A sweep, ready to be opened."""

    app: App
    conf: SweeperConf
    own: Mapping[str, Any]  # the strategy's own settings
    search: Search
    objective: Objective

    @property
    def space(self) -> Space:
        """What is searched."""
        return self.search.space

    @property
    def trains_in_steps(self) -> bool:
        """Whether jobs continue the checkpoints of others."""
        return bool(_OF_STEPS & set(self.own))

    @property
    def is_population(self) -> bool:
        """Whether members train side by side, the dead of which the strategy itself replaces."""
        return "population_size" in self.own

    def brought(self, step: int) -> list[str]:
        """The overrides of a step of a replayed schedule.

        As the schedule says, and not the record: what stands there may be anybody's.
        """
        steps = self.own.get("steps", ())
        return list(steps[step].overrides) if step < len(steps) else []

    def n_jobs(self, strategy: Strategy, *, is_extended: bool = False) -> int | None:
        """How many jobs there will be, where that is known.

        An extended sweep has some of an earlier space.
        """
        is_known = not self.space.conditions and self.space.where is None and not is_extended
        n_distinct = len(strategy) if is_known and isinstance(strategy, Sized) else None
        n_trials = None if self.trains_in_steps else self.conf.n_trials
        n = min(filter(None, (n_trials, n_distinct)), default=None)
        return n * self.conf.repeats if n else None

    def strategy(self, seed: int, *, in_batches: bool) -> Strategy:
        """A new strategy, at its beginning.

        Raises:
            UsageError: the strategy refused the space or its settings.
        """
        cls = _settings.strategy_class(self.conf.strategy)
        accepted = inspect.signature(cls).parameters
        self._refuse_ignored(accepted)
        offered = {
            "seed": seed,
            "n_trials": self.conf.n_trials,
            "epochs": value_of(self.search.base, self.conf.keys.epochs),
            "in_batches": in_batches,
            **self.own,
        }
        try:
            offered["initial"] = self._initial()
            if "warm_start" in offered:
                folders = offered["warm_start"]
                offered["warm_start"] = _earlier.load(folders, self.space, self.objective)
            return cls(self.space, **{k: v for k, v in offered.items() if k in accepted})  # type: ignore[no-any-return]
        except ValueError as error:
            how = "settings are typed as hydra.sweeper.<name>=<value>"
            raise UsageError(f"hydra/sweeper={self.conf.name}: {error} ({how})") from error

    def _refuse_ignored(self, accepted: Collection[str]) -> None:
        """A setting that this strategy has no use for is a mistake, not a wish to overlook."""
        known = {field.name for conf in STRATEGIES for field in fields(conf)}
        for name in self.own.keys() - known - set(accepted):
            near = nearest(name, sorted({*known, *accepted}))
            raise UsageError(f"hydra.sweeper.{name}: there is no such setting{near}")
        for name in ("n_trials", "initial"):
            value = getattr(self.conf, name)
            if value and name not in accepted:
                hint = "; type population_size" if "population_size" in accepted else ""
                raise UsageError(
                    f"hydra.sweeper.{name}={value}: hydra/sweeper={self.conf.name} has no use for"
                    f" it{hint}"
                )

    def _initial(self) -> list[Mapping[str, Any]]:
        base = self.search.base_configuration
        wanted = [{**self.search.defaults, **dict(values)} for values in self.conf.initial]
        pruned = [self.space.prune(self.space.cast(values)) for values in wanted]
        for values, typed in zip(pruned, self.conf.initial, strict=True):
            if not self.space.contains(values) or set(typed) - set(values):
                raise UsageError(
                    f"hydra.sweeper.initial: {dict(typed)} is no configuration of the space"
                    f" ({'; '.join(p.describe() for p in self.space.parameters)})"
                )
        return [v for i, v in enumerate([base, *pruned]) if v and v not in [base, *pruned][:i]]

    def fingerprint(self) -> dict[str, Any]:
        """What makes two sweeps the same search."""
        fingerprint = {
            "app": self.app.name,
            "strategy": self.conf.name,
            "settings": dict(self.own),
            "space": describe(self.space),
            "metric": asdict(self.objective),
            "seed": self.conf.seed,
            "repeats": self.conf.repeats,
            "initial": self.conf.initial,
            "config": fingerprint_of(self.search.base),
            "added": self.search.added,
        }
        return dict(plain(fingerprint))

    def header(self, seed: int) -> dict[str, Any]:
        """The first record of the sweep."""
        fingerprint = self.fingerprint()
        return {
            "strategy": self.conf.name,
            "n_trials": self.conf.n_trials,
            "seed": seed,
            "settings": {**asdict(self.conf), **self.own},
            "metric": self.objective.name,
            "direction": self.objective.direction,
            "space": fingerprint["space"],
            "fingerprint": fingerprint,
            "program": self.app.program,
            "versions": _versions(),
        }


def rehearse(plan: Plan) -> None:
    """Composes the first job, so that what no job could be composed with is told at once.

    Raises:
        UsageError: the strategy or the app refused.
    """
    try:
        first = plan.strategy(0, in_batches=True).ask(1)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not first:
        raise UsageError(f"hydra/sweeper={plan.conf.name}: `where` leaves no configuration")
    plan.app.compose([*plan.search.overrides(first[0].values), *plan.brought(first[0].step)])


def _versions() -> dict[str, str]:
    names = ("hydra-tune", "hydra-core", "numpy", "scipy", "torch")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe(space: Space) -> dict[str, Any]:
    """The space as plain data, for the record and for the fingerprint."""
    return {
        "parameters": {
            p.name: {"type": type(p).__name__.lower(), **asdict(p)}  # type: ignore[call-overload]
            for p in space.parameters
        },
        "conditions": [asdict(c) for c in space.conditions],
        "where": getattr(space.where, "text", None),
    }


def make(
    context: HydraContext,
    config: DictConfig,
    settings: Mapping[str, Any],
    arguments: Sequence[str],
) -> Plan:
    """Understands what the user typed and checks all that needs no training.

    Raises:
        UsageError: a mistake, in one sentence.
    """
    app = App(context, config)
    if os.sep in app.name:
        raise UsageError(f"hydra.job.name={app.name}: expected a name, as my_app, and no path")
    conf, own = _settings.read(settings)
    schedule = _schedule.read(own["schedule"], arguments) if "schedule" in own else None
    if schedule is not None:
        own = {**own, "steps": _schedule.steps(schedule, arguments)}
    fixed = [] if schedule is None else schedule["fixed"]
    search = _search.parse(
        app, [*fixed, *arguments], conf.params or {}, conf.conditions or {}, conf.where
    )
    if schedule is not None:
        _schedule.check(search, schedule, arguments, epochs=conf.keys.epochs)
    elif not len(search.space) and conf.name != "grid":
        raise UsageError(
            f"hydra/sweeper={conf.name}: nothing to search; sweep at least one key,"
            " for instance 'lr=interval(1e-4,1e-1)' (in quotes, because of the brackets)"
        )
    _search.check_fixed(search, app.knobs)
    _check_repeats(conf, search)
    plan = Plan(app, conf, own, search, _objective(app, conf, search))
    if plan.trains_in_steps:
        _check_steps(conf, search)
    return plan


def _objective(app: App, conf: SweeperConf, search: Search) -> Objective:
    """The sweeper's settings first, then the app's `objective` node."""
    declared = value_of(search.base, _OBJECTIVE)
    metric = conf.metric or declared
    knob = app.knobs.get(_OBJECTIVE)
    if metric is not None and knob is not None and knob.complaint(metric):
        raise UsageError(
            f"hydra.sweeper.metric={metric}: the metrics to optimise are"
            f" {', '.join(knob.choices)}{nearest(metric, knob.choices)}"
        )
    if conf.direction is None and declared is not None and metric != declared:
        raise UsageError(
            f"hydra.sweeper.metric={metric}: say which way is better, hydra.sweeper.direction="
            f"maximize or minimize (the app's objective.direction is that of {declared})"
        )
    _check_direction(conf, metric, declared, search)
    direction = conf.direction or value_of(search.base, "objective.direction") or "minimize"
    return Objective(metric, direction, conf.metric_agg)


def _check_direction(conf: SweeperConf, metric: Any, declared: Any, search: Search) -> None:
    """The app knows which way its own metric is better."""
    of_app = value_of(search.base, "objective.direction")
    contradicts = conf.direction is not None and of_app is not None and metric == declared
    if contradicts and conf.direction[:3] != str(of_app)[:3]:  # type: ignore[index]
        raise UsageError(
            f"hydra.sweeper.direction={conf.direction}: the app says that {declared} is to be"
            f" {of_app}d (objective.direction); leave the setting out, or name another metric"
        )
    swept = [key for key in search.space.names if key.startswith("objective.")]
    if swept:
        raise UsageError(f"{swept[0]}: what counts cannot be searched for; choose one metric")


def _check_repeats(conf: SweeperConf, search: Search) -> None:
    if conf.repeats == 1:
        return
    key = conf.keys.seed
    if not has_key(search.base, key) or key in search.space.names:
        raise UsageError(
            f"hydra.sweeper.repeats={conf.repeats}: repeats differ by their seed, and"
            f" {'the sweep itself varies' if key in search.space.names else 'the config has no'}"
            f" {key!r}; name another key with hydra.sweeper.keys.seed=<key>"
        )


def _check_steps(conf: SweeperConf, search: Search) -> None:
    """Strategies that continue trainings need an app that can."""
    keys = (conf.keys.epochs, conf.keys.until_epoch, conf.keys.resume_from)
    missing = [key for key in keys if not has_key(search.base, key)]
    swept = [key for key in keys if key in search.space.names]
    if missing or swept:
        raise UsageError(
            f"hydra/sweeper={conf.name} continues trainings from checkpoints and sets"
            f" {', '.join(keys)} itself; {', '.join(missing or swept)}"
            f" {'is missing in the config' if missing else 'cannot be swept'}"
            " (hydra.sweeper.keys names other keys)"
        )
    until = value_of(search.base, conf.keys.until_epoch)
    if until is not None:
        raise UsageError(
            f"{conf.keys.until_epoch}={until}: hydra/sweeper={conf.name} sets it for each step;"
            f" type {conf.keys.epochs}={until} for a shorter training"
        )
    if conf.stop.patience is not None:
        raise UsageError(
            f"hydra.sweeper.stop.patience={conf.stop.patience}: most jobs of"
            f" hydra/sweeper={conf.name} are short and no better than a long one; type stop.time_s"
            " or stop.target"
        )
    if conf.repeats > 1:
        raise UsageError(f"hydra/sweeper={conf.name}: repeats is for strategies without steps")
