"""Which drift may be held back, where policy lets only a share of the instances close for one (`maxUnavailable`).

The sidecar asks this of what it sees, before it asks the authority; the authority asks it of each verdict.
"""

from __future__ import annotations

from dataclasses import fields, replace

from attestation.digests import well_formed
from attestation.drift import MOST_DRIFTS, MOST_WORDS, Drift
from attestation.layers import Layer
from attestation.manifest import NO_DIGEST
from attestation.signals import Signal
from attestation.trust import NO_CLAIM, Tier, TrustVector
from attestation.violation import Violation, ViolationClass
from attestation.wording import shown
from policies.appraise.breakglass import waives_kind
from policies.appraise.reasons import Finding, Verdict

HELD = int(Tier.WARNING)
"""The claim of an appraisal about what is held back."""

_HOLDABLE = (Layer.FILES, Layer.PROCESSES)
"""What a rollout changes. Of Envoy and of the watchers it is never held: they are who would close."""
_SIGNALS = frozenset(Signal)
_NEVER = frozenset({Signal.REFERENCES_EXPIRED, Signal.FLAPPING, Signal.CONTRAINDICATED, Signal.FILE_UNREADABLE})
"""What lapses for all at a time, what stands for another drift, and what nobody can tell the content of."""
_OF_CONTENT = frozenset(
    {
        Signal.FILE_MODIFIED,
        Signal.FILE_UNREFERENCED,
        Signal.EXECUTION_FOREIGN,
        Signal.EXECUTION_MODIFIED,
        Signal.EXECUTION_DELETED,
        Signal.EXECUTION_FROM_DATA,
        Signal.EXECUTION_REFUSED,
    }
)
"""Another content is another drift."""


def drift_of(violation: Violation) -> Drift | None:
    """What a sidecar saw, as it asks about it; None for what is never held: it closes at once."""
    drift = Drift(violation.kind, violation.layer, violation.subject, violation.found)
    return drift if holdable(drift, tamper=violation.tamper) else None


def drifts_of(verdict: Verdict) -> frozenset[Drift] | None:
    """All that speaks against a workload, where nothing but such drift does; else None."""
    claims = [getattr(verdict.vector, each.name) for each in fields(TrustVector)]
    told = not any(claim != NO_CLAIM and Tier.of(claim) is Tier.NONE for claim in claims)
    if verdict.tier is not Tier.CONTRAINDICATED or not told or not 0 < len(verdict.reasons) <= MOST_DRIFTS:
        return None
    tampers = (each.finding_class is ViolationClass.TAMPER for each in verdict.reasons)
    drifts = [_drift(each) for each in verdict.reasons]
    held = all(holdable(each, tamper=tamper) for each, tamper in zip(drifts, tampers, strict=True))
    return frozenset(drifts) if held else None


def holdable(drift: Drift, *, tamper: bool) -> bool:
    """Nothing that could hide a tamper, or that two people might name in different words."""
    exact = all(each and shown(each, MOST_WORDS) == each for each in (drift.subject, drift.found))
    content = drift.kind not in _OF_CONTENT or (well_formed(drift.found) and drift.found != NO_DIGEST)
    known = drift.kind in _SIGNALS and drift.kind not in _NEVER and drift.layer in _HOLDABLE
    return known and exact and content and waives_kind(drift.kind, tamper=tamper)


def as_held(verdict: Verdict) -> Verdict:
    """The verdict about what is held back: no affirmation, and nothing that closes."""
    vector = verdict.vector
    changes = {each.name: _softened(getattr(vector, each.name)) for each in fields(TrustVector)}
    return Verdict(replace(vector, **changes), verdict.reasons)


def _drift(finding: Finding) -> Drift:
    return Drift(finding.kind, finding.layer, finding.subject, finding.exact)


def _softened(claim: int) -> int:
    return HELD if Tier.of(claim) is Tier.CONTRAINDICATED else claim
