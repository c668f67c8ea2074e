"""What evidence says of the watchers, held against what policy asks of them."""

from __future__ import annotations

from collections.abc import Sequence

from attestation.coverage import EGRESS, Coverage, Cutting, Grade, Guarantee, Profile
from attestation.layers import Layer
from attestation.signals import Signal
from policies.appraise import allowing, detectors, sockets
from policies.appraise.reasons import Finding
from policies.model.places import rule
from policies.model.policy import AttestationPolicy, Demand


def check_coverage(coverage: Coverage, policy: AttestationPolicy) -> list[Finding]:
    """What of it is less than policy asks for, detectors that are not heard included."""
    asked = policy.spec.coverage
    found = []
    if list(Grade).index(coverage.grade) > list(Grade).index(asked.grade):
        found.append(_less("grade", asked.grade, coverage.grade, policy))
    if list(Cutting).index(coverage.cutting) > list(Cutting).index(asked.cutting):
        found.append(_less("cutting", asked.cutting, coverage.cutting, policy))
    if list(Profile).index(coverage.profile) > list(Profile).index(asked.profile):
        found.append(_less("profile", asked.profile, coverage.profile, policy))
    if policy.spec.gate is Demand.REQUIRED and not coverage.gated:
        found.append(_ungated(policy))
    if policy.spec.notified is Demand.REQUIRED and not coverage.notified:
        found.append(_unnotified(policy))
    if _wants_connections(policy) and all(each.name != EGRESS for each in coverage.collectors):
        found.append(_unwatched(policy))  # of one that does not run, the layer's standing tells
    if policy.spec.fence is Demand.REQUIRED and not coverage.fenced:
        found.append(_unfenced(policy))
    found += detectors.unheard(coverage, policy)
    held = coverage.isolation.guarantees
    missing = [each for each in asked.isolation if each not in held]
    return found + [_exposed(each, missing, policy) for each in missing]


def weak(
    policy: AttestationPolicy,
    subject: str,
    expected: str,
    found: str,
    *,
    mend: str,
    stated: str | None = None,
    allow: str = "",
    layer: Layer = Layer.ATTESTER,
) -> Finding:
    """A watcher is less than policy asks for. stated: by which rule, that of `subject` where nothing is said."""
    kind = Signal.COVERAGE_WEAK
    by = rule(policy, subject) if stated is None else stated
    return Finding(kind, policy.spec.violation_class(kind), layer, subject, expected, found, by, mend, allow)


def _less(name: str, expected: str, found: str, policy: AttestationPolicy) -> Finding:
    mend = "Give the measurer the capabilities that `proofbeat doctor` names."
    allow = allowing.weaker(name, found, policy)
    return weak(policy, f"coverage.{name}", f"{expected} is the least", found, mend=mend, allow=allow)


def _ungated(policy: AttestationPolicy) -> Finding:
    mend = "Coverage says why (`processes.gate`): it takes CAP_SYS_ADMIN, and a mount namespace of the workload's own."
    allow = allowing.ungated(policy)
    return weak(policy, "processes.gate", "a gate is required", "none is in force", mend=mend, allow=allow)


def _unnotified(policy: AttestationPolicy) -> Finding:
    expected = "a seccomp filter that asks is required"
    mend = "Start the workload under one (docs/seccomp.md): it cannot be put around what runs already."
    return weak(policy, "syscalls.notified", expected, "none does", mend=mend, allow=allowing.unnotified(policy))


def _wants_connections(policy: AttestationPolicy) -> bool:
    return policy.spec.egress.allowed is not None and policy.spec.demand(Layer.PROCESSES) is not Demand.OFF


def _unwatched(policy: AttestationPolicy) -> Finding:
    mend = "Bring the sidecar and its measurer to a release that knows `egress`."
    stated = rule(policy, "egress.allowed")
    return weak(policy, "coverage.egress", "connections are looked for", "nobody does", mend=mend, stated=stated)


def _unfenced(policy: AttestationPolicy) -> Finding:
    stated, allow = sockets.asked_of_fence(policy)
    mend = "Coverage says why (`processes.fence`): it takes CAP_SYS_ADMIN, and a control group of version 2 above all."
    expected, found = "a fence is required", "none stands"
    return weak(policy, "coverage.fence", expected, found, mend=mend, stated=stated, allow=allow)


def _exposed(guarantee: Guarantee, missing: Sequence[Guarantee], policy: AttestationPolicy) -> Finding:
    expected, mend = f"{guarantee} is asked for", "docs/hardening.md says what gives it."
    allow = allowing.less_isolated(missing, policy)
    return weak(policy, "coverage.isolation", expected, "it does not hold", mend=mend, allow=allow)
