"""Policy documents from files: every kind, checked one by one and then against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from attestation.digests import Digest
from attestation.errors import InvalidConfiguration
from policies.model import dialect
from policies.model.governing import Governing, canonical
from policies.model.inheritance import Inheritance, Whole
from policies.model.merge import Merged, Merging
from policies.model.origin import Mark, Origin
from policies.model.places import rule, step
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues
from policies.model.registration import Identities, WorkloadRegistration
from policies.model.selection import ROOT_NAMESPACE, Selection
from policies.model.signing import Trust

_KINDS: dict[str, type[AttestationPolicy] | type[ReferenceValues] | type[WorkloadRegistration]] = {
    "AttestationPolicy": AttestationPolicy,
    "ReferenceValues": ReferenceValues,
    "WorkloadRegistration": WorkloadRegistration,
}
Document = AttestationPolicy | ReferenceValues | WorkloadRegistration
Refuse = Callable[[InvalidConfiguration], None]


def refused(error: InvalidConfiguration) -> None:
    """One fault is enough: nothing of what was read comes into force."""
    raise error


class PolicySet:
    """Every document of one authority, by kind, namespace and name. Immutable; a change is a new set.

    governing: registration -> what rules it. unruled: registrations that no policy is for: they get no identity.
    refuse: told of each fault; what it does not raise is left out of the set. trust_domain: that every registration
    has to be of; None for any.
    """

    def __init__(
        self,
        documents: Iterable[tuple[Document, Origin]],
        root: str = ROOT_NAMESPACE,
        refuse: Refuse = refused,
        trust_domain: str | None = None,
    ) -> None:
        self._found: dict[tuple[str, str, str], tuple[Document, Origin]] = {}
        for document, where in documents:
            key = (document.kind, document.metadata.namespace, document.metadata.name)
            if key in self._found:
                refuse(_twice(document, where, self._found[key][1]))
                continue
            self._found[key] = (document, where)
        self.selection = Selection(
            ((each, at) for each, at in self._found.values() if isinstance(each, AttestationPolicy)), root
        )
        self.governing: dict[str, Governing] = {}
        self.unruled: dict[str, WorkloadRegistration] = {}
        self._merged: dict[int, Merged] = {}
        self._wholes = self._inherited(root, refuse)
        merging, identities = Merging(), Identities(trust_domain)
        for document, where in self._found.values():
            if isinstance(document, WorkloadRegistration):
                try:
                    identities.take(document, where)
                    self._resolve(document, where, merging)
                except InvalidConfiguration as error:
                    refuse(error)

    @property
    def documents(self) -> Iterable[tuple[Document, Origin]]:
        """In the sequence in which they were read."""
        return self._found.values()

    @property
    def merged(self) -> Iterable[Merged]:
        """Once for all whom the same policies rule."""
        return self._merged.values()

    def _inherited(self, root: str, refuse: Refuse) -> dict[tuple[str, str], Whole]:
        """Every ReferenceValues with what it inherits; what cannot be inherited is a fault though nobody uses it."""
        documents = {
            (namespace, name): (document, at)
            for (_, namespace, name), (document, at) in self._found.items()
            if isinstance(document, ReferenceValues)
        }
        inheritance, wholes = Inheritance(documents, root), {}
        for key in documents:
            try:
                wholes[key] = inheritance.whole(key)
            except InvalidConfiguration as error:
                refuse(error)
        return wholes

    def _resolve(self, registration: WorkloadRegistration, where: Origin, merging: Merging) -> None:
        applying = self.selection.of(registration.metadata)
        name = registration.metadata.qualified
        if not applying:
            self.unruled[name] = registration
            return
        whole = self._references(registration, where)
        if whole is None:
            return
        merged = merging.of(applying)
        self._merged[id(merged)] = merged
        written = [each.origin for each in applying if each.origin]
        documents = (*written, *whole.documents, where)
        self.governing[name] = Governing(
            registration, merged.policy, whole.references, documents, merged.applying, merged.conflicts
        )

    def _references(self, registration: WorkloadRegistration, where: Origin) -> Whole | None:
        """None for such as could not be put together: that has been told."""
        name, namespace = registration.spec.references, registration.metadata.namespace
        if ("ReferenceValues", namespace, name) not in self._found:
            raise InvalidConfiguration(
                f"registration {registration.metadata.name!r} names the ReferenceValues {name!r}, which does not exist",
                where=where.at(rule(registration, "references")),
                mend=f"Add a ReferenceValues of that name in namespace {namespace!r}.",
            )
        return self._wholes.get((namespace, name))

    @property
    def digest(self) -> Digest:
        """Of all documents; a policy epoch is bumped when it changes."""
        ordered = (canonical(self._found[key][0]) for key in sorted(self._found))
        return hashlib.sha256("\n".join(ordered).encode()).hexdigest()


def _twice(document: Document, where: Origin, before: Origin) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"{document.kind} {document.metadata.qualified!r} exists already in {before}",
        where=str(where),
        mend="Give one of them another name.",
    )


def load(
    paths: Iterable[Path],
    root: str = ROOT_NAMESPACE,
    trust: Trust | None = None,
    trust_domain: str | None = None,
) -> PolicySet:
    """Every document below the paths (files, or folders of *.yaml). Raises InvalidConfiguration with its place.

    root: the namespace whose policies are for every other one too. trust: who has to have signed reference values;
    None where nobody has to. trust_domain: as PolicySet has it.
    """
    return PolicySet(read(paths, trust=trust), root, trust_domain=trust_domain)


def read(
    paths: Iterable[Path], refuse: Refuse = refused, trust: Trust | None = None
) -> Iterable[tuple[Document, Origin]]:
    """The documents one by one, each checked for itself alone. refuse: as PolicySet has it. trust: as `load`."""
    for path in paths:
        for file in _files(path):
            try:
                yield from _documents(file, refuse, trust)
            except InvalidConfiguration as error:
                refuse(error)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    return [path]


def _documents(path: Path, refuse: Refuse, trust: Trust | None) -> Iterable[tuple[Document, Origin]]:
    text, vouched = dialect.read_text(path), False
    for value, node in dialect.parse(text, str(path)):
        if value is None:
            continue
        try:
            document = _document(value, node, path)
            if trust is not None and isinstance(document, ReferenceValues):
                where = dialect.place(str(path), node.start_mark)
                if not vouched:
                    trust.check(path, text.encode(), where)
                vouched = True
                trust.bounded(document.spec.expires, where)
        except InvalidConfiguration as error:
            refuse(error)
        else:
            yield document, Origin(path, _mark(node), _marks(document, node))


def _mark(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


def _marks(document: Document, node: yaml.Node) -> dict[str, Mark]:
    """Where each section of the document's spec stands, and each entry in it; of a policy all that is below as well.

    What only versions state is found under the name that it has in all of them together, where the first states it.
    """
    found: dict[str, Mark] = {}
    spec = next((value for key, value in _pairs(node) if key.value == "spec"), node)
    whole = isinstance(document, AttestationPolicy)

    def take(around: str, below: yaml.Node, depth: int) -> None:
        for key, value in _pairs(below):
            place = f"{around}{step(key.value)}" if around else key.value
            found.setdefault(rule(document, place), _mark(key))
            if whole or not depth:
                take(place, value, depth + 1)

    take("", spec, 0)
    for key, versions in _pairs(spec) if isinstance(document, ReferenceValues) else ():
        for _, version in _pairs(versions) if key.value == "versions" else ():
            take("", version, 0)
    return found


def _pairs(node: yaml.Node) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """A map's keys and values; nothing for what is no map."""
    return node.value if isinstance(node, yaml.MappingNode) else []


def _document(value: object, node: yaml.Node, path: Path) -> Document:
    kind = value.get("kind") if isinstance(value, dict) else None
    model = _KINDS.get(str(kind))
    if model is None:
        raise InvalidConfiguration(
            f"unknown kind {kind!r}",
            where=dialect.place(str(path), dialect.mark(node, ("kind",))),
            mend=f"Known kinds: {', '.join(_KINDS)}.",
        )
    return dialect.validate(value, node, model, str(path))
