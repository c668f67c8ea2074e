"""WorkloadRegistration: which identity a workload gets, and which references it is held against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator

from attestation.errors import InvalidConfiguration, InvalidInput
from attestation.spiffe import SpiffeId
from policies.model.dialect import Strict
from policies.model.faults import MOST_APART, Fault
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


_Found = tuple[WorkloadRegistration, Origin]


class Identities:
    """Which namespace each SPIFFE ID is of: one alone, several of whose registrations may share it.

    Of several that register it, the root namespace's it is, else the one's that has had it so far; else nobody's, for
    nobody can tell whose it is. trust_domain: of the authority that issues them; None where that is not known. holders:
    SPIFFE ID -> namespace that has had it. silent: namespaces whose registrations may not all be known: they lose none.
    """

    def __init__(
        self, trust_domain: str | None, root: str, holders: Mapping[str, str], silent: Collection[str]
    ) -> None:
        self._trust_domain, self._root, self._holders = trust_domain, root, holders
        self.held = {text: namespace for text, namespace in holders.items() if namespace in silent}
        """SPIFFE ID -> the namespace that has it from now on."""

    def strange(self, registrations: Iterable[_Found]) -> Mapping[str, Sequence[Fault]]:
        """Registrations by name that cannot have the ID that they state, each with what is wrong."""
        strange: dict[str, list[Fault]] = defaultdict(list)
        claims: dict[str, list[_Found]] = defaultdict(list)
        for registration, where in registrations:
            text = registration.spec.spiffe_id
            if self._trust_domain is None or text.startswith(f"spiffe://{self._trust_domain}/"):
                claims[text].append((registration, where))
            else:
                strange[registration.metadata.qualified].append(self._foreign(registration, where))
        for text, claimed in claims.items():
            owner = self._owner(text, {_namespace(each) for each in claimed})
            if owner:
                self.held[text] = owner
            first = [each for each in claimed if _namespace(each) == (owner or _namespace(claimed[0]))]
            others = [each for each in claimed if _namespace(each) != (owner or _namespace(claimed[0]))]
            faults = [_taken(each, text, first[0] if first else None, owner) for each in others]
            for (registration, _), fault in zip(others, faults, strict=True):
                strange[registration.metadata.qualified].append(fault)
            for registration, _ in () if owner else first:
                strange[registration.metadata.qualified].extend(faults[:MOST_APART])
        return strange

    def _owner(self, text: str, namespaces: Collection[str]) -> str:
        """Empty where nobody can tell."""
        before = self._holders.get(text, "")
        if self._root in namespaces:
            return self._root
        if before in namespaces or text in self.held:
            return before
        return next(iter(namespaces)) if len(namespaces) == 1 else ""

    def _foreign(self, registration: WorkloadRegistration, where: Origin) -> Fault:
        name, domain = registration.metadata.qualified, SpiffeId.parse(registration.spec.spiffe_id).trust_domain
        error = InvalidConfiguration(
            f"registration {name!r} is of the trust domain {domain!r}, the authority of {self._trust_domain!r}",
            where=where.at(rule(registration, "spiffeId")),
            mend=f"Register an ID that begins with spiffe://{self._trust_domain}/.",
        )
        return Fault(error, f"{registration.kind}/{name}", registration.metadata.namespace)


def _namespace(found: _Found) -> str:
    return found[0].metadata.namespace


def _taken(found: _Found, text: str, first: _Found | None, owner: str) -> Fault:
    """first: who has registered it; None where that is not known, and only the namespace is."""
    registration, where = found
    name = registration.metadata.qualified
    by = f"registered by {first[0].metadata.qualified!r} ({first[1]})" if first else f"{owner!r}'s"
    unknown = "" if first else ", some of whose documents cannot be read"
    error = InvalidConfiguration(
        f"registration {name!r} names {text}, which is {by}, of another namespace{unknown}",
        where=where.at(rule(registration, "spiffeId")),
        mend="Give one of them another SPIFFE ID, or put both into one namespace.",
    )
    return Fault(error, f"{registration.kind}/{name}", registration.metadata.namespace)
