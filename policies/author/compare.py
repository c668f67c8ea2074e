"""What other policies would say of the evidence that there is: whose verdict would change, and who would close."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attestation.bodies import DIGEST_OF
from attestation.errors import MalformedEvidence
from policies.appraise.appraise import appraise
from policies.appraise.expiry import in_time
from policies.appraise.reasons import Finding, Verdict
from policies.author.confined import evaluate_confined
from policies.author.saved import Saved
from policies.model.governing import Governing
from policies.model.load import PolicySet
from policies.model.policy import Demand, Mode


@dataclass(frozen=True, slots=True)
class Outcome:
    """What policies make of one instance. mode, tier: empty where nothing rules it. opens: may its traffic flow?

    untold: why that cannot be said; empty where it can.
    """

    mode: str
    tier: str
    opens: bool
    reasons: tuple[Finding, ...] = ()
    untold: str = ""

    @property
    def verdict(self) -> object:
        """All of it but the wording of the reasons."""
        return self.mode, self.tier, self.opens, {(each.kind, each.subject) for each in self.reasons}


@dataclass(frozen=True, slots=True)
class Compared:
    instance: str
    registration: str
    before: Outcome
    after: Outcome

    @property
    def changes(self) -> bool:
        return self.before.verdict != self.after.verdict

    @property
    def closes(self) -> bool:
        return self.before.opens and not self.after.opens

    @property
    def untold(self) -> str:
        return self.before.untold or self.after.untold


def compared(before: PolicySet, after: PolicySet, saved: Iterable[Saved], now: float) -> tuple[Compared, ...]:
    """Each instance under both. now: Unix seconds."""
    return tuple(
        Compared(each.instance, each.registration, outcome(each, before, now), outcome(each, after, now))
        for each in saved
    )


def outcome(saved: Saved, policies: PolicySet, now: float) -> Outcome:
    """What would come of this evidence. now: Unix seconds."""
    governing = policies.governing.get(saved.registration)
    if governing is None:
        return Outcome("", "", opens=False)
    if missing := _missing(saved, governing):
        return Outcome(governing.policy.spec.mode, "", opens=False, untold=f"not saved: {missing}")
    try:
        verdict = in_time(appraise(saved.claims, saved.bodies, governing, evaluate_confined), governing, now)
    except MalformedEvidence as error:
        return Outcome(governing.policy.spec.mode, "", opens=False, untold=error.sentence)
    return Outcome(governing.policy.spec.mode, verdict.tier.label, opens(verdict, governing), verdict.reasons)


def opens(verdict: Verdict, governing: Governing) -> bool:
    """May traffic flow by this verdict? In observe and audit nothing closes it."""
    spec = governing.policy.spec
    return spec.mode is not Mode.ENFORCE or spec.opens(verdict.tier)


def _missing(saved: Saved, governing: Governing) -> str:
    """The claimed layers that policy judges, and that were not at hand when the evidence was saved."""
    return ", ".join(
        claim.layer
        for claim in saved.claims.layers
        if claim.layer in DIGEST_OF
        and governing.policy.spec.demand(claim.layer) is not Demand.OFF
        and claim.digest not in saved.bodies
    )
