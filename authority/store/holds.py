"""Who has which drift, and who of them is closed for it: counted and decided in one transaction.

What is counted is what is recorded here, never what an instance says of itself: one that was told to close and does
not counts as closed, until its own evidence is affirmed or it is heard of no more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, not_, or_, select, update

from attestation.drift import MOST_DRIFTS, Drift
from attestation.instance import InstanceId
from authority.holds import Entry, due, held_back, most_closed
from authority.store import history
from authority.store.records import Happened, State
from authority.store.schema import holds, instances

_OPEN = tuple(state.value for state in State if state.open)
MOST_KEPT = 2 * MOST_DRIFTS
"""Drifts kept of one instance."""


@dataclass(frozen=True, slots=True)
class Within:
    """Of whom there is to count. share: percent of them that one drift may close. now_ms: Unix milliseconds.

    heard_ms: who was not heard of since then is no live instance any more; quarantined_ms: the same of who is
    quarantined, and whose rounds do not count.
    """

    registration: str
    share: int
    now_ms: int
    heard_ms: int
    quarantined_ms: int


@dataclass(frozen=True, slots=True)
class Counted:
    """held: the instance stays open. closed, live: instances that are closed for the drift, of how many."""

    held: bool
    closed: int
    live: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What stands for one registration. told: held instances that have been told to close just now."""

    entries: tuple[Entry, ...]
    live: int
    told: tuple[InstanceId, ...]


def ask(db: Connection, instance: InstanceId, drifts: Collection[Drift], within: Within) -> Counted:
    """Whether an instance with these drifts, which are all it has, stays open. Asking again changes nothing."""
    who, live = instance.value, _live(db, within)
    counts = {each.id: _closed(db, each.id, who, within) for each in drifts}
    held = held_back(counts, most_closed(within.share, live))
    closes = not held or _told(db, who) or not _open(db, who, within.now_ms)
    _keep(db, who, drifts, within, closed=closes)
    first = min(drifts).id
    return Counted(not closes, counts[first] + closes, live)


def reported(db: Connection, instance: InstanceId, drift: Drift | None, within: Within) -> bool:
    """Whether a drift that an instance reports closes nothing, for it is held; else it is closed with all that it has.

    drift: None for what is never held.
    """
    who = instance.value
    mine = {row.drift: row.closed for row in db.execute(select(holds).where(holds.c.instance == who))}
    if drift is not None and mine.get(drift.id) is False:
        return True
    close(db, who)
    if drift is not None and drift.id not in mine and len(mine) < MOST_KEPT:
        _add(db, who, [drift], within, closed=True)
    return False


def stands(db: Connection, instance: str) -> bool:
    """Is it held, and not told to close?"""
    closed = db.execute(select(holds.c.closed).where(holds.c.instance == instance)).scalars().all()
    return bool(closed) and not any(closed)


def close(db: Connection, instance: str) -> None:
    """It is closed, for whatever else; what it has counts as closed as well."""
    db.execute(update(holds).where(holds.c.instance == instance, holds.c.closed.is_(False)).values(closed=True))


def free(db: Connection, instance: str) -> None:
    """It has none of it any more, or something else keeps it open."""
    db.execute(delete(holds).where(holds.c.instance == instance))


def look(db: Connection, within: Within) -> Ledger:
    """What stands, after who is gone was taken out and who has room by now was told to close."""
    gone = select(instances.c.instance).where(instances.c.registration == within.registration, not_(_lives(within)))
    db.execute(delete(holds).where(holds.c.registration == within.registration, holds.c.instance.in_(gone)))
    live, entries = _live(db, within), _entries(db, within)
    told = due(entries, most_closed(within.share, live))
    for who in told:
        _tell(db, who, "there is room for it to close", within.now_ms)
    return Ledger(_entries(db, within) if told else entries, live, tuple(map(InstanceId, told)))


def standing(db: Connection, within: Within) -> Ledger:
    """The same, and nothing is changed."""
    return Ledger(_entries(db, within), _live(db, within), ())


