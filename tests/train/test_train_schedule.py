"""Learning rates against torch's schedulers and at the ends."""

import math
from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from train.check import ConfigRefused
from train.schedule import WARMUP_START, make_schedule

Compose = Callable[..., DictConfig]


def lrs_of_torch(make: object, n: int, **settings: float) -> list[float]:
    """The lr that a scheduler of torch gives after 0 to n - 1 epochs."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **settings)  # type: ignore[operator]
    lrs = []
    for _ in range(n):
        lrs.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return lrs


@pytest.mark.parametrize("min_factor", [0.0, 0.1])
def test_cosine_equals_torch_at_epoch_ends(config: Compose, min_factor: float) -> None:
    """Half a cosine over the horizon, as CosineAnnealingLR."""
    factor = make_schedule(config("epochs=12", f"schedule.min_factor={min_factor}"))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR
    expected = lrs_of_torch(scheduler, 13, T_max=12, eta_min=min_factor)

    assert [factor(epoch / 12) for epoch in range(13)] == pytest.approx(expected, abs=1e-12)


def test_step_equals_torch_at_epoch_ends(config: Compose) -> None:
    """A drop every few epochs, as StepLR; no rounding moves a drop by an epoch."""
    factor = make_schedule(config("schedule=step", "epochs=49", "schedule.step_epochs=7"))
    expected = lrs_of_torch(torch.optim.lr_scheduler.StepLR, 49, step_size=7, gamma=0.1)

    assert [factor(epoch / 49) for epoch in range(49)] == pytest.approx(expected)


def test_constant_is_one_everywhere(config: Compose) -> None:
    """A constant schedule leaves the base lr alone."""
    factor = make_schedule(config("schedule=constant"))

    assert {factor(i / 100) for i in range(101)} == {1.0}


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_warmup_rises_linearly_to_the_peak(config: Compose, name: str) -> None:
    """From 1 % to the whole lr over the warm-up, without a jump at its end."""
    factor = make_schedule(config(f"schedule={name}", "epochs=10", "warmup_epochs=2"))

    assert factor(0.0) == pytest.approx(WARMUP_START)
    assert factor(0.1) == pytest.approx((1 + WARMUP_START) / 2)
    assert factor(0.2) == pytest.approx(1.0)
    assert factor(0.2 - 1e-9) == pytest.approx(1.0)


def test_warmup_leaves_the_cosine_its_end(config: Compose) -> None:
    """The cosine runs over what the warm-up leaves, and still ends at its minimum."""
    factor = make_schedule(config("epochs=10", "warmup_epochs=2"))

    assert factor(0.6) == pytest.approx(0.5)
    assert factor(1.0) == pytest.approx(0.0, abs=1e-12)


def test_warmup_longer_than_the_training_only_rises(config: Compose) -> None:
    """A warm-up beyond the horizon neither fails nor falls."""
    factor = make_schedule(config("epochs=4", "warmup_epochs=9"))
    values = [factor(i / 40) for i in range(41)]

    assert values == sorted(values)
    assert math.isclose(values[-1], 1.0)


def test_schedule_unknown_lists_the_names(config: Compose) -> None:
    """A misspelt name is answered with the legal ones and the nearest."""
    cfg = config("schedule.name=cosin")

    with pytest.raises(ConfigRefused, match=r"constant, cosine, step; did you mean .*=cosine\?"):
        make_schedule(cfg)
