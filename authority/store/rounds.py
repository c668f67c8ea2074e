"""A round's transaction: one evidence a sequence, a quarantine seen in time, a serial of its own."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, exists, insert, or_, select, tuple_, update

from attestation import release
from attestation.instance import InstanceId
from attestation.trust import Tier
from authority.store import breakglass, causes, history, holds
from authority.store.records import Accepted, Candidate, Decision, Happened, Lapsed, Quarantine, State
from authority.store.schema import instances, rounds
from wire.messages import Cause

MOST_FORGOTTEN = 400
_SERIAL_BITS = 127
"""Random, and led by a 1: positive, never short, and as good as never given twice (RFC 5280 section 4.1.2.2)."""

_STANDING = (
    select(
        instances.c.registration,
        instances.c.thumbprint,
        instances.c.quarantined,
        instances.c.full_required,
        instances.c.sequence,
        instances.c.generation,
        instances.c.state,
        instances.c.lease_end_ms,
        rounds.c.evidence,
    )
    .outerjoin(rounds, and_(rounds.c.instance == instances.c.instance, rounds.c.sequence == bindparam("at")))
    .where(instances.c.instance == bindparam("who"))
)
_ADD = insert(rounds)
_ADVANCE = (
    update(instances)
    .where(instances.c.instance == bindparam("who"), instances.c.sequence < bindparam("at"))
    .values(
        sequence=bindparam("at"),
        generation=bindparam("to_generation"),
        tier=bindparam("to_tier"),
        lease_end_ms=bindparam("to_end"),
        last_round_ms=bindparam("now"),
        full_required=bindparam("to_full"),
        revocation=bindparam("to_revocation"),
        served=bindparam("to_served"),
    )
)


def accept(db: Connection, candidate: Candidate, now_ms: int) -> Decision:
    """Whether the round counts. A Decision other than Accepted changes nothing, but for what quarantines."""
    who = candidate.instance.value
    # 1. The instance, under the key that signed.
    known = db.execute(_STANDING, {"who": who, "at": candidate.sequence}).first()
    if known is None or known.thumbprint != candidate.thumbprint:
        return Lapsed(key_replaced=True)
    # 2. No quarantine: not even an answer given before is given again.
    if known.quarantined:
        return Quarantine(None, cloned=False)
    # 3. One evidence a sequence: the same again is a retry, another is a second attester with the same key.
    if known.evidence is not None and known.evidence != candidate.evidence:
        return _cloned(db, candidate, now_ms)
    if known.evidence is not None:
        again = _again(db, candidate)
        return again if not again.held or holds.stands(db, who) else Lapsed(hold_over=True)
    if candidate.sequence <= known.sequence:
        return Lapsed(sequence_passed=True)
    # 4. No violation has been reported since.
    if candidate.generation < known.generation:
        return Lapsed(generation_past=True)
    # 5. After an unclean end, everything has been read.
    if known.full_required and not candidate.full:
        return Lapsed(full_required=True)
    # 6. What lets it through or holds it back, if something has to, has not ended meanwhile, nor for its registration.
    if candidate.break_glass and not breakglass.stands(db, candidate.break_glass, known.registration):
        return Lapsed(exception_over=True)
    if candidate.held and not holds.stands(db, who):
        return Lapsed(hold_over=True)
    # 7. It counts.
    _note(db, candidate, State(known.state), known.lease_end_ms, now_ms)
    return _keep(db, candidate, bool(known.full_required), now_ms)


def _note(db: Connection, candidate: Candidate, before: State, lease_end_ms: int, now_ms: int) -> None:
    """In history, where this round changes the state; most change nothing."""
    who = candidate.instance.value
    if before.open and lease_end_ms <= now_ms:
        history.end_lease(db, who, lease_end_ms)
        before = State.STALE
    if candidate.tier is Tier.AFFIRMING:
        if before is not State.FRESH:
            history.add(db, who, now_ms, Happened.AFFIRMED, "an appraisal affirmed it", state=State.FRESH)
        return
    if candidate.earned:
        if before is not State.WARNED:
            text = f"appraised {candidate.tier.label}, which its policy serves"
            history.add(db, who, now_ms, Happened.WARNED, text, state=State.WARNED, explanation=candidate.explanation)
        return
    if candidate.held:
        if before is not State.HELD:
            text = f"appraised {candidate.tier.label}: held, for enough others are closed for the same drift"
            history.add(db, who, now_ms, Happened.HELD, text, state=State.HELD, explanation=candidate.explanation)
        return
    if candidate.break_glass:
        if before is not State.EXCEPTED:
            text = f"appraised {candidate.tier.label}, and let through by {candidate.break_glass}"
            history.add(
                db, who, now_ms, Happened.EXCEPTED, text, state=State.EXCEPTED, explanation=candidate.explanation
            )
        return
    closed = State.QUARANTINED if candidate.closes and candidate.tier is Tier.CONTRAINDICATED else State.STALE
    if candidate.cause is None and before not in (closed, State.QUARANTINED):
        text = f"appraised {candidate.tier.label}"
        event = Happened.NOT_AFFIRMED
        history.add(db, who, now_ms, event, text, state=closed, explanation=candidate.explanation)


def prune(db: Connection, before_ms: int, *, over_ms: int) -> int:
    """Forgets some rounds whose nonces are long stale, but never an instance's last one. Returns how many.

    over_ms: leaves that ended before that are over. A round whose leaf is not is kept: the leaf is told by it, should
    the instance be denied. A bounded number at a time, because everybody else waits meanwhile.
    """
    last = select(instances.c.sequence).where(instances.c.instance == rounds.c.instance).scalar_subquery()
    old = (
        select(rounds.c.instance, rounds.c.sequence)
        .where(rounds.c.at_ms < before_ms, rounds.c.lease_end_ms < over_ms, rounds.c.sequence < last)
        .order_by(rounds.c.at_ms)
        .limit(MOST_FORGOTTEN)
    )
    found = [tuple(row) for row in db.execute(old)]
    if found:
        db.execute(delete(rounds).where(tuple_(rounds.c.instance, rounds.c.sequence).in_(found)))
    return len(found)


def issued(db: Connection, instance: InstanceId, serial: int) -> bool:
    """Was a certificate with this serial number given to it? Those are known that its kept rounds brought, and the one
    that its Envoy served in the last: where nothing closes, that may be an old one."""
    brought = exists().where(rounds.c.instance == instances.c.instance, rounds.c.serial == str(serial))
    known = select(instances.c.instance).where(
        instances.c.instance == instance.value, or_(instances.c.served == str(serial), brought)
    )
    return db.execute(known).first() is not None


def _again(db: Connection, candidate: Candidate) -> Accepted:
    """What was answered before."""
    query = select(rounds).where(rounds.c.instance == candidate.instance.value, rounds.c.sequence == candidate.sequence)
    return accepted(db.execute(query).one())


def accepted(row: Row[Any]) -> Accepted:
    """A round that counted, as it is kept."""
    return Accepted(
        Tier(row.tier),
        row.result,
        row.leaf_key,
        int(row.serial),
        row.not_before,
        row.lease_end_ms,
        repeated=True,
        break_glass=row.break_glass,
        held=row.held,
    )


def _cloned(db: Connection, candidate: Candidate, now_ms: int) -> Quarantine:
    text = f"two attesters answered nonce {candidate.sequence} with different evidence"
    name = release.cause_id(candidate.instance, generation=candidate.generation, kind="clone", text=text, at_ms=now_ms)
    cause = Cause(name, "clone", text, now_ms, candidate.generation)
    causes.record(db, candidate.instance, cause, binding=True, now_ms=now_ms)
    return Quarantine(cause, cloned=True)


def _keep(db: Connection, candidate: Candidate, full_required: bool, now_ms: int) -> Accepted:
    serial = secrets.randbits(_SERIAL_BITS) | 1 << _SERIAL_BITS
    row = {
        "instance": candidate.instance.value,
        "sequence": candidate.sequence,
        "evidence": candidate.evidence,
        "tier": int(candidate.tier),
        "result": candidate.result,
        "leaf_key": candidate.leaf_key,
        "serial": str(serial),
        "not_before": candidate.not_before,
        "lease_end_ms": candidate.lease_end_ms,
        "at_ms": now_ms,
        "break_glass": candidate.break_glass,
        "held": candidate.held,
    }
    lets_through = bool(candidate.earned or candidate.break_glass)
    db.execute(_ADD, row)
    db.execute(
        _ADVANCE,
        {
            "who": candidate.instance.value,
            "at": candidate.sequence,
            "to_generation": candidate.generation,
            "to_tier": int(candidate.tier),
            "to_end": candidate.lease_end_ms if lets_through or candidate.held else 0,
            "now": now_ms,
            "to_full": full_required and not candidate.earned,
            "to_revocation": candidate.revocation,
            "to_served": "" if candidate.served is None else str(candidate.served),
        },
    )
    if lets_through:
        holds.free(db, candidate.instance.value)
    if candidate.cause is not None:
        causes.record(
            db, candidate.instance, candidate.cause, binding=True, now_ms=now_ms, explanation=candidate.explanation
        )
    return Accepted(
        candidate.tier,
        candidate.result,
        candidate.leaf_key,
        serial,
        candidate.not_before,
        candidate.lease_end_ms,
        repeated=False,
        break_glass=candidate.break_glass,
        held=candidate.held,
    )
