"""Many trainings in one warm worker: its memory stays, and they do not feel each other."""

import pickle
from typing import Any

import pytest
import training_job

from hydra_plugins.tune_launcher._devices import Slot
from hydra_plugins.tune_launcher._workers import Pool

MODULES = ["train.task", "pytorch_lightning"]
SMALL = ["model=mlp", "epochs=1", "flip_probability=0.3", "model.dropout=0.1"]


def train(n: int, overrides: list[list[str]]) -> list[tuple[dict[str, Any], int, int]]:
    """`n` trainings one after the other in one slot, with the overrides in turn."""
    pool = Pool(
        [Slot(0, "cpu:0")],
        make_runner=pickle.dumps(training_job.make),
        modules=MODULES,
        threads=1,
        jobs_per_worker=n,
    )
    found = []
    for number in range(n):
        pool.submit(number, pickle.dumps(overrides[number % len(overrides)]))
        while not (ended := pool.wait(120)):
            assert pool.n_running
        found.append(pickle.loads(ended[0].answer or b""))
    pool.close()
    return found


def test_trainings_of_one_process_do_not_feel_each_other() -> None:
    """The first, the last and one in a fresh process: the same numbers, in flat memory."""
    others = [SMALL, [*SMALL, "lr=0.3", "optimizer=adamw"], [*SMALL, "model=cnn", "batch_size=16"]]
    warm = train(31, others)
    (fresh,) = train(1, [SMALL])
    pages = [row[1] for row in warm]

    assert len({pid for _, _, pid in warm}) == 1
    assert warm[0][0] == warm[9][0] == warm[30][0] == fresh[0]
    assert max(pages[6:]) <= 1.05 * max(pages[:6])


@pytest.mark.slow
def test_memory_stays_over_hundreds_of_trainings() -> None:
    """Lightning's cycles would add 3 MB each."""
    pages = [row[1] for row in train(200, [SMALL])]

    assert max(pages[5:]) <= 1.05 * pages[5]
