"""Inheritance of reference values: a base image and the application on it, each stated by whoever builds it.

What is stated nearest holds, as a whole: of two documents that state the same path the one that inherits the other.
Digests are never added to an ancestor's, so that a file which an application replaces may not be the base's any more.
Of two that do not inherit each other neither is nearer: that is refused, and the sequence in `inherits` means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from attestation.errors import InvalidConfiguration
from policies.model.metadata import Metadata
from policies.model.origin import Origin
from policies.model.places import rule, step
from policies.model.references import (
    EffectiveReferences,
    FileReference,
    Inherited,
    ReferenceSpec,
    ReferenceValues,
    Rollout,
)

Key = tuple[str, str]
"""Namespace and name."""

_MOST_GENERATIONS = 16
_MOST_IN_VERSIONS = 200_000
"""Versions times the paths that any of them states: each version is looked at for each."""
_SECTIONS = ("files", "executables", "proxies", "syscalls")


class _Place(NamedTuple):
    """One path or version in a section of the spec."""

    section: str
    key: str

    def __str__(self) -> str:
        return f"{self.section}{step(self.key)}"


class _Statement(NamedTuple):
    """value: None where it is said that the path is not there. by: who says so and is nearest; several say the same."""

    value: Any
    by: frozenset[Key]


@dataclass(frozen=True, slots=True)
class Whole:
    """A document with all that it inherits. documents: where all of them are written, itself last.

    generations: how many documents its longest line has.
    """

    references: EffectiveReferences
    documents: tuple[Origin, ...]
    generations: int
    line: Mapping[Key, ReferenceValues] = field(repr=False)
    """Itself and every ancestor."""
    statements: Mapping[_Place, _Statement] = field(repr=False)
    rollouts: Mapping[Key, Rollout] = field(repr=False)
    """Of itself and of each ancestor that has versions, whoever states their paths anew."""


class Inheritance:
    """Every ReferenceValues of one set. root: the namespace that all others may inherit from.

    missing: why some are not in the set, where that is known.
    """

    def __init__(
        self,
        documents: Mapping[Key, tuple[ReferenceValues, Origin]],
        root: str,
        missing: Callable[[Key], InvalidConfiguration | None] = lambda _: None,
    ) -> None:
        self._documents, self._root, self._missing = documents, root, missing
        self._wholes: dict[Key, Whole] = {}

    def whole(self, key: Key) -> Whole:
        """Raises InvalidConfiguration with the place of what cannot be inherited."""
        return self._whole(key, ())

    def _whole(self, key: Key, heirs: tuple[Key, ...]) -> Whole:
        """heirs: whom this is put together for, the first first."""
        if key not in self._wholes:
            document, at = self._documents[key]
            names = (*heirs, key)
            parents = tuple(self._parent(name, document, at, names) for name in document.spec.inherits)
            self._wholes[key] = self._put_together(key, parents)
        return self._wholes[key]

    def _parent(self, name: str, document: ReferenceValues, at: Origin, heirs: tuple[Key, ...]) -> Whole:
        *around, last = name.split("/")
        own = document.metadata.namespace
        key = (around[0] if around else own, last)
        where = at.at(rule(document, "inherits"))
        if key[0] not in (own, self._root):
            raise InvalidConfiguration(
                f"{document.metadata.name!r} inherits from another namespace, {key[0]!r}",
                where=where,
                mend=f"Inherit from {own!r} or from the root namespace, {self._root!r}.",
            )
        if known := self._missing(key):
            raise known
        if key not in self._documents:
            raise InvalidConfiguration(
                f"{document.metadata.name!r} inherits the ReferenceValues {name!r}, which does not exist",
                where=where,
                mend=f"Add a ReferenceValues of that name in namespace {key[0]!r}.",
            )
        if key in heirs:
            circle = " -> ".join(map(_shown, (*heirs[heirs.index(key) :], key)))
            raise InvalidConfiguration(
                f"it inherits itself: {circle}", where=where, mend="Take one of these out of the other's `inherits`."
            )
        if len(heirs) >= _MOST_GENERATIONS or (whole := self._whole(key, heirs)).generations >= _MOST_GENERATIONS:
            raise InvalidConfiguration(
                f"more than {_MOST_GENERATIONS} generations inherit each other", where=where, mend="Make it flatter."
            )
        return whole

    def _put_together(self, key: Key, parents: tuple[Whole, ...]) -> Whole:
        document, at = self._documents[key]
        _bounded(document, at)
        line = dict(chain.from_iterable(each.line.items() for each in parents)) | {key: document}
        inherited = self._joined(document, at, parents)
        own = _Own(document.spec, {place: each.value for place, each in inherited.items()})
        rollouts = {name: each for parent in parents for name, each in parent.rollouts.items()}
        if document.spec.versions:
            rollouts[key] = own.rollout(_name(document))
        statements = inherited | dict(own.statements(key))
        origins = tuple(self._documents[each][1] for each in line)
        generations = 1 + max((each.generations for each in parents), default=0)
        whole = _effective(key, line, statements, rollouts)
        return Whole(whole, origins, generations, line, statements, rollouts)

    def _joined(self, document: ReferenceValues, at: Origin, parents: tuple[Whole, ...]) -> dict[_Place, _Statement]:
        """What the parents state, all of them together."""
        said: dict[_Place, dict[frozenset[Key], _Statement]] = {}
        for parent in parents:
            for place, statement in parent.statements.items():
                said.setdefault(place, {})[statement.by] = statement
        return {
            place: next(iter(found.values())) if len(found) == 1 else self._nearest(place, found, document, at)
            for place, found in said.items()
        }

    def _nearest(
        self, place: _Place, said: Mapping[frozenset[Key], _Statement], document: ReferenceValues, at: Origin
    ) -> _Statement:
        """Of several statements that which no other one's document replaces. Raises where two are left that differ."""
        value = {key: statement.value for by, statement in said.items() for key in by}
        nearest = [key for key in value if not any(key in self._wholes[other].line for other in value.keys() - {key})]
        differing = next((key for key in nearest if value[key] != value[nearest[0]]), None)
        if differing is None:
            return _Statement(value[nearest[0]], frozenset(nearest))
        states = " and ".join(f"{_shown(each)} ({self._documents[each][1]})" for each in (nearest[0], differing))
        raise InvalidConfiguration(
            f"spec.{place} differs between {states}, and neither inherits the other",
            where=at.at(rule(document, "inherits")),
            mend=f"State it in {document.metadata.name!r} itself, or let one of them inherit the other.",
        )


