"""Three operators, any two of whom may break the glass, and an order of theirs."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from attestation import keys
from attestation.breakglass import Order, Reach, Scope, Signed, Subject
from attestation.instance import InstanceId
from attestation.keys import SigningKey
from attestation.spiffe import SpiffeId

WEB = "spiffe://example.org/web"
SUBJECT = Subject("web", "default", SpiffeId.parse(WEB), InstanceId("i-" + "0" * 32))
KEYS: dict[str, SigningKey] = {
    "ada": ed25519.Ed25519PrivateKey.generate(),
    "bob": ec.generate_private_key(ec.SECP256R1()),
    "cat": ed25519.Ed25519PrivateKey.generate(),
}
STRANGER = ed25519.Ed25519PrivateKey.generate()


def public(key: SigningKey) -> str:
    """As a policy has it."""
    return base64.b64encode(keys.public_der(key.public_key())).decode()


def rules(*names: str, **changes: Any) -> dict[str, Any]:
    """What `spec.breakGlass` says, with these operators of the three, or all."""
    operators = [{"name": name, "key": public(KEYS[name])} for name in names or KEYS]
    return {"operators": operators, "quorum": 2, "longest": "1h", **changes}


def order(**changes: Any) -> Order:
    said: dict[str, Any] = {
        "trust_domain": "example.org",
        "scope": Scope(Reach.REGISTRATIONS, ("web",), (WEB,)),
        "issued_at": 1_000,
        "not_before": 1_000,
        "not_after": 2_800,
        "reason": "a release that nobody referenced",
        "least_epoch": 3,
        "salt": "ab" * 16,
        **changes,
    }
    return Order(**said)


def signed(*by: SigningKey, **changes: Any) -> Signed:
    """An order signed by these keys, or by ada and bob."""
    document = Signed(order(**changes))
    for key in by or (KEYS["ada"], KEYS["bob"]):
        document = document.with_signature(key)
    return document
