"""What the admin socket answers beside what the store and the wire have words for: written as JSON, read back the same.

The front door reads these very classes (proofbeat/admin.py): neither side can name a field that the other lacks.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attestation.breakglass import Order
from attestation.instance import InstanceId
from attestation.wording import shown
from authority.breakglass import Applied
from authority.calling import InstanceCalls
from authority.latest import Told
from authority.store.records import Broken, InstanceState, Withdrawn
from policies.model.dialect import faults_of
from policies.model.faults import Fault
from wire.messages import Denials, Denied

MOST_FAULTS = 200


@dataclass(frozen=True, slots=True)
class Token:
    """A join token."""

    token: str


@dataclass(frozen=True, slots=True)
class Asked:
    """Was there a session on which the instance could be asked to attest?"""

    asked: bool


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """What is wrong with a document. where: file, line and column. without_identity: registrations that get none."""

    document: str
    where: str
    what: str
    mend: str
    without_identity: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyFaults:
    """Of single namespaces, MOST_FAULTS of them. left_out: how many more there are."""

    faults: tuple[PolicyFault, ...]
    left_out: int = 0

    @classmethod
    def of(cls, faults: Mapping[Fault, Sequence[str]]) -> PolicyFaults:
        """The same, as operators see it."""
        told = [(fault, tuple(names), each) for fault, names in faults.items() for each in faults_of(fault.error)]
        listed = tuple(
            PolicyFault(fault.document, shown(each.where), shown(each.what), shown(each.mend), names)
            for fault, names, each in told[:MOST_FAULTS]
        )
        return cls(listed, len(told) - len(listed))


@dataclass(frozen=True, slots=True)
class Reloaded:
    """epoch: of the policies that are in force now. wrong: what of them is not."""

    epoch: int
    wrong: PolicyFaults


@dataclass(frozen=True, slots=True)
class Judged:
    """Whether a break-glass order holds for a registration of its scope, and who signed it by that one's policy."""

    registration: str
    faults: tuple[str, ...]
    signed_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GlassBroken:
    """An order that was applied. held: for everybody in its scope."""

    id: str
    order: str
    held: tuple[Judged, ...]

    @classmethod
    def of(cls, applied: Applied) -> GlassBroken:
        held = applied.held.items()
        judged = tuple(Judged(name, each.faults, each.signed_by) for name, each in held)
        return cls(applied.order.id, str(applied.order), judged)


@dataclass(frozen=True, slots=True)
class GlassMended:
    """The order of this id has ended, or for these registrations, where any were named."""

    id: str
    registrations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderState:
    """standing: waiting, in force, over, or ended. begins, ends: Unix seconds. registrations, signed_by, applied_ms,
    ended_ms, ended, withdrawn: as authority.store.records.Broken has them.
    """

    id: str
    standing: str
    scope: str
    reason: str
    begins: int
    ends: int
    registrations: tuple[str, ...]
    signed_by: tuple[str, ...]
    applied_ms: int
    ended_ms: int
    ended: str
    withdrawn: tuple[Withdrawn, ...]

    @classmethod
    def of(cls, kept: Broken, order: Order, now: float) -> OrderState:
        """now: Unix seconds."""
        return cls(
            id=kept.id,
            standing="ended" if kept.ended_ms else order.standing(now),
            scope=str(order.scope),
            reason=order.reason,
            begins=order.not_before,
            ends=order.not_after,
            registrations=kept.registrations,
            signed_by=kept.signed_by,
            applied_ms=kept.applied_ms,
            ended_ms=kept.ended_ms,
            ended=kept.ended,
            withdrawn=kept.withdrawn,
        )


@dataclass(frozen=True, slots=True)
class Registered:
    """A registration that a policy rules."""

    name: str
    spiffe_id: str


@dataclass(frozen=True, slots=True)
class GlassOrders:
    """Every break-glass order, those that stand first; and what one can be about. epoch: of the policies."""

    trust_domain: str
    epoch: int
    registrations: tuple[Registered, ...]
    orders: tuple[OrderState, ...]


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
class LatestCalls:
    """Of every instance that was asked for, whose latest evidence says anything of system calls."""

    calls: tuple[InstanceCalls, ...]


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