def _bounded(document: ReferenceValues, at: Origin) -> None:
    versions = document.spec.versions.values()
    paths = {path for each in versions for path in each.files} | {
        path for each in versions for path in each.executables
    }
    if len(versions) * len(paths) > _MOST_IN_VERSIONS:
        raise InvalidConfiguration(
            f"{len(versions)} versions differ in {len(paths)} paths: more than {_MOST_IN_VERSIONS} in all",
            where=at.at(rule(document, "versions")),
            mend="Take out the versions that do not run any more, and what all of them have alike.",
        )


def effective(document: ReferenceValues) -> EffectiveReferences:
    """A document that inherits nothing."""
    key, own = (document.metadata.namespace, document.metadata.name), _Own(document.spec, {})
    rollouts = {key: own.rollout(_name(document))} if document.spec.versions else {}
    return _effective(key, {key: document}, dict(own.statements(key)), rollouts)


class _Own:
    """What one document states. inherited: what there is without it; None for what is taken out."""

    def __init__(self, spec: ReferenceSpec, inherited: Mapping[_Place, Any]) -> None:
        self._spec, self._inherited = spec, inherited

    def statements(self, key: Key) -> Iterable[tuple[_Place, _Statement]]:
        by = frozenset({key})
        for path in self._spec.without:
            yield _Place("files", path), _Statement(None, by)
        spec = self._spec
        sections: dict[str, Mapping[str, Any]] = {
            "files": self._files(),
            "executables": self._executables(),
            "proxies": spec.proxies,
            "syscalls": spec.syscalls,
        }
        for section, found in sections.items():
            for name, value in found.items():
                yield _Place(section, name), _Statement(value, by)

    def rollout(self, name: Metadata) -> Rollout:
        paths = self._of_versions()
        versions = {
            label: {path: stated for path in paths if (stated := self._in(label, path))}
            for label in self._spec.versions
        }
        return Rollout.model_construct(metadata=name, versions=versions)

    def _of_versions(self) -> list[str]:
        return sorted({path for each in self._spec.versions.values() for path in each.files})

    def _files(self) -> Mapping[str, FileReference]:
        """What each path may be in any version."""
        return {**self._spec.files, **{path: self._in_any(path) for path in self._of_versions()}}

    def _in_any(self, path: str) -> FileReference:
        """Attributes in which versions differ are left to the check of whole versions."""
        each = [self._in(label, path) for label in self._spec.versions]
        known = [reference for stated in each for reference in stated]
        modes, uids, gids = ({getattr(one, name) for one in known} for name in ("mode", "uid", "gid"))
        return FileReference.model_construct(
            digests=tuple(dict.fromkeys(digest for one in known for digest in one.digests)),
            mode=modes.pop() if len(modes) == 1 else None,
            uid=uids.pop() if len(uids) == 1 else None,
            gid=gids.pop() if len(gids) == 1 else None,
            optional=() in each or any(one.optional for one in known),
        )

    def _in(self, label: str, path: str) -> tuple[FileReference, ...]:
        """Any of what a path may be in a version; nothing where it is not there."""
        stated = (self._spec.versions[label].files.get(path), self._spec.files.get(path))
        known = tuple(each for each in stated if each is not None)
        inherited: FileReference | None = self._inherited.get(_Place("files", path))
        return known or (() if inherited is None else (inherited,))

    def _executables(self) -> Mapping[str, tuple[str, ...]]:
        if not self._spec.versions:
            return self._spec.executables
        every = self._spec.executables.keys() | {
            path for version in self._spec.versions.values() for path in version.executables
        }
        return {path: tuple(dict.fromkeys(self._may_run(path))) for path in sorted(every)}

    def _may_run(self, path: str) -> Iterable[str]:
        """In any version; where one does not state it, as it is inherited."""
        common = self._spec.executables.get(path, ())
        yield from common
        for version in self._spec.versions.values():
            inherited: tuple[str, ...] = self._inherited.get(_Place("executables", path), ())
            yield from version.executables.get(path, common or inherited)


