"""Enrolment's transactions: join tokens, rotating tickets, and what an instance is known by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from attestation.digests import Digest
from attestation.errors import Refused
from attestation.instance import InstanceId
from attestation.trust import Tier
from authority.store import causes, denied, history
from authority.store.records import Enrolled, Happened, State
from authority.store.schema import causes as recorded
from authority.store.schema import instances, tokens
from wire.problems import Kind


@dataclass(frozen=True, slots=True)
class Application:
    """token, ticket: digest of what was presented; one of them is empty. next_ticket: digest of the successor.

    The successor depends on nothing but the credential, the instance and the key. So a repeated application gets the
    very answer that was lost, and one with another key gets nothing.
    """

    instance: InstanceId
    thumbprint: Digest
    public_key: bytes
    token: Digest
    ticket: Digest
    next_ticket: Digest
    unclean: bool


def add_token(db: Connection, token: Digest, registration: str, *, expires_ms: int, now_ms: int) -> None:
    """A join token for one instance. Clears away tokens that ended unused."""
    db.execute(delete(tokens).where(tokens.c.expires_ms < now_ms, tokens.c.instance.is_(None)))
    db.execute(insert(tokens), {"token": token, "registration": registration, "expires_ms": expires_ms})


def enrol(
    db: Connection, application: Application, registrations: Mapping[str, Collection[str]], now_ms: int
) -> Enrolled:
    """Binds the key to the instance. registrations: with the kinds of causes that keep new instances out.

    Raises Refused: token-*, ticket-*, registration-*, instance-quarantined; nothing changes then.
    """
    known = _row(db, application.instance)
    if application.token:
        registration = _redeem_token(db, application, known, now_ms)
    else:
        registration = _redeem_ticket(application, known)
    if registration not in registrations:
        raise Refused(
            f"nothing rules the registration {registration!r} any more",
            kind=Kind.REGISTRATION_UNKNOWN,
            where="enrolment",
            mend="Add it, or a policy that is for it; or mend what `proofbeat status` says of its documents.",
        )
    if known is None:
        _let_in(db, registration, registrations[registration])
        _insert(db, application, registration, now_ms)
    elif known.ticket != application.next_ticket:
        _rotate(db, application, known, now_ms)
    if known is None or known.ticket != application.next_ticket:
        by = "a join token" if application.token else "its ticket"
        state = State.QUARANTINED if known is not None and known.quarantined else State.UNATTESTED
        history.add(db, application.instance.value, now_ms, Happened.ENROLLED, f"enrolled by {by}", state=state)
    found = load(db, application.instance)
    if found is None:
        raise LookupError("the row that was just written")
    return found


def _let_in(db: Connection, registration: str, kinds: Collection[str]) -> None:
    """Raises Refused where a cause stands, of one of these kinds, that a new instance does not heal."""
    query = (
        select(instances.c.instance, recorded.c.text)
        .join(recorded, recorded.c.instance == instances.c.instance)
        .where(
            instances.c.registration == registration,
            recorded.c.binding.is_(True),
            recorded.c.released.is_(False),
            recorded.c.kind.in_(kinds),
        )
        .limit(1)
    )
    held = db.execute(query).first() if kinds else None
    if held is not None:
        raise Refused(
            f"{held.instance}, of {registration!r} as well, is quarantined and not released: {held.text}",
            kind=Kind.INSTANCE_QUARANTINED,
            where="enrolment",
            mend=f"Look at it (`proofbeat why {held.instance}`), then release it: its policy says `recovery: manual`.",
        )


def load(db: Connection, instance: InstanceId) -> Enrolled | None:
    row = _row(db, instance)
    if row is None:
        return None
    return Enrolled(
        instance=instance,
        registration=row.registration,
        thumbprint=row.thumbprint,
        public_key=row.public_key,
        sequence=row.sequence,
        generation=row.generation,
        full_required=row.full_required,
        standing=causes.standing(db, instance),
        addresses=frozenset(denied.addresses_of(db, instance)),
    )


def end_run(db: Connection, instance: InstanceId, thumbprint: Digest, *, clean: bool, now_ms: int) -> None:
    """A session of this key ended. One that did not end in order asks for a full round."""
    known = _row(db, instance)
    if known is None or known.thumbprint != thumbprint:
        return
    values: dict[str, Any] = {"ended_clean": True} if clean else {"full_required": True}
    db.execute(update(instances).where(instances.c.instance == instance.value).values(left_ms=now_ms, **values))
    if clean:
        ended = None if known.state == State.QUARANTINED else State.ENDED
        history.add(db, instance.value, now_ms, Happened.GOODBYE, "its sidecar ended in order", state=ended)
    else:
        history.add(db, instance.value, now_ms, Happened.SESSION_LOST, "its session broke off")


def _redeem_token(db: Connection, application: Application, known: Row[Any] | None, now_ms: int) -> str:
    token = db.execute(select(tokens).where(tokens.c.token == application.token)).first()
    if token is None:
        raise Refused(
            "this join token was never issued",
            kind=Kind.TOKEN_INVALID,
            where="enrolment",
            mend="Make one: proofbeat token create REGISTRATION.",
        )
    mine = (token.instance, token.thumbprint) == (application.instance.value, application.thumbprint)
    if token.instance is not None and not (mine and known is not None and known.ticket == application.next_ticket):
        raise Refused(
            "this join token was used already",
            kind=Kind.TOKEN_USED,
            where="enrolment",
            mend="Each enrols one instance once; make another.",
        )
    if token.expires_ms <= now_ms:
        raise Refused("this join token has expired", kind=Kind.TOKEN_EXPIRED, where="enrolment", mend="Make another.")
    if known is not None and known.registration != token.registration:
        raise Refused(
            f"the instance is enrolled as {known.registration!r}, and the token is for {token.registration!r}",
            kind=Kind.REGISTRATION_CONFLICT,
            where="enrolment",
            mend="An instance keeps its registration; a new run is a new instance.",
        )
    db.execute(
        update(tokens)
        .where(tokens.c.token == application.token)
        .values(instance=application.instance.value, thumbprint=application.thumbprint)
    )
    return str(token.registration)


def _redeem_ticket(application: Application, known: Row[Any] | None) -> str:
    """The current ticket; or the one before, by the same key, while its successor has not been used."""
    if known is None or application.ticket not in (known.ticket, known.ticket_before):
        raise Refused(
            "this ticket is not this instance's",
            kind=Kind.TICKET_INVALID,
            where="enrolment",
            mend="Enrol with a join token.",
        )
    retried = application.thumbprint == known.thumbprint and application.next_ticket == known.ticket
    if application.ticket != known.ticket and not retried:
        raise Refused(
            "this ticket was used already, by another key",
            kind=Kind.TICKET_SPENT,
            where="enrolment",
            mend="Enrol with a join token.",
        )
    return str(known.registration)


def _insert(db: Connection, application: Application, registration: str, now_ms: int) -> None:
    row = {
        "instance": application.instance.value,
        "registration": registration,
        "thumbprint": application.thumbprint,
        "public_key": application.public_key,
        "ticket": application.next_ticket,
        "ticket_before": application.ticket,
        "enrolled_ms": now_ms,
        "ended_clean": False,
        "full_required": application.unclean,
        "quarantined": False,
        "release": "",
        "state": State.UNATTESTED.value,
        "since_ms": now_ms,
        "left_ms": 0,
        "sequence": 0,
        "generation": 0,
        "tier": int(Tier.NONE),
        "lease_end_ms": 0,
        "last_round_ms": 0,
        "revocation": 0,
        "served": "",
    }
    db.execute(insert(instances), row)


def _rotate(db: Connection, application: Application, known: Row[Any], now_ms: int) -> None:
    """The instance comes back: unless its last run ended in order, it does a full round."""
    unclean = application.unclean or known.full_required or not known.ended_clean
    db.execute(
        update(instances)
        .where(instances.c.instance == application.instance.value)
        .values(
            thumbprint=application.thumbprint,
            public_key=application.public_key,
            ticket=application.next_ticket,
            ticket_before=application.ticket,
            enrolled_ms=now_ms,
            ended_clean=False,
            left_ms=0,
            full_required=unclean,
            generation=0,  # a new run counts its violations anew
        )
    )


def _row(db: Connection, instance: InstanceId) -> Row[Any] | None:
    return db.execute(select(instances).where(instances.c.instance == instance.value)).first()
