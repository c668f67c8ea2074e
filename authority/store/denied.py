"""Whom peers are to refuse, as far as the store knows: who is quarantined, what it holds, where it listens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, func, insert, or_, select

from attestation.digests import Digest
from attestation.instance import InstanceId
from authority.store.records import Claim, Listed, Suspect, Suspects
from authority.store.rounds import accepted
from authority.store.schema import addresses, causes, denials, instances, rounds
from wire.messages import MOST_ADDRESSES, MOST_DENIED, MOST_DENIED_LEAVES


def suspects(
    db: Connection, enforced: Collection[str], unenforced: Collection[str], *, now_ms: int, over_ms: int
) -> Suspects:
    """Instances that are quarantined under policy that enforces, and had a round whose lease ends after `over_ms`.

    enforced, unenforced: the registrations that exist, by their policy. The latest MOST_DENIED; of their rounds
    MOST_DENIED_LEAVES, of each its newest before anybody's next: nobody who held many certificates leaves no room for
    another's.
    """
    members = _members(unenforced, over_ms)
    found = db.execute(members.limit(MOST_DENIED)).all()
    names = [row.instance for row in found]
    held = _grouped(db.execute(_rounds(names, over_ms)).all())
    said = _grouped(db.execute(select(addresses).where(addresses.c.instance.in_(names))).all())
    total = db.execute(select(func.count()).select_from(members.subquery())).scalar_one()
    return Suspects(
        tuple(_suspect(row, held.get(row.instance, ()), said.get(row.instance, ())) for row in found),
        _claims(db, {row.address for rows in said.values() for row in rows}, enforced, unenforced, now_ms),
        total - len(found),
    )


def listens(db: Connection, instance: InstanceId, said: Collection[str]) -> frozenset[str]:
    """Notes where an instance's Envoy listens; returns what is known then.

    Who is quarantined may add to it, as far as there is room, and takes nothing back: else it would say that it
    listens nowhere.
    """
    known = addresses_of(db, instance)
    marked = select(instances.c.quarantined).where(instances.c.instance == instance.value)
    kept = known if db.execute(marked).scalar() else frozenset[str]()
    room = MOST_ADDRESSES - len(kept)
    after = kept | set(sorted(set(said) - kept)[:room])
    if after != known:
        db.execute(delete(addresses).where(addresses.c.instance == instance.value))
        for each in sorted(after):
            db.execute(insert(addresses), {"instance": instance.value, "address": each})
    return after


def addresses_of(db: Connection, instance: InstanceId) -> frozenset[str]:
    query = select(addresses.c.address).where(addresses.c.instance == instance.value)
    return frozenset(db.execute(query).scalars())


def version_of(db: Connection, digest: Digest, now_ms: int) -> Listed:
    """The version of the list with this digest: the last one's, or a later one where it is another list.

    Unix seconds, or one more than the last: counting on from the clock, a store that was lost, or put back from a
    backup, does not give a version again that peers know as another list. Before the first there was an empty list, of
    version 0 and an empty digest.
    """
    latest = db.execute(select(denials)).first()
    before = Listed(latest.version, latest.at_ms) if latest is not None else Listed(0, 0)
    if digest == (latest.digest if latest is not None else ""):
        return before
    after = Listed(max(before.version + 1, now_ms // 1000), now_ms)
    db.execute(delete(denials))
    db.execute(insert(denials), {"version": after.version, "digest": digest, "at_ms": now_ms})
    return after


def _members(unenforced: Collection[str], over_ms: int) -> Select[Any]:
    """Each with the first cause that stands: a later one changes nothing for peers.

    A registration that does not exist counts as enforced: to delete it takes nobody off the list.
    """
    standing = (
        select(
            causes.c.instance,
            causes.c.id,
            causes.c.recorded_ms,
            func.row_number()
            .over(partition_by=causes.c.instance, order_by=(causes.c.recorded_ms, causes.c.id))
            .label("place"),
        )
        .where(causes.c.binding.is_(True), causes.c.released.is_(False))
        .subquery()
    )
    held = select(rounds.c.instance).where(rounds.c.instance == instances.c.instance, rounds.c.lease_end_ms > over_ms)
    return (
        select(instances.c.instance, standing.c.id, standing.c.recorded_ms)
        .join(standing, and_(standing.c.instance == instances.c.instance, standing.c.place == 1))
        .where(instances.c.quarantined.is_(True), instances.c.registration.not_in(unenforced), held.exists())
        .order_by(standing.c.recorded_ms.desc(), instances.c.instance)
    )


def _rounds(names: Sequence[str], over_ms: int) -> Select[Any]:
    place = func.row_number().over(partition_by=rounds.c.instance, order_by=rounds.c.sequence.desc()).label("place")
    ranked = select(rounds, place).where(rounds.c.instance.in_(names), rounds.c.lease_end_ms > over_ms).subquery()
    return select(ranked).order_by(ranked.c.place, ranked.c.instance).limit(MOST_DENIED_LEAVES)


def _claims(
    db: Connection, among: Collection[str], enforced: Collection[str], unenforced: Collection[str], now_ms: int
) -> tuple[Claim, ...]:
    """To each of the addresses one of each registration, by somebody who is appraised, and not quarantined.

    Where policy enforces it has to have been affirmed: else its own Envoy is closed. Elsewhere any round counts. Of a
    registration that does not exist nobody claims anything.
    """
    last = and_(rounds.c.instance == instances.c.instance, rounds.c.sequence == instances.c.sequence)
    affirmed = and_(instances.c.registration.in_(enforced), instances.c.lease_end_ms > now_ms)
    query = (
        select(addresses.c.address, func.min(instances.c.instance).label("instance"), instances.c.registration)
        .join(instances, instances.c.instance == addresses.c.instance)
        .join(rounds, last)
        .where(
            addresses.c.address.in_(among),
            instances.c.quarantined.is_(False),
            instances.c.ended_clean.is_(False),
            rounds.c.lease_end_ms > now_ms,
            or_(affirmed, instances.c.registration.in_(unenforced)),
        )
        .group_by(addresses.c.address, instances.c.registration)
        .order_by(addresses.c.address, instances.c.registration)
    )
    return tuple(Claim(row.address, InstanceId(row.instance), row.registration) for row in db.execute(query))


def _suspect(row: Row[Any], held: Sequence[Row[Any]], said: Sequence[Row[Any]]) -> Suspect:
    return Suspect(
        InstanceId(row.instance),
        row.id,
        row.recorded_ms,
        tuple(accepted(each) for each in held),
        tuple(sorted(each.address for each in said)),
    )


def _grouped(rows: Sequence[Row[Any]]) -> Mapping[str, Sequence[Row[Any]]]:
    grouped: dict[str, list[Row[Any]]] = {}
    for row in rows:
        grouped.setdefault(row.instance, []).append(row)
    return grouped
