"""Whom peers are told to refuse: pure, from what the store knows. authority/denying.py carries it out.

An instance is on the list while it is quarantined under a policy that enforces *and* a certificate of its may still be
valid somewhere; after that there is nothing left to refuse. So the list is short, whatever was quarantined before.

An address is on it only as far as no live instance says that it listens there, too: whoever enrols with a neighbour's
address, and then misbehaves, must not take the neighbour down. That holds for a successor at the same address as well.
Nor may an accomplice shield it: the word of an instance that policy does not bind spares only its own identity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from attestation import cbor, digests, results
from attestation.digests import Digest
from attestation.instance import InstanceId
from attestation.results import Result
from attestation.trust import Tier
from authority.issuer.ca import BACKDATE
from authority.store.records import Accepted, Claim, Suspect, Suspects
from policies.model.policy import Mode
from wire.messages import MOST_DENIED, MOST_DENIED_ADDRESSES, MOST_DENIED_LEAVES

SKEW_MS = int(BACKDATE.total_seconds() * 1000)
"""A certificate counts as valid for so long after its end, for peers whose clocks run behind."""
NOBODY: Digest = ""
"""The digest of an empty list."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A registration as policy has it now."""

    spiffe_id: str
    enforced: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """One that was issued: the round that earned it, and what it says of the holder."""

    round: Accepted
    result: Result


@dataclass(frozen=True, slots=True)
class Listing:
    """One instance to refuse. certificates: the newest first. since_ms: when its cause was recorded.

    spared: why some of its addresses are not among `addresses`, one claim each.
    """

    instance: InstanceId
    cause: str
    since_ms: int
    certificates: tuple[Certificate, ...]
    addresses: tuple[str, ...]
    spared: tuple[Claim, ...] = ()

    @property
    def spiffe_id(self) -> str:
        """As its certificates name it, whatever its registration says by now."""
        return str(self.certificates[0].result.spiffe_id)


def listed(
    suspects: Suspects, registered: Mapping[str, Registered], *, now_ms: int, last_ms: int
) -> tuple[Listing, ...]:
    """The latest first, MOST_DENIED of them, with no more certificates and addresses than one list may have.

    registered: by name. last_ms: the end of the CA. A certificate that ends later is another CA's, which nobody here
    trusts.
    """
    held = ((each, _certificates(each, now_ms, last_ms)) for each in suspects.found)
    present = [_listing(suspect, certificates) for suspect, certificates in held if certificates]
    claims = _by_address(suspects.claims)
    return _within_bounds([_spared(each, claims, registered) for each in present[:MOST_DENIED]])


def digest(listings: Iterable[Listing]) -> Digest:
    """Of what makes a list another one: who is on it, why, and at which addresses.

    Not of certificates: nobody on the list gets a new one, and one that ends meanwhile is refused for its age.
    """
    told = [[each.instance.value, each.spiffe_id, each.cause, list(each.addresses)] for each in listings]
    return digests.tagged("denials", cbor.dumps(told)) if told else NOBODY


def _certificates(suspect: Suspect, now_ms: int, last_ms: int) -> tuple[Certificate, ...]:
    held = (_certificate(each) for each in suspect.rounds if now_ms - SKEW_MS < each.lease_end_ms <= last_ms)
    return tuple(each for each in held if each is not None)


def _listing(suspect: Suspect, certificates: tuple[Certificate, ...]) -> Listing:
    return Listing(suspect.instance, suspect.cause, suspect.since_ms, certificates, suspect.addresses)


def _by_address(claims: Iterable[Claim]) -> Mapping[str, Sequence[Claim]]:
    grouped: defaultdict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        grouped[claim.address].append(claim)
    return grouped


def _spared(listing: Listing, claims: Mapping[str, Sequence[Claim]], registered: Mapping[str, Registered]) -> Listing:
    """Without the addresses to which a claim counts."""
    counting = (
        next((claim for claim in claims.get(address, ()) if _counts(claim, listing.spiffe_id, registered)), None)
        for address in listing.addresses
    )
    spared = tuple(claim for claim in counting if claim is not None)
    gone = {claim.address for claim in spared}
    return replace(listing, addresses=tuple(each for each in listing.addresses if each not in gone), spared=spared)


def _counts(claim: Claim, denied: str, registered: Mapping[str, Registered]) -> bool:
    """denied: the SPIFFE ID of whom the claim would spare."""
    ruled = registered.get(claim.registration)
    return ruled is not None and (ruled.enforced or ruled.spiffe_id == denied)


def _certificate(accepted: Accepted) -> Certificate | None:
    """By the rule under which it was issued then (authority/rounds.py): in enforce, what affirmed earned one, and what
    an order let through got one. A warning may have earned one, as policy was then: none is left out that may be valid.
    """
    result = results.read_payload(accepted.result)
    given = accepted.tier in (Tier.AFFIRMING, Tier.WARNING) or bool(accepted.break_glass)
    earned = given if result.mode == Mode.ENFORCE.value else result.mode == Mode.AUDIT.value
    return Certificate(accepted, result) if earned else None


def _within_bounds(listings: list[Listing]) -> tuple[Listing, ...]:
    """Everybody's newest certificate has room before anybody's next; and so with addresses."""
    certificates = _shared([each.certificates for each in listings], MOST_DENIED_LEAVES)
    addresses = _shared([each.addresses for each in listings], MOST_DENIED_ADDRESSES)
    return tuple(
        replace(each, certificates=each.certificates[:some], addresses=each.addresses[:few])
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
