"""JSON Web Signatures (RFC 7515) in compact form: ES256, and a `typ` that keeps one purpose apart from another.

People's keys may be Ed25519 (RFC 9864) as well. Which algorithm holds is said by the key, never by the token.

Signatures are deterministic (RFC 6979; Ed25519 always is): what is signed again is the same token, so that a repeated
answer is the answer given before and not a second one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwa import ESAlgorithm
from joserfc.jwk import ECKey, OKPKey

from attestation import keys
from attestation.errors import MalformedResult
from attestation.keys import SigningKey, VerifyingKey

ALGORITHM = "ES256"
ED25519 = "Ed25519"
MOST_BYTES = 32 * 1024 * 1024


class _DeterministicES256(ESAlgorithm):
    """ES256 whose signatures depend on the key and the message alone."""

    def __init__(self) -> None:
        super().__init__(ALGORITHM, "P-256", 256, True)

    def sign(self, msg: bytes, key: ECKey) -> bytes:
        private: Any = key.get_op_key("sign")
        r, s = decode_dss_signature(private.sign(msg, ec.ECDSA(self.hash_alg(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class _Registry(jws.JWSRegistry):
    """Two algorithms and no other: `none`, HMAC and RSA do not exist here."""

    algorithms = {  # noqa: RUF012 - joserfc declares it as an instance mapping
        ALGORITHM: _DeterministicES256(),
        ED25519: jws.JWSRegistry.algorithms[ED25519],
    }
    recommended = [ALGORITHM, ED25519]  # noqa: RUF012 - the same
    max_payload_length = MOST_BYTES


_REGISTRY = _Registry(algorithms=[ALGORITHM, ED25519])


class Signer:
    """A P-256 private key that signs tokens."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = _imported(_private(key), ALGORITHM)
        self.public_key = key.public_key()

    def sign(self, payload: bytes, *, kind: str) -> str:
        """The compact token. kind: its `typ`."""
        return _sign(payload, self._key, ALGORITHM, kind)


def sign(payload: bytes, key: SigningKey, *, kind: str) -> str:
    """As Signer.sign, with a person's key."""
    algorithm = algorithm_of(key.public_key())
    return _sign(payload, _imported(_private(key), algorithm), algorithm, kind)


def open_signed(token: str, key: VerifyingKey, *, kind: str) -> bytes:
    """The payload of a token of this `typ` that `key` signed. Raises MalformedResult for every other token."""
    algorithm = algorithm_of(key)
    try:
        opened = jws.deserialize_compact(token, _public(keys.public_der(key), algorithm), registry=_REGISTRY)
    except (JoseError, ValueError) as error:
        raise MalformedResult(
            f"a token that does not verify ({error})", where="JWS", mend=f"Only {algorithm} by the pinned key will do."
        ) from error
    if opened.headers() != {"alg": algorithm, "typ": kind}:
        raise MalformedResult(f"a token that is no {kind}", where="JWS")
    return opened.payload or b""


def algorithm_of(key: VerifyingKey) -> str:
    """The one algorithm that this key signs with."""
    return ALGORITHM if isinstance(key, ec.EllipticCurvePublicKey) else ED25519


def _sign(payload: bytes, key: ECKey | OKPKey, algorithm: str, kind: str) -> str:
    return jws.serialize_compact({"alg": algorithm, "typ": kind}, payload, key, registry=_REGISTRY)


def _private(key: SigningKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@lru_cache(maxsize=64)
def _public(der: bytes, algorithm: str) -> ECKey | OKPKey:
    return _imported(der, algorithm)


def _imported(key: bytes, algorithm: str) -> ECKey | OKPKey:
    return ECKey.import_key(key) if algorithm == ALGORITHM else OKPKey.import_key(key)
