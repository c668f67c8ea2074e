"""COSE_Sign1 (RFC 9052 section 4.2) with ES256 and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from attestation import cbor
from attestation.errors import MalformedEvidence

ES256 = -7
_ALG = 1
_PROTECTED = cbor.dumps({_ALG: ES256})
_TAG_18 = b"\xd2"
_SCALAR = 32


@dataclass(frozen=True, slots=True)
class Sign1:
    """A parsed message. algorithm: the COSE number in the protected header; only ES256 ever verifies."""

    algorithm: int
    protected: bytes
    payload: bytes
    signature: bytes

    def holds(self, key: ec.EllipticCurvePublicKey, *, aad: bytes = b"") -> bool:
        """Whether `key` signed this payload for this purpose (`aad`, the external additional data)."""
        if self.algorithm != ES256 or len(self.signature) != 2 * _SCALAR:
            return False
        r, s = (int.from_bytes(half, "big") for half in (self.signature[:_SCALAR], self.signature[_SCALAR:]))
        try:
            key.verify(encode_dss_signature(r, s), _to_be_signed(self.protected, aad, self.payload), _ecdsa())
        except InvalidSignature:
            return False
        return True


def sign1(payload: bytes, key: ec.EllipticCurvePrivateKey, *, aad: bytes = b"") -> bytes:
    """The tagged message. aad: names the purpose, so that a signature made for one is void for every other."""
    r, s = decode_dss_signature(key.sign(_to_be_signed(_PROTECTED, aad, payload), _ecdsa()))
    signature = r.to_bytes(_SCALAR, "big") + s.to_bytes(_SCALAR, "big")
    return _TAG_18 + cbor.dumps([_PROTECTED, {}, payload, signature])


def parse(data: bytes, *, most_bytes: int = cbor.MOST_BYTES) -> Sign1:
    """The form alone. Raises MalformedEvidence; whether the signature holds is `Sign1.holds`.

    Unprotected headers are refused: nothing signs them, so they could only make two messages of one.
    """
    if data[:1] != _TAG_18:
        raise MalformedEvidence("no tagged COSE_Sign1 message", where="COSE")
    parts = cbor.loads(data[1:], most_bytes=most_bytes)
    if not isinstance(parts, list) or [type(each) for each in parts] != [bytes, dict, bytes, bytes] or parts[1]:
        raise MalformedEvidence("not [protected, {}, payload, signature]", where="COSE")
    protected, _, payload, signature = parts
    header = cbor.loads(protected)
    if not isinstance(header, dict) or header.keys() != {_ALG} or type(header[_ALG]) is not int:
        raise MalformedEvidence("a protected header that is more or less than an algorithm", where="COSE")
    return Sign1(header[_ALG], protected, payload, signature)


def _to_be_signed(protected: bytes, aad: bytes, payload: bytes) -> bytes:
    return cbor.dumps(["Signature1", protected, aad, payload])


def _ecdsa() -> ec.ECDSA:
    return ec.ECDSA(hashes.SHA256())
