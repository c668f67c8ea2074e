"""The SPIFFE bundle document: a JWK set (SPIFFE Trust Domain and Bundle, section 4)."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

REFRESH_HINT = 300
"""Seconds between looks that readers are advised of."""


def document(roots: tuple[x509.Certificate, ...], *, sequence: int) -> bytes:
    """JSON with one x509-svid key a root. sequence: grows whenever the set changes."""
    keys = [_jwk(root) for root in roots]
    return json.dumps({"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": REFRESH_HINT}).encode()


def _jwk(root: x509.Certificate) -> dict[str, Any]:
    """No `kid`: X509-SVID keys must not carry one. `x5c` holds exactly the one CA certificate."""
    key = root.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("our roots are P-256")
    numbers = key.public_numbers()
    der = root.public_bytes(serialization.Encoding.DER)
    return {
        "use": "x509-svid",
        "kty": "EC",
        "crv": "P-256",
        "x": _base64url(numbers.x.to_bytes(32, "big")),
        "y": _base64url(numbers.y.to_bytes(32, "big")),
        "x5c": [base64.b64encode(der).decode()],
    }


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
