"""What the admin socket answers beside what the store and the wire have words for: written as JSON, read back the same.

The front door reads these very classes (proofbeat/admin.py): neither side can name a field that the other lacks.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from attestation.instance import InstanceId
from authority.latest import Told
from authority.store.records import InstanceState
from wire.messages import Denials, Denied


@dataclass(frozen=True, slots=True)
class Token:
    """A join token."""

    token: str


@dataclass(frozen=True, slots=True)
class Asked:
    """Was there a session on which the instance could be asked to attest?"""

    asked: bool


@dataclass(frozen=True, slots=True)
class Reloaded:
    """epoch: of the policies that are in force now."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Instances:
    """Every instance that ever enrolled, the latest first."""

    instances: tuple[InstanceState, ...]


@dataclass(frozen=True, slots=True)
class SignedEvidence:
    """An instance's latest evidence. evidence: the signed bytes, base64. at_ms: when it was appraised, Unix ms."""

    instance: InstanceId
    registration: str
    evidence: str
    at_ms: int

    @classmethod
    def of(cls, told: Told) -> SignedEvidence:
        return cls(told.instance, told.registration, base64.b64encode(told.evidence).decode(), told.at_ms)


@dataclass(frozen=True, slots=True)
class LatestEvidence:
    """Of every instance that has attested since the authority's start."""

    evidence: tuple[SignedEvidence, ...]


@dataclass(frozen=True, slots=True)
class DeniedInstance:
    """An instance that peers refuse. leaves: SHA-256 fingerprints, hexadecimal."""

    instance: InstanceId
    spiffe_id: str
    cause: str
    leaves: tuple[str, ...]
    addresses: tuple[str, ...]

    @classmethod
    def of(cls, denied: Denied) -> DeniedInstance:
        """The same, as operators see it."""
        leaves = tuple(leaf.fingerprint for leaf in denied.leaves)
        return cls(denied.instance, denied.spiffe_id, denied.cause, leaves, denied.addresses)


@dataclass(frozen=True, slots=True)
class DenialList:
    """The list of denials in force, without its CRL, which holds nothing more than the leaves do."""

    version: int
    denied: tuple[DeniedInstance, ...]

    @classmethod
    def of(cls, denials: Denials) -> DenialList:
        """The same, as operators see it."""
        return cls(denials.version, tuple(map(DeniedInstance.of, denials.denied)))
