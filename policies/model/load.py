"""Policy documents, every kind, held against each other: what rules whom, and what is wrong with whose."""

from __future__ import annotations

import gc
import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from attestation.digests import Digest
from attestation.errors import InvalidConfiguration
from policies.model.faults import REFERENCES, Fault, Gaps, LeftOut, Refuse, confined, refused
from policies.model.governing import Governing, canonical
from policies.model.inheritance import Inheritance, Whole
from policies.model.merge import Applying, Incomplete, Merged, Merging
from policies.model.origin import Origin
from policies.model.places import rule
from policies.model.policy import AttestationPolicy
from policies.model.reading import Document, read
from policies.model.references import ReferenceValues
from policies.model.registration import Identities, WorkloadRegistration
from policies.model.selection import ROOT_NAMESPACE, Selection
from policies.model.signing import Trust

_NOBODY: Mapping[str, str] = MappingProxyType({})


@contextmanager
def _nothing_thrown_away() -> Iterator[None]:
    """What is made meanwhile is kept: Python's collector would walk through all of it time and again for nothing, which
    is a quarter of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class PolicySet:
    """Every document of one authority, by kind, namespace and name. Immutable; a change is a new set.

    governing: registration -> what rules it. unruled: registrations that no policy is for. faulty: registrations, and
    what is wrong with documents that concern them. Neither of these two gets an identity. faults: everything that is
    wrong, each with the registrations that it concerns. identities: SPIFFE ID -> the namespace that has it.

    root: the namespace whose documents are for all others. refuse: told of each fault; what it does not raise is left
    out of the set. trust_domain: that every registration has to be of; None for any. unread: the faults of documents
    that could not be read. holders: SPIFFE ID -> the namespace that has had it so far.
    """

    def __init__(
        self,
        documents: Iterable[tuple[Document, Origin]],
        root: str = ROOT_NAMESPACE,
        refuse: Refuse = refused,
        trust_domain: str | None = None,
        unread: Collection[Fault] = (),
        holders: Mapping[str, str] = _NOBODY,
    ) -> None:
        self._root, self._refuse = root, refuse
        self.faults: dict[Fault, list[str]] = {each: [] for each in unread}
        self._said = {each.sentence: each for each in unread}
        self._gaps = Gaps()
        for each in unread:
            self._gaps.add(each)
        self._found = self._each_once(documents)
        policies = ((each, at) for each, at in self._found.values() if isinstance(each, AttestationPolicy))
        self.selection = Selection(policies, root)
        self.governing: dict[str, Governing] = {}
        self.unruled: dict[str, WorkloadRegistration] = {}
        self.faulty: dict[str, dict[Fault, None]] = defaultdict(dict)
        self.identities: Mapping[str, str] = {}
        self._merged: dict[int, Merged] = {}
        self._wholes, self._torn = self._inherited()
        with _nothing_thrown_away():
            self._rule(Identities(trust_domain, root, holders, self._gaps.silent))
        for name, fault in self._gaps.registrations():
            self._keep_from(name, [fault])

    @property
    def documents(self) -> Iterable[tuple[Document, Origin]]:
        """In the sequence in which they were read."""
        return self._found.values()

    @property
    def merged(self) -> Iterable[Merged]:
        """Once for all whom the same policies rule."""
        return self._merged.values()

    @property
    def digest(self) -> Digest:
        """Of all documents, and of whom faults keep from an identity; a policy epoch is bumped when it changes."""
        ordered = [canonical(self._found[key][0]) for key in sorted(self._found)]
        return hashlib.sha256("\n".join([*ordered, *sorted(self.faulty)]).encode()).hexdigest()

    def _each_once(self, documents: Iterable[tuple[Document, Origin]]) -> dict[tuple[str, str, str], _Found]:
        """Of two documents of one name nobody knows which is meant: neither is in the set."""
        found: dict[tuple[str, str, str], list[_Found]] = defaultdict(list)
        for document, where in documents:
            found[document.kind, document.metadata.namespace, document.metadata.name].append((document, where))
        for first, *others in found.values():
            for other in others:
                self._tell(_twice(other, first))
        return {key: each[0] for key, each in found.items() if len(each) == 1}

    def _inherited(self) -> tuple[dict[tuple[str, str], Whole], dict[tuple[str, str], Fault]]:
        """Every ReferenceValues with what it inherits; what cannot be inherited is a fault though nobody uses it."""
        documents = {
            (namespace, name): (document, at)
            for (_, namespace, name), (document, at) in self._found.items()
            if isinstance(document, ReferenceValues)
        }
        inheritance = Inheritance(documents, self._root, self._missing_references)
        wholes, torn = {}, {}
        for key, (document, _) in documents.items():
            try:
                wholes[key] = inheritance.whole(key)
            except InvalidConfiguration as error:
                torn[key] = self._tell(Fault(error, _named(document), document.metadata.namespace))
        return wholes, torn

    def _missing_references(self, key: tuple[str, str]) -> InvalidConfiguration | None:
        """Why these are not there, where that has been told."""
        return next((fault.error for fault in self._gaps.named(REFERENCES, *key)), None)

    def _rule(self, identities: Identities) -> None:
        registrations = [(each, at) for each, at in self._found.values() if isinstance(each, WorkloadRegistration)]
        strange = identities.strange(registrations)
        self.identities = identities.held
        merging = Merging()
        self._floor(merging)
        for registration, where in registrations:
            name = registration.metadata.qualified
            if name in strange:
                self._keep_from(name, map(self._tell, strange[name]))
            else:
                self._resolve(registration, where, merging)

    def _floor(self, merging: Merging) -> None:
        """What is wrong with the policies that are for everybody is so whatever anybody else says."""
        floor = self.selection.floor
        try:
            if floor:
                merging.of(floor)
        except Incomplete:
            return
        except InvalidConfiguration as error:
            self._tell(Fault(error, _named(floor[-1].policy), self._root))

    def _resolve(self, registration: WorkloadRegistration, where: Origin, merging: Merging) -> None:
        name, applying = registration.metadata.qualified, self.selection.of(registration.metadata)
        faults = self._gaps.around(registration.metadata)
        if not applying and not faults:
            self.unruled[name] = registration
            return
        whole = self._references(registration, where)
        merged = self._together(applying, merging, registration) if applying and not faults else None
        faults += [each for each in (whole, merged) if isinstance(each, Fault)]
        if isinstance(whole, Whole) and isinstance(merged, Merged) and not faults:
            self._merged[id(merged)] = merged
            written = [each.origin for each in applying if each.origin]
            self.governing[name] = Governing(
                registration,
                merged.policy,
                whole.references,
                (*written, *whole.documents, where),
                merged.applying,
                merged.conflicts,
            )
        else:
            self._keep_from(name, faults)

    def _together(
        self, applying: tuple[Applying, ...], merging: Merging, registration: WorkloadRegistration
    ) -> Merged | Fault:
        try:
            return merging.of(applying)
        except InvalidConfiguration as error:
            # Of the root namespace's as well, where these do not select everybody: else a label would refuse them all.
            return self._tell(Fault(error, _named(applying[-1].policy), registration.metadata.namespace))

    def _references(self, registration: WorkloadRegistration, where: Origin) -> Whole | Fault:
        name, namespace = registration.spec.references, registration.metadata.namespace
        key = (namespace, name)
        left_out = self._gaps.named(REFERENCES, *key)
        if left_out or key in self._torn:
            return left_out[0] if left_out else self._torn[key]
        if key in self._wholes:
            return self._wholes[key]
        error = InvalidConfiguration(
            f"registration {registration.metadata.name!r} names the ReferenceValues {name!r}, which does not exist",
            where=where.at(rule(registration, "references")),
            mend=f"Add a ReferenceValues of that name in namespace {namespace!r}.",
        )
        return self._tell(Fault(error, _named(registration), namespace))

    def _tell(self, fault: Fault) -> Fault:
        """Each once, whomever it concerns; what is told already is that."""
        if fault.sentence not in self._said:
            self._refuse(fault)
            self._said[fault.sentence] = fault
            self.faults[fault] = []
            self._gaps.add(fault)
        return self._said[fault.sentence]

    def _keep_from(self, name: str, faults: Iterable[Fault]) -> None:
        """An identity is kept from this registration."""
        known = self.faulty[name]
        for fault in faults:
            if fault not in known:
                known[fault] = None
                self.faults[fault].append(name)


def _prepared(found: _Found, prepare: Callable[[AttestationPolicy], None], refuse: Refuse) -> bool:
    document, at = found
    try:
        if isinstance(document, AttestationPolicy):
            prepare(document)
    except InvalidConfiguration as error:
        placed = InvalidConfiguration(error.what, where=str(at), mend=error.mend)
        refuse(Fault(placed, _named(document), document.metadata.namespace, (_without(document),)))
        return False
    return True


_Found = tuple[Document, Origin]


def _named(document: Document) -> str:
    return f"{document.kind}/{document.metadata.qualified}"


def _twice(found: _Found, before: _Found) -> Fault:
    (document, where), (first, at) = found, before
    error = InvalidConfiguration(
        f"{document.kind} {document.metadata.qualified!r} exists already in {at}",
        where=str(where),
        mend="Give one of them another name.",
    )
    return Fault(error, _named(document), document.metadata.namespace, (_without(document), _without(first)))


def _without(document: Document) -> LeftOut:
    out = LeftOut(document.kind, document.metadata.namespace, document.metadata.name)
    if isinstance(document, AttestationPolicy):
        return LeftOut(out.kind, out.namespace, out.name, document.spec.selector)
    return out


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


def in_force(
    paths: Iterable[Path],
    root: str,
    trust: Trust | None,
    trust_domain: str,
    holders: Mapping[str, str],
    prepare: Callable[[AttestationPolicy], None],
) -> PolicySet:
    """As `load`, for an authority: what is wrong with one namespace's documents is in `faults`, and keeps an identity
    from whom it concerns. Raises InvalidConfiguration for what concerns everybody: the root namespace's documents, and
    files of which nobody can tell whose they are.

    prepare: makes ready what a policy needs to be appraised by. Raises InvalidConfiguration for one that cannot be.
    """
    unread: list[Fault] = []
    refuse = confined(root, unread)
    documents = [each for each in read(paths, refuse, trust) if _prepared(each, prepare, refuse)]
    return PolicySet(documents, root, confined(root, []), trust_domain, tuple(unread), holders)
