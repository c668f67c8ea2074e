"""Whether a break-glass order holds for a workload, by that workload's own policy; and what it waives.

The authority asks before it grants a lease, and the sidecar before it believes one, each of the policy that it knows:
an authority that has nothing but its own keys cannot break anybody's glass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from attestation.breakglass import Reach, Signed, Subject
from attestation.instance import InstanceId
from attestation.quantities import duration
from attestation.signals import Signal
from attestation.spiffe import SpiffeId
from attestation.trust import NO_CLAIM, Tier, TrustVector
from attestation.violation import Violation, ViolationClass
from policies.appraise.reasons import Verdict
from policies.model.breakglass import BreakGlassRules
from policies.model.governing import Governing
from policies.model.policy import AttestationPolicy, Mode
from policies.model.registration import WorkloadRegistration

_UNTOLD = frozenset(
    {
        Signal.COLLECTOR_OVERFLOWED,
        Signal.COLLECTOR_LAGGING,
        Signal.COLLECTOR_DEAD,
        Signal.DETECTOR_SILENT,
        Signal.MEASURER_LOST,
        Signal.LAYER_ABSENT,
        Signal.LAYER_OLD,
        Signal.COVERAGE_WEAK,
        Signal.PROXY_ABSENT,
        Signal.PROXY_UNKNOWN,
        Signal.RULE_ERROR,
        Signal.KEY_SOCKET_SECOND_CLIENT,
    }
)
"""What says that nobody could tell, or that somebody reached for the key: a tamper may be behind it."""


_ANY = InstanceId("i-" + "0" * 32)
"""Stands for whichever instance, where none is named."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What an order is held against: one workload, under the policy of one epoch."""

    trust_domain: str
    epoch: int
    subject: Subject
    policy: AttestationPolicy


@dataclass(frozen=True, slots=True)
class Held:
    """What came of it. faults: all that is wrong with the order here; it holds where there are none.

    signed_by: the names of those operators whose signatures hold, whatever else is wrong.
    """

    faults: tuple[str, ...]
    signed_by: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.faults


def held(signed: Signed, ground: Ground, known: Held | None = None) -> Held:
    """Holds an order against one workload's policy, whatever the time is.

    known: what `permitted` says of it under this policy, where that was asked before.
    """
    order = signed.order
    # 1. Is it about this mesh, this workload, and these policies or later ones?
    foreign = tuple(
        fault
        for fault, holds in (
            (f"it is for the trust domain {order.trust_domain}", order.trust_domain == ground.trust_domain),
            (f"it is for {order.scope}", order.scope.covers(ground.subject)),
            (f"it is for policies from epoch {order.least_epoch} on", ground.epoch >= order.least_epoch),
        )
        if not holds
    )
    # 2. Did enough of those sign it who may, and is it short enough?
    allowed = permitted(signed, ground.policy.spec.break_glass) if known is None else known
    return Held(foreign + allowed.faults, allowed.signed_by)


def permitted(signed: Signed, rules: BreakGlassRules) -> Held:
    """The part that needs to know nothing but the operators."""
    operators = rules.by_key
    found = signed.signatories(each.verifying for each in operators.values())
    signed_by = tuple(sorted({operators[key].name for key in found}))
    faults = []
    if not operators:
        faults.append("no policy names an operator who may break the glass")
    elif len(signed_by) < rules.quorum:
        faults.append(f"{rules.quorum} operators must sign, and did: {', '.join(signed_by) or 'nobody'}")
    if signed.order.lasts > rules.longest:
        faults.append(f"it lasts {duration(signed.order.lasts)}, where {duration(rules.longest)} is the longest")
    return Held(tuple(faults), signed_by)


def subject_of(registration: WorkloadRegistration, instance: InstanceId) -> Subject:
    metadata = registration.metadata
    return Subject(metadata.qualified, metadata.namespace, SpiffeId.parse(registration.spec.spiffe_id), instance)


def held_by_each(signed: Signed, governing: Mapping[str, Governing], trust_domain: str, epoch: int) -> dict[str, Held]:
    """Registration -> whether the order holds for it, of all that its scope covers."""
    scope = signed.order.scope
    instance = InstanceId(scope.names[0]) if scope.reach is Reach.INSTANCE else _ANY
    subjects = {name: subject_of(each.registration, instance) for name, each in governing.items()}
    covered = {name: subject for name, subject in subjects.items() if scope.covers(subject)}
    rules = {name: governing[name].policy.spec.break_glass for name in covered}
    known = {each: permitted(signed, each) for each in set(rules.values())}
    return {
        name: held(signed, Ground(trust_domain, epoch, subject, governing[name].policy), known[rules[name]])
        for name, subject in covered.items()
    }


def waives(verdict: Verdict, policy: AttestationPolicy) -> bool:
    """Whether an order that holds opens traffic in spite of this verdict: where all that speaks against it is drift.

    Never where a tamper was found, and never where something cannot be told: it may hide one.
    """
    closes = policy.spec.mode is Mode.ENFORCE and not policy.spec.opens(verdict.tier)
    claims = [getattr(verdict.vector, each.name) for each in fields(TrustVector)]
    told = not any(claim != NO_CLAIM and Tier.of(claim) is Tier.NONE for claim in claims)
    drift = all(waives_kind(each.kind, tamper=each.finding_class is ViolationClass.TAMPER) for each in verdict.reasons)
    return closes and told and bool(verdict.reasons) and drift


def waives_violation(violation: Violation) -> bool:
    """The same of what a sidecar sees."""
    return waives_kind(violation.kind, tamper=violation.tamper)


def waives_kind(kind: str, *, tamper: bool) -> bool:
    """`waives_violation` of a report about one."""
    return not tamper and kind not in _UNTOLD
