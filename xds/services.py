"""The discovery services: which gRPC method speaks which protocol for which resource type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from xds.delta import DeltaStream
from xds.errors import GrpcStatus, StreamError
from xds.framing import frame
from xds.ledger import Answer, Edition, Ledger, Response
from xds.messages import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    SECRET,
    TYPE_PREFIX,
    TYPED_EXTENSION_CONFIG,
    DeltaRequest,
    SotwRequest,
    decode_delta,
    decode_sotw,
    encode_discovery,
)
from xds.sotw import SotwStream

MAX_TYPES: Final = 64
"""Resource types one aggregated stream may ask for."""

_CLUSTERS: Final = TYPE_PREFIX + CLUSTER
_ENDPOINTS: Final = TYPE_PREFIX + ENDPOINTS
_SCOPED_ROUTES: Final = "envoy.config.route.v3.ScopedRouteConfiguration"
_VIRTUAL_HOST: Final = "envoy.config.route.v3.VirtualHost"
_RUNTIME: Final = "envoy.service.runtime.v3.Runtime"
_ORDER: Final = {
    TYPE_PREFIX + name: rank
    for rank, name in enumerate((CLUSTER, ENDPOINTS, LISTENER, _SCOPED_ROUTES, ROUTES, _VIRTUAL_HOST), start=1)
}


class TypeStream(Protocol):
    """One resource type on one stream, whichever protocol it speaks."""

    type_url: str
    ledger: Ledger

    def due(self, edition: Edition) -> bool: ...
    def respond(self, edition: Edition, nonce: str, *, removals: bool = True) -> Response | None: ...
    def heartbeat(self, edition: Edition, nonce: str) -> Response | None: ...
    def repeat(self, names: Iterable[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Method:
    """A gRPC method: incremental or not, and its resource type; None: any type, aggregated."""

    delta: bool
    type_url: str | None


_SERVICES: Final = {
    "envoy.service.secret.v3.SecretDiscoveryService": ("Secrets", TYPE_PREFIX + SECRET),
    "envoy.service.extension.v3.ExtensionConfigDiscoveryService": (
        "ExtensionConfigs",
        TYPE_PREFIX + TYPED_EXTENSION_CONFIG,
    ),
    "envoy.service.cluster.v3.ClusterDiscoveryService": ("Clusters", TYPE_PREFIX + CLUSTER),
    "envoy.service.endpoint.v3.EndpointDiscoveryService": ("Endpoints", TYPE_PREFIX + ENDPOINTS),
    "envoy.service.listener.v3.ListenerDiscoveryService": ("Listeners", TYPE_PREFIX + LISTENER),
    "envoy.service.route.v3.RouteDiscoveryService": ("Routes", TYPE_PREFIX + ROUTES),
    "envoy.service.route.v3.ScopedRoutesDiscoveryService": ("ScopedRoutes", TYPE_PREFIX + _SCOPED_ROUTES),
    "envoy.service.route.v3.VirtualHostDiscoveryService": ("VirtualHosts", TYPE_PREFIX + _VIRTUAL_HOST),
    "envoy.service.runtime.v3.RuntimeDiscoveryService": ("Runtime", TYPE_PREFIX + _RUNTIME),
    "envoy.service.discovery.v3.AggregatedDiscoveryService": ("AggregatedResources", None),
}
METHODS: Final = {
    f"/{service}/{prefix}{what}": Method(delta, type_url)
    for service, (what, type_url) in _SERVICES.items()
    for prefix, delta in (("Stream", False), ("Delta", True))
    if delta or what != "VirtualHosts"  # Envoy's API defines this one as incremental only
}


def method(path: str) -> Method:
    """The method at `path`; raises StreamError(UNIMPLEMENTED)."""
    found = METHODS.get(path)
    if found is None:
        raise StreamError(GrpcStatus.UNIMPLEMENTED, f"no method {path}; served are {', '.join(METHODS)}")
    return found


@dataclass(slots=True)
class Discovery:
    """All the types of one stream. Requests go in by `receive`, responses come out by `respond`."""

    method: Method
    types: dict[str, TypeStream] = field(default_factory=dict)
    _delta: dict[str, DeltaStream] = field(default_factory=dict)
    _sotw: dict[str, SotwStream] = field(default_factory=dict)

    def receive(self, message: bytes) -> Answer | None:
        """Take a request; returns the answer it carries. Raises StreamError on a broken one."""
        if self.method.delta:
            request = decode_delta(message)
            return self._delta_stream(request).receive(request)
        request_sotw = decode_sotw(message)
        return self._sotw_stream(request_sotw).receive(request_sotw)

    def respond(self, edition: Edition, nonce: str) -> Response | None:
        """The next response: additions in Envoy's order (clusters, endpoints, listeners, routes; what they refer
        to before them), then removals in the opposite order. None when the client has everything, or when what is
        left must wait for its next request."""
        if len(self.types) == 1:
            (only,) = self.types.values()
            return only.respond(edition, nonce)
        ordered = sorted(self.types.values(), key=lambda stream: _ORDER.get(stream.type_url, 0))
        for stream in ordered:
            if response := stream.respond(edition, nonce, removals=False):
                self._warm(response)
                return response
        for stream in reversed(ordered):
            if stream.type_url == _CLUSTERS and self._has_yet_to_ask(edition):
                continue
            if response := stream.respond(edition, nonce):
                return response
        return None

    def _has_yet_to_ask(self, edition: Edition) -> bool:
        """Whether a client that asks for clusters by name, as gRPC does, was told of one it does not ask for yet.

        Until it does it calls by the old one, whose removal would fail its calls, whether it has accepted the new
        routes or not.
        """
        clusters = self._sotw.get(_CLUSTERS)
        if clusters is None or clusters.wants_all or not clusters.due(edition):
            return False
        told = (resource for stream in self._sotw.values() for resource in stream.held(edition))
        named = (reference for resource in told for reference in resource.references)
        return any(not self._sotw[to.type_url].wants(to.name) for to in named if to.type_url in self._sotw)

    def _warm(self, told: Response) -> None:
        """Envoy builds a changed cluster anew. That one waits for its endpoints, which Envoy does not ask for again:
        unless they are told once more, the old cluster serves until the new one's patience ends."""
        endpoints = self.types.get(_ENDPOINTS)
        if endpoints is not None:
            needed = (reference for resource in told.renewed for reference in resource.references)
            endpoints.repeat([reference.name for reference in needed if reference.type_url == _ENDPOINTS])

    def _delta_stream(self, request: DeltaRequest) -> DeltaStream:
        url = self._type_of(request.type_url)
        if url not in self._delta:
            self._delta[url] = DeltaStream(url)
            self.types[url] = self._delta[url]
        return self._delta[url]

    def _sotw_stream(self, request: SotwRequest) -> SotwStream:
        url = self._type_of(request.type_url)
        if url not in self._sotw:
            self._sotw[url] = SotwStream(url)
            self.types[url] = self._sotw[url]
        return self._sotw[url]

    def _type_of(self, asked: str) -> str:
        own = self.method.type_url
        if own is not None and asked not in ("", own):
            raise StreamError(GrpcStatus.INVALID_ARGUMENT, f"this service serves {own}, not {asked}")
        url = own or asked
        if not url:
            raise StreamError(GrpcStatus.INVALID_ARGUMENT, "an aggregated request needs a type_url")
        if url not in self.types and len(self.types) >= MAX_TYPES:
            raise StreamError(GrpcStatus.RESOURCE_EXHAUSTED, f"more than {MAX_TYPES} types on one stream")
        return url


def encode_response(response: Response, *, delta: bool) -> bytes:
    """A framed response message; resources are not serialised again, only joined."""
    if delta:
        head = encode_discovery(
            "DeltaDiscoveryResponse",
            system_version_info=response.version,
            type_url=response.type_url,
            nonce=response.nonce,
            removed_resources=response.removed,
        )
        return frame(head + b"".join(resource.delta_entry for resource in response.resources))
    head = encode_discovery(
        "DiscoveryResponse",
        version_info=response.version,
        type_url=response.type_url,
        nonce=response.nonce,
    )
    return frame(head + b"".join(resource.sotw_entry for resource in response.resources))
