"""A pool of workers on a Ray cluster, with the interface of the pool on this machine. No Hydra.

    submit -> queue -> an idle actor -> its worker -> Ended
                 \\-> or another actor is asked for; the queue waits while the cluster is full

Each job is one call, each actor has at most one: what is lost with an actor is its job alone.
Nothing is polled: Ray's futures ring a bell when an actor is there or a job has ended. Only when
it was silent for long is Ray asked whether it forgot to.
"""

import contextlib
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayTaskError

from ._ray_actor import Setup, SlotActor
from ._ray_cluster import Share
from ._workers import Ended, PoolBroken

_LOOK_AGAIN_S = 10.0  # when nothing was heard for so long
_SIGNALS = "signals"  # calls of this group run while a job runs
_Actor = ray.remote(max_restarts=0, concurrency_groups={_SIGNALS: 1})(SlotActor)


@dataclass(frozen=True)
class _Running:
    """A job in its slot; the key tells its signals from those of an earlier attempt."""

    key: int
    actor: Any


class RayPool:
    """Runs jobs in actors, at most one in each."""

    def __init__(self, share: Share, setup: Setup) -> None:
        self._share = share
        self._setup = ray.put(setup)
        self._keys = itertools.count()
        self._queue: deque[tuple[int, bytes]] = deque()
        self._coming: set[Any] = set()  # actors that Ray has not placed yet
        self._idle: list[Any] = []
        self._busy: dict[int, _Running] = {}  # by job
        self._expected: dict[Any, Callable[[Future[Any]], list[Ended]]] = {}  # by Ray's reference
        self._news: SimpleQueue[Callable[[], list[Ended]]] = SimpleQueue()
        self._bell, self._ring = multiprocessing.Pipe(duplex=False)

    @property
    def n_running(self) -> int:
        """How many jobs were submitted and have not ended."""
        return len(self._queue) + len(self._busy)

    @property
    def waiting(self) -> set[int]:
        """Jobs that have not begun: the cluster has no room for them yet."""
        return {number for number, _ in self._queue}

    def submit(self, number: int, message: bytes) -> str:
        """Runs a job as soon as there is an actor for it, in the order of submission."""
        self._queue.append((number, message))
        self._begin_waiting()
        if len(self._coming) < len(self._queue):
            self._ask_for_actor()
        return "ray"

    def wait(self, timeout_s: float | None = None, wake_fd: int | None = None) -> list[Ended]:
        """Blocks until jobs ended or began, the time is over, or `wake_fd` can be read.

        Raises:
            PoolBroken: a node cannot run any job of this pool.
        """
        if not self.n_running:
            return []
        sources: list[Any] = [self._bell] if wake_fd is None else [self._bell, wake_fd]
        block_s = _LOOK_AGAIN_S if timeout_s is None else min(timeout_s, _LOOK_AGAIN_S)
        if not wait(sources, block_s):
            self._look_again()
        ended = []
        while self._bell.poll():
            self._bell.recv_bytes()
            ended += self._news.get()()
        return ended

    def signal(self, number: int, signum: int) -> None:
        """Sends a signal to a job's process; one that has not begun never will."""
        if number in self._busy:
            running = self._busy[number]
            signals = running.actor.signal.options(concurrency_group=_SIGNALS)
            signals.remote(running.key, signum)
        elif number in self.waiting:
            self._queue = deque(item for item in self._queue if item[0] != number)
            self._tell(lambda: [Ended(number, None, "it was ended before it began")])

    def abandon(self) -> None:
        """Nothing more: an actor that is killed ends whatever it imports."""

    def close(self) -> None:
        """Ends all actors, and so their workers."""
        actors = [*self._coming, *self._idle, *(r.actor for r in self._busy.values())]
        self._queue, self._coming, self._idle, self._busy = deque(), set(), [], {}
        self._expected.clear()
        self._ring.close()
        if ray.is_initialized():  # else it is over already, and asking would start a new cluster
            for actor in actors:
                ray.kill(actor)

    # Actors

    def _ask_for_actor(self) -> None:
        options = {"num_cpus": self._share.cpus, "num_gpus": self._share.gpus}
        actor = _Actor.options(**options).remote()
        self._coming.add(actor)
        self._listen(actor.open.remote(self._setup), partial(self._placed, actor))

    def _placed(self, actor: Any, label: "Future[str]") -> list[Ended]:
        self._coming.discard(actor)
        error = label.exception()
        if error is None:
            self._idle.append(actor)
            self._begin_waiting()
            return []
        _check_setup(error)
        # A node that died in between: the sweeper counts how often that happens to a job.
        return [Ended(self._queue.popleft()[0], None, _loss(error))] if self._queue else []

    def _begin_waiting(self) -> None:
        while self._queue and self._idle:
            number, message = self._queue.popleft()
            running = _Running(next(self._keys), self._idle.pop())
            self._busy[number] = running
            ref = running.actor.run.remote(running.key, message)
            self._listen(ref, partial(self._ended, number))

    def _ended(self, number: int, future: "Future[Ended]") -> list[Ended]:
        actor = self._busy.pop(number).actor
        error = future.exception()
        if error is not None:
            _check_setup(error)
            return [Ended(number, None, _loss(error))]
        self._idle.append(actor)
        self._begin_waiting()
        ended = future.result()
        return [Ended(number, ended.answer, ended.loss)]

    # News

    def _listen(self, ref: Any, then: Callable[["Future[Any]"], list[Ended]]) -> None:
        self._expected[ref] = then
        ref.future().add_done_callback(lambda future: self._tell(partial(self._hear, ref, future)))

    def _hear(self, ref: Any, future: "Future[Any]") -> list[Ended]:
        """What was expected of a reference, the first time that it is heard of."""
        then = self._expected.pop(ref, None)
        return [] if then is None else then(future)

    def _look_again(self) -> None:
        """Asks for what Ray should have told: once in sixty sweeps it did not call back."""
        refs = list(self._expected)
        for ref in ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else ():
            future: Future[Any] = Future()
            try:
                future.set_result(ray.get(ref))
            except Exception as error:
                future.set_exception(error)
            self._tell(partial(self._hear, ref, future))

    def _tell(self, news: Callable[[], list[Ended]]) -> None:
        """In any thread; what is to be done is done by the one that waits."""
        self._news.put(news)
        with contextlib.suppress(OSError):  # the pool was closed
            self._ring.send_bytes(b"!")


def _check_setup(error: BaseException) -> None:
    """What our own code raised, every job would live to see.

    Raises:
        PoolBroken: with the cause, in its own words.
    """
    if isinstance(error, RayTaskError):
        raise PoolBroken(str(error.cause)) from error
    if isinstance(error, ActorDiedError) and error.actor_init_failed:
        raise PoolBroken(f"a worker of Ray cannot be made:\n{error}") from error


def _loss(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"its Ray node or process was lost: {lines[-1] if lines else type(error).__name__}"
