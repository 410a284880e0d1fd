"""Population-based training: members train side by side, the worst continue from the best.

Jaderberg et al., "Population based training of neural networks" (2017), algorithm 1. A step is a
job of its own that continues a checkpoint, and what a member does next is decided only when a
worker asks for it, among results of the same step.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._design import Design
from ._explore import Explore
from ._population import Population
from ._space import Space
from ._trial import Observation, Proposal, rank

EXPLOITS = ("truncation", "tournament", "none")
KEEPS = ("winner", "population", "all")
_MOST_KEPT = 1.5  # checkpoints for each member, besides one for each job that ran at once
_N_BEST_KEPT = 2  # of these, for keep_checkpoints=1: the best one, and that which it continued
_FEWEST_STEPS = 4  # fewer than that leave no time for a schedule to emerge


class Pbt:
    """Population-based training with truncation or tournament selection.

    Only members that are replaced change: they take weights and hyperparameters of a donor and
    move the donor's hyperparameters. Dead members count as worst and are always replaced; where all
    are dead each starts anew once, and the search is over if none of these lives. The
    decision of a member at a step depends on the seed, the member, the step and the results of that
    step alone, so with min_peers=1 the order in which jobs end does not matter.

    With `init_candidates` more configurations than the population train the first step, and the
    best of them become the population. `score_window` results of a lineage are averaged before
    they are compared.

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
        init_candidates: int | None = None,
        step_epochs: int | None = None,
        burn_in_steps: int = 0,
        exploit: str = "truncation",
        quantile: float = 0.25,
        min_peers: float | None = None,
        factors: Sequence[float] = (0.5, 0.8, 1.25, 2.0),
        linear: float = 0.2,
        resample: float = 0.25,
        score_window: int = 1,
        keep: str = "winner",
    ) -> None:
        n_candidates = population_size if init_candidates is None else init_candidates
        _check_population(population_size, n_candidates, quantile, min_peers)
        _check_steps(step_epochs, burn_in_steps, score_window)
        _check_choices(exploit, keep)
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
        self._keep = keep
        self._population = Population(
            population_size, n_candidates=n_candidates, n_steps=self._n_steps, window=score_window
        )
        self._ended: set[int] = set()  # jobs
        self._orders: dict[tuple[int, int], list[int]] = {}  # of tournaments, by member and step
        self._donors: dict[tuple[int, int], Observation | None] = {}  # where all results are there

    def __len__(self) -> int:
        """How many jobs there will be, unless members start anew."""
        return len(self._population)

    def ask(self, n: int) -> list[Proposal]:
        """Next steps of members that are free and have enough peers, the last ones first."""
        proposals: list[Proposal] = []
        while len(proposals) < n and (proposal := self._next()) is not None:
            self.accept([proposal])
            proposals.append(proposal)
        return proposals

    def _next(self) -> Proposal | None:
        for index in self._population.ready(self._n_peers):
            proposal = self._propose(index)
            if proposal is not None:
                may_go = self._population.is_hindmost(index) or self._has_room()
                return proposal if may_go else None
        return None

    def _has_room(self) -> bool:
        """Whether anybody may run ahead: for a straggler all that it may copy must be kept."""
        if self._keep == "all":
            return True
        population = self._population
        n_kept = len(self._needed()) + population.n_busy + _N_BEST_KEPT
        return n_kept + 1 <= _MOST_KEPT * population.size + population.most_busy

    def accept(self, proposals: Sequence[Proposal]) -> None:
        """Takes note of steps that run now."""
        for proposal in proposals:
            self._population.start(proposal)

    def tell(self, observations: Sequence[Observation]) -> None:
        """Takes note of ended steps."""
        for observation in observations:
            self._ended.add(observation.job)
            self._population.end(observation)

    def needed_checkpoints(self) -> set[int]:
        """Those of possible donors of steps that somebody has yet to decide, and of who waits."""
        if self._keep == "all":
            return set(self._ended)
        return self._needed() | (
            self._population.last_jobs() if self._keep == "population" else set()
        )

    def _needed(self) -> set[int]:
        """What who waits goes on from: its own, or a donor's once the whole step is known."""
        waiting = self._population.waiting()
        steps = {own.proposal.step for own in waiting.values()}
        complete = {step for step in steps if self._population.is_complete(step)}
        found = self._possible_donors()
        for index, own in waiting.items():
            donor = self._final_donor(index, own) if own.proposal.step in complete else None
            found.add((donor or own).job)
        return found

    def _final_donor(self, index: int, own: Observation) -> Observation | None:
        """Whom a member copies after a step that is complete, looked up once."""
        step = own.proposal.step
        if (index, step) not in self._donors:
            self._donors[index, step] = self._donor(own, step, self._rng(index, step + 1))
        return self._donors[index, step]

    def _possible_donors(self) -> set[int]:
        """Jobs that somebody may copy after a step to which not everybody has come."""
        undecided, last = self._population.undecided(), self._n_steps - 1
        all_steps = range(min(undecided.values(), default=last), last)
        steps = [step for step in all_steps if not self._population.is_complete(step)]
        if self._exploit != "tournament":
            return {o.job for step in steps for o in self._best(step, self._population.size)}
        found = set()
        for step in steps:
            alive, late = self._alive(step), (i for i, first in undecided.items() if first <= step)
            for index in late:
                found |= {o.job for o in _opponents(index, alive, self._order(index, step))}
        return found

    def _rng(self, index: int, step: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, index, step])

    def _best(self, step: int, n_results: int) -> list[Observation]:
        """Living members that a worse one may copy once `n_results` have reached the step."""
        return self._alive(step)[: self._n_replaced(n_results)]

    def _order(self, index: int, step: int) -> list[int]:
        """Each member's place in the order in which one looks for an opponent after a step."""
        if (index, step) not in self._orders:
            self._orders[index, step] = self._shuffled(self._rng(index, step + 1))
        return self._orders[index, step]

    def _shuffled(self, rng: np.random.Generator) -> list[int]:
        return [int(place) for place in np.argsort(rng.permutation(len(self._population.members)))]

    def _alive(self, step: int) -> list[Observation]:
        return [o for o in self._population.results(step) if o.score is not None]

    def _n_replaced(self, n_results: int) -> int:
        """A share of the population, but at most half of those that are there."""
        return max(1, min(int(self._quantile * self._population.size), n_results // 2))

    # Decisions

    def _propose(self, index: int) -> Proposal | None:
        """What a member does next; None when all are dead, itself after a second start."""
        member = self._population.members[index]
        step = member.next_step
        if step == 0:
            return self._proposal(index, 0, self._fresh(index), None, {"op": "start"})
        own = member.last
        rng = self._rng(index, step)
        donor = self._donor(own, step - 1, rng)
        if donor is None and own.score is None:  # nobody is alive
            if own.proposal.parent is None and member.n_starts > 1:
                return None
            return self._proposal(index, step, self._fresh(index), None, {"op": "start"})
        if donor is None:
            return self._stay(own)
        return self._copy(own, donor, rng)

    def _stay(self, own: Observation) -> Proposal:
        """A member goes on as it is."""
        trained = own.proposal
        values, info = trained.values, {"op": "continue"}
        return self._proposal(trained.trial, trained.step + 1, values, own.job, info)

    def _copy(self, own: Observation, donor: Observation, rng: np.random.Generator) -> Proposal:
        """A member takes weights and values of another one, and moves the values."""
        step = own.proposal.step + 1
        is_last = step == self._n_steps - 1
        values, moves = self._explore(donor.proposal.values, rng, is_last=is_last)
        info = {"op": "exploit", "donor": donor.proposal.trial, "moves": moves}
        if unproven := self._explore.unproven(donor.proposal.values, values):
            info["unproven"] = unproven
        return self._proposal(own.proposal.trial, step, values, donor.job, info)

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
        members = self._population.members
        number = member + members[member].n_starts * len(members)
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
        results = self._population.results(step)
        if self._exploit == "tournament":
            donors = _opponents(own.proposal.trial, self._alive(step), self._shuffled(rng))
        else:
            donors = [o for o in self._best(step, len(results)) if o.job != own.job]
        if not donors:
            return None
        drawn = donors[int(rng.integers(len(donors)))]
        if own.score is None:
            return drawn
        if step < self._burn_in_steps or self._exploit == "none":
            return None
        if self._exploit == "tournament":
            return drawn if rank(drawn) < rank(own) else None
        bottom = results[-self._n_replaced(len(results)) :]
        return drawn if own.job in [o.job for o in bottom] else None


def _opponents(
    index: int, alive: Sequence[Observation], places: Sequence[int]
) -> list[Observation]:
    """The one whom a member meets in a tournament, if there is one.

    It is the first in an order of the member's own, so that few checkpoints are kept for those who
    lag behind.
    """
    others = [o for o in alive if o.proposal.trial != index]
    return [min(others, key=lambda o: places[o.proposal.trial])] if others else []


def _check_population(
    size: int, n_candidates: int, quantile: float, min_peers: float | None
) -> None:
    if size < 2:
        raise ValueError(f"population_size={size}: at least 2 members are needed, better 4")
    if n_candidates < size:
        raise ValueError(
            f"init_candidates={n_candidates}: expected at least population_size={size}, or null"
        )
    if not 0 < quantile <= 0.5:
        raise ValueError(f"quantile={quantile}: expected a share in (0, 0.5]")
    if min_peers is not None and not 0 < min_peers <= 1:
        raise ValueError(f"min_peers={min_peers}: expected a share in (0, 1]")


def _check_steps(step_epochs: int | None, burn_in_steps: int, score_window: int) -> None:
    if (step_epochs is not None and step_epochs < 1) or burn_in_steps < 0:
        raise ValueError(
            f"step_epochs={step_epochs}, burn_in_steps={burn_in_steps}: expected at least 1"
            " epoch, and 0 steps or more"
        )
    if score_window < 1:
        raise ValueError(f"score_window={score_window}: expected at least 1 step")


def _check_choices(exploit: str, keep: str) -> None:
    if exploit not in EXPLOITS:
        raise ValueError(f"exploit={exploit!r} is unknown: one of {', '.join(EXPLOITS)}")
    if keep not in KEEPS:
        raise ValueError(f"keep={keep!r} is unknown: one of {', '.join(KEEPS)}")
