"""Stores that an earlier Proofbeat wrote go on; those of a later one are refused."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from attestation.errors import Unavailable
from attestation.instance import InstanceId
from attestation.trust import Tier
from authority.store import migrations
from authority.store.records import Accepted, Candidate, State
from authority.store.store import Store

FIRST = """
CREATE TABLE instances (
  instance VARCHAR(34) NOT NULL PRIMARY KEY, registration VARCHAR(512) NOT NULL, thumbprint VARCHAR(64) NOT NULL,
  public_key BLOB NOT NULL, ticket VARCHAR(64) NOT NULL, ticket_before VARCHAR(64) NOT NULL,
  enrolled_ms BIGINT NOT NULL, ended_clean BOOLEAN NOT NULL, full_required BOOLEAN NOT NULL,
  quarantined BOOLEAN NOT NULL, "release" TEXT NOT NULL, sequence BIGINT NOT NULL, generation BIGINT NOT NULL,
  tier INTEGER NOT NULL, lease_end_ms BIGINT NOT NULL, last_round_ms BIGINT NOT NULL);
CREATE TABLE rounds (
  instance VARCHAR(34) NOT NULL, sequence BIGINT NOT NULL, evidence VARCHAR(64) NOT NULL, tier INTEGER NOT NULL,
  result BLOB NOT NULL, leaf_key BLOB NOT NULL, serial VARCHAR(40) NOT NULL, not_before BIGINT NOT NULL,
  lease_end_ms BIGINT NOT NULL, at_ms BIGINT NOT NULL, PRIMARY KEY (instance, sequence));
"""
"""The tables as version 1 made them; the others have not changed since."""


def instance(number: int) -> InstanceId:
    return InstanceId(f"i-{number:032x}")


def add(db: sqlite3.Connection, number: int, *, quarantined: bool, lease_end_ms: int, last_round_ms: int) -> None:
    row = (instance(number).value, "web", "a" * 64, b"key", "t", "", 5, False, False, quarantined, "", 1, 0, 2)
    marks = ", ".join("?" * 16)
    db.execute(f"INSERT INTO instances VALUES ({marks})", (*row, lease_end_ms, last_round_ms))  # noqa: S608 - marks only


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "store.sqlite"
    with sqlite3.connect(file) as db:
        db.executescript(FIRST)
        add(db, 1, quarantined=False, lease_end_ms=99, last_round_ms=50)
        add(db, 2, quarantined=True, lease_end_ms=99, last_round_ms=50)
        add(db, 3, quarantined=False, lease_end_ms=0, last_round_ms=0)
    return file


def test_a_store_from_before_history_keeps_its_instances_and_begins_one(path: Path) -> None:
    store = Store(path)
    store.open()
    found = {each.instance: each for each in asyncio.run(store.instances({"web": "spiffe://x.example/web"}))}
    assert [found[instance(each)].state for each in (1, 2, 3)] == [State.FRESH, State.QUARANTINED, State.UNATTESTED]
    assert [found[instance(each)].since_ms for each in (1, 2, 3)] == [50, 50, 5]
    assert {each.revocation for each in found.values()} == {0}
    asyncio.run(store.end_leases(100))
    (moment,) = asyncio.run(store.history(instance(1)))
    assert (moment.at_ms, moment.state) == (99, State.STALE)
    store.close()


def test_a_round_from_before_break_glass_was_let_through_by_no_order(path: Path) -> None:
    with sqlite3.connect(path) as db:
        row = (instance(1).value, 1, "e" * 64, 2, b"result", b"leaf", "7", 1, 99, 50)
        db.execute("INSERT INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    store = Store(path)
    store.open()
    again = Candidate(instance(1), "a" * 64, 1, 0, "e" * 64, True, Tier.AFFIRMING, b"", b"", 1, 99, None)
    decision = asyncio.run(store.accept_round(again, 60))
    assert isinstance(decision, Accepted) and decision.repeated
    assert (decision.break_glass, decision.held) == ("", "")
    store.close()


def test_a_store_that_was_brought_up_is_opened_again_as_it_is(path: Path) -> None:
    for _ in range(2):
        store = Store(path)
        store.open()
        assert len(asyncio.run(store.instances({}))) == 3
        store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT version FROM versions").fetchall() == [(migrations.CURRENT,)]


def test_a_new_store_is_of_the_current_version_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "new.sqlite")
    store.open()
    store.close()
    with sqlite3.connect(tmp_path / "new.sqlite") as db:
        assert db.execute("SELECT version FROM versions").fetchall() == [(migrations.CURRENT,)]


def test_a_store_of_a_later_proofbeat_is_refused_untouched(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.executescript("CREATE TABLE versions (version INTEGER PRIMARY KEY); INSERT INTO versions VALUES (9);")
    with pytest.raises(Unavailable, match="version 9"):
        Store(path).open()
    with sqlite3.connect(path) as db:
        assert "state" not in {row[1] for row in db.execute("PRAGMA table_info(instances)")}
