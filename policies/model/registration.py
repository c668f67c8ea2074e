"""WorkloadRegistration: which identity a workload gets, under which policy, against which references."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from attestation.errors import InvalidInput
from attestation.spiffe import SpiffeId
from policies.model.dialect import Strict
from policies.model.policy import API_VERSION, Metadata


def _registrable(text: str) -> str:
    try:
        identity = SpiffeId.parse(text)
    except InvalidInput as error:
        raise ValueError(error.sentence) from error
    if not identity.path:
        raise ValueError("a workload's SPIFFE ID has a path")
    if identity.reserved:
        raise ValueError("the path /proofbeat/ is reserved; nothing can be registered under it")
    return text


class RegistrationSpec(Strict):
    """policy, references: names of an AttestationPolicy and a ReferenceValues of the same namespace."""

    spiffe_id: Annotated[str, AfterValidator(_registrable)]
    policy: str
    references: str


class WorkloadRegistration(Strict):
    api_version: Literal["proofbeat.dev/v1alpha1"] = API_VERSION
    kind: Literal["WorkloadRegistration"] = "WorkloadRegistration"
    metadata: Metadata
    spec: RegistrationSpec
