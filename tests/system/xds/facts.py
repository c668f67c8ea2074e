"""One Envoy for a whole family of facts: served everything, and brought back to that between two stories."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.system.closing.clients import ENDED, Client, Http2, KeptAlive, Tcp, Upload, WebSocket
from tests.system.closing.service import Service as Application
from tests.system.xds.pki import Authority, Leaf, client_context
from tests.system.xds.rig import (
    LOCALHOST,
    PATIENCE,
    SPIFFE_ID,
    WORKERS_FOLLOW,
    WORKLOADS,
    Envoy,
    Events,
    envoy,
    free_port,
    make_server,
)
from tests.system.xds.sds import identity
from xds.acks import Settlement
from xds.bootstrap import Bootstrap
from xds.messages import encode_discovery
from xds.resources import mesh
from xds.resources.ecds import extension_config
from xds.resources.rbac import http_allow_all, http_deny_all, tcp_allow_all, tcp_deny_all
from xds.resources.service import HostPort, Inbound, Service, Upstream
from xds.server import Server
from xds.snapshot import Resource, Snapshot

Story = Callable[[], Awaitable[None]]
HTTP, TCP = 0, 1
"""The two ways through: of ports in, and of ports out that lead to them."""


@dataclass
class World:
    """authority: whoever vouches for our certificate. server, events and proxy: of the Envoy all of it is about."""

    authority: Authority
    folder: Path
    description: Bootstrap
    server: Server
    events: Events
    proxy: Envoy
    base: Snapshot
    _runner: asyncio.Runner

    def tells(self, story: Story) -> None:
        """The story, begun once everything is served; whoever waits too long has it fail."""

        async def whole() -> None:
            await self.restored()
            async with asyncio.timeout(4 * PATIENCE):
                await story()

        self._runner.run(whole())

    async def restored(self) -> None:
        await self.publish(self.base)
        for kind, way in ((KeptAlive, HTTP), (Tcp, TCP)):
            await self.until_served(kind, way)

    async def publish(self, snapshot: Snapshot) -> Settlement:
        settlement = await self.server.publish(snapshot).acknowledged(PATIENCE)
        assert not settlement.pending, "Envoy did not answer"
        return settlement

    async def accepted(self, snapshot: Snapshot) -> None:
        settlement = await self.publish(snapshot)
        assert settlement.in_force, settlement

    def out(self, way: int) -> tuple[str, int]:
        """Where the application calls."""
        listen = self.description.service.upstreams[way].listen
        return listen.host, listen.port

    @property
    def inbound(self) -> int:
        """The HTTP port where peers call, by mutual TLS."""
        return self.description.service.inbound[HTTP].listen.port

    def caller(self) -> ssl.SSLContext:
        """A peer whom Envoy trusts, until its authorities change."""
        return self.caller_with(self.authority.leaf(SPIFFE_ID))

    def caller_with(self, leaf: Leaf) -> ssl.SSLContext:
        return client_context(leaf, self.authority.bundle_pem, self.folder)

    async def held(self) -> list[Client]:
        """One connection of each kind, open and served."""
        opened: list[Client] = [
            await Tcp.open(*self.out(TCP)),
            await KeptAlive.open(*self.out(HTTP)),
            await WebSocket.open(*self.out(HTTP)),
            await Http2.open(*self.out(HTTP)),
            await Upload.open(*self.out(HTTP)),
        ]
        for client in opened:
            await client.ask()
        return opened

    async def until_served(self, kind: type[KeptAlive | Tcp], way: int) -> None:
        """By a new connection. Nothing tells when Envoy's workers have taken up what its main thread acknowledged."""
        async with asyncio.timeout(PATIENCE):
            while not await self.serves(kind, way):
                pass

    async def until_refused(self, kind: type[KeptAlive | Tcp], way: int) -> None:
        async with asyncio.timeout(WORKERS_FOLLOW):
            while await self.serves(kind, way):
                pass

    async def serves(self, kind: type[KeptAlive | Tcp], way: int) -> bool:
        try:
            client = await kind.open(*self.out(way))
        except ENDED:
            return False
        try:
            async with asyncio.timeout(PATIENCE):
                await client.ask()
        except ENDED:
            return False
        finally:
            client.close()
        return True


