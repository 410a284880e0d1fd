"""The loop that somebody writes instead of a sweeper: a pool of processes over composed configs.

python by_hand.py <processes> <epochs> <lr> ...     beside train/ and conf/; run by `trainings`
"""

import multiprocessing
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from train.task import task

# Of Hydra's own settings, what a config names that this script does without.
BASIC = ["hydra/sweeper=basic", "hydra/launcher=basic"]


def train(numbered: tuple[int, DictConfig]) -> float:
    """Trains one configuration in its own folder."""
    number, cfg = numbered
    folder = Path("here") / str(number)
    folder.mkdir(parents=True)
    OmegaConf.save(cfg, folder / "config.yaml")
    return float(task(cfg, output_dir=folder)["val/loss"][-1])  # type: ignore[index]


def main() -> None:
    """Trains them all and tells the best."""
    n_processes, epochs, *lrs = sys.argv[1:]
    with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
        typed = [[f"lr={lr}", f"epochs={epochs}", *BASIC] for lr in lrs]
        configs = [compose("config", overrides) for overrides in typed]
    with multiprocessing.Pool(int(n_processes)) as pool:
        losses = pool.map(train, enumerate(configs), chunksize=1)
    print(min(zip(losses, lrs, strict=True)))


if __name__ == "__main__":
    main()
