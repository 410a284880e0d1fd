"""Any Hydra launcher behind the loop's submit and wait.

DirectLauncher    takes jobs one by one: the launchers of this project
ThreadedLauncher  runs jobs in other processes but only knows launch(batch): a thread a job
BatchLauncher     anything else: whole batches, in this process perhaps
"""

from typing import Any, TypeGuard

from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException, InstantiationException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ._adapter import Adapter, Around, count_slots
from ._batch import BatchLauncher
from ._direct import DirectLauncher, JobLauncher
from ._errors import UsageError
from ._threaded import SlurmLauncher, ThreadedLauncher
from .run._limits import Limits

# They start a process per job, so that one thread each is all that waiting for them takes.
_OUT_OF_PROCESS = ("hydra_plugins.hydra_joblib_launcher", "hydra_plugins.hydra_submitit_launcher")


def make_launcher(context: HydraContext, task: TaskFunction, config: DictConfig) -> Launcher:
    """The launcher that the config names.

    Raises:
        UsageError: its settings contradict each other, or ask for what this machine has not.
    """
    try:
        return Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task, config=config
        )
    except (CompactHydraException, ValueError) as error:  # Hydra 1.4 lets a ValueError through
        is_wrapped = isinstance(error, InstantiationException)
        cause = error.__cause__ if is_wrapped and error.__cause__ is not None else error
        raise UsageError(str(cause).split("\n")[0]) from error


def check(launcher: Launcher, settings: Any, limits: Limits, n_parallel: int | None) -> None:
    """Limits are promises, so a launcher that cannot keep them is refused.

    `settings` are those of the launcher.

    Raises:
        UsageError: the jobs of this launcher cannot be ended from outside, or not so many run.
    """
    if not _takes_single_jobs(launcher):
        count_slots(launcher, settings)  # it refuses settings that leave none
    if limits != Limits() and not _takes_single_jobs(launcher):
        raise UsageError(
            "hydra.sweeper.trial_timeout_s and stall_timeout_s need a launcher that can end its"
            f" jobs, which {type(launcher).__name__} cannot: type hydra/launcher=workers"
        )
    if n_parallel and _takes_single_jobs(launcher) and not launcher.has_queue:
        n_slots = launcher.n_slots
        if n_parallel > n_slots:
            raise UsageError(
                f"hydra.sweeper.n_parallel={n_parallel}: the launcher has {n_slots} slots; type"
                f" hydra.sweeper.n_parallel={n_slots} or less, or give it more slots, for instance"
                f" hydra.launcher.cpu_slots={n_parallel}"
            )


def _takes_single_jobs(launcher: Any) -> TypeGuard[JobLauncher]:
    return hasattr(launcher, "submit")


def adapt(launcher: Launcher, around: Around) -> Adapter:
    """The adapter that fits a launcher."""
    if _takes_single_jobs(launcher):
        return DirectLauncher(launcher, around)
    is_joblib = type(launcher).__module__.startswith(_OUT_OF_PROCESS[0])
    if is_joblib and count_slots(launcher, around.config.hydra.launcher) == 1:
        return BatchLauncher(launcher, around)  # joblib then runs them in the thread that asks
    if type(launcher).__module__.startswith(_OUT_OF_PROCESS):
        is_slurm = type(launcher).__name__ == "SlurmLauncher"
        return (SlurmLauncher if is_slurm else ThreadedLauncher)(launcher, around)
    return BatchLauncher(launcher, around)
