"""AR4SI trustworthiness: the tier and the vector of an appraisal (draft-ietf-rats-ar4si, section 2.3)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

from attestation.errors import MalformedResult

VERIFIER_MALFUNCTION = -1
NO_CLAIM = 0
UNKNOWN = 1


class Tier(IntEnum):
    """Only AFFIRMING opens traffic, and WARNING where policy says so."""

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96

    @classmethod
    def of(cls, claim: int) -> Tier:
        """The tier that a claim value belongs to. Raises MalformedResult outside -128..127."""
        if not -128 <= claim <= 127:
            raise MalformedResult(f"{claim} is not a trustworthiness claim", where="trust vector")
        if claim in (VERIFIER_MALFUNCTION, NO_CLAIM, UNKNOWN):
            return cls.NONE
        if claim < 0 or claim >= cls.CONTRAINDICATED:
            return cls.CONTRAINDICATED
        return cls.WARNING if claim >= cls.WARNING else cls.AFFIRMING

    @property
    def label(self) -> str:
        """The word an EAR carries as `ear.status`."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class TrustVector:
    """The eight claims by AR4SI's names; 0 where nothing was claimed."""

    instance_identity: int = NO_CLAIM
    configuration: int = NO_CLAIM
    executables: int = NO_CLAIM
    file_system: int = NO_CLAIM
    hardware: int = NO_CLAIM
    runtime_opaque: int = NO_CLAIM
    storage_opaque: int = NO_CLAIM
    sourced_data: int = NO_CLAIM

    @property
    def tier(self) -> Tier:
        """No better than the worst claim; NONE when nothing was claimed or the verifier malfunctioned."""
        claims = [value for each in fields(self) if (value := getattr(self, each.name)) != NO_CLAIM]
        if not claims:
            return Tier.NONE
        tiers = [Tier.of(claim) for claim in claims]
        worst = max(tiers)
        return Tier.NONE if Tier.NONE in tiers and worst is Tier.AFFIRMING else worst
