"""The members of a population: how far each has come, who is better, who may be copied."""

import bisect
from dataclasses import dataclass, field, replace

from ._trial import Observation, Proposal, rank


@dataclass
class Member:
    """What one member has done so far."""

    results: dict[int, Observation] = field(default_factory=dict)  # by step, scores averaged
    is_busy: bool = False
    n_starts: int = 0  # from scratch
    next_step: int = 0  # the one after its last result

    @property
    def last(self) -> Observation:
        """Its last result."""
        return self.results[self.next_step - 1]

    def add(self, observation: Observation) -> None:
        """Takes note of a step's result; one that was lost for a while may come late."""
        step = observation.proposal.step
        self.results[step] = observation
        self.next_step = max(self.next_step, step + 1)

    @property
    def undecided(self) -> int:
        """The last step after which it has yet to decide what to do."""
        return self.next_step if self.is_busy else self.next_step - 1


class Population:
    """`size` members, at first `n_candidates` of which the best become the population.

    Results are compared with those of the same step alone, each averaged with up to `window - 1`
    earlier ones of its lineage. All is a function of what was told, in whichever order.
    """

    def __init__(self, size: int, *, n_candidates: int, n_steps: int, window: int) -> None:
        self.size = size
        self.members = [Member() for _ in range(n_candidates)]
        self._n_steps = n_steps
        self._window = window
        self._raw: dict[int, Observation] = {}  # by job
        self.most_busy = 0  # at once, so far

    def __len__(self) -> int:
        """How many jobs there will be, unless members start anew."""
        return len(self.members) + self.size * (self._n_steps - 1)

    def start(self, proposal: Proposal) -> None:
        """Takes note of a step that runs now."""
        member = self.members[proposal.trial]
        member.is_busy = True
        member.n_starts += proposal.parent is None
        self.most_busy = max(self.most_busy, self.n_busy)

    def end(self, observation: Observation) -> None:
        """Takes note of an ended step; who died in the very first one starts anew, once."""
        member = self.members[observation.proposal.trial]
        member.is_busy = False
        self._raw[observation.job] = observation
        is_stillborn = observation.score is None and observation.proposal.step == 0
        if not is_stillborn or member.n_starts > 1:
            member.add(replace(observation, score=self._average(observation)))

    def ready(self, n_peers: int) -> list[int]:
        """Members that are free and have as many results to compare with, lowest step first."""
        reached = sorted(member.next_step for member in self.members)
        found = [i for i, m in self._staying().items() if self._is_ready(m, n_peers, reached)]
        return sorted(found, key=lambda m: (self.members[m].next_step, m))

    def results(self, step: int) -> list[Observation]:
        """What the members reached at a step, best first, the dead last."""
        staying = self._staying().values()
        return sorted((m.results[step] for m in staying if step in m.results), key=rank)

    def is_complete(self, step: int) -> bool:
        """Whether the whole population has a result of this step."""
        return all(step in member.results for member in self._staying().values())

    @property
    def n_busy(self) -> int:
        """How many members train now."""
        return sum(m.is_busy for m in self.members)

    def is_hindmost(self, index: int) -> bool:
        """Whether nobody trains an earlier step than its next one."""
        step = self.members[index].next_step
        return all(step <= m.next_step for m in self.members if m.is_busy)

    def undecided(self) -> dict[int, int]:
        """For each member that has yet to decide: the first step after which it will."""
        return {i: max(0, member.undecided) for i, member in self._unfinished().items()}

    def waiting(self) -> dict[int, Observation]:
        """The last result of each member that has yet to go on."""
        unfinished = self._unfinished().items()
        return {i: m.last for i, m in unfinished if m.results and not m.is_busy}

    def last_jobs(self) -> set[int]:
        """The last job of each member."""
        return {m.last.job for m in self._staying().values() if m.results}

    def _unfinished(self) -> dict[int, Member]:
        return {i: m for i, m in self._staying().items() if m.next_step < self._n_steps}

    def _is_ready(self, member: Member, n_peers: int, reached: list[int]) -> bool:
        step = member.next_step
        if member.is_busy or step >= self._n_steps:
            return False
        if step == 0:
            return member.n_starts == 0 or n_peers < self.size or self._has_begun
        # Who belongs to the population is known once all candidates have trained.
        n_needed = len(self.members) if step == 1 and self._has_candidates else n_peers
        n_there = len(reached) - bisect.bisect_left(reached, step)
        return n_there >= n_needed

    @property
    def _has_begun(self) -> bool:
        """Whether all members have come to the end of a first step, dead or alive.

        A whole population starts dead ones anew together, whoever ended first.
        """
        return all(m.n_starts > 1 or (m.n_starts == 1 and not m.is_busy) for m in self.members)

    @property
    def _has_candidates(self) -> bool:
        return len(self.members) > self.size

    def _staying(self) -> dict[int, Member]:
        """Members by index, but for candidates that are known not to be among the best."""
        if not self._has_candidates:
            return dict(enumerate(self.members))
        first = sorted((m.results[0] for m in self.members if 0 in m.results), key=rank)
        out = {o.proposal.trial for o in first[self.size :]}
        return {i: m for i, m in enumerate(self.members) if i not in out}

    def _average(self, observation: Observation) -> float | None:
        if observation.score is None:
            return None
        scores, parent = [observation.score], observation.proposal.parent
        while parent is not None and len(scores) < self._window:
            earlier = self._raw.get(parent)
            if earlier is None or earlier.score is None:  # its end was lost with a journal's part
                break
            scores.append(earlier.score)
            parent = earlier.proposal.parent
        return sum(scores) / len(scores)
