"""A schedule trained again: the steps in their order, each from the one before."""

import pytest
from search_cases import drive, from_file, proposals_of

from hydra_plugins.tune_sweeper.search._replay import Replay, Step
from hydra_plugins.tune_sweeper.search._space import Space
from hydra_plugins.tune_sweeper.search._trial import Observation

SPACE = Space(())
STEPS = [Step(3, ["lr=0.1"]), Step(5, ["lr=0.05", "crop=[2,3]"]), Step(9, [])]


def test_steps_continue_each_other() -> None:
    """One trial; each job brings the overrides of its step."""
    proposals = proposals_of(drive(Replay(SPACE, steps=STEPS), SPACE, batch=4))

    assert [(p.trial, p.step, p.parent) for p in proposals] == [(0, 0, None), (0, 1, 0), (0, 2, 1)]
    assert [Step(p.until_epoch or 0, p.info["overrides"]) for p in proposals] == STEPS


def test_failure_ends_it() -> None:
    """Nothing can continue a training that died."""
    events = drive(Replay(SPACE, steps=STEPS), SPACE, score=lambda s, p: [1.0, None][p.step])

    assert [p.step for p in proposals_of(events)] == [0, 1]


@pytest.mark.parametrize("n_done", [0, 1, 2, 3])
def test_resumed_replay_goes_on(n_done: int) -> None:
    """Also while a step runs."""
    expected = proposals_of(drive(Replay(SPACE, steps=STEPS), SPACE))
    replay = Replay(SPACE, steps=STEPS)
    for number, proposal in enumerate(expected[:n_done]):
        replay.accept([from_file(proposal)])
        assert replay.ask(1) == []
        replay.tell([Observation(number, proposal, 1.0)])

    assert replay.ask(1) == expected[n_done : n_done + 1]


def test_only_the_last_checkpoint_is_needed() -> None:
    """Everything before it has been continued."""
    replay = Replay(SPACE, steps=STEPS)
    drive(replay, SPACE)

    assert replay.needed_checkpoints() == {2}
