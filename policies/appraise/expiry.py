"""What becomes of a verdict when the reference values behind it have expired.

Time is no part of an appraisal, so that one may be kept for as long as what it was made from is the same. This is
asked of each verdict, kept or not.
"""

from __future__ import annotations

from dataclasses import replace

from attestation.layers import Layer
from attestation.quantities import instant_text
from attestation.signals import Signal
from attestation.trust import UNKNOWN, Tier, TrustVector
from policies.appraise.reasons import Finding, Verdict
from policies.model.governing import Governing
from policies.model.places import rule
from policies.model.policy import Demand

_REFERENCED = (Layer.FILES, Layer.PROCESSES, Layer.PROXY, Layer.MEMORY)
"""The layers that are held against reference values."""


def in_time(verdict: Verdict, governing: Governing, now: float) -> Verdict:
    """The verdict; where its reference values have expired, with nothing affirmed that rests on them.

    now: Unix seconds.
    """
    spec, references = governing.policy.spec, governing.references
    expires = references.spec.expires
    rests = [layer for layer in _REFERENCED if spec.demand(layer) is not Demand.OFF]
    if expires is None or now < expires or not rests:
        return verdict
    stated = rule(references, "expires")
    finding = Finding(
        Signal.REFERENCES_EXPIRED,
        spec.violation_class(Signal.REFERENCES_EXPIRED),
        rests[0],
        stated.partition(":")[0],
        "only what has not expired affirms anything",
        f"expired at {instant_text(expires)}",
        stated,
        "Build these reference values anew, or look through them, and state a later `expires`.",
    )
    return Verdict(_unfounded(verdict.vector, rests), (*verdict.reasons, finding))


def _unfounded(vector: TrustVector, rests: list[Layer]) -> TrustVector:
    """What was affirmed is unknown now; what speaks against the workload still does."""
    return replace(
        vector,
        file_system=_unknown(vector.file_system) if Layer.FILES in rests else vector.file_system,
        executables=_unknown(vector.executables) if {Layer.PROCESSES, Layer.MEMORY} & {*rests} else vector.executables,
        configuration=_unknown(vector.configuration) if Layer.PROXY in rests else vector.configuration,
    )


def _unknown(claim: int) -> int:
    return UNKNOWN if Tier.of(claim) is Tier.AFFIRMING else claim
