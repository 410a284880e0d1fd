"""The settings of every strategy, as Hydra's config store knows them: the only defaults.

`hydra/sweeper=bayes hydra.sweeper.n_trials=40` sets a field of BayesConf. Fields of SweeperConf
mean the same for every strategy; a strategy's own fields are arguments of its class.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType

_SEARCH = "hydra_plugins.tune_sweeper.search"


@dataclass
class KeysConf:
    """Names that the app's config has for what a strategy sets in each job."""

    seed: str = "seed"
    epochs: str = "epochs"  # the horizon of a training
    until_epoch: str = "until_epoch"  # where this job ends
    resume_from: str = "resume_from"  # checkpoint that this job continues
    log_dir: str = "log_dir"  # where the curves of all jobs of one trial go
    threads: str = "trainer.threads"  # results on a CPU depend on it, so best.yaml holds it


@dataclass
class StopConf:
    """When a sweep ends early; null: never."""

    time_s: float | None = None  # of this process
    target: float | None = None  # the metric reached this value
    patience: int | None = None  # so many trials in a row without a new best


@dataclass
class SweeperConf:
    """What every strategy understands."""

    _target_: str = "hydra_plugins.tune_sweeper._sweeper.TuneSweeper"
    # Hydra 1.3 would instantiate a `_target_` inside the settings before the sweeper sees it.
    _recursive_: bool = False
    _convert_: str = "all"
    strategy: str = ""  # module:class
    name: str = ""  # of the folders: outputs/<name>-1, ...

    # Any, because Hydra closes a typed mapping to keys from the command line.
    params: Any = None  # the space in YAML
    conditions: Any = None  # child: {parent: [values]}
    where: str | None = None  # expression that every configuration satisfies

    metric: str | None = None  # null: the app's `objective.metric`, else the returned number
    direction: str | None = None  # null: the app's `objective.direction`, else minimize
    metric_agg: str = "last"  # of a metric's history; `best` would reward noise
    n_trials: int | None = 20  # one evening on a workstation; null: no end
    n_parallel: int | None = None  # null: as many as the launcher has slots
    seed: int | None = None  # null: drawn, recorded and printed
    repeats: int = 1  # seeds per configuration; more than one averages the metric
    initial: list[Any] = field(default_factory=list)  # configurations to try after the defaults

    fail_fast: int | None = 3  # fewer may be bad luck, more waste the evening
    max_failures: float | None = 0.5  # a share of the ended jobs, or an absolute number from 1 on
    retries: int = 1  # of a job whose process died: more would repeat what kills it
    trial_timeout_s: float | None = None  # of one job; only the user knows how long it may take
    stall_timeout_s: float | None = None  # without a write to any file of the job's folder
    grace_s: float = 20.0  # from SIGTERM until running jobs are killed: schedulers wait 30 s
    stop: StopConf = field(default_factory=StopConf)
    keep_checkpoints: int | None = 3  # of the best trials; null: delete none
    resume: str = "auto"  # auto | never | must
    on_change: str = "refuse"  # refuse | extend: what a changed space does to a named folder
    display: str = "auto"  # auto | plain | none
    compare_keys: list[str] = field(default_factory=lambda: ["lr", "batch_size", "weight_decay"])
    keys: KeysConf = field(default_factory=KeysConf)


@dataclass
class GridConf(SweeperConf):
    """Every combination."""

    strategy: str = f"{_SEARCH}._grid:Grid"
    name: str = "grid"
    n_trials: int | None = None  # all
    points: Any = None  # values per interval, or {key: values}
    shuffle: bool = False


@dataclass
class RandomConf(SweeperConf):
    """Random search."""

    strategy: str = f"{_SEARCH}._random:Random"
    name: str = "random"
    sampler: str = "sobol"  # covers the space more evenly than iid


@dataclass
class BayesConf(SweeperConf):
    """Bayesian optimisation with a Gaussian process."""

    strategy: str = f"{_SEARCH}._bayes:Bayes"
    name: str = "bayes"
    n_initial: int | None = None  # trials before the model's; null: 2 + the dimension, at most 5
    acquisition: str = "logei"  # logei | ucb; the former wins on most tasks of docs/bayes.md
    warm_start: list[str] = field(default_factory=list)  # folders of earlier sweeps that count too


@dataclass
class PbtConf(SweeperConf):
    """Population-based training."""

    strategy: str = f"{_SEARCH}._pbt:Pbt"
    name: str = "pbt"
    n_trials: int | None = None  # the population
    keep_checkpoints: int | None = 1  # its limit of checkpoints has room for no more
    population_size: int = 8  # fewer than 4 leave nothing to choose between
    init_candidates: int | None = None  # configurations that train the first step; null: as many
    step_epochs: int | None = None  # null: a tenth of the training
    burn_in_steps: int = (
        0  # a tenth of a training says enough: 6% better than 1 (docs/strategies.md)
    )
    exploit: str = "truncation"  # truncation | tournament | none
    quantile: float = 0.25  # share at the bottom that is replaced by one of the share at the top
    min_peers: float | None = None  # null: 1.0 where jobs run in batches, else 0.75
    factors: list[float] = field(default_factory=lambda: [0.5, 0.8, 1.25, 2.0])  # on log scales
    linear: float = 0.2  # largest shift on linear scales, as a share of the range
    resample: float = 0.25  # chance that a key is drawn anew instead of moved
    score_window: int = 1  # results of a lineage that are averaged before they are compared
    keep: str = "winner"  # winner | population | all: checkpoints that stay when it is over


@dataclass
class AshaConf(SweeperConf):
    """Asynchronous successive halving."""

    strategy: str = f"{_SEARCH}._asha:Asha"
    name: str = "asha"
    n_trials: int | None = 60  # most are short: as many epochs as 8 to 15 full trainings
    min_epochs: int | None = None  # of the first rung; null: a 27th of a full training
    max_epochs: int | None = None  # of a full training; null: the app's epochs
    max_epochs_total: int | None = None  # of all trainings; whichever is reached first, or n_trials
    eta: float = 3.0  # how much longer a training is at the next rung
    keep: float | None = None  # share of a rung that goes on; null: 1 / eta; 0.5: median stopping
    brackets: int = 1  # searches that start at higher and higher rungs
    proposer: str = "random"  # random | bayes
    progressive: bool = False  # a rung opens once those below disagree about who is better


@dataclass
class ReplayConf(SweeperConf):
    """The winner of a sweep in steps, trained again as it was."""

    strategy: str = f"{_SEARCH}._replay:Replay"
    name: str = "replay"
    n_trials: int | None = None  # one training
    schedule: str | None = None  # its schedule.yaml, or the folder of its sweep


STRATEGIES = (GridConf, RandomConf, BayesConf, PbtConf, AshaConf, ReplayConf)


def register() -> None:
    """Makes `hydra/sweeper=grid|random|bayes|pbt|asha|replay` known to Hydra, once."""
    store, group = ConfigStore.instance(), "hydra/sweeper"
    for conf in STRATEGIES:
        # A worker has the store of the sweep's process before Hydra finds this plugin there.
        if store.get_type(f"{group}/{conf.name}.yaml") == ObjectType.NOT_FOUND:
            store.store(group=group, name=conf.name, node=conf, provider="hydra_tune")
