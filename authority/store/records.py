"""What the store hands out: plain values, one a question."""

from __future__ import annotations

from dataclasses import dataclass

from attestation.digests import Digest
from attestation.instance import InstanceId
from attestation.trust import Tier
from wire.messages import Cause, Standing


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An instance as enrolled. public_key: DER of its evidence key. sequence, generation: of its last round."""

    instance: InstanceId
    registration: str
    thumbprint: Digest
    public_key: bytes
    sequence: int
    generation: int
    full_required: bool
    standing: Standing


@dataclass(frozen=True, slots=True)
class Candidate:
    """A round that verification and appraisal let through; the store decides whether it counts.

    full: every layer was read in full since the nonce was issued. result: the EAR's payload. tamper: a cause that
    the appraisal found, which quarantines.
    """

    instance: InstanceId
    thumbprint: Digest
    sequence: int
    generation: int
    evidence: Digest
    full: bool
    tier: Tier
    result: bytes
    leaf_key: bytes
    not_before: int
    lease_end_ms: int
    tamper: Cause | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The round counts: this one, or the one that the same evidence brought before.

    not_before: Unix seconds. repeated: it is an earlier answer, told again.
    """

    tier: Tier
    result: bytes
    leaf_key: bytes
    serial: int
    not_before: int
    lease_end_ms: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The round does not count: the instance is quarantined, and was already or is by this very round."""

    cause: Cause | None
    cloned: bool


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The round does not count: another nonce is needed. Each field says whether that is the reason."""

    key_replaced: bool = False
    full_required: bool = False
    sequence_passed: bool = False
    generation_past: bool = False


Decision = Accepted | Quarantine | Lapsed


@dataclass(frozen=True, slots=True)
class InstanceState:
    """An instance as operators see it. reasons: of the last round that was accepted. Times in Unix ms, 0 for never."""

    instance: InstanceId
    spiffe_id: str
    registration: str
    quarantined: bool
    tier: str
    lease_end_ms: int
    last_round_ms: int
    enrolled_ms: int
    full_required: bool
    generation: int
    causes: tuple[Cause, ...]
    released: tuple[Cause, ...]
    records: tuple[Cause, ...]
    """Drift, and everything under a policy that does not enforce: recorded, and quarantining nobody."""
    reasons: tuple[str, ...]
