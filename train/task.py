"""From a config to metrics: the page to read first.

    task(cfg) -> {"val/loss": [one number per epoch], ..., "test/loss": a number, ...}

Every component is chosen by its name from a registry; nothing in a config is ever called.
"""

import copy
import logging
import signal
import time
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from .augment import make_augmentation
from .check import ConfigRefused, as_typed, refuse_wrong_knobs
from .checkpoint import (
    Checkpoint,
    continue_training,
    load_checkpoint,
    load_weights,
    make_checkpoint,
    save_checkpoint,
)
from .classifier import Classifier, State
from .data import Data, load_data
from .loop import (
    call_trainer,
    choose_device,
    choose_memory_format,
    isolated,
    make_trainer,
    quiet,
)
from .models import Shape, make_model
from .optimizers import make_optimizer
from .randomness import seed_default
from .record import Record
from .schedule import make_schedule
from .source import absolute
from .stopping import EarlyStop, EndEpochOnTerm

log = logging.getLogger(__name__)

LAST, BEST = Path("checkpoints/last.ckpt"), Path("checkpoints/best.ckpt")

INIT = -2
"""In the place of an epoch: the seed of the first weights."""


def task(cfg: DictConfig, output_dir: str | Path | None = None) -> dict[str, float | list[float]]:
    """Train what the config describes; metrics per epoch as lists, those of the end as numbers.

    Files go to Hydra's output folder or to `output_dir`; without either none is written.
    Raises ConfigRefused for a configuration that cannot be trained, SystemExit(143) after SIGTERM
    has ended it at the end of an epoch with its checkpoint written.
    """
    refuse_wrong_knobs(cfg)
    _refuse_contradictions(cfg)
    folder = _output_folder(output_dir)
    device = choose_device(cfg.trainer)
    with quiet(), isolated(cfg.trainer, device), EndEpochOnTerm().listening() as term:
        data = load_data(cfg)
        state = _first_state(cfg, data, device, folder)
        log_dir = absolute(cfg.log_dir) if cfg.log_dir else folder
        with Record(folder=folder, log_dir=log_dir, first_epoch=state.epoch + 1) as record:
            return Training(cfg, data, state, record, folder, device, term).run()


def _refuse_contradictions(cfg: DictConfig) -> None:
    if cfg.until_epoch is not None and cfg.until_epoch > cfg.epochs:
        raise ConfigRefused(
            f"until_epoch={cfg.until_epoch}: expected at most epochs={cfg.epochs}, the horizon of "
            f"the schedule; type epochs={cfg.until_epoch} or a smaller until_epoch."
        )
    if cfg.warmup_epochs >= cfg.epochs:
        raise ConfigRefused(
            f"warmup_epochs={cfg.warmup_epochs}: expected less than epochs={cfg.epochs}, or the "
            "learning rate is never reached."
        )
    if cfg.val_fraction == 0 and cfg.objective.metric.startswith("val/"):
        raise ConfigRefused(
            f"val_fraction=0: no image validates, so objective.metric={cfg.objective.metric} does "
            "not exist; type objective.metric=train/loss beside it."
        )
    if cfg.resume_from and cfg.init_from:
        raise ConfigRefused(
            f"init_from={cfg.init_from}: expected null beside resume_from={cfg.resume_from}; "
            "resume_from loads the weights too, so leave one of them out."
        )


def _output_folder(output_dir: str | Path | None) -> Path | None:
    if output_dir is not None:
        return Path(output_dir)
    return Path(HydraConfig.get().runtime.output_dir) if HydraConfig.initialized() else None


def _first_state(cfg: DictConfig, data: Data, device: torch.device, folder: Path | None) -> State:
    """A fresh training, or the one that `resume_from` or `init_from` holds."""
    seed_default(torch.device("cpu"), cfg.seed, INIT)
    net = make_model(cfg.model, Shape(data.channels, *data.image_size, len(data.classes)))
    net.to(memory_format=choose_memory_format(cfg.trainer, device))
    state = State(net, make_optimizer(net, cfg))
    if cfg.init_from:
        file = absolute(cfg.init_from)
        load_weights(load_checkpoint("init_from", file), net, state.optimizer, file)
    if cfg.resume_from:
        file = absolute(cfg.resume_from)
        checkpoint = load_checkpoint("resume_from", file)
        continue_training(checkpoint, net, state.optimizer, file=file)
        state.epoch = checkpoint["epoch"]
        is_own = folder is not None and file.resolve() == (folder / LAST).resolve()
        _refuse_finished(cfg, state.epoch, is_own=is_own)
    return state


