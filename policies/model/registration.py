"""WorkloadRegistration: which identity a workload gets, and which references it is held against."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from attestation.errors import InvalidInput
from attestation.spiffe import SpiffeId
from policies.model.dialect import Strict
from policies.model.metadata import Document


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
    """Which identity it gets, and what it is held against. spiffe_id: the identity.

    references: name of a ReferenceValues of the same namespace. Policies select registrations, not the reverse.
    """

    spiffe_id: Annotated[str, AfterValidator(_registrable)]
    references: str


class WorkloadRegistration(Document):
    kind: Literal["WorkloadRegistration"] = "WorkloadRegistration"
    spec: RegistrationSpec
