"""Resources and snapshots: immutable values, serialised once, that any number of streams share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

from xds.errors import DanglingReference, DuplicateResource
from xds.messages import TYPE_PREFIX, encode_discovery

_NANOSECONDS = 1_000_000_000
_VERSION_BYTES = 12


@dataclass(frozen=True, slots=True)
class Reference:
    """The name by which one resource points at another."""

    type_url: str
    name: str


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource in the forms that the wire needs.

    `version` is a hash of the content and its `ttl` (seconds; None: until replaced), so equal content never looks
    new. `sotw_entry` and `delta_entry` are complete `resources` fields of the two response messages.
    """

    type_url: str
    name: str
    body: bytes
    ttl: float | None
    references: tuple[Reference, ...]
    version: str
    sotw_entry: bytes
    delta_entry: bytes

    def __hash__(self) -> int:
        return hash(self.version)

    @classmethod
    def of(
        cls,
        type_url: str,
        name: str,
        body: bytes,
        *,
        ttl: float | None = None,
        references: Iterable[Reference] = (),
    ) -> Self:
        """Serialise a resource whose message is `body`; `type_url` is `type.googleapis.com/` and its full name."""
        if ttl is not None and ttl <= 0:
            raise ValueError(f"resource {name!r}: a ttl of {ttl} s is over at once; give more than 0")
        content = {"type_url": type_url, "value": body}
        version = _version(type_url, name, body, ttl)
        lifetime = {} if ttl is None else {"ttl": _duration(ttl)}
        delta = {"name": name, "version": version, "resource": content, **lifetime}
        return cls(
            type_url,
            name,
            body,
            ttl,
            tuple(references),
            version,
            encode_discovery("DiscoveryResponse", resources=[content]),
            encode_discovery("DeltaDiscoveryResponse", resources=[delta]),
        )

    def with_ttl(self, ttl: float | None) -> Self:
        """The same content with another lifetime in seconds."""
        return self.of(self.type_url, self.name, self.body, ttl=ttl, references=self.references)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent set of resources. Make it with `Snapshot.of`.

    Of a type in `complete` it holds all there is: a name that it lacks does not exist, and who asks for it
    incrementally is told so at once (on-demand discovery). Of other types a name may yet come, and whoever asks for it
    waits without a word, as an Envoy must that is to stay initialising until its first secret.
    """

    by_type: Mapping[str, Mapping[str, Resource]]
    versions: Mapping[str, str]
    complete: frozenset[str]

    EMPTY: ClassVar[Snapshot]

    @classmethod
    def of(cls, *resources: Resource, complete: Iterable[str] = ()) -> Self:
        """`complete` are type URLs. Raises DuplicateResource for a repeated name, DanglingReference for a reference to
        nothing."""
        by_type: dict[str, dict[str, Resource]] = {}
        for resource in resources:
            table = by_type.setdefault(resource.type_url, {})
            if resource.name in table:
                raise DuplicateResource(resource.type_url, resource.name)
            table[resource.name] = resource
        _check_references(by_type, resources)
        versions = {type_url: _table_version(table) for type_url, table in by_type.items()}
        frozen = {type_url: MappingProxyType(table) for type_url, table in by_type.items()}
        return cls(MappingProxyType(frozen), MappingProxyType(versions), frozenset(complete))

    def table(self, type_url: str) -> Mapping[str, Resource]:
        """The resources of one type by name; empty when there are none."""
        return self.by_type.get(type_url, _NOTHING)

    def get(self, type_url: str, name: str) -> Resource | None:
        """One resource, or None."""
        return self.table(type_url).get(name)

    def version(self, type_url: str) -> str:
        """A version of the whole type, equal exactly when its resources are."""
        return self.versions.get(type_url, "")

    def replacing(self, *resources: Resource) -> Snapshot:
        """This snapshot with `resources` added, or put in place of those of the same type and name."""
        kept = {Reference(r.type_url, r.name): r for r in self._resources()}
        kept.update({Reference(r.type_url, r.name): r for r in resources})
        return Snapshot.of(*kept.values(), complete=self.complete)

    def without(self, *names: Reference) -> Snapshot:
        """This snapshot less the named resources; raises DanglingReference if one is still pointed at."""
        gone = frozenset(names)
        kept = (r for r in self._resources() if Reference(r.type_url, r.name) not in gone)
        return Snapshot.of(*kept, complete=self.complete)

    def _resources(self) -> Iterable[Resource]:
        return (resource for table in self.by_type.values() for resource in table.values())


_NOTHING: Mapping[str, Resource] = MappingProxyType({})


def type_url(message: str) -> str:
    """The type URL of a message's full name."""
    return TYPE_PREFIX + message


def _check_references(by_type: Mapping[str, Mapping[str, Resource]], resources: Iterable[Resource]) -> None:
    for resource in resources:
        for reference in resource.references:
            if reference.name not in by_type.get(reference.type_url, _NOTHING):
                raise DanglingReference(resource.name, reference.type_url, reference.name)


def _duration(seconds: float) -> dict[str, int]:
    whole, nanos = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    return {"seconds": whole, "nanos": nanos}


def _version(type_url: str, name: str, body: bytes, ttl: float | None) -> str:
    digest = hashlib.blake2b(digest_size=_VERSION_BYTES)
    for part in (type_url.encode(), name.encode(), repr(ttl).encode(), body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _table_version(table: Mapping[str, Resource]) -> str:
    digest = hashlib.blake2b(digest_size=_VERSION_BYTES)
    for name in sorted(table):
        digest.update(table[name].version.encode())
    return digest.hexdigest()


Snapshot.EMPTY = Snapshot.of()
