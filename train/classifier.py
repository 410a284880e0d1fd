"""The training as a LightningModule.

One Lightning batch holds many mini-batches: Lightning's loop, logging and data loader cost 1.6 ms a
step, eight times a small net's own step. So a "batch" here is a slice of mini-batch numbers, the
optimisation is manual, and sums stay on the device until the epoch ends.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from .augment import Augmentation
from .data import Data, Part
from .optimizers import set_lr
from .randomness import generator, seed_default
from .schedule import Factor

CHUNK = 32
"""Mini-batches in one Lightning batch: its overhead of 0.3 ms is then 1 % of a small net's step."""

EVAL_BATCH = 1000
"""Images scored at once; a constant, since the order of sums shows in the last bits."""

ORDER = -1
"""In the place of a batch's number: the seed of an epoch's order of images."""


EndEpoch = Callable[[dict[str, float]], bool]
"""Takes an epoch's metrics; whether the training is to end."""


@dataclass(frozen=True)
class Chunks:
    """Mini-batch numbers, CHUNK by CHUNK, as Lightning's data loader."""

    n_batches: int
    size: int = CHUNK

    def __len__(self) -> int:
        return math.ceil(self.n_batches / self.size)

    def __iter__(self) -> Iterator[slice]:
        for start in range(0, self.n_batches, self.size):
            yield slice(start, min(start + self.size, self.n_batches))


@dataclass
class Sums:
    """Loss and hits summed over images, on the device."""

    loss: Tensor | float = 0.0
    hits: Tensor | float = 0.0
    n: int = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch with its mean loss."""
        self.loss = self.loss + loss.detach().double() * len(labels)
        self.hits = self.hits + (logits.detach().argmax(1) == labels).sum()
        self.n += len(labels)

    def means(self, part: str) -> dict[str, float]:
        """Mean loss and accuracy as plain numbers; nothing when there was no image."""
        if not self.n:
            return {}
        return {f"{part}/loss": float(self.loss) / self.n, f"{part}/acc": float(self.hits) / self.n}


@dataclass
class State:
    """What a training changes: the net, its optimizer, and the epochs that are done."""

    net: nn.Module
    optimizer: Optimizer
    epoch: int = 0


@dataclass
class Epoch:
    """The sums of the epoch that runs."""

    train: Sums = field(default_factory=Sums)
    val: Sums = field(default_factory=Sums)
    lr: float = math.nan
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


class Classifier(pl.LightningModule):
    """Trains a state on data; `metrics` holds what the last epoch gave."""

    def __init__(
        self,
        state: State,
        data: Data,
        cfg: DictConfig,
        *,
        factor: Factor,
        augment: list[Augmentation],
        end_epoch: EndEpoch,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.state, self.data = state.net, state, data
        self.factor, self.augment, self.end_epoch = factor, augment, end_epoch
        # Plain numbers: reading a DictConfig costs 20 us a key.
        self.base_lr, self.seed = float(cfg.lr), int(cfg.seed)
        self.epochs, self.batch_size = int(cfg.epochs), int(cfg.batch_size)
        # The last, smaller batch is left out: batch normalisation cannot train on one image.
        self.n_batches = len(data.train) // self.batch_size
        self.running = Epoch()
        self.metrics: dict[str, float] = {}
        self.is_lost = False

    def configure_optimizers(self) -> Optimizer:
        """The state's own optimizer."""
        return self.state.optimizer

    def train_dataloader(self) -> Chunks:
        """The mini-batches of an epoch."""
        return Chunks(self.n_batches)

    def val_dataloader(self) -> Chunks:
        """One chunk: the whole validation part."""
        return Chunks(1)

    def test_dataloader(self) -> Chunks:
        """One chunk: the whole test part."""
        return Chunks(1)

    def on_fit_start(self) -> None:
        """Move the images to the device, once."""
        self.data = self.data.to(self.device)

    def on_test_start(self) -> None:
        """Move them there for a training that was over before it began."""
        self.data = self.data.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's sums and draw its order of images."""
        order = torch.randperm(
            len(self.data.train), generator=generator(self.seed, self.state.epoch, ORDER)
        )
        self.running = Epoch(lr=self.lr_at(0), order=order.to(self.device))

    def lr_at(self, batch: int) -> float:
        """The learning rate of a mini-batch of this epoch."""
        position = (self.state.epoch + batch / self.n_batches) / self.epochs
        return self.base_lr * self.factor(position)

    def training_step(self, batch: slice, batch_idx: int) -> None:
        """Take one optimizer step for each mini-batch of the chunk."""
        for number in range(batch.start, batch.stop):
            self._mini_batch(number)
        if not math.isfinite(float(self.running.train.loss)):
            self.is_lost = self.trainer.should_stop = True

    def _mini_batch(self, number: int) -> None:
        index = self.running.order[number * self.batch_size : (number + 1) * self.batch_size]
        labels = self.data.train.labels[index]
        seed_default(self.device, self.seed, self.state.epoch, number)
        logits = self.net(self._prepare(self.data.train.images[index], self.augment))
        loss = F.cross_entropy(logits, labels)
        self._step(loss, self.lr_at(number))
        self.running.train.add(loss, logits, labels)

    def _step(self, loss: Tensor, lr: float) -> None:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer), "there is one optimizer"
        set_lr(self.state.optimizer, lr)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def _prepare(self, images: Tensor, operations: list[Augmentation]) -> Tensor:
        """Bytes to normalised numbers, augmented on the way."""
        pixels = images.float() / 255
        for operation in operations:
            pixels = operation(pixels)
        return (pixels - self.data.mean[:, None, None]) / self.data.std[:, None, None]

    def validation_step(self, batch: slice, batch_idx: int) -> None:
        """Score the validation part."""
        self.running.val = self._score(self.data.val)

    def test_step(self, batch: slice, batch_idx: int) -> None:
        """Score the test part."""
        self.metrics = self._score(self.data.test).means("test")

    def _score(self, part: Part) -> Sums:
        sums = Sums()
        for start in range(0, len(part), EVAL_BATCH):
            labels = part.labels[start : start + EVAL_BATCH]
            logits = self.net(self._prepare(part.images[start : start + EVAL_BATCH], []))
            sums.add(F.cross_entropy(logits, labels), logits, labels)
        return sums

    def on_train_epoch_end(self) -> None:
        """Close the epoch; Lightning has validated before it calls this."""
        self.state.epoch += 1
        epoch = self.running
        means = {**epoch.train.means("train"), **epoch.val.means("val")}
        self.metrics = {**means, "train/lr": epoch.lr}
        if self.end_epoch(self.metrics):
            self.trainer.should_stop = True
