"""JSON Web Signatures (RFC 7515) in compact form: ES256, and a `typ` that keeps one purpose apart from another.

Signatures are deterministic (RFC 6979): what is signed again is the same token, so that a repeated answer is the
answer given before and not a second one.
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
from joserfc.jwk import ECKey

from attestation import keys
from attestation.errors import MalformedResult

ALGORITHM = "ES256"
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
    """One algorithm and no other: `none`, HMAC and RSA do not exist here."""

    algorithms = {ALGORITHM: _DeterministicES256()}  # noqa: RUF012 - joserfc declares it as an instance mapping
    recommended = [ALGORITHM]  # noqa: RUF012 - the same
    max_payload_length = MOST_BYTES


_REGISTRY = _Registry(algorithms=[ALGORITHM])


class Signer:
    """A P-256 private key that signs tokens."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._key = ECKey.import_key(pem)
        self.public_key = key.public_key()

    def sign(self, payload: bytes, *, kind: str) -> str:
        """The compact token. kind: its `typ`."""
        header = {"alg": ALGORITHM, "typ": kind}
        return jws.serialize_compact(header, payload, self._key, registry=_REGISTRY)


def open_signed(token: str, key: ec.EllipticCurvePublicKey, *, kind: str) -> bytes:
    """The payload of a token of this `typ` that `key` signed. Raises MalformedResult for every other token."""
    try:
        opened = jws.deserialize_compact(token, _imported(keys.public_der(key)), registry=_REGISTRY)
    except (JoseError, ValueError) as error:
        raise MalformedResult(
            f"a token that does not verify ({error})", where="JWS", mend="Only ES256 by the pinned key will do."
        ) from error
    if opened.headers() != {"alg": ALGORITHM, "typ": kind}:
        raise MalformedResult(f"a token that is no {kind}", where="JWS")
    return opened.payload or b""


@lru_cache(maxsize=64)
def _imported(der: bytes) -> ECKey:
    return ECKey.import_key(der)
