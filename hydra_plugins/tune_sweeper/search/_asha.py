"""Asynchronous successive halving: a short training for everyone, a longer one for the best.

Li et al., "A system for massively parallel hyperparameter tuning" (MLSys 2020), algorithm 2. It is
the promotion type: a training waits at its rung, as a checkpoint, until it is known to be among the
best there, and only then goes on. Nothing that runs is ever stopped.
"""

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ._ladder import Ladder, rung_epochs
from ._proposer import DesignProposer, ModelProposer, Proposer
from ._space import Space, Values
from ._surrogate import Row
from ._trial import Count, Observation, Proposal

PROPOSERS = ("random", "bayes")
_N_WAITING = 20  # that wait at a rung and count as if they had gone on
_FIRST_SHARE = 1 / 27  # of a full training: three halvings by 3 come before it


class Asha:
    """Successive halving that waits for nobody.

    A free slot promotes the best training that belongs to the best share of the highest rung where
    one waits; if none does, it starts a new configuration. Dead trainings rank last. When nothing
    is left to start, the best of the highest rung goes on, so that a full training ends the search.

    `proposer=bayes` chooses new configurations by a Gaussian process over the results of all rungs,
    where they are expected to be best at full length. `brackets` share the epochs evenly between
    searches that start at the first rung, at the second, ... (Li et al., "Hyperband", JMLR 2018).
    A `progressive` search opens a rung only while the two below it disagree about who is better.

    Raises:
        ValueError: settings that contradict each other or the number of epochs.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        epochs: int,
        n_trials: int | None,
        initial: Sequence[Values] = (),
        min_epochs: int | None = None,
        max_epochs: int | None = None,
        max_epochs_total: int | None = None,
        eta: float = 3.0,
        keep: float | None = None,
        brackets: int = 1,
        proposer: str = "random",
        progressive: bool = False,
    ) -> None:
        last = epochs if max_epochs is None else max_epochs
        first = max(1, round(last * _FIRST_SHARE)) if min_epochs is None else min_epochs
        _check_lengths(epochs, first, last, max_epochs_total)
        _check_shares(eta, keep, proposer)
        self._epochs_at = rung_epochs(first, last, eta)
        _check_brackets(brackets, self._epochs_at, progressive=progressive)
        self._space = space
        self._budget = math.inf if max_epochs_total is None else max_epochs_total
        share = 1.0 / eta if keep is None else keep
        n = len(self._epochs_at)
        self._ladders = [
            Ladder(n, start=start, keep=share, is_progressive=progressive)
            for start in range(brackets)
        ]
        self._spent = [0] * brackets  # epochs
        self._bracket_of: dict[int, int] = {}  # by trial
        self._proposer: Proposer = (
            ModelProposer(space, seed=seed, n_trials=n_trials, initial=initial)
            if proposer == "bayes"
            else DesignProposer(space, seed=seed, initial=initial)
        )
        self._busy: dict[int, Proposal] = {}  # by trial
        self._told: list[Observation] = []  # in an order that does not depend on when they came
        self._count = Count(n_trials)

    def ask(self, n: int) -> list[Proposal]:
        """Promotions first, then new configurations, as long as the budget lasts."""
        proposals: list[Proposal] = []
        while len(proposals) < n:
            proposal = self._next()
            if proposal is None:
                break
            self._take(proposal)
            proposals.append(proposal)
        return proposals

    def accept(self, proposals: Sequence[Proposal]) -> None:
        """Takes over what an earlier process promoted and started."""
        for proposal in proposals:
            if proposal.parent is None:
                self._proposer.accept(proposal.values, proposal.info)
            self._take(proposal)

    def tell(self, observations: Sequence[Observation]) -> None:
        """Takes note of trainings that reached their rung, or died on the way."""
        for observation in observations:
            self._busy.pop(observation.proposal.trial, None)
            self._ladders[self._bracket_of[observation.proposal.trial]].tell(observation)
            bisect.insort(self._told, observation, key=_place)

    def needed_checkpoints(self) -> set[int]:
        """Those of everyone who may be promoted some day."""
        n_most = self._n_most
        return {job for ladder in self._ladders for job in ladder.needed(n_most)}

    @property
    def _n_most(self) -> int | None:
        """How many configurations there can be in the end; None: no limit."""
        if math.isinf(self._budget):
            return self._count.limit
        n_more = int(self._budget - sum(self._spent)) // self._epochs_at[0]
        n_affordable = self._count.n_trials + n_more
        limit = self._count.limit
        return n_affordable if limit is None else min(limit, n_affordable)

    # What comes next

    def _next(self) -> Proposal | None:
        promotable = (o for ladder in self._ladders for o in ladder.promotable())
        return self._promotion(promotable) or self._start() or self._last_promotion()

    def _promotion(self, candidates: Iterable[Observation]) -> Proposal | None:
        """The first one that the budget allows."""
        for observation in candidates:
            trained = observation.proposal
            level, info = trained.step + 1, {"op": "promote"}
            until, values = self._epochs_at[level], trained.values
            proposal = Proposal(trained.trial, values, level, observation.job, until, info)
            if self._affords(proposal):
                return proposal
        return None

    def _start(self) -> Proposal | None:
        """A new configuration, in the bracket that has had the fewest epochs."""
        level = self._ladders[self._spent.index(min(self._spent))].start
        empty = Proposal(self._count.next_trial, {}, level, None, self._epochs_at[level])
        if self._count.is_full or not self._affords(empty):
            return None
        found = self._proposer.next(self._count.next_trial, self._rows, self._pending)
        if found is None:
            return None
        values, info = found
        return replace(empty, values=values, info=info)

    def _last_promotion(self) -> Proposal | None:
        """Nobody comes any more: the best goes on, once nobody is on the way."""
        if self._busy:
            return None
        return self._promotion(o for ladder in self._ladders for o in ladder.survivors())

    def _affords(self, proposal: Proposal) -> bool:
        """Whether the budget allows the job, and one full training at the end."""
        if math.isinf(self._budget):
            return True
        waiting = (ladder.furthest() for ladder in self._ladders)
        furthest = max(proposal.step, *waiting, *(p.step for p in self._busy.values()))
        missing = self._epochs_at[-1] - self._epochs_at[furthest]
        return sum(self._spent) + self._n_epochs(proposal) + missing <= self._budget

    def _n_epochs(self, proposal: Proposal) -> int:
        """How long the job trains."""
        before = 0 if proposal.parent is None else self._epochs_at[proposal.step - 1]
        return self._epochs_at[proposal.step] - before

    # What is known

    def _take(self, proposal: Proposal) -> None:
        trial, level = proposal.trial, proposal.step
        if proposal.parent is None:
            self._bracket_of[trial] = level  # bracket b starts at level b
            self._count.add(trial)
        else:
            self._ladders[self._bracket_of[trial]].go_on(trial, level - 1)
        bracket = self._bracket_of[trial]
        self._spent[bracket] += self._n_epochs(proposal)
        self._busy[trial] = proposal

    def _rows(self) -> list[Row]:
        """Every result at every rung; configurations of another space do not count."""
        known = (o for o in self._told if self._space.contains(o.proposal.values))
        return [Row(o.proposal.values, o.score, (self._away(o.proposal.step),)) for o in known]

    def _pending(self) -> list[Values]:
        """Configurations of all that run or wait: what they promise will come by itself.

        Otherwise the model would start their likes again and again, for a full training to learn
        from that they never get.
        """
        latest = {o.proposal.trial: o for o in self._told}
        last = len(self._epochs_at) - 1
        waiting = {
            trial: o.proposal.values
            for trial, o in latest.items()
            if o.score is not None and o.proposal.step < last
        }
        recent = {trial: waiting[trial] for trial in sorted(waiting)[-_N_WAITING:]}
        unended = recent | {p.trial: p.values for p in self._busy.values()}
        values = (unended[trial] for trial in sorted(unended))
        return [v for v in values if self._space.contains(v)]

    def _away(self, level: int) -> float:
        """How far a level is from a full training: 0 there, 1 at the first level."""
        first, last = self._epochs_at[0], self._epochs_at[-1]
        return math.log(last / self._epochs_at[level]) / max(math.log(last / first), 1e-9)


def _place(observation: Observation) -> tuple[int, int]:
    return observation.proposal.trial, observation.proposal.step


def _check_lengths(epochs: int, first: int, last: int, total: int | None) -> None:
    if not 1 <= first <= last <= epochs:
        raise ValueError(
            f"min_epochs={first}, max_epochs={last}: expected 1 <= min_epochs <= max_epochs <="
            f" {epochs}, the app's epochs"
        )
    if total is not None and total < last:
        raise ValueError(
            f"max_epochs_total={total}: expected at least {last}, the epochs of one full training"
        )


def _check_shares(eta: float, keep: float | None, proposer: str) -> None:
    if eta <= 1:
        raise ValueError(f"eta={eta:g}: expected a number above 1, for instance 3")
    if keep is not None and not 0 < keep < 1:
        raise ValueError(f"keep={keep:g}: expected a share between 0 and 1, for instance 0.5")
    if proposer not in PROPOSERS:
        raise ValueError(f"proposer={proposer!r} is unknown: one of {', '.join(PROPOSERS)}")


def _check_brackets(brackets: int, epochs_at: Sequence[int], *, progressive: bool) -> None:
    if not 1 <= brackets <= len(epochs_at):
        raise ValueError(
            f"brackets={brackets}: expected 1 to {len(epochs_at)}, as trainings are compared after"
            f" {', '.join(map(str, epochs_at))} epochs"
        )
    if progressive and brackets > 1:
        raise ValueError(f"progressive=true has one bracket, not brackets={brackets}")
