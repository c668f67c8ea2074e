"""One server of ours and one connection of gRPC's client: every type that is served, and by which services."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.news import News
from tests.unit.xds.conformance.core import PATIENCE, Core, Protocol, connected
from xds.acks import Verdict
from xds.admission import Admission
from xds.listening import Endpoint
from xds.server import Server
from xds.snapshot import Resource, Snapshot, type_url

CLUSTER = type_url("envoy.config.cluster.v3.Cluster")
ENDPOINTS = type_url("envoy.config.endpoint.v3.ClusterLoadAssignment")
LISTENER = type_url("envoy.config.listener.v3.Listener")
ROUTES = type_url("envoy.config.route.v3.RouteConfiguration")
SCOPED_ROUTES = type_url("envoy.config.route.v3.ScopedRouteConfiguration")
VIRTUAL_HOST = type_url("envoy.config.route.v3.VirtualHost")
SECRET = type_url("envoy.extensions.transport_sockets.tls.v3.Secret")
EXTENSION = type_url("envoy.config.core.v3.TypedExtensionConfig")
RUNTIME = type_url("envoy.service.runtime.v3.Runtime")
OPAQUE = type_url("some.type.that.Nobody.Knows")

# envoy/service/*/v3/*.proto
SERVICES = {
    CLUSTER: ("cluster.v3.ClusterDiscoveryService", "Clusters"),
    ENDPOINTS: ("endpoint.v3.EndpointDiscoveryService", "Endpoints"),
    LISTENER: ("listener.v3.ListenerDiscoveryService", "Listeners"),
    ROUTES: ("route.v3.RouteDiscoveryService", "Routes"),
    SCOPED_ROUTES: ("route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes"),
    VIRTUAL_HOST: ("route.v3.VirtualHostDiscoveryService", "VirtualHosts"),
    SECRET: ("secret.v3.SecretDiscoveryService", "Secrets"),
    EXTENSION: ("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs"),
    RUNTIME: ("runtime.v3.RuntimeDiscoveryService", "Runtime"),
    OPAQUE: ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources"),
}
TYPES = tuple(SERVICES)
SERVED = [
    (protocol, url)
    for protocol in Protocol
    for url in TYPES
    if (protocol, url) != (Protocol.STATE_OF_THE_WORLD, VIRTUAL_HOST)
]
"""Virtual hosts have no method of state of the world."""


def path_of(protocol: Protocol, url: str) -> str:
    service, what = SERVICES[url]
    return f"/envoy.service.{service}/{protocol}{what}"


def aggregated(protocol: Protocol) -> str:
    return path_of(protocol, OPAQUE)


def everything(body: bytes = b"1") -> Snapshot:
    return Snapshot.of(*(Resource.of(url, "one", body) for url in TYPES))


class Stage:
    """A server and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.verdicts: list[Verdict] = []
        self._news = News()
        rules = Admission(frozenset({os.getuid()}))
        self.server = Server(Endpoint(folder / "xds.sock"), rules, on_verdict=self._judge)

    def _judge(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        self._news.tell()

    def resource(self, url: str) -> Resource:
        """The one of this type that is published."""
        (resource,) = self.server.snapshot.table(url).values()
        return resource

    async def judged(self, count: int) -> list[Verdict]:
        """The verdicts, once there are `count`."""
        await self._news.until(lambda: len(self.verdicts) >= count, PATIENCE)
        return self.verdicts

    async def empty(self) -> None:
        """No stream is left."""
        async with asyncio.timeout(PATIENCE):
            while self.server.streams:  # noqa: ASYNC110 - a stream that ends without an answer owed tells nobody
                await asyncio.sleep(0.005)


def play(folder: Path, scene: Callable[[Stage, Core], Awaitable[None]], snapshot: Snapshot | None = None) -> None:
    """A scene between our server and gRPC's client; `snapshot` is published before, by default `everything`."""

    async def scenario() -> None:
        stage = Stage(folder)
        async with stage.server as server:
            server.publish(everything() if snapshot is None else snapshot)
            with connected(folder / "xds.sock") as core:
                await scene(stage, core)

    asyncio.run(scenario())
