"""The signed policy document, opened: what rules this workload, and what that means for measuring and closing."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from attestation import results
from attestation.errors import MalformedResult
from attestation.layers import Layer
from policies.model.policy import AttestationPolicy, Demand
from policies.model.references import ReferenceValues
from sidecar.freshness import Rules

MEASURED = (Layer.FILES, Layer.PROCESSES)
"""The layers that this sidecar can measure. Others are named absent in the evidence."""


@dataclass(frozen=True, slots=True)
class Governed:
    """Policy and references of one epoch."""

    epoch: int
    policy: AttestationPolicy
    references: ReferenceValues

    @property
    def rules(self) -> Rules:
        spec = self.policy.spec
        return Rules(spec.mode, spec.recovery.drift, spec.recovery.tamper)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What is measured: all that policy asks for and we can."""
        return tuple(layer for layer in MEASURED if self.policy.spec.demand(layer) is not Demand.OFF)

    @property
    def required(self) -> tuple[Layer, ...]:
        return tuple(layer for layer in MEASURED if self.policy.spec.demand(layer) is Demand.REQUIRED)


def read_governing(document: str, key: ec.EllipticCurvePublicKey, *, at_least: int) -> Governed:
    """The document's content. Raises MalformedResult for a foreign signature, another form, or a lower epoch."""
    payload = results.open_signed(document, key)
    try:
        fields = json.loads(payload)
        governed = Governed(
            int(fields["epoch"]),
            AttestationPolicy.model_validate_json(json.dumps(fields["policy"])),
            ReferenceValues.model_validate_json(json.dumps(fields["references"])),
        )
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise MalformedResult("the policy document does not parse", where="signed policy") from error
    if governed.epoch < at_least:
        raise MalformedResult(
            f"policy epoch {governed.epoch} after {at_least}",
            where="signed policy",
            mend="Epochs only rise: a roll-back of policy is a new epoch.",
        )
    return governed
