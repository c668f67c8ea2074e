"""The signed order that ends a quarantine: it names the instance and the causes, and is void after any later one."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import digests, jws, strictjson
from attestation.errors import InvalidInput, MalformedResult
from attestation.instance import InstanceId
from attestation.plain import build
from attestation.wording import shown

KIND = "proofbeat-release+jws"


def cause_id(instance: InstanceId, *, generation: int, kind: str, text: str, at_ms: int) -> str:
    """The name of a cause, the same on both sides. kind: tamper, order or clone. at_ms: Unix milliseconds."""
    parts = (instance.value, str(generation), kind, shown(text), str(at_ms))
    return "c-" + digests.tagged("cause", *(part.encode() for part in parts))[:32]


@dataclass(frozen=True, slots=True)
class ReleaseOrder:
    """issued_at: Unix seconds."""

    instance: InstanceId
    causes: tuple[str, ...]
    issued_at: int

    def covers(self, instance: InstanceId, causes: Collection[str]) -> bool:
        """Whether the order ends the quarantine that these causes make. A cause it does not name voids it."""
        return self.instance == instance and set(causes) <= set(self.causes)


def sign(order: ReleaseOrder, signer: jws.Signer) -> str:
    body = {"instance": order.instance.value, "causes": list(order.causes), "iat": order.issued_at}
    return signer.sign(json.dumps(body, separators=(",", ":")).encode(), kind=KIND)


def parse(token: str, key: ec.EllipticCurvePublicKey) -> ReleaseOrder:
    """Raises MalformedResult for an order that `key` did not sign or that does not parse."""
    body = jws.open_signed(token, key, kind=KIND)
    try:
        order = strictjson.loads(body)
        return build(
            ReleaseOrder, {"instance": order["instance"], "causes": order["causes"], "issued_at": order["iat"]}
        )
    except (KeyError, TypeError, InvalidInput) as error:
        raise MalformedResult("a release order that does not parse", where="release") from error
