"""Population-based training: members train side by side, the worst continue from the best.

Jaderberg et al., "Population based training of neural networks" (2017), algorithm 1. A step is a
job of its own that continues a checkpoint, and what a member does next is decided only when a
worker asks for it, among results of the same step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._design import Design
from ._explore import Explore
from ._space import Space
from ._trial import Observation, Proposal

EXPLOITS = ("truncation", "tournament", "none")
_FEWEST_STEPS = 4  # fewer than that leave no time for a schedule to emerge


@dataclass
class _Member:
    """What one member has done so far."""

    results: list[Observation] = field(default_factory=list)  # by step
    is_busy: bool = False
    n_starts: int = 0  # from scratch

    @property
    def next_step(self) -> int:
        return len(self.results)


class Pbt:
    """Population-based training with truncation or tournament selection.

    Only members that are replaced change: they take weights and hyperparameters of a donor and
    move the donor's hyperparameters. Dead members count as worst and are always replaced. The
    decision of a member at a step depends on the seed, the member, the step and the results of that
    step alone, so with min_peers=1 the order in which jobs end does not matter.

    Raises:
        ValueError: settings that contradict each other or the number of epochs.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        epochs: int,
        population_size: int,
        in_batches: bool,
        initial: Sequence[Mapping[str, Any]] = (),
        step_epochs: int | None = None,
        burn_in_steps: int = 1,
        exploit: str = "truncation",
        quantile: float = 0.25,
        min_peers: float | None = None,
        factors: Sequence[float] = (0.5, 0.8, 1.25, 2.0),
        linear: float = 0.2,
        resample: float = 0.25,
    ) -> None:
        self._check(population_size, exploit, quantile, min_peers)
        if (step_epochs is not None and step_epochs < 1) or burn_in_steps < 0:
            raise ValueError(
                f"step_epochs={step_epochs}, burn_in_steps={burn_in_steps}: expected at least 1"
                " epoch, and 0 steps or more"
            )
        self._space = space
        self._seed = seed
        self._epochs = epochs
        self._step_epochs = step_epochs or max(1, round(epochs / 10))
        self._n_steps = math.ceil(epochs / self._step_epochs)
        if self._n_steps < _FEWEST_STEPS:
            raise ValueError(
                f"epochs={epochs} in steps of {self._step_epochs} make {self._n_steps} steps, at"
                f" least {_FEWEST_STEPS} are needed: type more epochs or a smaller step_epochs"
            )
        self._burn_in_steps = burn_in_steps
        self._exploit = exploit
        self._quantile = quantile
        share = min_peers if min_peers is not None else (1.0 if in_batches else 0.75)
        self._n_peers = math.ceil(share * population_size)
        self._explore = Explore(space, factors=factors, linear=linear, resample=resample)
        self._design = Design(space, seed=seed, initial=initial)
        self._drawn: list[dict[str, Any] | None] = []
        self._members = [_Member() for _ in range(population_size)]

    @staticmethod
    def _check(size: int, exploit: str, quantile: float, min_peers: float | None) -> None:
        if size < 2:
            raise ValueError(f"population_size={size}: at least 2 members are needed, better 4")
        if exploit not in EXPLOITS:
            raise ValueError(f"exploit={exploit!r} is unknown: one of {', '.join(EXPLOITS)}")
        if not 0 < quantile <= 0.5:
            raise ValueError(f"quantile={quantile}: expected a share in (0, 0.5]")
        if min_peers is not None and not 0 < min_peers <= 1:
            raise ValueError(f"min_peers={min_peers}: expected a share in (0, 1]")

    def __len__(self) -> int:
        """How many jobs there will be, unless members start anew."""
        return len(self._members) * self._n_steps

    def ask(self, n: int) -> list[Proposal]:
        """Next steps of members that are free and have enough peers, the last ones first."""
        proposals: list[Proposal] = []
        while len(proposals) < n:
            ready = [m for m in range(len(self._members)) if self._is_ready(m)]
            if not ready:
                break
            member = min(ready, key=lambda m: (self._members[m].next_step, m))
            proposals.append(self._propose(member))
            self.accept(proposals[-1:])
        return proposals

    def accept(self, proposals: Sequence[Proposal]) -> None:
        """Takes note of steps that run now."""
        for proposal in proposals:
            member = self._members[proposal.trial]
            member.is_busy = True
            member.n_starts += proposal.parent is None

    def tell(self, observations: Sequence[Observation]) -> None:
        """Takes note of ended steps; who died in the very first one starts anew, once."""
        for observation in observations:
            member = self._members[observation.proposal.trial]
            member.is_busy = False
            is_stillborn = observation.score is None and observation.proposal.step == 0
            if not is_stillborn or member.n_starts > 1:
                member.results.append(observation)

    def needed_checkpoints(self) -> set[int]:
        """Those of possible donors of steps that somebody has yet to decide, and of who waits."""
        unfinished = [m for m in self._members if m.next_step < self._n_steps]
        needed = {m.results[-1].job for m in unfinished if m.results and not m.is_busy}
        # Who is busy decides after the step that he is in, who is free after the one before.
        undecided = (m.next_step if m.is_busy else m.next_step - 1 for m in unfinished)
        for step in range(max(0, min(undecided, default=self._n_steps)), self._n_steps - 1):
            needed |= {o.job for o in self._donors(step, n_results=len(self._members))}
        return needed

    def _is_ready(self, index: int) -> bool:
        member = self._members[index]
        step = member.next_step
        if member.is_busy or step >= self._n_steps:
            return False
        return step == 0 or len(self._results(step - 1)) >= self._n_peers

    def _results(self, step: int) -> list[Observation]:
        """What the members reached at a step, best first, the dead last."""
        found = [m.results[step] for m in self._members if m.next_step > step]
        return sorted(found, key=_rank)

    def _donors(self, step: int, n_results: int) -> list[Observation]:
        """Living members that a worse one may copy once `n_results` have reached the step."""
        alive = [o for o in self._results(step) if o.score is not None]
        return alive[: self._n_replaced(n_results)] if self._exploit != "tournament" else alive

    def _n_replaced(self, n_results: int) -> int:
        """A share of the population, but at most half of those that are there."""
        return max(1, min(int(self._quantile * len(self._members)), n_results // 2))

    # Decisions

    def _propose(self, index: int) -> Proposal:
        member = self._members[index]
        step = member.next_step
        if step == 0:
            return self._proposal(index, 0, self._fresh(index), None, {"op": "start"})
        own = member.results[-1]
        rng = np.random.default_rng([self._seed, index, step])
        donor = self._donor(own, step - 1, rng)
        if donor is None and own.score is None:  # nobody is alive
            return self._proposal(index, step, self._fresh(index), None, {"op": "start"})
        if donor is None:
            return self._proposal(index, step, own.proposal.values, own.job, {"op": "continue"})
        values, moves = self._explore(donor.proposal.values, rng)
        info = {"op": "exploit", "donor": donor.proposal.trial, "moves": moves}
        return self._proposal(index, step, values, donor.job, info)

    def _proposal(
        self,
        member: int,
        step: int,
        values: Mapping[str, Any],
        parent: int | None,
        info: Mapping[str, Any],
    ) -> Proposal:
        until = min((step + 1) * self._step_epochs, self._epochs)
        return Proposal(member, dict(values), step, parent, until, info)

    def _fresh(self, member: int) -> dict[str, Any]:
        """The configuration of a member's first, second, ... start, whoever starts before it."""
        number = member + self._members[member].n_starts * len(self._members)
        while len(self._drawn) <= number:
            self._drawn.append(self._design.next())
        values = self._drawn[number]
        if values is None:  # a small space repeats one
            values = Design(self._space, seed=self._seed + number, sampler="iid").next()
        if values is None:
            raise ValueError("where forbids every configuration that was drawn")
        return dict(values)

    def _donor(self, own: Observation, step: int, rng: np.random.Generator) -> Observation | None:
        """Whom a member copies after `step`; None when it goes on by itself."""
        results = self._results(step)
        donors = [o for o in self._donors(step, len(results)) if o.job != own.job]
        if not donors:
            return None
        drawn = donors[int(rng.integers(len(donors)))]
        if own.score is None:
            return drawn
        if step < self._burn_in_steps or self._exploit == "none":
            return None
        if self._exploit == "tournament":
            return drawn if _rank(drawn) < _rank(own) else None
        bottom = results[-self._n_replaced(len(results)) :]
        return drawn if own.job in [o.job for o in bottom] else None


def _rank(observation: Observation) -> tuple[float, int]:
    score = math.inf if observation.score is None else observation.score
    return score, observation.proposal.trial
