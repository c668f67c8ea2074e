"""Public keys as bytes, and the short name by which a key is known: P-256 everywhere, Ed25519 where people sign."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from attestation import digests
from attestation.digests import Digest
from attestation.errors import InvalidInput, MalformedEvidence

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
VerifyingKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_MOST_REMEMBERED = 4096
"""An attester's keys come again every round: parsed once, they are kept (half a kilobyte each)."""

_COSE_EC2, _COSE_P256 = 2, 1
_KTY, _CRV, _X, _Y = 1, -1, -2, -3


def public_der(key: VerifyingKey) -> bytes:
    """DER SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@lru_cache(_MOST_REMEMBERED)
def from_der(der: bytes) -> ec.EllipticCurvePublicKey:
    """Raises InvalidInput for anything but the one DER SubjectPublicKeyInfo of a point on P-256."""
    key = verifying_from_der(der)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidInput("a public key that is not on P-256", where="public key", mend="Use ec.SECP256R1.")
    return key


@lru_cache(_MOST_REMEMBERED)
def verifying_from_der(der: bytes) -> VerifyingKey:
    """As `from_der`, of a person's key: a point on P-256 or an Ed25519 key."""
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput("bytes that are no public key", where="public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) or not _used_here(key):
        raise InvalidInput(
            "a public key that is neither on P-256 nor Ed25519", where="public key", mend="Use one of the two."
        )
    if public_der(key) != der:
        raise InvalidInput("a public key not in its canonical form", where="public key")
    return key


def _used_here(key: VerifyingKey) -> bool:
    return isinstance(key, ed25519.Ed25519PublicKey) or isinstance(key.curve, ec.SECP256R1)


def thumbprint(key: VerifyingKey) -> Digest:
    """The name of a key: a digest of its DER SubjectPublicKeyInfo."""
    return thumbprint_of_der(public_der(key))


def thumbprint_of_der(der: bytes) -> Digest:
    """The name of the key in this DER, which is canonical."""
    return digests.tagged("key", der)


def to_cose(key: ec.EllipticCurvePublicKey) -> dict[int, int | bytes]:
    """COSE_Key of kind EC2 (RFC 9053 section 7.1.1), uncompressed."""
    numbers = key.public_numbers()
    return {_KTY: _COSE_EC2, _CRV: _COSE_P256, _X: numbers.x.to_bytes(32, "big"), _Y: numbers.y.to_bytes(32, "big")}


def from_cose(value: Any) -> ec.EllipticCurvePublicKey:
    """Raises MalformedEvidence for anything `to_cose` cannot have made, points off the curve included."""
    where = "COSE_Key"
    if not isinstance(value, dict) or value.keys() != {_KTY, _CRV, _X, _Y}:
        raise MalformedEvidence("a key with parameters other than kty, crv, x and y", where=where)
    x, y = value[_X], value[_Y]
    if (value[_KTY], value[_CRV]) != (_COSE_EC2, _COSE_P256) or type(x) is not bytes or type(y) is not bytes:
        raise MalformedEvidence("a key that is not EC2 on P-256", where=where)
    if len(x) != 32 or len(y) != 32:
        raise MalformedEvidence("coordinates that are not 32 bytes long", where=where)
    return _on_curve(b"\x04" + x + y)


@lru_cache(_MOST_REMEMBERED)
def _on_curve(point: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError as error:
        raise MalformedEvidence("a point that is not on P-256", where="COSE_Key") from error
