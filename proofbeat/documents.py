"""Policy documents as the authority reads them."""

from __future__ import annotations

import yaml

from policies.model.metadata import Document, Metadata, Selector
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues
from policies.model.registration import RegistrationSpec, WorkloadRegistration


def governing(name: str, spiffe_id: str, policy: AttestationPolicy, references: ReferenceValues) -> str:
    """YAML of all that rules one registration: its policy, the registration itself, its reference values."""
    registration = WorkloadRegistration(
        metadata=Metadata(name=name),
        spec=RegistrationSpec(spiffe_id=spiffe_id, references=references.metadata.name),
    )
    selector = Selector(registrations=(name,))
    selecting = policy.model_copy(update={"spec": policy.spec.model_copy(update={"selector": selector})})
    return "---\n".join(to_yaml(each) for each in (selecting, registration, references))


def to_yaml(document: Document) -> str:
    """One document, with nothing that it does not state: an empty list of caches would forbid everybody else's."""
    head = {"apiVersion": document.api_version, "kind": document.kind}
    stated = document.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    return yaml.safe_dump(head | stated, sort_keys=False)
