"""A judged round as the store is to decide on it: the result's text and the lease's arithmetic."""

from __future__ import annotations

from collections.abc import Collection

from attestation import release, results
from attestation.breakglass import Order
from attestation.drift import Drift
from attestation.results import Result
from attestation.trust import Tier
from attestation.violation import ViolationClass
from attestation.wording import shown, shown_lines
from authority.issuer.ca import BACKDATE
from authority.rules import Ruling
from authority.store.records import Candidate, Enrolled, Explanation
from authority.verifier.verify import Verified
from policies.appraise.holding import as_held
from policies.appraise.reasons import Finding, Verdict
from policies.model.places import place
from policies.model.policy import Mode, PolicySpec
from wire.messages import Cause

VERIFIER = "proofbeat authority"


def candidate(
    enrolled: Enrolled,
    verified: Verified,
    verdict: Verdict,
    ruling: Ruling,
    *,
    issued: Collection[int],
    epoch: int,
    latest_ms: int,
    now_ms: int,
    by: Order | None = None,
    held: Drift | None = None,
) -> Candidate:
    """The lease ends `freshness` after the nonce was issued, whenever it is judged, and not after latest_ms.

    Nor after the end of the reference values that it rests on, where policy enforces.

    issued: as for the appraisal. epoch: of the policies. latest_ms: the end of the CA. now_ms: Unix milliseconds.
    by: the break-glass order that lets it through, which it does not outlive. held: the drift for which it is held
    back; the verdict is then softened.
    """
    if held is not None:
        verdict = as_held(verdict)
    if by is not None:
        latest_ms = min(latest_ms, by.not_after * 1000)
    lease_end_ms = ruling.founded(min(verified.facts.issued_ms + ruling.freshness_ms, latest_ms), now_ms)
    result = Result(
        status=verdict.tier,
        vector=verdict.vector,
        nonce=verified.nonce,
        issued_at=now_ms // 1000,
        expires_at=lease_end_ms // 1000,
        verifier=VERIFIER,
        instance=enrolled.instance,
        spiffe_id=ruling.identity,
        mode=ruling.policy.spec.mode.value,
        generation=verified.claims.generation,
        policy_epoch=epoch,
        policy_digest=ruling.digest,
        reasons=tuple(shown(f"{reason.kind}: {reason.text}") for reason in verdict.reasons[: results.MOST_REASONS]),
        break_glass=by.id if by is not None else "",
        held=held.id if held is not None else "",
    )
    found = _binding(verdict, ruling) if by is None or verdict.tamper else None
    cause = _cause(verified, found, now_ms) if found is not None else None
    return Candidate(
        instance=enrolled.instance,
        thumbprint=verified.thumbprint,
        sequence=verified.facts.sequence,
        generation=verified.claims.generation,
        evidence=verified.digest,
        full=verified.full,
        tier=verdict.tier,
        result=results.payload(result),
        leaf_key=verified.claims.leaf_key,
        not_before=now_ms // 1000 - int(BACKDATE.total_seconds()),
        lease_end_ms=lease_end_ms,
        cause=cause,
        closes=ruling.policy.spec.mode is Mode.ENFORCE,
        tolerated=held is None and _tolerated(verdict.tier, ruling.policy.spec),
        explanation=_explained(_gravest(verdict), ruling, cause, now_ms) if verdict.reasons else None,
        revocation=verified.claims.revocation,
        served=verified.claims.served if verified.claims.served in issued else None,
        break_glass=result.break_glass,
        held=result.held,
    )


def _tolerated(tier: Tier, spec: PolicySpec) -> bool:
    return spec.mode is Mode.ENFORCE and tier is Tier.WARNING and spec.opens(tier)


def _binding(verdict: Verdict, ruling: Ruling) -> Finding | None:
    """What quarantines until it is released: the gravest finding, where a measurement does not heal one of its class.

    Drift only where it speaks against the workload: nobody is quarantined for a measurement that came late.
    """
    if not verdict.tamper and verdict.tier is not Tier.CONTRAINDICATED:
        return None
    found = _gravest(verdict)
    return found if ruling.binds(found.finding_class) else None


def _cause(verified: Verified, finding: Finding, now_ms: int) -> Cause:
    kind, text, generation = finding.finding_class.value, shown(finding.text), verified.claims.generation
    name = release.cause_id(verified.claims.instance, generation=generation, kind=kind, text=text, at_ms=now_ms)
    return Cause(name, kind, text, now_ms, generation)


def _gravest(verdict: Verdict) -> Finding:
    """The first tamper, else the first reason."""
    tampers = (reason for reason in verdict.reasons if reason.finding_class is ViolationClass.TAMPER)
    return next(tampers, verdict.reasons[0])


def _explained(finding: Finding, ruling: Ruling, cause: Cause | None, now_ms: int) -> Explanation:
    return Explanation(
        id=cause.id if cause is not None else "",
        kind=finding.kind,
        violation_class=finding.finding_class,
        text=shown(finding.text),
        at_ms=now_ms,
        layer=finding.layer,
        subject=shown(finding.subject),
        rule=shown(finding.rule),
        place=place(finding.rule, ruling.governing.origins),
        mend=shown(finding.mend),
        allow=shown_lines(finding.allow),
    )
