"""WorkloadRegistration: which identity a workload gets, and which references it is held against."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from attestation.errors import InvalidConfiguration, InvalidInput
from attestation.spiffe import SpiffeId
from policies.model.dialect import Strict
from policies.model.metadata import Document
from policies.model.origin import Origin
from policies.model.places import rule


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


class Identities:
    """Which namespace each SPIFFE ID is of: the one that registers it first; several of its registrations may share it.

    trust_domain: of the authority that issues them; None where that is not known.
    """

    def __init__(self, trust_domain: str | None) -> None:
        self._trust_domain = trust_domain
        self._first: dict[str, tuple[WorkloadRegistration, Origin]] = {}

    def take(self, registration: WorkloadRegistration, where: Origin) -> None:
        """Raises InvalidConfiguration for an ID of another trust domain, or of another namespace."""
        name, text = registration.metadata.qualified, registration.spec.spiffe_id
        if self._trust_domain is not None and not text.startswith(f"spiffe://{self._trust_domain}/"):
            domain = SpiffeId.parse(text).trust_domain
            raise InvalidConfiguration(
                f"registration {name!r} is of the trust domain {domain!r}, the authority of {self._trust_domain!r}",
                where=where.at(rule(registration, "spiffeId")),
                mend=f"Register an ID that begins with spiffe://{self._trust_domain}/.",
            )
        first, at = self._first.setdefault(text, (registration, where))
        if first.metadata.namespace != registration.metadata.namespace:
            raise InvalidConfiguration(
                f"registration {name!r} names {text}, which is registered by {first.metadata.qualified!r} ({at}), "
                "of another namespace",
                where=where.at(rule(registration, "spiffeId")),
                mend="Give one of them another SPIFFE ID, or put both into one namespace.",
            )
