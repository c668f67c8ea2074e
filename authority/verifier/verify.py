"""Is this evidence genuine, fresh, and this instance's own? Numbered steps; every failure is reported, not the first.

What evidence shows of the workload is not judged here: that is an appraisal (policies/appraise).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attestation import cose, evidence, keys, nonce
from attestation.claims import Claims, LayerClaim
from attestation.digests import Digest
from attestation.errors import InvalidInput, MalformedEvidence
from attestation.evidence import Evidence
from attestation.layers import Layer
from attestation.nonce import NonceCheck, NonceFacts, NonceFault
from authority.store.records import Enrolled
from wire.problems import Fault, Kind, Rejected

MOST_AGE_MS = 400 * 86_400_000
MOST_BOOT_ID = 64
_FULL_SLACK_MS = 50
"""Two clocks' rates differ a little."""

_Found = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class Expected:
    """What the evidence is held against. nonce_epoch: of the keyring. valid_ms: a nonce's life."""

    enrolled: Enrolled
    nonce_key: bytes
    nonce_epoch: int
    valid_ms: int
    policy_epoch: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Verified:
    """full: every layer was read in full after the nonce was issued."""

    claims: Claims
    nonce: bytes
    facts: NonceFacts
    digest: Digest
    thumbprint: Digest
    full: bool


def verify(data: bytes, expected: Expected) -> Verified:
    """Raises Rejected with all faults; its kind is that of the first."""
    # 1. Size, CBOR, COSE and the set of claims: without a form there is nothing to look at further.
    try:
        told = evidence.parse(data)
    except MalformedEvidence as error:
        fault = Fault(1, "form", error.sentence)
        raise Rejected(error.what, kind=Kind.EVIDENCE_MALFORMED, where=error.where, faults=(fault,)) from error
    enrolled = expected.enrolled
    checked = nonce.check(
        expected.nonce_key,
        told.nonce,
        nonce.holder(enrolled.instance, enrolled.thumbprint),
        epoch=expected.nonce_epoch,
        now_ms=expected.now_ms,
        valid_ms=expected.valid_ms,
    )
    full = checked.facts is not None and _full(told.claims.layers, expected.now_ms - checked.facts.issued_ms)
    found = [
        (Fault(number, name, what), kind)
        for number, name, faults in (
            (2, "algorithm", _algorithm(told)),
            (3, "profile", _profile(told)),
            (4, "nonce", _nonce(checked)),
            (5, "sequence", _sequence(told.claims, checked.facts)),
            (6, "evidence key", _key(told, enrolled)),
            (7, "signature", _signature(told)),
            (8, "instance", _instance(told.claims, enrolled)),
            (9, "quarantine", _quarantine(enrolled)),
            (10, "generation", _generation(told.claims, enrolled)),
            (11, "policy epoch", _policy_epoch(told.claims, expected.policy_epoch)),
            (12, "leaf key", _leaf_key(told)),
            (13, "claims", _claims(told.claims)),
            (14, "full round", _full_round(full, enrolled)),
        )
        for kind, what in faults
    ]
    if found or checked.facts is None:
        faults = tuple(fault for fault, _ in found)
        raise Rejected(
            found[0][0].what,
            kind=found[0][1],
            where=f"evidence, step {faults[0].step}",
            mend=_mend(found[0][1]),
            faults=faults,
        )
    return Verified(told.claims, told.nonce, checked.facts, told.digest, told.thumbprint, full)


def _algorithm(told: Evidence) -> Iterator[_Found]:
    if told.algorithm != cose.ES256:
        yield Kind.EVIDENCE_ALGORITHM, f"the algorithm {told.algorithm}, where only ES256 (-7) will do"


def _profile(told: Evidence) -> Iterator[_Found]:
    if told.profile != evidence.PROFILE:
        yield Kind.EVIDENCE_PROFILE, f"the profile {told.profile!r}, where {evidence.PROFILE!r} is spoken"


_NONCE_FAULTS: dict[NonceFault, _Found] = {
    NonceFault.FORGED: (Kind.NONCE_FORGED, "this authority never issued the nonce"),
    NonceFault.EPOCH: (Kind.NONCE_STALE, "the nonce was issued under keys that were replaced since"),
    NonceFault.FOREIGN: (Kind.NONCE_FOREIGN, "the nonce was issued to another instance, or under another key"),
    NonceFault.STALE: (Kind.NONCE_STALE, "the nonce was issued too long ago"),
    NonceFault.EARLY: (Kind.NONCE_STALE, "the nonce was issued in the future: the authority's clock went back"),
}


def _nonce(checked: NonceCheck) -> Iterator[_Found]:
    for fault in checked.faults:
        yield _NONCE_FAULTS[fault]


