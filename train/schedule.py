"""Learning rates as a pure function of how far the training has come.

    lr = base_lr * factor((epoch + i / n_batches) / epochs)

No state: a training that continues, or whose base lr was changed, needs nothing but its position.
"""

import math
from collections.abc import Callable
from functools import partial

from omegaconf import DictConfig

from .check import pick

Factor = Callable[[float], float]
"""Position in [0, 1] of the whole horizon -> factor of the base lr."""

WARMUP_START = 0.01
"""A warm-up from 0 would waste the first step."""


def constant(position: float) -> float:
    """Always 1."""
    return 1.0


def step(position: float, *, epochs: int, step_epochs: int, gamma: float) -> float:
    """`gamma` to the number of whole `step_epochs` that have passed."""
    # 1e-9: position * epochs of a whole epoch may fall one rounding short of it.
    return gamma ** math.floor((position * epochs + 1e-9) / step_epochs)


def cosine(position: float, *, min_factor: float) -> float:
    """Half a cosine from 1 down to `min_factor`."""
    return min_factor + (1 - min_factor) * (1 + math.cos(math.pi * position)) / 2


def warmed_up(position: float, *, factor: Factor, share: float) -> float:
    """A linear rise over the first `share` of the horizon, then `factor` over what is left."""
    if position < share:
        rise = WARMUP_START + (1 - WARMUP_START) * position / share
        return rise * factor(0.0)
    return factor(min((position - share) / (1 - share), 1.0)) if share < 1 else factor(0.0)


def _step_of(cfg: DictConfig) -> Factor:
    after_warmup = max(cfg.epochs - cfg.warmup_epochs, 1)
    settings = cfg.schedule
    return partial(
        step, epochs=after_warmup, step_epochs=settings.step_epochs, gamma=settings.gamma
    )


SCHEDULES: dict[str, Callable[[DictConfig], Factor]] = {
    "constant": lambda cfg: constant,
    "step": _step_of,
    "cosine": lambda cfg: partial(cosine, min_factor=cfg.schedule.min_factor),
}


def make_schedule(cfg: DictConfig) -> Factor:
    """The factor that the config names, warm-up included."""
    factor = pick("schedule.name", cfg.schedule.name, SCHEDULES)(cfg)
    if cfg.warmup_epochs == 0:
        return factor
    return partial(warmed_up, factor=factor, share=min(cfg.warmup_epochs / cfg.epochs, 1.0))
