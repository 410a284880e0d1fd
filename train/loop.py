"""Lightning's Trainer as this project uses it: silent, without files, and safe to call again."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig

from .check import ConfigRefused


def choose_device(settings: DictConfig) -> torch.device:
    """The device that `trainer.device` names; refuses what this machine or precision lacks."""
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigRefused(
            "trainer.device=cuda: expected a GPU, but torch sees none; type trainer.device=cpu."
        )
    if name == "cpu" and settings.precision == "16-mixed":
        raise ConfigRefused(
            "trainer.precision=16-mixed: expected 32-true or bf16-mixed on a CPU; "
            "type trainer.precision=bf16-mixed."
        )
    return torch.device(name)


def choose_memory_format(settings: DictConfig, device: torch.device) -> torch.memory_format:
    """How the weights of convolutions lie in memory, and so what passes between them.

    Channels last lets a CPU vectorise pooling over the channels and saves oneDNN its reordering:
    0.7 of the time of this project's nets, down to 0.2 for those of depthwise convolutions, but
    up to 1.5 for wide nets on small images. On a GPU it was not measured.
    """
    name = settings.memory_format
    if name == "auto":
        name = "channels_last" if device.type == "cpu" else "contiguous"
    return {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[name]


def make_trainer(
    settings: DictConfig, device: torch.device, *, n_epochs: int, callback: pl.Callback
) -> pl.Trainer:
    """A Trainer that writes nothing, prints nothing, and asks no scheduler of a cluster."""
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=settings.precision,
        max_epochs=n_epochs,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        # Under SLURM Lightning would requeue the whole job on a signal.
        plugins=[LightningEnvironment()],
    )


def call_trainer(run: Callable[..., object], module: pl.LightningModule) -> None:
    """Run `trainer.fit` or `trainer.test`; a KeyboardInterrupt stays one."""
    try:
        run(module)
    except SystemExit as error:
        # Lightning makes exit(1) of it.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise


@contextmanager
def isolated(settings: DictConfig, device: torch.device) -> Iterator[None]:
    """Threads, random state and determinism of torch as a training needs them, then as before.

    Several trainings may run one after the other in a process and must not feel each other.
    """
    threads, was_strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    # Not on a GPU: there it needs an environment variable that is read before CUDA starts.
    torch.use_deterministic_algorithms(was_strict or device.type == "cpu")
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.use_deterministic_algorithms(was_strict)
        torch.set_num_threads(threads)


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning without its device lines, tips, and warnings that a user cannot act on."""
    loggers = [logging.getLogger(f"{name}.utilities.rank_zero") for name in LIGHTNING]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in HARMLESS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


LIGHTNING = ("pytorch_lightning", "lightning_fabric")

HARMLESS = (
    # trainer.device=cpu was chosen on purpose.
    "GPU available but not used",
    # Every training is one process: a sweep or Hydra's launchers ask SLURM for more, not Lightning.
    "The `srun` command is available on your system but is not used",
    # Lightning 2.6 calls what torch has deprecated since.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
