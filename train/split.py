"""Stratified splits by their own seed."""

import torch
from torch import Tensor

from .check import ConfigRefused
from .randomness import generator


def stratified(labels: Tensor, classes: tuple[str, ...], *, fraction: float, seed: int) -> Tensor:
    """Which of the labels go into the smaller part, as a mask: the same share of every class.

    A class gives at least one image to each side.
    """
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for number, name in enumerate(classes):
        members = (labels == number).nonzero().flatten()
        if len(members) < 2:
            raise ConfigRefused(
                f"data: class {name!r} has {len(members)} image(s) to train on and to validate "
                "with, expected at least 2; add images or take the class out."
            )
        n_taken = min(max(round(len(members) * fraction), 1), len(members) - 1)
        shuffled = torch.randperm(len(members), generator=generator(seed, number))
        mask[members[shuffled[:n_taken]]] = True
    return mask
