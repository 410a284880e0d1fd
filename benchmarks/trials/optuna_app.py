"""The trainer as hydra-optuna-sweeper can use it: one number comes back. Run by `trainings`."""

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """One training; its last val/loss."""
    from train.task import task

    return float(task(cfg)["val/loss"][-1])  # type: ignore[index]


if __name__ == "__main__":
    main()