async def ends(client: Client) -> None:
    """Goes on with what is open until it is over, which must be soon."""
    async with asyncio.timeout(PATIENCE):
        try:
            while True:
                await client.ask()
                await asyncio.sleep(0.01)
        except ENDED:
            client.close()


def filters(reason: str | None = None, ttl: float | None = None) -> tuple[Resource, ...]:
    """All four: letting everything pass, or denying everything for a reason."""
    http, tcp = (http_allow_all(), tcp_allow_all()) if reason is None else (http_deny_all(reason), tcp_deny_all(reason))
    return tuple(
        extension_config(f"rbac-{way}-{kind}", config, ttl=ttl)
        for way in ("inbound", "outbound")
        for kind, config in (("http", http), ("tcp", tcp))
    )


def everything(service: Service, *, ttl: float | None = None) -> tuple[Resource, ...]:
    """Listeners, with this lifetime in seconds, and all that they lead to."""
    return (
        *mesh.clusters(service),
        *mesh.endpoints(service),
        *mesh.routes(service),
        *mesh.listeners(service, ttl=ttl),
    )


def without_content(resource: Resource) -> Resource:
    """What only prolongs a lifetime: the name, the version and the time."""
    assert resource.ttl is not None
    whole, fraction = divmod(resource.ttl, 1)
    ttl = {"seconds": int(whole), "nanos": int(fraction * 1_000_000_000)}
    bare = {"name": resource.name, "version": resource.version, "ttl": ttl}
    return replace(resource, delta_entry=encode_discovery("DeltaDiscoveryResponse", resources=[bare]))


@contextmanager
def world(*, delivered: bool, **envoy_options: Any) -> Iterator[World]:
    """delivered: Envoy gets its listeners and clusters too, over one aggregated stream; else secrets and filters.

    envoy_options: as the rig's `envoy` has them.
    """
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        over = AsyncExitStack()
        made = runner.run(_begun(Path(folder), runner, over, delivered=delivered, **envoy_options))
        try:
            yield made
        finally:
            runner.run(over.aclose())


async def _begun(
    folder: Path, runner: asyncio.Runner, over: AsyncExitStack, *, delivered: bool, **envoy_options: Any
) -> World:
    app, authority, events = Application(), Authority("mesh"), Events()
    servers = [await asyncio.start_server(serve, LOCALHOST, 0) for serve in (app.http, app.echo)]
    for each in servers:
        over.callback(each.close)
    description = described(folder, *(int(each.sockets[0].getsockname()[1]) for each in servers))
    server = await over.enter_async_context(make_server(description.xds_socket, events))
    standing = everything(description.service) if delivered else ()
    base = Snapshot.of(*identity(authority), *filters(), *standing)
    server.publish(base)
    proxy = await over.enter_async_context(envoy(description, folder, delivered=delivered, **envoy_options))
    await proxy.until_ready()
    return World(authority, folder, description, server, events, proxy, base, runner)


def described(folder: Path, http: int, tcp: int) -> Bootstrap:
    """An HTTP and a TCP port in, and two out that lead back to them. http, tcp: the application's ports."""
    inbound = (
        Inbound(HostPort(LOCALHOST, free_port()), HostPort(LOCALHOST, http), "http", WORKLOADS),
        Inbound(HostPort(LOCALHOST, free_port()), HostPort(LOCALHOST, tcp), "tcp", WORKLOADS),
    )
    upstreams = tuple(
        Upstream(f"{port.protocol}-peer", HostPort(LOCALHOST, free_port()), (port.listen,), port.protocol, WORKLOADS)
        for port in inbound
    )
    return Bootstrap(
        node_id="test",
        node_cluster="test",
        xds_socket=folder / "xds.sock",
        admin_socket=folder / "admin.sock",
        service=Service(access_log=folder / "access.log", inbound=inbound, upstreams=upstreams),
    )