def _sequence(claims: Claims, facts: NonceFacts | None) -> Iterator[_Found]:
    if facts is not None and claims.sequence != facts.sequence:
        yield Kind.SEQUENCE_MISMATCH, f"sequence {claims.sequence} is claimed, and the nonce has {facts.sequence}"


def _key(told: Evidence, enrolled: Enrolled) -> Iterator[_Found]:
    if told.thumbprint != enrolled.thumbprint:
        yield Kind.EVIDENCE_KEY, "the evidence key is not the one that enrolled"


def _signature(told: Evidence) -> Iterator[_Found]:
    if not told.holds:
        yield Kind.EVIDENCE_SIGNATURE, "the signature was not made by the key in the evidence"


def _instance(claims: Claims, enrolled: Enrolled) -> Iterator[_Found]:
    if claims.instance != enrolled.instance:
        yield Kind.EVIDENCE_INSTANCE, f"it speaks of {claims.instance}, and comes from {enrolled.instance}"


def _quarantine(enrolled: Enrolled) -> Iterator[_Found]:
    if enrolled.standing.quarantined:
        causes = "; ".join(cause.text for cause in enrolled.standing.causes)
        yield Kind.INSTANCE_QUARANTINED, f"the instance is quarantined: {causes}"


def _generation(claims: Claims, enrolled: Enrolled) -> Iterator[_Found]:
    if claims.generation < enrolled.generation:
        yield Kind.GENERATION_PAST, f"generation {claims.generation}, and {enrolled.generation} has been seen"


def _policy_epoch(claims: Claims, current: int) -> Iterator[_Found]:
    if claims.policy_epoch != current:
        yield Kind.POLICY_EPOCH_STALE, f"policy epoch {claims.policy_epoch}, where {current} is in force"


def _leaf_key(told: Evidence) -> Iterator[_Found]:
    try:
        keys.from_der(told.claims.leaf_key)
    except InvalidInput as error:
        yield Kind.LEAF_KEY, f"the leaf key: {error.what}"
        return
    if keys.thumbprint_of_der(told.claims.leaf_key) == told.thumbprint:
        yield Kind.LEAF_KEY, "the leaf key is the evidence key; each has one use"


def _claims(claims: Claims) -> Iterator[_Found]:
    counters = (claims.sequence, claims.generation, claims.policy_epoch, claims.revocation)
    if min(counters) < 0:
        yield Kind.CLAIMS_IMPOSSIBLE, "a counter below zero"
    layers = [claim.layer for claim in claims.layers]
    if len(set(layers)) != len(layers) or set(layers) & set(claims.coverage.absent):
        yield Kind.CLAIMS_IMPOSSIBLE, "a layer claimed twice, or claimed and named absent"
    if any(not _possible(claim) for claim in claims.layers):
        yield Kind.CLAIMS_IMPOSSIBLE, "an age or a count that cannot be"
    if any(each.latency_ms < 0 or each.lost < 0 for each in claims.coverage.collectors):
        yield Kind.CLAIMS_IMPOSSIBLE, "a collector with a latency or a loss below zero"
    if claims.served is not None and Layer.PROXY not in layers:
        yield Kind.CLAIMS_IMPOSSIBLE, "a certificate that is served, and no proxy that serves it"
    if claims.calls is not None and Layer.SYSCALLS not in layers:
        yield Kind.CLAIMS_IMPOSSIBLE, "how often calls are made, and no layer that says which"
    if len(claims.boot_id) > MOST_BOOT_ID:
        yield Kind.CLAIMS_IMPOSSIBLE, "a boot id longer than one is"


def _possible(claim: LayerClaim) -> bool:
    """A full measurement is never younger than the latest one."""
    return 0 <= claim.age_ms <= claim.full_age_ms <= MOST_AGE_MS and claim.items >= 0


def _full_round(full: bool, enrolled: Enrolled) -> Iterator[_Found]:
    if enrolled.full_required and not full:
        yield (
            Kind.FULL_ROUND_REQUIRED,
            "after an unclean end every layer is read in full, later than the nonce was issued",
        )


def _full(layers: tuple[LayerClaim, ...], nonce_age_ms: int) -> bool:
    return all(claim.full_age_ms <= nonce_age_ms + _FULL_SLACK_MS for claim in layers)


def _mend(kind: Kind) -> str:
    if kind in (Kind.NONCE_STALE, Kind.NONCE_FORGED, Kind.NONCE_FOREIGN, Kind.FULL_ROUND_REQUIRED):
        return "Ask for a new nonce and attest again."
    if kind is Kind.POLICY_EPOCH_STALE:
        return "Fetch the policy and attest again."
    return "Start a new instance, or have an operator release this one." if kind is Kind.INSTANCE_QUARANTINED else ""
