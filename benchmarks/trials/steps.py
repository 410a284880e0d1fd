"""What a step of a population costs beside the epochs that it trains.

Two sweeps train as many epochs, one in steps of one epoch and one in steps of three: what the first
takes longer, its additional steps cost, composing, Trainer, loading, saving and recording included.
"""

from functools import partial
from pathlib import Path

from .measure import N_SLOTS, OURS, ROOT, Cost, Options, Row, cost, in_turn, sweep_command

_NET = ("model=mlp", "lr=interval(1e-3,1e-1)", "hydra.sweeper.seed=1")
_LONG = 3  # epochs of a long step


def rows(options: Options) -> list[Row]:
    """CPU seconds of one more step, and what it delays a sweep on two slots."""
    size, epochs = (4, 12) if options.is_quick else (8, 24)
    measures = {str(n): partial(_population, size, epochs, n) for n in (1, _LONG)}
    found = in_turn(options.repeats, measures)
    pairs = list(zip(found["1"], found[str(_LONG)], strict=True))
    n_more = size * (epochs - epochs // _LONG)
    cpu = [(many.cpu_s - few.cpu_s) / n_more for many, few in pairs]
    wall = [(many.wall_s - few.wall_s) * N_SLOTS / n_more for many, few in pairs]
    return [
        Row("a step of a population, beyond its epochs", "CPU s", cpu, "<= 0.15"),
        Row("a step of a population, beyond its epochs", "s of a slot", wall),
    ]


def _population(size: int, epochs: int, step_epochs: int, folder: Path) -> Cost:
    sizes = (f"population_size={size}", f"step_epochs={step_epochs}")
    settings = (f"hydra.sweeper.{setting}" for setting in sizes)
    command = sweep_command(ROOT / "train.py", "hydra/sweeper=pbt", *OURS, *_NET, *settings)
    return cost([*command, f"epochs={epochs}"], folder)
