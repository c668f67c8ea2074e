"""How the demo judges traffic: pure, so that the judge itself can be judged."""

from __future__ import annotations

from proofbeat.demo.ledger import Closure, Ledger
from proofbeat.demo.load import RECORD, Record, pack, unpack


def ledger(*records: Record) -> Ledger:
    made = Ledger()
    made.add(records)
    return made


def test_a_record_survives_the_pipe() -> None:
    record = Record(3, True, 1.25, 2.5)
    assert unpack(pack(record)) == record
    assert len(pack(record)) == RECORD.size


def test_a_request_that_began_after_the_closing_and_was_served_is_a_leak() -> None:
    found = ledger(Record(0, True, 9.9, 10.1), Record(0, True, 10.1, 10.2), Record(0, False, 10.3, 10.4))
    found.closures.append(Closure(10.0, 20.0))
    assert found.leaked() == [(Record(0, True, 10.1, 10.2), Closure(10.0, 20.0))]


def test_a_request_that_is_served_after_the_opening_is_none() -> None:
    found = ledger(Record(0, True, 20.0, 20.1), Record(0, True, 19.99, 20.05))
    found.closures.append(Closure(10.0, 20.0))
    assert found.leaked() == []


def test_the_closing_is_complete_when_the_last_flow_refused() -> None:
    found = ledger(Record(0, False, 10.0, 10.005), Record(1, True, 10.0, 10.01), Record(1, False, 10.01, 10.02))
    assert found.refused_after((0, 1), 10.0) == (10.02 - 10.0) * 1000


def test_a_flow_that_never_refused_is_no_closing() -> None:
    assert ledger(Record(0, False, 10.0, 10.1), Record(1, True, 10.0, 10.1)).refused_after((0, 1), 10.0) is None


def test_recovery_takes_every_flow() -> None:
    found = ledger(Record(0, True, 30.0, 30.1), Record(1, False, 30.0, 30.2), Record(1, True, 30.3, 30.5))
    assert found.recovered_after((0, 1), 30.0) == 500.0
    assert found.recovered_after((0, 1, 2), 30.0) is None


def test_one_refusal_breaks_the_quiet() -> None:
    found = ledger(Record(0, True, 1.0, 1.1), Record(0, False, 1.2, 1.3))
    assert found.refusals((0,), 0.9, 1.15) == []
    assert found.refusals((0,), 0.9, 2.0) == [Record(0, False, 1.2, 1.3)]
    assert found.refusals((1,), 0.9, 2.0) == []
