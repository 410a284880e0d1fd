"""Train an image classifier, or with -m search for its hyperparameters; --help lists them."""

import hydra
from omegaconf import DictConfig

from train import command


@hydra.main(config_path="conf", config_name="config", **command.BEHAVIOUR)
def main(cfg: DictConfig) -> dict[str, float | list[float]]:
    """One training; returns its metrics."""
    from train.task import task  # torch loads here, so that --help and completion stay fast

    with command.clean_refusal():
        return task(cfg)


if __name__ == "__main__":
    command.run(main)
