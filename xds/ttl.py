"""Resource lifetimes: which resources a heartbeat must carry.

Envoy drops a resource whose lifetime ends, unless it is sent again. The protocol allows a heartbeat without content,
but Envoy rejects that once the lifetime has ended; the full resource restores it, so only that is ever sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from xds.snapshot import Resource


def expiring(table: Mapping[str, Resource], known: Mapping[str, str]) -> tuple[Resource, ...]:
    """The resources with a lifetime that a client holds in their present version.

    One that the client holds in another version is due as a change, and not as a heartbeat.
    """
    held = ((table.get(name), version) for name, version in known.items())
    return tuple(
        resource
        for resource, version in held
        if resource is not None and resource.ttl is not None and resource.version == version
    )
