"""The sweeper: parse what was typed, build the search, open the record, run, report.

Imported whenever Hydra looks for plugins, so everything heavy is imported inside the functions.
"""

import os
import sys
from typing import Any

import hydra
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class TuneSweeper(Sweeper):
    """Every strategy of this plugin; `hydra/sweeper=<name>` chooses one and its settings."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keeps what Hydra hands over; nothing is launched or written before sweep()."""
        self._context = hydra_context
        self._task = task_function
        self._config = config

    def sweep(self, arguments: list[str]) -> None:
        """Runs the whole sweep; leaves through SystemExit with a code when it did not succeed."""
        try:
            code = self._sweep(arguments)
        except BaseException:
            self._end_callbacks()
            raise
        if code:
            self._end_callbacks()
            sys.exit(code)

    def _sweep(self, arguments: list[str]) -> int:
        from . import _adapters, _exit, _folder, _freeze, _plan, _settings, _slurm
        from ._sweep import Sweep
        from ._task import ATTEMPT

        os.environ.pop(ATTEMPT, None)  # this sweep may run inside a trial of another one
        with _exit.codes() as outcome:
            _freeze.freeze(self._context.config_loader)
            plan = _plan.make(self._context, self._config, self._settings, arguments)
            _plan.rehearse(plan)
            _freeze.read_ahead(self._context.config_loader, plan.search.base)
            launcher = _adapters.make_launcher(self._context, self._task, self._config)
            limits = _settings.limits_of(plan.conf)
            _adapters.check(launcher, self._config.hydra.launcher, limits, plan.conf.n_parallel)
            record = _folder.open_record(plan, self._config)
            try:
                sweep = Sweep(
                    plan, record, context=self._context, task=self._task, config=self._config
                )
                with _slurm.hidden_from_jobs(launcher):
                    outcome.code = sweep.run()
            finally:
                record.close()
        return outcome.code

    def _end_callbacks(self) -> None:
        """Hydra 1.3 skips on_multirun_end when a sweeper leaves by an exception, later ones not."""
        if not hydra.__version__.startswith("1.3"):
            return
        config_name = self._config.hydra.job.config_name
        self._context.callbacks.on_multirun_end(config=self._config, config_name=config_name)