def _effective(
    key: Key,
    line: Mapping[Key, ReferenceValues],
    statements: Mapping[_Place, _Statement],
    rollouts: Mapping[Key, Rollout],
) -> EffectiveReferences:
    """Without validating anew: each value comes out of a valid document."""
    sections: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    foreign: dict[Key, list[str]] = {}
    for place, statement in statements.items():
        if statement.value is not None:
            sections[place.section][place.key] = statement.value
            if key not in statement.by:
                foreign.setdefault(min(statement.by), []).append(str(place))
    ends = {each: document.spec.expires for each, document in line.items() if document.spec.expires is not None}
    first = min(ends, key=lambda each: (ends[each], each != key, each), default=None)
    if first is not None and first != key:
        foreign.setdefault(first, []).append("expires")
    spec = ReferenceSpec.model_construct(
        files=sections["files"],
        executables=sections["executables"],
        proxies=sections["proxies"],
        syscalls=sections["syscalls"],
        expires=None if first is None else ends[first],
    )
    nearest = [_nearest(each, rollout, statements) for each, rollout in rollouts.items()]
    return EffectiveReferences.model_construct(
        metadata=line[key].metadata,
        spec=spec,
        inherited=tuple(
            Inherited(metadata=_name(line[each]), places=tuple(places)) for each, places in sorted(foreign.items())
        ),
        rollouts=tuple(each for each in nearest if any(each.versions.values())),
    )


def _nearest(key: Key, rollout: Rollout, statements: Mapping[_Place, _Statement]) -> Rollout:
    """Without the paths that another document states nearer."""
    return Rollout.model_construct(
        metadata=rollout.metadata,
        versions={
            label: {path: each for path, each in stated.items() if key in statements[_Place("files", path)].by}
            for label, stated in rollout.versions.items()
        },
    )


def _name(document: ReferenceValues) -> Metadata:
    return Metadata(name=document.metadata.name, namespace=document.metadata.namespace)


def _shown(key: Key) -> str:
    return Metadata(namespace=key[0], name=key[1]).qualified
