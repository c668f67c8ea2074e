"""Policy documents as the authority reads them."""

from __future__ import annotations

import yaml

from policies.model.dialect import Strict
from policies.model.policy import AttestationPolicy, Metadata
from policies.model.references import ReferenceValues
from policies.model.registration import RegistrationSpec, WorkloadRegistration


def governing(name: str, spiffe_id: str, policy: AttestationPolicy, references: ReferenceValues) -> str:
    """YAML of all that rules one registration: its policy, the registration itself, its reference values."""
    registration = WorkloadRegistration(
        metadata=Metadata(name=name),
        spec=RegistrationSpec(spiffe_id=spiffe_id, policy=policy.metadata.name, references=references.metadata.name),
    )
    return "---\n".join(to_yaml(each) for each in (policy, registration, references))


def to_yaml(document: Strict) -> str:
    """One document."""
    return yaml.safe_dump(document.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=False)