def _refuse_finished(cfg: DictConfig, epoch: int, *, is_own: bool) -> None:
    """There must be an epoch left, but for an own attempt that has only to be scored."""
    key = "epochs" if cfg.until_epoch is None else "until_epoch"
    if epoch > cfg[key] or (epoch == cfg[key] and not is_own):
        raise ConfigRefused(
            f"{key}={as_typed(cfg[key])}: expected more than {epoch}, the epochs that "
            f"resume_from={cfg.resume_from} has; type {key}={epoch + 1} or more."
        )


class Training:
    """One job: fit, keep the last and the best checkpoint, test."""

    def __init__(
        self,
        cfg: DictConfig,
        data: Data,
        state: State,
        record: Record,
        folder: Path | None,
        device: torch.device,
        term: EndEpochOnTerm,
    ) -> None:
        self.cfg, self.state, self.record, self.folder = cfg, state, record, folder
        self.last_epoch = int(cfg.epochs if cfg.until_epoch is None else cfg.until_epoch)
        self.early_stop = EarlyStop(
            cfg.objective.metric, cfg.objective.direction == "maximize", cfg.early_stop_patience
        )
        self.best = self._earlier_best()
        self.last_save = time.monotonic()
        self.module = Classifier(
            state,
            data,
            cfg,
            factor=make_schedule(cfg),
            augment=make_augmentation(cfg, channels=data.channels),
            end_epoch=self._end_epoch,
        )
        self.term = term
        n_epochs = self.last_epoch - state.epoch
        self.trainer = make_trainer(cfg.trainer, device, n_epochs=n_epochs, callback=self.term)

    def run(self) -> dict[str, float | list[float]]:
        """Train, write the checkpoints, and score the test part."""
        if self._is_over:
            log.info("all %d epochs were trained before, none is now", self.state.epoch)
        else:
            call_trainer(self.trainer.fit, self.module)
            self._keep_checkpoints()
        if self.term.was_asked and not self._is_over:
            raise SystemExit(128 + signal.SIGTERM)
        if self.best:
            self.state.net.load_state_dict(self.best["state_dict"])
        call_trainer(self.trainer.test, self.module)
        test = self.module.metrics
        log.info("%s  files in %s", _shown(test), self.folder or "no folder")
        return {**self.record.history, **test, "epochs": float(self.state.epoch)}

    @property
    def _is_over(self) -> bool:
        return self.state.epoch >= self.last_epoch or self.early_stop.is_over

    def _end_epoch(self, metrics: dict[str, float]) -> bool:
        """Record an epoch; whether the training is to end."""
        self.record.add(self.state.epoch, metrics)
        log.info("epoch %d/%d  %s", self.state.epoch, self.last_epoch, _shown(metrics))
        if self.early_stop.improves(metrics) and self.early_stop.patience:
            self.best = copy.deepcopy(self._checkpoint())
        if time.monotonic() - self.last_save >= self.cfg.trainer.checkpoint_every_s:
            self._keep_checkpoints()
            self.last_save = time.monotonic()
        return self.early_stop.is_over or self.term.was_asked

    def _earlier_best(self) -> Checkpoint | None:
        """Judges the epochs of an interrupted attempt again; its best checkpoint, if one counts."""
        for metrics in self.record.earlier:
            self.early_stop.improves(metrics)
        file = (self.folder or Path()) / BEST
        counts = self.early_stop.patience and self.early_stop.best is not None and file.exists()
        return load_checkpoint("best", file) if counts else None

    def _checkpoint(self) -> Checkpoint:
        return make_checkpoint(self.state.net, self.state.optimizer, epoch=self.state.epoch)

    def _keep_checkpoints(self) -> None:
        if self.folder is None:
            return
        # Weights that are no numbers help nobody; the last sound checkpoint is the parent's.
        if self.best:
            save_checkpoint(self.best, self.folder / BEST)
        if not self.module.is_lost:
            save_checkpoint(self._checkpoint(), self.folder / LAST)


def _shown(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
