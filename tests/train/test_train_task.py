"""The whole training: what it returns, what it leaves, and how it ends."""

import json
import math
import os
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train import classifier
from train.check import ConfigRefused
from train.classifier import Chunks, Classifier
from train.stopping import EarlyStop
from train.task import task

Compose = Callable[..., DictConfig]
Train = Callable[..., dict[str, Any]]

HISTORIES = {"train/loss", "train/acc", "val/loss", "val/acc", "train/lr"}
SCALARS = {"test/loss", "test/acc", "epochs"}


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    """The (step, value) pairs that TensorBoard shows for a scalar."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_task_returns_plain_numbers(train: Train) -> None:
    """Histories are lists of floats, one per epoch; the rest are floats."""
    metrics = train("epochs=2")
    leaves = [
        x for value in metrics.values() for x in (value if isinstance(value, list) else [value])
    ]

    assert metrics.keys() == HISTORIES | SCALARS
    assert all(len(metrics[name]) == 2 for name in HISTORIES)
    assert {type(leaf) for leaf in leaves} == {float}
    assert json.loads(json.dumps(metrics)) == metrics


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet8", "torchvision"])
def test_task_trains_every_model(train: Train, model: str) -> None:
    """Each model of the registry learns something from grey and small images."""
    extra = ["model.arch=squeezenet1_1", "data=shapes", "data.image_size=24"]
    small = ["data.n_images=200", "batch_size=16"]
    metrics = train(
        f"model={model}", "epochs=1", *(extra + small if model == "torchvision" else [])
    )

    assert all(math.isfinite(loss) for loss in metrics["train/loss"])


def test_task_trains_grey_images_with_a_colour_network(train: Train) -> None:
    """A network of torchvision gets one grey channel three times."""
    metrics = train(
        "model=torchvision", "model.arch=mobilenet_v3_small", "epochs=1", "batch_size=500"
    )

    assert math.isfinite(metrics["test/loss"])


def test_task_learns_digits(train: Train) -> None:
    """The defaults reach 9 in 10 on images that neither trained nor chose.

    Ten seeds gave 0.933 to 0.950; the writers of the test part wrote no training image.
    """
    assert train()["test/acc"] > 0.9


def test_task_learns_shapes_better_without_wrong_flips(train: Train) -> None:
    """Orientation counts: flips in every direction make half the classes alike."""
    base = ("data=shapes", "data.noise=0.05", "epochs=8", "lr=0.05")
    plain = train(*base)
    flipped = train(*base, "flip_probability=0.5", "flip_direction=both")

    assert plain["val/acc"][-1] > 0.8
    assert flipped["val/acc"][-1] < 0.7


def test_task_leaves_scalars_progress_and_checkpoint(train: Train, tmp_path: Path) -> None:
    """One point per epoch in TensorBoard and in progress.jsonl, and no other file."""
    metrics = train("epochs=3")
    lines = (tmp_path / "out" / "progress.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]

    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["metrics"]["val/loss"] for row in rows] == metrics["val/loss"]
    assert all(row["seconds"] > 0 for row in rows)
    assert [step for step, _ in points(tmp_path / "out", "val/loss")] == [1, 2, 3]
    assert [value for _, value in points(tmp_path / "out", "val/loss")] == pytest.approx(
        metrics["val/loss"]
    )
    assert sorted(path.name.split(".")[0] for path in (tmp_path / "out").rglob("*")) == [
        "checkpoints",
        "events",
        "last",
        "progress",
    ]


def test_task_writes_one_curve_over_its_steps(train: Train, tmp_path: Path) -> None:
    """A continued training goes on in log_dir, and a repeated step doubles no point."""
    events = tmp_path / "trial"
    train("epochs=4", "until_epoch=2", f"log_dir={events}", folder="trial/0")
    parent = events / "0" / "checkpoints" / "last.ckpt"
    for _ in range(2):
        train("epochs=4", f"resume_from={parent}", f"log_dir={events}", folder="trial/1")

    assert [step for step, _ in points(events, "train/loss")] == [1, 2, 3, 4]
    assert list((events / "1").glob("events*")) == []


def test_task_writes_scalars_only(train: Train, tmp_path: Path) -> None:
    """No hparams, no hp_metric, no epoch curve: the sweeper writes the comparison."""
    train("epochs=1")
    events = EventAccumulator(str(tmp_path / "out"))
    events.Reload()

    assert set(events.Tags()["scalars"]) == HISTORIES - {"train/acc"}
    assert events.Tags()["tensors"] == []


def test_task_without_a_folder_writes_nothing(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called from Python without Hydra and without a folder, it only returns."""
    monkeypatch.chdir(tmp_path)
    task(config("epochs=1"))

    assert list(tmp_path.iterdir()) == []


