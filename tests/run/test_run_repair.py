"""A journal of which one bit was flipped, anywhere."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hydra_plugins.tune_sweeper.run import _journal
from hydra_plugins.tune_sweeper.run._journal import JournalDamaged
from hydra_plugins.tune_sweeper.run._record import FILE, End, Record
from hydra_plugins.tune_sweeper.run._repair import repair
from hydra_plugins.tune_sweeper.search._trial import Proposal

N_JOBS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The journal of a sweep of four jobs, one after the other."""
    folder = tmp_path_factory.mktemp("whole")
    record = Record.create(folder, {"seed": 7, "fingerprint": {"space": {"x": [0.0, 1.0]}}})
    for number in range(N_JOBS):
        job = record.start(record.ask(Proposal(number, {"x": number / 8})))
        record.end(End(job.number, job.attempt, "done", 1.5))
    record.close()
    return (folder / FILE).read_bytes()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bit_costs_no_other_record(
    whole: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    """It is noticed wherever it is; repair loses its own record and what that makes senseless."""
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / FILE).write_bytes(damaged)
    before = [_journal.decode(line) or {} for line in whole.splitlines()]
    touched = before[whole[:place].count(b"\n")]
    is_newline = whole[place : place + 1] == b"\n"

    try:
        kept = _journal.read(tmp_path / FILE).records
        assert kept == before[: len(kept)] and len(before) - len(kept) <= 1 + is_newline
    except JournalDamaged:
        assert repair(tmp_path) is not None
        kept = _journal.read(tmp_path / FILE).records
        lost = [] if is_newline or touched["type"] == "header" else [touched]
        if touched in lost and touched["type"] == "ask":
            lost += [r for r in before if r.get("job") == touched["job"] and r != touched]
        assert [_facts(r) for r in kept] == [_facts(r) for r in before if r not in lost]


def _facts(record: dict[str, object]) -> dict[str, object]:
    """All but the number, which a repaired journal counts anew."""
    return {k: v for k, v in record.items() if k != "seq"}
