"""Why an appraisal came out as it did: one reason a finding, each naming the claim, the reference and the rule."""

from __future__ import annotations

from dataclasses import dataclass

from attestation.digests import Digest
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier, TrustVector
from attestation.violation import ViolationClass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a layer that policy or references do not allow.

    finding_class: as PolicySpec.violation_class has it, unless the finding says why not. expected, found: what the
    reference says and what is there. rule: by policies/model/places.py. allow: by policies/appraise/allowing.py.
    digest: of the content that is there, where there is one.
    """

    kind: Signal
    finding_class: ViolationClass
    layer: Layer
    subject: str
    expected: str
    found: str
    rule: str
    mend: str = ""
    allow: str = ""
    digest: Digest = ""

    @property
    def exact(self) -> str:
        """What is there, the same words for everybody who finds the same, and for nobody else."""
        return self.digest or self.found

    @property
    def text(self) -> str:
        return f"{self.subject}: {self.found}, where {self.expected}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of an appraisal. Which tiers open traffic, policy says (PolicySpec.opens)."""

    vector: TrustVector
    reasons: tuple[Finding, ...]

    @property
    def tier(self) -> Tier:
        return self.vector.tier

    @property
    def tamper(self) -> bool:
        """At least one reason leaves no clean state behind: the instance is to be quarantined for good."""
        return any(reason.finding_class is ViolationClass.TAMPER for reason in self.reasons)
