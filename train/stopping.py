"""When a training ends before its last epoch: no progress, a lost loss, or a wish from outside."""

import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Self

import pytorch_lightning as pl


@dataclass
class EarlyStop:
    """Ends a training whose metric has not improved for `patience` epochs; 0 never ends it.

    Its state is not part of a checkpoint: whoever continues another's training judges it anew, an
    interrupted training counts its earlier epochs again.
    """

    metric: str
    is_maximised: bool
    patience: int
    best: float | None = None
    n_without: int = 0

    def improves(self, metrics: Mapping[str, float]) -> bool:
        """Count an epoch; whether it is the best so far."""
        value = metrics[self.metric]
        is_better = self._is_better(value)
        self.best = value if is_better else self.best
        self.n_without = 0 if is_better else self.n_without + 1
        return is_better

    def _is_better(self, value: float) -> bool:
        if math.isnan(value) or self.best is None:
            return not math.isnan(value)
        return value > self.best if self.is_maximised else value < self.best

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= self.n_without


class EndEpochOnTerm(pl.Callback):
    """Lets SIGTERM end the training after the epoch that runs, so that its checkpoint is whole."""

    def __init__(self) -> None:
        self.was_asked = False

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Take SIGTERM over for as long as a job lasts, then give it back."""
        before = signal.getsignal(signal.SIGTERM)
        self._listen()
        try:
            yield self
        finally:
            if _is_main_thread():
                signal.signal(signal.SIGTERM, before)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take it over from Lightning too, whose own handler ends an epoch in its middle.

        Lightning gives the signal back when it tears down.
        """
        self._listen()

    def _listen(self) -> None:
        if _is_main_thread():
            signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.was_asked = True


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
