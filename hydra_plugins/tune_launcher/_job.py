"""What a worker runs: one Hydra job, from overrides to its end. The part that knows Hydra."""

import dis
import inspect
import os
import pickle
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer

from ._leftovers import flush
from ._sources import remember_sources


@dataclass(frozen=True)
class Order:
    """One job, on its way to a worker."""

    number: int
    overrides: list[str]
    wants_return: bool  # a sweeper of Hydra's wants the JobReturn; ours reads the job's result


@dataclass(frozen=True)
class HydraJobs:
    """Runs jobs of one sweep; made once, in the process that all workers are forked from."""

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig

    def __call__(self, message: bytes) -> tuple[bool, bytes]:
        """Whether the job ended cleanly, and what is to be sent back.

        A JobReturn where one is wanted; else the failure in words, empty when there is none.
        """
        order: Order = pickle.loads(message)
        resolvers = set(BaseContainer._resolvers)
        try:
            returned = self._run(order)
        except BaseException as error:  # a job must not end the worker before it has answered
            returned = _broken(order, error)
        is_clean = returned.status == JobStatus.COMPLETED
        is_clean &= BaseContainer._resolvers.keys() == resolvers  # they can be registered once
        answer = _pickled(returned) if order.wants_return else _failure(returned).encode()
        return is_clean, answer

    def _run(self, order: Order) -> JobReturn:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, order.overrides)
        with open_dict(config):
            for name in config.hydra.job.env_copy:  # it has them; a file would tell everybody
                config.hydra.job.env_set.pop(name, None)
            config.hydra.job.id = f"{config.hydra.job.name}_{order.number}"
            config.hydra.job.num = order.number
        # For the names of folders; run_job sets it properly, which takes a copy of Hydra's node.
        HydraConfig.instance().cfg = config  # type: ignore[assignment]
        _redirect_output(config)
        return run_job(
            hydra_context=self.hydra_context,
            config=config,
            task_function=self.task_function,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


def make_runner(
    hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> bytes:
    """A pickled callable that sets Hydra up in another process and gives its HydraJobs.

    Raises:
        CompactHydraException: the task refers to something that no other process can be given.
    """
    state = Singleton.get_state()

    def make() -> HydraJobs:
        setup_globals()
        Singleton.set_state(state)
        remember_sources(hydra_context.config_loader)
        return HydraJobs(hydra_context, task_function, config)

    try:
        return bytes(cloudpickle.dumps(make))
    except Exception as error:  # whatever a class may raise that was never meant to be pickled
        why = " ".join(_words(error).split())
        raise CompactHydraException(
            f"the task cannot be sent to another process ({why}): make what its script has at its"
            " top level inside the task or in a module that it imports, or type"
            " hydra/launcher=basic"
        ) from error


def _redirect_output(config: DictConfig) -> None:
    """Output goes to the job's log, on the descriptors, so that C code and children are caught."""
    folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{config.hydra.job.name}.log"
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)  # less the user's umask
    flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    if log not in (1, 2):  # else the job before closed that one
        os.close(log)


def _broken(order: Order, error: BaseException) -> JobReturn:
    """A job that ended before or beside Hydra's own run_job: a wrong override, sys.exit()."""
    traceback.print_exception(error)
    failed = RuntimeError(_words(error))
    overrides = list(order.overrides)
    empty = OmegaConf.create()
    return JobReturn(overrides, empty, empty, status=JobStatus.FAILED, _return_value=failed)


def _pickled(returned: JobReturn) -> bytes:
    """A JobReturn that the driver can read, whatever the task returned or raised."""
    try:
        answer = bytes(cloudpickle.dumps(returned))
        pickle.loads(answer)
    except Exception:
        value = returned._return_value
        returned.status = JobStatus.FAILED
        returned._return_value = RuntimeError(
            _words(value)
            if isinstance(value, BaseException)
            else f"the task returned a {type(value).__name__}, which cannot be sent to the sweeper"
        )
        answer = bytes(cloudpickle.dumps(returned))
    return answer


def _failure(returned: JobReturn) -> str:
    return "" if returned.status == JobStatus.COMPLETED else _words(returned._return_value)


def _words(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:
        message = "(its message could not be read)"
    return f"{type(error).__name__}: {message}"


# What jobs import


def modules_of(task_function: TaskFunction) -> list[str]:
    """Modules that a task function imports inside its body, found without running it."""
    code = getattr(inspect.unwrap(task_function), "__code__", None)
    return list(dict.fromkeys(_imports(code))) if code is not None else []


def _imports(code: CodeType) -> Iterator[str]:
    level: Any = 0
    before: Any = 0
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME" and level == 0:
            yield str(instruction.argval)
        # `import` finds the level of a relative import, then the names, on the stack.
        level, before = before, instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imports(constant)
