"""Messages signed by the evidence key: who enrols, who opens a session, who posts. One purpose each.

They come before anything is agreed, so they keep the shape that they had in 1.0 for the whole of a major version.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import cose
from attestation.errors import InvalidInput, Refused
from wire import messages
from wire.messages import Enrol, Hello, Posted
from wire.problems import Kind
from wire.versions import FIRST

Signed = TypeVar("Signed", Enrol, Hello, Posted)


class Purpose(StrEnum):
    """What a signature is for; it is void for every other."""

    ENROL = "proofbeat/enrol"
    SESSION = "proofbeat/session"
    POST = "proofbeat/post"


def seal(message: Enrol | Hello | Posted, purpose: Purpose, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The message in a COSE_Sign1."""
    return cose.sign1(messages.encode(message, version=FIRST), key, aad=purpose.encode())


class Opened:
    """A sealed message, parsed but not believed: `by` is to be called with the key that ought to have signed it."""

    def __init__(self, data: bytes) -> None:
        self._sealed = cose.parse(data, most_bytes=messages.MOST_FRAME)
        self._message = messages.decode(self._sealed.payload, version=FIRST).message

    def claimed(self, shape: type[Signed]) -> Signed:
        """What it says, unverified: enough to find the key. Raises InvalidInput when it is of another kind."""
        if not isinstance(self._message, shape):
            raise InvalidInput(f"no {shape.__name__}", where="signed request")
        return self._message

    def check(self, purpose: Purpose, key: ec.EllipticCurvePublicKey) -> None:
        """Raises Refused (proof-invalid) unless `key` signed this for this purpose."""
        if not self._sealed.holds(key, aad=purpose.encode()):
            raise Refused(
                "the evidence key did not sign this request",
                kind=Kind.PROOF_INVALID,
                where="signed request",
                mend="Enrol again: the authority knows another key.",
            )
