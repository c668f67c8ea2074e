"""What an attester says of its instance in one round. Volatile values never enter a layer's digest."""

from __future__ import annotations

from dataclasses import dataclass

from attestation.coverage import Coverage
from attestation.digests import Digest
from attestation.instance import InstanceId
from attestation.layers import Layer, Method
from attestation.plain import since
from attestation.tally import Tally


@dataclass(frozen=True, slots=True)
class LayerClaim:
    """One layer's digest with the age of its measurement in whole milliseconds, at signing."""

    layer: Layer
    digest: Digest
    method: Method
    age_ms: int
    full_age_ms: int
    items: int


@dataclass(frozen=True, slots=True)
class Claims:
    """The signed statement.

    sequence: from the nonce; one evidence a sequence. generation: bumped by every violation. revocation: the
    version of the revocation data that Envoy acknowledged. leaf_key: DER SubjectPublicKeyInfo of the key that
    the certificate shall carry. boot_id: the kernel's. served: the serial number of the certificate that Envoy serves,
    by its own word, beside the proxy layer; None where it serves none that names anybody: before the first lease, and
    closed. It changes with every lease, so that it is in no layer. calls: beside the layer of calls, for the same
    reason: how often and how fast they are made, and by whom first of those outside of the baseline.
    """

    instance: InstanceId
    sequence: int
    generation: int
    policy_epoch: int
    revocation: int
    leaf_key: bytes
    boot_id: str
    layers: tuple[LayerClaim, ...]
    coverage: Coverage
    served: int | None = since(3, None)
    calls: Tally | None = since(8, None)
