"""A user's own Hydra app, which knows nothing of hydra-tune."""

import json
import math
import sys
import threading
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

BEHAVIOUR = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


class Unpicklable(Exception):
    """Cannot be pickled, and cannot even be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no message")


def score(cfg: DictConfig) -> float:
    """A bowl with its minimum at x = 0.3, y = 4."""
    penalty = 0.0 if cfg.model.name == "small" else 0.5 * cfg.model.width / 100
    return (cfg.x - 0.3) ** 2 + 0.01 * (cfg.y - 4) ** 2 + penalty


def fail(error: BaseException) -> None:
    """raise, as an expression."""
    raise error


BEHAVIOURS = {
    "number": score,
    "mapping": lambda cfg: {"loss": score(cfg), "acc": 1 - score(cfg)},
    "histories": lambda cfg: {"loss": [3.0, score(cfg), 2.0], "acc": [0.1, 0.2, 0.3]},
    "nan": lambda cfg: math.nan,
    "inf": lambda cfg: math.inf,
    "minus_inf": lambda cfg: -math.inf,
    "none": lambda cfg: None,
    "text": lambda cfg: "good",
    "empty": lambda cfg: {},
    "list": lambda cfg: [1.0],
    "lock": lambda cfg: threading.Lock(),
    "raise": lambda cfg: fail(ValueError(f"x={cfg.x} is bad")),
    "unpicklable": lambda cfg: fail(Unpicklable()),
    "exit": lambda cfg: sys.exit(3),
}


@hydra.main(config_path="conf", config_name="config", **BEHAVIOUR)
def main(cfg: DictConfig) -> object:
    """Leaves its config beside the result and behaves as told."""
    folder = Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)
    seen = OmegaConf.to_container(cfg)
    (folder / "seen.json").write_text(json.dumps(seen))
    time.sleep(cfg.sleep_s)
    is_bad = cfg.bad_above is not None and cfg.x > cfg.bad_above
    return BEHAVIOURS[cfg.bad if is_bad else cfg.behave](cfg)


if __name__ == "__main__":
    main()