def test_task_prints_nothing(train: Train, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither Lightning's bars, tips and device lines, nor warnings."""
    train("epochs=1")

    assert capfd.readouterr() == ("", "")


def test_task_leaves_the_process_as_it_was(train: Train) -> None:
    """Threads, determinism, random state, signal handlers and warning filters."""

    def state() -> tuple[object, ...]:
        handlers = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
        random = torch.get_rng_state().sum().item()
        strict = torch.are_deterministic_algorithms_enabled()
        return torch.get_num_threads(), strict, random, *handlers, len(warnings.filters)

    before = state()
    train("epochs=1", "trainer.threads=3")

    assert state() == before


def test_task_uses_the_threads_it_is_given(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """trainer.threads holds while it trains."""
    seen: list[int] = []
    monkeypatch.setattr(classifier, "set_lr", lambda *_: seen.append(torch.get_num_threads()))
    train("epochs=1", "trainer.threads=3")

    assert set(seen) == {3}


@pytest.mark.parametrize("seed", [0, 1])
def test_task_repeats_with_its_seed_only(train: Train, seed: int) -> None:
    """Seed 0 is a seed like others; another seed gives other weights."""
    first, again = (train("epochs=1", f"seed={seed}") for _ in range(2))
    other = train("epochs=1", "seed=5")

    assert first == again
    assert first != other


def test_task_follows_the_schedule_at_each_step(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step's lr is base_lr * f((epoch + i / n_batches) / epochs)."""
    seen: list[float] = []
    monkeypatch.setattr(classifier, "set_lr", lambda _, lr: seen.append(lr))
    metrics = train("epochs=2", "lr=0.08", "batch_size=256")
    positions = [(epoch + i / 4) / 2 for epoch in range(2) for i in range(4)]

    assert seen == pytest.approx([0.04 * (1 + math.cos(math.pi * p)) for p in positions])
    assert metrics["train/lr"] == [seen[0], seen[4]]


def test_task_draws_an_order_for_each_epoch(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch sees all training images, in an order of its own."""
    orders: list[list[int]] = []
    original = Classifier.on_train_epoch_start

    def note(self: Classifier) -> None:
        original(self)
        orders.append(self.running.order.tolist())

    monkeypatch.setattr(Classifier, "on_train_epoch_start", note)
    train("epochs=2")

    assert sorted(orders[0]) == sorted(orders[1]) == list(range(1149))
    assert orders[0] != orders[1]


def test_task_counts_each_mini_batch_as_a_step(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's own count of steps holds, though one of its batches holds many of ours."""
    seen: list[int] = []
    original = Classifier.on_train_epoch_end

    def count(self: Classifier) -> None:
        seen.append(self.trainer.global_step)
        original(self)

    monkeypatch.setattr(Classifier, "on_train_epoch_end", count)
    train("epochs=2", "batch_size=10")

    assert seen == [114, 228]


@pytest.mark.parametrize(("n", "lengths"), [(1, [1]), (32, [32]), (70, [32, 32, 6])])
def test_chunks_cover_every_mini_batch_once(n: int, lengths: list[int]) -> None:
    """Slices of at most 32 that follow each other."""
    chunks = Chunks(n)
    numbers = [number for chunk in chunks for number in range(chunk.start, chunk.stop)]

    assert [chunk.stop - chunk.start for chunk in chunks] == lengths
    assert numbers == list(range(n))
    assert len(chunks) == len(lengths)


def test_task_ends_at_once_when_the_loss_is_lost(train: Train, tmp_path: Path) -> None:
    """The history shows nan, no epoch follows, and no checkpoint of lost weights is left."""
    metrics = train(
        "epochs=50", "optimizer=rmsprop", "lr=10", "momentum=0.99", "model=mlp", "model.depth=8"
    )

    assert not math.isfinite(metrics["train/loss"][-1])
    assert metrics["epochs"] < 50
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert json.loads((tmp_path / "out" / "progress.jsonl").read_text().splitlines()[-1])


def test_task_stops_early_and_keeps_the_best(train: Train, tmp_path: Path) -> None:
    """Patience ends it; the best weights are kept and give the test metrics."""
    metrics = train("epochs=40", "early_stop_patience=2", "lr=0.3", "schedule=constant")
    losses = metrics["val/loss"]
    best = torch.load(tmp_path / "out/checkpoints/best.ckpt", weights_only=True)
    last = torch.load(tmp_path / "out/checkpoints/last.ckpt", weights_only=True)

    assert len(losses) == metrics["epochs"] < 40
    assert losses.index(min(losses)) == len(losses) - 3
    assert (best["epoch"], last["epoch"]) == (len(losses) - 2, len(losses))
    scored = train(
        "epochs=1", "lr=1e-9", f"init_from={tmp_path}/out/checkpoints/best.ckpt", folder="again"
    )
    assert scored["test/loss"] == pytest.approx(metrics["test/loss"], rel=0.2)


@pytest.mark.parametrize(
    ("values", "is_maximised", "n_epochs"),
    [
        ([3, 2, 1, 1, 1], False, 5),
        ([1, 2, 3, 2, 2], True, 5),
        ([1, 2, 2, 0, 0], False, 3),
        ([math.nan, math.nan, 1], False, 2),
        ([1, math.nan, 0.5, 2, 2], False, 5),
    ],
)
def test_early_stop_ends_after_patience(
    values: list[float], is_maximised: bool, n_epochs: int
) -> None:
    """Two epochs without progress; nan is none."""
    stop = EarlyStop("m", is_maximised, patience=2)
    ends = []
    for value in values:
        stop.improves({"m": value})
        ends.append(stop.is_over)

    assert ends.index(True) + 1 == n_epochs


def at_epoch(number: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something in the middle of an epoch's first chunk."""
    original = Classifier.training_step

    def step(self: Classifier, batch: slice, batch_idx: int) -> None:
        if self.state.epoch == number and batch_idx == 0:
            action()
        original(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", step)


def test_sigterm_ends_the_training_after_its_epoch(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch is finished, its checkpoint written, the exit code 143, and it can go on."""
    whole = train("epochs=4", folder="whole")
    with monkeypatch.context() as patch:
        at_epoch(1, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        with pytest.raises(SystemExit) as ended:
            train("epochs=4")
    parent = tmp_path / "out" / "checkpoints" / "last.ckpt"
    rest = train("epochs=4", f"resume_from={parent}", folder="rest")

    assert ended.value.code == 143
    assert torch.load(parent, weights_only=True)["epoch"] == 2
    assert rest["val/loss"] == whole["val/loss"][2:]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_sigterm_in_the_last_epoch_changes_nothing(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that is complete returns its metrics."""
    at_epoch(1, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)

    assert train("epochs=2")["epochs"] == 2


def test_keyboard_interrupt_stays_one(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's exit(1) is undone, and Ctrl-C works again afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored after a shell's &
    at_epoch(1, lambda: os.kill(os.getpid(), signal.SIGINT), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train("epochs=3")

    assert signal.signal(signal.SIGINT, before) == signal.default_int_handler


def test_exit_of_other_causes_passes(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """sys.exit in a training is not taken for Ctrl-C."""

    def leave() -> None:
        raise SystemExit(7)

    at_epoch(0, leave, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        train("epochs=1")

    assert ended.value.code == 7


def test_task_works_in_a_thread(train: Train) -> None:
    """Outside the main thread there are no signal handlers to set."""
    results: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: results.append(train("epochs=1")))
    thread.start()
    thread.join()

    assert results[0]["epochs"] == 1


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("lr=-1",), "lr=-1: expected a number"),
        (("until_epoch=20",), "until_epoch=20: expected at most epochs=10"),
        (("trainer.device=cpu", "trainer.precision=16-mixed"), "precision=16-mixed: .*bf16-mixed"),
        (("batch_size=4000",), "batch_size=4000: "),
        (("hue=0.1",), "hue=0.1: expected 0, because the images have 1 channel"),
        (("model.name=cnnn",), "model.name=cnnn: expected one of .*mean model.name=cnn"),
        (("model=torchvision", "model.arch=resnet81"), "did you mean model.arch=resnet18"),
        (("data.name=digit",), "data.name=digit: .*digits"),
        (("optimizer.name=sdg",), "optimizer.name=sdg: .*sgd"),
    ],
)
def test_task_refuses_what_cannot_be_trained(
    train: Train, tmp_path: Path, overrides: tuple[str, ...], sentence: str
) -> None:
    """A refusal is one sentence, and leaves no checkpoint."""
    with pytest.raises(ConfigRefused, match=sentence):
        train(*overrides)

    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_task_without_a_gpu_refuses_cuda(train: Train) -> None:
    """The sentence says what to type instead."""
    with pytest.raises(ConfigRefused, match=r"type trainer\.device=cpu"):
        train("trainer.device=cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_task_trains_on_a_gpu(train: Train, precision: str) -> None:
    """Every precision learns digits there."""
    metrics = train("trainer.device=cuda", f"trainer.precision={precision}", "augment=light")

    assert metrics["val/acc"][-1] > 0.8


def test_task_calls_no_target(train: Train, config: Compose, tmp_path: Path) -> None:
    """A `_target_` in the config is refused, and never called."""
    trace = tmp_path / "executed"
    cfg = config("epochs=1", "+model._target_=os.system", f"+model.command='touch {trace}'")
    with pytest.raises(ConfigRefused, match="components are chosen by name"):
        task(cfg)

    assert not trace.exists()


def test_progress_of_a_second_attempt_replaces_the_first(config: Compose, tmp_path: Path) -> None:
    """A training that starts again in the same folder leaves each epoch once."""
    task(config("epochs=2", "model=mlp"), tmp_path)
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"epoch": 3, "met')
    task(config("epochs=2", "model=mlp"), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]

    assert [row["epoch"] for row in rows] == [1, 2]
