"""Simulated trainings that are continued from checkpoints, in any order of their ends."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hydra_plugins.tune_sweeper.search._trial import Observation, Proposal, Strategy

Step = Callable[[Any, Proposal], tuple[Any, float | None]]


@dataclass
class Run:
    """A whole sweep of a strategy that trains in steps, jobs ending in a random order."""

    strategy: Strategy
    step: Step  # state and proposal to the next state and its score
    start: Any = None
    n_slots: int = 100
    order: random.Random = field(default_factory=lambda: random.Random(0))
    jobs: list[Proposal] = field(default_factory=list)
    ends: dict[int, Observation] = field(default_factory=dict)
    states: dict[int, Any] = field(default_factory=dict)  # of jobs whose checkpoint is kept
    running: list[int] = field(default_factory=list)
    n_kept: int = 0  # the most checkpoints at once
    n_lost: int = 0  # proposals that continue a checkpoint which was deleted

    def __post_init__(self) -> None:
        while self.ask() or self.running:
            self.finish(self.running.pop(self.order.randrange(len(self.running))))
            self.delete()

    def ask(self) -> bool:
        proposals = self.strategy.ask(self.n_slots - len(self.running))
        for proposal in proposals:
            self.n_lost += proposal.parent is not None and proposal.parent not in self.states
            self.running.append(len(self.jobs))
            self.jobs.append(proposal)
        return bool(proposals)

    def finish(self, job: int) -> None:
        proposal = self.jobs[job]
        parent = proposal.parent
        before = self.start if parent is None else self.states.get(parent, self.start)
        self.states[job], score = self.step(before, proposal)
        self.ends[job] = Observation(job, proposal, score)
        self.strategy.tell([self.ends[job]])

    def delete(self) -> None:
        """As the loop does: what the strategy does not need, and nobody runs from, goes."""
        parents = {self.jobs[j].parent for j in self.running}
        needed = self.strategy.needed_checkpoints() | parents
        self.states = {j: s for j, s in self.states.items() if j in needed}
        self.n_kept = max(self.n_kept, len(self.states))

    def results(self, step: int) -> list[Observation]:
        """The last of each member at a step, best first, the dead last."""
        found = {o.proposal.trial: o for o in self.ends.values() if o.proposal.step == step}
        return sorted(found.values(), key=lambda o: (o.score is None, o.score))

    def children(self) -> list[Proposal]:
        return [p for p in self.jobs if p.parent is not None]


def by_chance(seed: int, failing: float = 0.0) -> Step:
    """Scores without meaning, some of them failures; a function of the job alone."""

    def step(state: Any, proposal: Proposal) -> tuple[Any, float | None]:
        rng = random.Random(f"{seed}/{proposal.trial}/{proposal.step}")
        fails = rng.random() < failing
        return (state or 0) + 1, None if fails else rng.random()

    return step
