"""When a sweep ends by itself, judged from the ends of its jobs one by one."""

import bisect
import math
import time
from dataclasses import dataclass, field

from ._objective import Objective
from ._record import TIME_S, End

FAIL_FAST, MAX_FAILURES = "fail_fast", "max_failures"  # reasons that are failures of the sweep
_ENDS_BEFORE_SHARE = 5  # a share of failures means nothing before so many ends


@dataclass(frozen=True)
class Rules:
    """When a sweep ends, and how much runs and stays."""

    n_parallel: int
    repeats: int = 1
    retries: int = 0  # of a job that the world broke
    vanish_limit: int | None = None  # of sweeps' processes that ended while one job ran in them
    can_resume: bool = False  # whether a job continues the checkpoint of its earlier attempt
    fail_fast: int | None = None  # the first so many ends all failed
    max_failures: float | None = None  # a number of failed jobs, below 1 a share of the ended ones
    replaces_dead: bool = False  # whether a loss that is no number is the strategy's business
    time_s: float | None = None  # of this process
    target: float | None = None  # in the user's direction
    patience: int | None = None  # so many configurations without a new best
    keep_checkpoints: int | None = None  # of the best jobs; None: delete nothing


@dataclass
class Progress:
    """What the rules look at, kept up to date at a cost that does not grow with the sweep."""

    rules: Rules
    objective: Objective
    n_ended: int = 0  # jobs
    n_failed: int = 0
    best: tuple[float, int] | None = None  # value in the user's direction, first job
    n_since_best: int = 0  # configurations
    leaders: list[tuple[float, int]] = field(default_factory=list)  # (score, job) to keep
    _began: float = field(default_factory=time.monotonic)

    def add(self, end: End) -> None:
        """Counts one more job that is over."""
        self.n_ended += 1
        is_dead = not math.isfinite(end.metrics.get(self.objective.name, 0.0))
        is_failure = end.value is None and not (is_dead and self.rules.replaces_dead)
        self.n_failed += is_failure

    def rank(self, job: int, score: float) -> None:
        """Ranks a configuration, all of whose repeats are done; `job` is the first of them."""
        value = self.objective.score(score)  # turning the sign twice gives the value back
        is_best = self.objective.is_better(value, self.best[0] if self.best else None)
        self.best = (value, job) if is_best else self.best
        self.n_since_best = 0 if is_best else self.n_since_best + 1
        bisect.insort(self.leaders, (score, job))
        del self.leaders[self.rules.keep_checkpoints or 0 :]

    def reason_to_stop(self) -> str | None:
        """The first rule that says stop."""
        checks = {
            FAIL_FAST: self._all_failed(),
            MAX_FAILURES: self._too_many_failed(),
            TIME_S: self._is_late(),
            "target": self._hit_target(),
            "patience": self._lost_patience(),
        }
        return next((reason for reason, stops in checks.items() if stops), None)

    def _all_failed(self) -> bool:
        limit = self.rules.fail_fast
        return limit is not None and self.n_failed == self.n_ended >= limit

    def _too_many_failed(self) -> bool:
        limit = self.rules.max_failures
        if limit is None or limit >= 1:
            return limit is not None and self.n_failed >= limit
        return self.n_ended >= _ENDS_BEFORE_SHARE and self.n_failed > limit * self.n_ended

    def _is_late(self) -> bool:
        limit = self.rules.time_s
        return limit is not None and time.monotonic() - self._began >= limit

    def _hit_target(self) -> bool:
        target, best = self.rules.target, self.best
        if target is None or best is None:
            return False
        return not self.objective.is_better(target, best[0])

    def _lost_patience(self) -> bool:
        return self.rules.patience is not None and self.n_since_best >= self.rules.patience
