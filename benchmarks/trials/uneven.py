"""How much of the time the slots have work while trials of 0.5 to 5 s take turns on them."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .measure import APP, N_SLOTS, OURS, Options, Row, cost, in_turn, sweep_command

_SHORTEST_S, _LONGEST_S = 0.5, 5.0


@dataclass(frozen=True)
class Span:
    """From the record of a trial's start to that of its end; its task ran for `task_s` of it."""

    start: float
    end: float
    task_s: float


def rows(options: Options) -> list[Row]:
    """Shares of the slots' time until the last two trials start."""
    n = 10 if options.is_quick else 60
    found = in_turn(1, {"uneven": lambda folder: _run(folder, n)})["uneven"]
    held = [_share(spans, is_strict=False) for spans in found]
    inside = [_share(spans, is_strict=True) for spans in found]
    return [
        Row(f"{n} trials: slots have a trial", "share", held, ">= 0.95"),
        Row(f"{n} trials: slots are inside a task", "share", inside),
    ]


def _run(folder: Path, n: int) -> list[Span]:
    step = (_LONGEST_S - _SHORTEST_S) / (n - 1)
    seconds = [_SHORTEST_S + step * i for i in range(n)]
    random.Random(0).shuffle(seconds)
    typed = ",".join(f"{s:.3f}" for s in seconds)
    cost(sweep_command(APP, "hydra/sweeper=grid", *OURS, f"sleep_s={typed}"), folder)
    return sorted(spans_of(folder / "here"), key=lambda span: span.start)


def spans_of(folder: Path) -> Iterator[Span]:
    """The trials of a sweep, from its journal."""
    records = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    starts = {r["job"]: r["time"] for r in records if r["type"] == "start"}
    for end in (r for r in records if r["type"] == "end"):
        yield Span(starts[end["job"]], end["time"], end["seconds"])


def _share(spans: list[Span], *, is_strict: bool) -> float:
    """Strictly, a slot is busy only while the user's task runs, not while Hydra composes for it."""
    begin, until = spans[0].start, spans[-2].start
    busy = 0.0
    for span in spans:
        start = span.end - span.task_s if is_strict else span.start
        busy += max(0.0, min(span.end, until) - start)
    return busy / (N_SLOTS * (until - begin))
