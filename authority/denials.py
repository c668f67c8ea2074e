"""Whom peers are told to refuse: pure, from what the store knows. authority/denying.py carries it out.

An instance is on the list while it is quarantined under a policy that enforces *and* a certificate of its may still be
valid somewhere; after that there is nothing left to refuse. So the list is short, whatever was quarantined before.

An address is on it only as far as no live instance says that it listens there, too: whoever enrols with a neighbour's
address, and then misbehaves, must not take the neighbour down. That holds for a successor at the same address as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from attestation import cbor, digests, results
from attestation.digests import Digest
from attestation.instance import InstanceId
from attestation.results import Result
from attestation.trust import Tier
from authority.issuer.ca import BACKDATE
from authority.store.records import Accepted, Suspect, Suspects
from policies.model.policy import Mode
from wire.messages import MOST_DENIED, MOST_DENIED_ADDRESSES, MOST_DENIED_LEAVES

SKEW_MS = int(BACKDATE.total_seconds() * 1000)
"""A certificate counts as valid for so long after its end, for peers whose clocks run behind."""
NOBODY: Digest = ""
"""The digest of an empty list."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One that was issued: the round that earned it, and what it says of the holder."""

    round: Accepted
    result: Result


@dataclass(frozen=True, slots=True)
class Listing:
    """One instance to refuse. certificates: the newest first. since_ms: when its cause was recorded."""

    instance: InstanceId
    cause: str
    since_ms: int
    certificates: tuple[Certificate, ...]
    addresses: tuple[str, ...]

    @property
    def spiffe_id(self) -> str:
        """As its certificates name it, whatever its registration says by now."""
        return str(self.certificates[0].result.spiffe_id)


def listed(suspects: Suspects, *, now_ms: int, last_ms: int) -> tuple[Listing, ...]:
    """The latest first, MOST_DENIED of them, with no more certificates and addresses than one list may have.

    last_ms: the end of the CA. A certificate that ends later is another CA's, which nobody here trusts.
    """
    present = tuple(_listing(each, suspects.claimed, now_ms, last_ms) for each in suspects.found)
    return _within_bounds([each for each in present if each.certificates][:MOST_DENIED])


def digest(listings: Iterable[Listing]) -> Digest:
    """Of what makes a list another one: who is on it, why, and at which addresses.

    Not of certificates: nobody on the list gets a new one, and one that ends meanwhile is refused for its age.
    """
    told = [[each.instance.value, each.spiffe_id, each.cause, list(each.addresses)] for each in listings]
    return digests.tagged("denials", cbor.dumps(told)) if told else NOBODY


def _listing(suspect: Suspect, claimed: frozenset[str], now_ms: int, last_ms: int) -> Listing:
    held = (_certificate(each) for each in suspect.rounds if now_ms - SKEW_MS < each.lease_end_ms <= last_ms)
    return Listing(
        suspect.instance,
        suspect.cause,
        suspect.since_ms,
        tuple(each for each in held if each is not None),
        tuple(each for each in suspect.addresses if each not in claimed),
    )


def _certificate(accepted: Accepted) -> Certificate | None:
    """By the rule under which it was issued then (authority/rounds.py): in enforce, only what affirmed earned one."""
    result = results.read_payload(accepted.result)
    earned = accepted.tier is Tier.AFFIRMING if result.mode == Mode.ENFORCE.value else result.mode == Mode.AUDIT.value
    return Certificate(accepted, result) if earned else None


def _within_bounds(listings: list[Listing]) -> tuple[Listing, ...]:
    """Everybody's newest certificate has room before anybody's next; and so with addresses."""
    certificates = _shared([each.certificates for each in listings], MOST_DENIED_LEAVES)
    addresses = _shared([each.addresses for each in listings], MOST_DENIED_ADDRESSES)
    return tuple(
        Listing(each.instance, each.cause, each.since_ms, each.certificates[:some], each.addresses[:few])
        for each, some, few in zip(listings, certificates, addresses, strict=True)
    )


def _shared(wanted: list[tuple[object, ...]], room: int) -> list[int]:
    """How many each gets."""
    given = [0] * len(wanted)
    for turn in zip_longest(*wanted):
        for place, thing in enumerate(turn):
            if thing is not None and room:
                given[place] += 1
                room -= 1
    return given
