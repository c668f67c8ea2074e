"""Evidence: an EAT (RFC 9711) as CWT (RFC 8392) in COSE_Sign1, signed with ES256 by a key that lives in memory only.

| claim | key | meaning |
|---|---|---|
| iat | 6 | when it was signed, Unix seconds |
| cnf | 8 | the evidence key itself (RFC 8747) |
| eat_nonce | 10 | the authority's nonce |
| eat_profile | 265 | PROFILE |
| claims | -70001 | ours: attestation/claimset.py |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import cbor, claimset, cose, digests, keys
from attestation.claims import Claims
from attestation.digests import Digest
from attestation.errors import MalformedEvidence
from attestation.plain import NEWEST

PROFILE = "tag:proofbeat.dev,2025:evidence/1"
MOST_BYTES = 16 * 1024
LEAST_NONCE, MOST_NONCE = 8, 64

_IAT, _CNF, _NONCE, _PROFILE, _CLAIMS = 6, 8, 10, 265, -70001
_COSE_KEY = 1
_AAD = b"proofbeat/evidence"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One signed statement, parsed. Nothing in it is to be believed unless `holds`.

    issued_at: Unix seconds by the attester's clock: told, never judged. digest: of the signed bytes, by which a
    retry is known from a second statement. holds: the algorithm is ES256 and the key it names made the signature.
    """

    claims: Claims
    nonce: bytes
    key: ec.EllipticCurvePublicKey
    thumbprint: Digest
    issued_at: int
    profile: str
    algorithm: int
    digest: Digest
    holds: bool


def sign(
    claims: Claims, nonce: bytes, key: ec.EllipticCurvePrivateKey, *, issued_at: float, minor: int = NEWEST
) -> bytes:
    """The evidence. issued_at: Unix seconds. minor: of the wire that the authority speaks.

    Sign a nonce once: a retry sends the same bytes. Two statements over one nonce look like a cloned attester.
    """
    payload = {
        _IAT: int(issued_at),
        _CNF: {_COSE_KEY: keys.to_cose(key.public_key())},
        _NONCE: nonce,
        _PROFILE: PROFILE,
        _CLAIMS: claimset.encode(claims, minor=minor),
    }
    return cose.sign1(cbor.dumps(payload), key, aad=_AAD)


def parse(data: bytes) -> Evidence:
    """Raises MalformedEvidence where size, CBOR, COSE or the set of claims break the form."""
    message = cose.parse(data, most_bytes=MOST_BYTES)
    payload = cbor.loads(message.payload)
    if not isinstance(payload, dict) or payload.keys() != {_IAT, _CNF, _NONCE, _PROFILE, _CLAIMS}:
        raise MalformedEvidence("claims other than iat, cnf, eat_nonce, eat_profile and ours", where="evidence")
    key = _confirmed_key(payload[_CNF])
    return Evidence(
        claims=claimset.decode(payload[_CLAIMS]),
        nonce=_nonce(payload[_NONCE]),
        key=key,
        thumbprint=keys.thumbprint(key),
        issued_at=_typed(payload[_IAT], int, "iat"),
        profile=_typed(payload[_PROFILE], str, "eat_profile"),
        algorithm=message.algorithm,
        digest=digests.tagged("evidence", data),
        holds=message.holds(key, aad=_AAD),
    )


def verify(data: bytes) -> Evidence:
    """`parse`, and the algorithm, profile and signature are right. Raises MalformedEvidence otherwise."""
    evidence = parse(data)
    if evidence.algorithm != cose.ES256:
        raise MalformedEvidence(f"the algorithm {evidence.algorithm}, where only ES256 (-7) will do", where="evidence")
    if evidence.profile != PROFILE:
        raise MalformedEvidence(f"the profile {evidence.profile!r}, where {PROFILE!r} is spoken", where="evidence")
    if not evidence.holds:
        raise MalformedEvidence("a signature that the key in it did not make", where="evidence")
    return evidence


def nonce_of(data: bytes) -> bytes:
    """The nonce in evidence of one's own making: the signature is not checked. Raises MalformedEvidence."""
    payload = cbor.loads(cose.parse(data, most_bytes=MOST_BYTES).payload)
    return _nonce(payload.get(_NONCE) if isinstance(payload, dict) else None)


def claims_digest(claims: Claims) -> Digest:
    """What a hardware proof binds to: everything claimed, volatile values included."""
    return digests.tagged("claims", cbor.dumps(claimset.encode(claims)))


def _confirmed_key(value: Any) -> ec.EllipticCurvePublicKey:
    if not isinstance(value, dict) or value.keys() != {_COSE_KEY}:
        raise MalformedEvidence("a confirmation that is not one COSE_Key", where="cnf")
    return keys.from_cose(value[_COSE_KEY])


def _nonce(value: Any) -> bytes:
    nonce: bytes = _typed(value, bytes, "eat_nonce")
    if not LEAST_NONCE <= len(nonce) <= MOST_NONCE:
        raise MalformedEvidence(f"a nonce of {len(nonce)} bytes", where="eat_nonce", mend="It has 8 to 64.")
    return nonce


def _typed(value: Any, kind: type, where: str) -> Any:
    if type(value) is not kind:
        raise MalformedEvidence(f"{kind.__name__} was expected", where=where)
    return value
