"""Break-glass orders that were applied: kept for ever, because what has ended must never come back."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, RowMapping, and_, insert, select, update

from authority.store import history
from authority.store.records import Broken, Happened, State, Withdrawn
from authority.store.schema import breakglass, instances, rounds, withdrawn

MOST_TOLD = 1000
MOST_CLOSED = 200


def apply(db: Connection, order: Broken) -> Broken:
    """The order as it is kept: this one, or what it came to when it was applied before."""
    known = db.execute(select(breakglass).where(breakglass.c.id == order.id)).mappings().first()
    if known is not None:
        return _broken(known, _withdrawn(db, [order.id])[order.id])
    row = {
        "id": order.id,
        "document": order.document,
        "registrations": json.dumps(order.registrations),
        "signed_by": json.dumps(order.signed_by),
        "applied_ms": order.applied_ms,
        "seen_ms": order.seen_ms,
        "ended_ms": order.ended_ms,
        "ended": order.ended,
    }
    db.execute(insert(breakglass), row)
    return order


def end(db: Connection, identity: str, why: str, now_ms: int) -> bool:
    """False where there is none of that id, or it has ended before."""
    mark = update(breakglass).where(breakglass.c.id == identity, breakglass.c.ended_ms == 0)
    return db.execute(mark.values(ended_ms=max(now_ms, 1), ended=why)).rowcount > 0


def narrow(db: Connection, identity: str, lost: Mapping[str, str], now_ms: int) -> None:
    """It stands for these registrations no longer. lost: registration -> why."""
    before = _registrations(db, identity)
    gone = [name for name in before if name in lost]
    if not gone:
        return
    mark = update(breakglass).where(breakglass.c.id == identity)
    db.execute(mark.values(registrations=json.dumps([name for name in before if name not in lost])))
    rows = [{"id": identity, "registration": name, "why": lost[name], "at_ms": now_ms} for name in gone]
    db.execute(insert(withdrawn), rows)


def close(db: Connection, identity: str, why: str, now_ms: int, registration: str | None = None) -> int:
    """Those whom this order has kept open are so no longer. Returns how many, a bounded number at a time.

    registration: only those of this one; None for all.
    """
    last = and_(rounds.c.instance == instances.c.instance, rounds.c.sequence == instances.c.sequence)
    query = (
        select(instances.c.instance)
        .join(rounds, last)
        .where(instances.c.state == State.EXCEPTED.value, rounds.c.break_glass == identity)
        .limit(MOST_CLOSED)
    )
    if registration is not None:
        query = query.where(instances.c.registration == registration)
    found = db.execute(query).scalars().all()
    for instance in found:
        history.add(db, instance, now_ms, Happened.EXCEPTION_ENDED, f"{identity} ended: {why}", state=State.STALE)
        db.execute(update(instances).where(instances.c.instance == instance).values(lease_end_ms=0))
    return len(found)


def seen(db: Connection, now_ms: int) -> None:
    """Those that stand were in force, or waited, at this time."""
    mark = update(breakglass).where(breakglass.c.ended_ms == 0, breakglass.c.seen_ms < now_ms)
    db.execute(mark.values(seen_ms=now_ms))


def stands(db: Connection, identity: str, registration: str) -> bool:
    """Does it for this registration?"""
    found = db.execute(select(breakglass.c.ended_ms).where(breakglass.c.id == identity)).scalar()
    return found == 0 and registration in _registrations(db, identity)


def every(db: Connection) -> tuple[Broken, ...]:
    """The latest applied first, MOST_TOLD of them; every one that stands comes before those that have ended."""
    query = select(breakglass).order_by(breakglass.c.ended_ms > 0, breakglass.c.applied_ms.desc()).limit(MOST_TOLD)
    rows = db.execute(query).mappings().all()
    lost = _withdrawn(db, [row["id"] for row in rows])
    return tuple(_broken(row, lost[row["id"]]) for row in rows)


def _registrations(db: Connection, identity: str) -> Sequence[str]:
    found = db.execute(select(breakglass.c.registrations).where(breakglass.c.id == identity)).scalar()
    return json.loads(found) if found is not None else ()


def _withdrawn(db: Connection, identities: Sequence[str]) -> Mapping[str, list[Withdrawn]]:
    query = select(withdrawn).where(withdrawn.c.id.in_(identities)).order_by(withdrawn.c.registration)
    found = defaultdict(list)
    for row in db.execute(query):
        found[row.id].append(Withdrawn(row.registration, row.why, row.at_ms))
    return found


def _broken(row: RowMapping, lost: Sequence[Withdrawn]) -> Broken:
    listed = {name: tuple(json.loads(row[name])) for name in ("registrations", "signed_by")}
    return Broken(**{**row, **listed, "withdrawn": tuple(lost)})
