"""A service's listeners, routes, clusters and endpoints as served resources, for an Envoy whose all we deliver.

What changes without need of a new listener is apart from it, because Envoy cuts the connections of a listener that
changes: routes, endpoints, secrets and filters come by name over the same aggregated stream.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from xds.configuration import encode_configuration
from xds.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from xds.resources.clusters import app_cluster, peer_cluster
from xds.resources.listeners import inbound_listener, outbound_listener
from xds.resources.routes import everything_to
from xds.resources.service import HostPort, Inbound, Service, Upstream
from xds.resources.transport import Json, aggregated_source, load_assignment
from xds.snapshot import Reference, Resource, type_url

LISTENER_TYPE = type_url(LISTENER)
CLUSTER_TYPE = type_url(CLUSTER)
ROUTES_TYPE = type_url(ROUTES)
ENDPOINTS_TYPE = type_url(ENDPOINTS)
NOBODY: Mapping[str, Collection[HostPort]] = MappingProxyType({})


def listeners(service: Service, *, ttl: float | None) -> tuple[Resource, ...]:
    """Every port of the service. With `ttl` (seconds) Envoy closes them, and cuts what runs through them, unless
    they are resent in time."""
    source = aggregated_source()
    return (
        *(_listener(inbound_listener(service, source, each), each, each.name, ttl) for each in service.inbound),
        *(_listener(outbound_listener(service, source, each), each, each.listener, ttl) for each in service.upstreams),
    )


def routes(service: Service) -> tuple[Resource, ...]:
    """The routes of every HTTP listener."""
    tables = [
        *((each.name, each.cluster) for each in service.inbound if each.protocol == "http"),
        *((each.listener, each.name) for each in service.upstreams if each.protocol == "http"),
    ]
    return tuple(
        _resource(ROUTES, name, everything_to(name, cluster), [(CLUSTER, cluster)]) for name, cluster in tables
    )


def clusters(service: Service) -> tuple[Resource, ...]:
    """The applications and the peers. A peer's endpoints come apart from it, so that they can be taken away."""
    source = aggregated_source()
    return (
        *(_resource(CLUSTER, each.cluster, app_cluster(each)) for each in service.inbound),
        *(
            _resource(CLUSTER, each.name, peer_cluster(service, source, each, delivered=True), [(ENDPOINTS, each.name)])
            for each in service.upstreams
        ),
    )


def endpoints(service: Service, without: Mapping[str, Collection[HostPort]] = NOBODY) -> tuple[Resource, ...]:
    """The peers' addresses, without those that are denied to an upstream, by its name.

    With its last address an upstream is reached by nobody: requests fail at once.
    """
    return tuple(_endpoints(each, without.get(each.name, ())) for each in service.upstreams)


def _endpoints(upstream: Upstream, denied: Collection[HostPort]) -> Resource:
    present = [each.envoy() for each in upstream.peers if each not in denied]
    absent = [each.envoy() for each in upstream.peers if each in denied]
    # Envoy goes on calling a removed peer while its health check holds, and cuts nothing after it forgot it. One that
    # is marked unfit gets nothing new at once, and what is open to it is cut when a handshake fails.
    form = load_assignment(upstream.name, *present, unfit=absent if upstream.health_check else ())
    return _resource(ENDPOINTS, upstream.name, form)


def _listener(form: Json, port: Inbound | Upstream, name: str, ttl: float | None) -> Resource:
    cluster = port.cluster if isinstance(port, Inbound) else port.name
    needs = [(ROUTES, name)] if port.protocol == "http" else [(CLUSTER, cluster)]
    return _resource(LISTENER, name, form, needs, ttl)


def _resource(
    message: str, name: str, form: Json, needs: Iterable[tuple[str, str]] = (), ttl: float | None = None
) -> Resource:
    references = [Reference(type_url(needed), each) for needed, each in needs]
    return Resource.of(type_url(message), name, encode_configuration(message, form), ttl=ttl, references=references)