def end(db: Connection, registration: str, now_ms: int) -> tuple[InstanceId, ...]:
    """Policy holds nothing back there any more. Returns whom it held."""
    query = select(holds.c.instance).where(holds.c.registration == registration, holds.c.closed.is_(False)).distinct()
    held = tuple(db.execute(query).scalars())
    for who in held:
        _tell(db, who, "its policy holds nothing back any more", now_ms)
    db.execute(delete(holds).where(holds.c.registration == registration))
    return tuple(map(InstanceId, held))


def registrations(db: Connection) -> tuple[str, ...]:
    """Those of which there is anything to look at."""
    return tuple(db.execute(select(holds.c.registration).distinct()).scalars())


def _tell(db: Connection, who: str, why: str, now_ms: int) -> None:
    close(db, who)
    explanation = history.latest_explanation(db, who)
    history.add(
        db, who, now_ms, Happened.HOLD_OVER, f"told to close: {why}", state=State.QUARANTINED, explanation=explanation
    )


def _lives(within: Within) -> ColumnElement[bool]:
    signs = (instances.c.enrolled_ms, instances.c.last_round_ms, instances.c.lease_end_ms, instances.c.left_ms)
    heard = or_(*(each > within.heard_ms for each in signs))
    quarantined = and_(instances.c.quarantined.is_(True), or_(*(each > within.quarantined_ms for each in signs)))
    return and_(instances.c.ended_clean.is_(False), or_(heard, quarantined))


def _live(db: Connection, within: Within) -> int:
    query = select(func.count()).select_from(instances)
    found = db.execute(query.where(instances.c.registration == within.registration, _lives(within))).scalar_one()
    return max(1, int(found))


def _shut(now_ms: int) -> ColumnElement[bool]:
    """Told to close, or closed by something else meanwhile: the end of its lease, a restart."""
    return or_(holds.c.closed.is_(True), instances.c.state.not_in(_OPEN), instances.c.lease_end_ms <= now_ms)


def _closed(db: Connection, drift: str, apart_from: str, within: Within) -> int:
    query = (
        select(func.count())
        .select_from(holds.join(instances, instances.c.instance == holds.c.instance))
        .where(holds.c.registration == within.registration, holds.c.drift == drift, holds.c.instance != apart_from)
    )
    return int(db.execute(query.where(_shut(within.now_ms), _lives(within))).scalar_one())


def _entries(db: Connection, within: Within) -> tuple[Entry, ...]:
    query = (
        select(holds.c.instance, holds.c.drift, holds.c.name, _shut(within.now_ms), holds.c.since_ms)
        .select_from(holds.join(instances, instances.c.instance == holds.c.instance))
        .where(holds.c.registration == within.registration, _lives(within))
    )
    return tuple(Entry(who, drift, name, bool(closed), since) for who, drift, name, closed, since in db.execute(query))


def _open(db: Connection, who: str, now_ms: int) -> bool:
    """Has it a lease that lasts? What is held stays open, and nothing is opened by it."""
    query = select(instances.c.instance).where(
        instances.c.instance == who,
        instances.c.state.in_(_OPEN),
        instances.c.lease_end_ms > now_ms,
        instances.c.quarantined.is_(False),
    )
    return db.execute(query).first() is not None


def _told(db: Connection, who: str) -> bool:
    query = select(holds.c.drift).where(holds.c.instance == who, holds.c.closed.is_(True))
    return db.execute(query).first() is not None


def _keep(db: Connection, who: str, drifts: Collection[Drift], within: Within, *, closed: bool) -> None:
    """These and no others; how long each has been there is kept."""
    names = {each.id for each in drifts}
    db.execute(delete(holds).where(holds.c.instance == who, holds.c.drift.not_in(names)))
    db.execute(update(holds).where(holds.c.instance == who).values(closed=closed))
    known = set(db.execute(select(holds.c.drift).where(holds.c.instance == who)).scalars())
    _add(db, who, [each for each in sorted(drifts) if each.id not in known], within, closed=closed)


def _add(db: Connection, who: str, drifts: Iterable[Drift], within: Within, *, closed: bool) -> None:
    rows = [
        {
            "instance": who,
            "drift": each.id,
            "registration": within.registration,
            "name": str(each),
            "closed": closed,
            "since_ms": within.now_ms,
        }
        for each in drifts
    ]
    if rows:
        db.execute(insert(holds), rows)
