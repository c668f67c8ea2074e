"""What changed for each instance, and why: written beside the change, in its transaction; read by operators alone."""

from __future__ import annotations

import json

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from attestation.instance import InstanceId
from attestation.plain import build, plain
from authority.store.records import Explanation, Happened, Moment, State
from authority.store.schema import history, instances

MOST_TOLD = 1000
MOST_FORGOTTEN = 400
_MOST_ENDED = 200
_OPEN = tuple(state.value for state in State if state.open)
PER_INSTANCE = 500
"""Moments kept of one instance, so that nobody fills the disk with reports."""


def add(
    db: Connection,
    instance: str,
    now_ms: int,
    event: Happened,
    text: str,
    *,
    state: State | None = None,
    explanation: Explanation | None = None,
) -> None:
    """A moment. state: what the instance is from now on; None leaves it as it was."""
    known = db.execute(select(instances.c.state).where(instances.c.instance == instance)).scalar()
    before = State(known) if known else State.UNATTESTED
    row = {
        "instance": instance,
        "at_ms": now_ms,
        "event": event.value,
        "state": (state or before).value,
        "text": text,
        "explanation": json.dumps(plain(explanation)) if explanation is not None else "",
    }
    db.execute(insert(history), row)
    if state is not None and state is not before:
        mark = update(instances).where(instances.c.instance == instance)
        db.execute(mark.values(state=state.value, since_ms=now_ms))
    _bound(db, instance)


def of(db: Connection, instance: InstanceId) -> tuple[Moment, ...]:
    """The latest MOST_TOLD moments, in the order in which they happened."""
    query = (
        select(history).where(history.c.instance == instance.value).order_by(history.c.number.desc()).limit(MOST_TOLD)
    )
    return tuple(_moment(row) for row in reversed(db.execute(query).mappings().all()))


def latest_explanation(db: Connection, instance: str) -> Explanation | None:
    """The last that was recorded."""
    query = select(history.c.explanation).where(history.c.instance == instance, history.c.explanation != "")
    text = db.execute(query.order_by(history.c.number.desc()).limit(1)).scalar()
    return build(Explanation, json.loads(text), "history") if text else None


def end_leases(db: Connection, now_ms: int) -> int:
    """Notes the leases that have ended since the last look, each at its end. Returns how many, a bounded number."""
    query = (
        select(instances.c.instance, instances.c.lease_end_ms)
        .where(instances.c.state.in_(_OPEN), instances.c.lease_end_ms <= now_ms)
        .limit(_MOST_ENDED)
    )
    found = db.execute(query).all()
    for instance, lease_end_ms in found:
        end_lease(db, instance, lease_end_ms)
    return len(found)


def end_lease(db: Connection, instance: str, lease_end_ms: int) -> None:
    text = "the lease ended and no round had brought another"
    add(db, instance, lease_end_ms, Happened.LEASE_ENDED, text, state=State.STALE)


def prune(db: Connection, before_ms: int) -> int:
    """Forgets moments older than that, but never one that tells of a state which still lasts. Returns how many."""
    since = select(instances.c.since_ms).where(instances.c.instance == history.c.instance).scalar_subquery()
    old = (
        select(history.c.number)
        .where(history.c.at_ms < before_ms, history.c.at_ms < since)
        .order_by(history.c.at_ms)
        .limit(MOST_FORGOTTEN)
    )
    found = db.execute(old).scalars().all()
    if found:
        db.execute(delete(history).where(history.c.number.in_(found)))
    return len(found)


def _bound(db: Connection, instance: str) -> None:
    """The oldest beyond PER_INSTANCE go, but not the one that began the present state."""
    newest = select(history.c.number).where(history.c.instance == instance).order_by(history.c.number.desc())
    last = db.execute(newest.offset(PER_INSTANCE - 1).limit(1)).scalar()
    if last is None:
        return
    since = select(instances.c.since_ms).where(instances.c.instance == instance).scalar_subquery()
    db.execute(delete(history).where(history.c.instance == instance, history.c.number < last, history.c.at_ms != since))


def _moment(row: RowMapping) -> Moment:
    explanation = build(Explanation, json.loads(row["explanation"]), "history") if row["explanation"] else None
    return Moment(row["at_ms"], Happened(row["event"]), State(row["state"]), row["text"], explanation)
