"""Causes of quarantine: recorded, counted, released."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, insert, select, update

from attestation.instance import InstanceId
from authority.store import history, holds
from authority.store.records import Explanation, Happened, State
from authority.store.schema import causes, instances
from wire.messages import Cause, Standing

MOST_SHOWN = 64


_EVENTS = {"order": Happened.ORDERED, "clone": Happened.CLONED}


def record(
    db: Connection,
    instance: InstanceId,
    cause: Cause,
    *,
    binding: bool,
    now_ms: int,
    closes: bool = True,
    held: bool = False,
    explanation: Explanation | None = None,
) -> bool:
    """Keeps a cause, once; a binding one quarantines. False when it was known: a report is safe to repeat.

    A cause that was released stays released: a late copy of its report is no later cause. One that is known and did not
    bind, binds from now on: what let it pass is over. closes: policy enforces, so that the sidecar has closed; else
    history tells what would have happened. held: it would have closed, and is held back.
    """
    known = db.execute(select(causes.c.binding).where(causes.c.id == cause.id)).first()
    if known is not None and (known.binding or not binding):
        return False
    row = {
        "id": cause.id,
        "instance": instance.value,
        "kind": cause.kind,
        "text": cause.text,
        "at_ms": cause.at_ms,
        "recorded_ms": now_ms,
        "generation": cause.generation,
        "binding": binding,
        "released": False,
    }
    if known is None:
        db.execute(insert(causes), row)
    else:
        db.execute(update(causes).where(causes.c.id == cause.id).values(binding=True, recorded_ms=now_ms))
    # Evidence of an earlier generation does not know of this cause, and earns nothing any more.
    db.execute(
        update(instances)
        .where(instances.c.instance == instance.value, instances.c.generation < cause.generation)
        .values(generation=cause.generation)
    )
    if binding:
        mark = update(instances).where(instances.c.instance == instance.value)
        db.execute(mark.values(quarantined=True, lease_end_ms=0))
        holds.close(db, instance.value)
    event = _EVENTS.get(cause.kind, Happened.VIOLATION) if closes else Happened.WOULD_HAVE
    closed = State.QUARANTINED if binding or closes else None
    history.add(
        db,
        instance.value,
        now_ms,
        Happened.HELD if held else event,
        cause.text,
        state=State.HELD if held else closed,
        explanation=explanation or Explanation(cause.id, cause.kind, cause.kind, cause.text, cause.at_ms),
    )
    return True


def standing(db: Connection, instance: InstanceId) -> Standing:
    """By the causes that bind and are not released."""
    release = db.execute(select(instances.c.release).where(instances.c.instance == instance.value)).scalar() or ""
    binding = of(db, instance, binding=True, released=False)
    return Standing(bool(binding), binding, release)


def of(db: Connection, instance: InstanceId, *, binding: bool, released: bool) -> tuple[Cause, ...]:
    """The latest first, MOST_SHOWN of them, unless they bind: of those none may be missing."""
    query = (
        select(causes.c.id, causes.c.kind, causes.c.text, causes.c.at_ms, causes.c.generation)
        .where(causes.c.instance == instance.value, causes.c.binding == binding, causes.c.released == released)
        .order_by(causes.c.recorded_ms.desc(), causes.c.id)
    )
    if released or not binding:
        query = query.limit(MOST_SHOWN)
    return tuple(Cause(*row) for row in db.execute(query))


def release(db: Connection, instance: InstanceId, named: Collection[str], order: str, now_ms: int) -> tuple[Cause, ...]:
    """Releases, when every binding cause is named; else nothing changes. Returns the causes that are not named."""
    later = tuple(each for each in of(db, instance, binding=True, released=False) if each.id not in named)
    if later:
        return later
    db.execute(
        update(causes).where(causes.c.instance == instance.value, causes.c.binding.is_(True)).values(released=True)
    )
    db.execute(
        update(instances)
        .where(instances.c.instance == instance.value)
        .values(quarantined=False, full_required=True, release=order)
    )
    text = "an operator released it; its next full measurement opens it"
    history.add(db, instance.value, now_ms, Happened.RELEASED, text, state=State.STALE)
    return ()


def prune(db: Connection, instance: InstanceId, *, keep: int, binding: bool) -> None:
    """Forgets the oldest, down to `keep`, so that one instance cannot fill the disk with its reports.

    The latest is always kept: where it binds, it voids every release that does not name it.
    """
    free = (
        select(causes.c.id)
        .where(causes.c.instance == instance.value, causes.c.binding.is_(binding))
        .order_by(causes.c.recorded_ms.desc(), causes.c.id)
        .offset(keep)
        .limit(MOST_SHOWN)
    )
    db.execute(causes.delete().where(causes.c.id.in_(db.execute(free).scalars().all())))
