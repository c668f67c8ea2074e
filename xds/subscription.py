"""What a stream wants and what it has been sent, for one resource type.

Wildcards (xDS protocol, "how the client specifies what resources to return"): for listeners and clusters an empty
first request subscribes to everything (legacy); the name `*` does so explicitly, for any type.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from xds.errors import GrpcStatus, StreamError
from xds.messages import TYPE_PREFIX
from xds.snapshot import Resource

WILDCARD: Final = "*"
FULL_STATE_TYPES: Final = frozenset(
    TYPE_PREFIX + name for name in ("envoy.config.listener.v3.Listener", "envoy.config.cluster.v3.Cluster")
)
"""Types with a legacy wildcard, whose state-of-the-world responses always hold every resource."""

MAX_NAMES: Final = 100_000
"""Names one stream may subscribe to, so that no client makes us hold more."""

_UNCERTAIN: Final = ""  # no resource has this version


@dataclass(slots=True)
class Subscription:
    """The names wanted on one stream, and the version last sent of each (or last declared by the client).

    `unmet` are the names on which the client has had no word since it asked, neither content nor absence.
    """

    type_url: str
    names: dict[str, None] = field(default_factory=dict)
    wildcard: bool = False
    known: dict[str, str] = field(default_factory=dict)
    unmet: dict[str, None] = field(default_factory=dict)

    def subscribe(self, names: Iterable[str]) -> None:
        """Add names; `*` turns the wildcard on. Raises StreamError beyond MAX_NAMES."""
        for name in names:
            if name == WILDCARD:
                self.wildcard = True
            else:
                self.names[name] = None
                self.unmet[name] = None
        self._check_size()

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Drop names, and what was known of them: who asks again may have thrown the content away.

        Under a wildcard the name may still be wanted, and is told again, be it of its content or of its absence, as
        the protocol demands. Raises StreamError beyond MAX_NAMES.
        """
        for name in names:
            if name == WILDCARD:
                self.wildcard = False
            else:
                self.names.pop(name, None)
                self.doubt(name)
                self.unmet[name] = None
        self._forget_unwanted()
        self._check_size()

    def doubt(self, name: str, under_way: Container[str] = ()) -> None:
        """What the client holds of a name it was told of is uncertain: it must be told once more."""
        if name in self.known or name in under_way:
            self.known[name] = _UNCERTAIN

    def doubt_spared(self, spared: Iterable[Resource]) -> bool:
        """Have these told again, where nothing newer was told since; whether there were any."""
        late = [resource.name for resource in spared if self.known.get(resource.name) == resource.version]
        for name in late:
            self.doubt(name)
        return bool(late)

    def replace(self, names: Iterable[str], *, wildcard: bool) -> None:
        """Want exactly these names. Raises StreamError beyond MAX_NAMES."""
        self.names.clear()
        self.unmet.clear()
        self.wildcard = wildcard
        self.subscribe(names)
        self._forget_unwanted()

    def wants(self, name: str) -> bool:
        """Whether a resource of this name belongs on the stream."""
        return self.wildcard or name in self.names

    def changed(self, table: Mapping[str, Resource]) -> tuple[Resource, ...]:
        """The wanted resources whose version the client has not been sent. A missing name withholds nothing."""
        known = self.known
        wanted = table.values() if self.wildcard else [table[name] for name in self.names if name in table]
        return tuple(resource for resource in wanted if known.get(resource.name) != resource.version)

    def held(self, table: Mapping[str, Resource]) -> Iterable[Resource]:
        """The resources whose version the client was sent."""
        return (table[name] for name, version in self.known.items() if name in table and table[name].version == version)

    def vanished(self, table: Mapping[str, Resource]) -> tuple[str, ...]:
        """The names the client holds that no longer exist."""
        return tuple(name for name in self.known if name not in table)

    def missed(self, table: Mapping[str, Resource]) -> tuple[str, ...]:
        """The names asked for of which the client holds nothing, knows nothing, and which do not exist."""
        return tuple(name for name in self.unmet if name not in table and name not in self.known)

    def sent(self, resources: Iterable[Resource], removed: Iterable[str] = ()) -> None:
        """Remember what the client is told by a response."""
        for name in removed:
            self.known.pop(name, None)
            self.unmet.pop(name, None)
        for resource in resources:
            self.known[resource.name] = resource.version
            self.unmet.pop(resource.name, None)

    def _forget_unwanted(self) -> None:
        if self.wildcard:
            return
        for name in self.known.keys() - self.names.keys():
            del self.known[name]
        for name in self.unmet.keys() - self.names.keys():
            del self.unmet[name]

    def _check_size(self) -> None:
        if max(len(self.names), len(self.unmet)) > MAX_NAMES:
            raise StreamError(
                GrpcStatus.RESOURCE_EXHAUSTED,
                f"{self.type_url}: more than {MAX_NAMES} names on one stream; subscribe to fewer",
            )
