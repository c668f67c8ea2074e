"""What operators ask: who is fresh, who is not, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, select

from attestation import results
from attestation.instance import InstanceId
from attestation.trust import Tier
from authority.store import causes
from authority.store.records import InstanceState, State
from authority.store.schema import causes as recorded
from authority.store.schema import instances, rounds

MOST_LISTED = 10_000
_MOST_ALIKE = 8


def every(db: Connection, identities: Mapping[str, str]) -> tuple[InstanceState, ...]:
    """The latest enrolled first, MOST_LISTED of them. identities: registration -> SPIFFE ID."""
    query = _query().order_by(instances.c.enrolled_ms.desc(), instances.c.instance).limit(MOST_LISTED)
    return tuple(_state(db, row, identities) for row in db.execute(query).mappings().all())


def one(db: Connection, instance: InstanceId, identities: Mapping[str, str]) -> InstanceState | None:
    row = db.execute(_query().where(instances.c.instance == instance.value)).mappings().first()
    return _state(db, row, identities) if row is not None else None


def beginning(db: Connection, prefix: str, identities: Mapping[str, str]) -> tuple[InstanceState, ...]:
    """Those whose name begins so, MOST_LISTED of them."""
    query = _query().where(instances.c.instance.startswith(prefix, autoescape=True)).limit(MOST_LISTED)
    return tuple(_state(db, row, identities) for row in db.execute(query).mappings().all())


def registered(
    db: Connection, registrations: Collection[str], identities: Mapping[str, str]
) -> tuple[InstanceState, ...]:
    """Those of some registrations, the latest enrolled first, MOST_LISTED of them."""
    query = _query().where(instances.c.registration.in_(registrations))
    query = query.order_by(instances.c.enrolled_ms.desc(), instances.c.instance).limit(MOST_LISTED)
    return tuple(_state(db, row, identities) for row in db.execute(query).mappings().all())


def of_cause(db: Connection, prefix: str) -> tuple[tuple[str, int], ...]:
    """Instance and time of record of each cause whose name begins so, a few of them."""
    query = select(recorded.c.instance, recorded.c.recorded_ms).where(recorded.c.id.startswith(prefix, autoescape=True))
    return tuple((instance, at_ms) for instance, at_ms in db.execute(query.limit(_MOST_ALIKE)))


def _query() -> Select[Any]:
    last = and_(rounds.c.instance == instances.c.instance, rounds.c.sequence == instances.c.sequence)
    return select(instances, rounds.c.result).select_from(instances.outerjoin(rounds, last))


def _state(db: Connection, row: RowMapping, identities: Mapping[str, str]) -> InstanceState:
    instance = InstanceId(row["instance"])
    return InstanceState(
        instance=instance,
        spiffe_id=identities.get(row["registration"], ""),
        registration=row["registration"],
        quarantined=row["quarantined"],
        tier=Tier(row["tier"]).label,
        lease_end_ms=row["lease_end_ms"],
        last_round_ms=row["last_round_ms"],
        enrolled_ms=row["enrolled_ms"],
        full_required=row["full_required"],
        generation=row["generation"],
        causes=causes.of(db, instance, binding=True, released=False),
        released=causes.of(db, instance, binding=True, released=True),
        records=causes.of(db, instance, binding=False, released=False),
        reasons=results.read_payload(row["result"]).reasons if row["result"] else (),
        state=State(row["state"]),
        since_ms=row["since_ms"],
        left_ms=row["left_ms"],
        ended_clean=row["ended_clean"],
        revocation=row["revocation"],
        served=f"{int(row['served']):x}" if row["served"] else "",
    )
