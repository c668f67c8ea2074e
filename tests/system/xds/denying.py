"""An Envoy that three instances of one identity call, and that calls three: all is delivered to it, denials too.

Every denial is tried on a real handshake: Envoy acknowledges a key that it never finds, and then denies nobody.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.system.xds.pki import Authority, Leaf, client_context, server_context
from tests.system.xds.rig import (
    LOCALHOST,
    PATIENCE,
    SPIFFE_ID,
    WORKERS_FOLLOW,
    Caller,
    Envoy,
    Events,
    application,
    describe,
    envoy,
    free_port,
    make_server,
)
from xds.resources import mesh
from xds.resources.denials import DeniedPeer, http_deny_peers, tcp_deny_peers
from xds.resources.ecds import extension_config
from xds.resources.rbac import http_allow_all, tcp_allow_all
from xds.resources.secrets import tls_certificate, validation_context
from xds.resources.service import Application, HostPort, Service
from xds.server import Server
from xds.snapshot import Resource, Snapshot

AUTHORITY = Authority("issuing", issued_by=Authority("mesh"))
INSTANCES = ("i-" + "a" * 32, "i-" + "b" * 32, "i-" + "c" * 32)
LEAVES = tuple(AUTHORITY.leaf(SPIFFE_ID, instance) for instance in INSTANCES)
OURS = AUTHORITY.leaf(SPIFFE_ID, "i-" + "0" * 32)


def subject(instance: str) -> str:
    """Of every leaf of an instance, as Envoy writes it."""
    return f"OU={instance},O=Proofbeat"


REASON = "execution-foreign:c-0123"
MATCHED = f"rbac_access_denied_matched_policy[{REASON}]"
BY_FINGERPRINT = DeniedPeer(REASON, fingerprints=(LEAVES[0].fingerprint,))
BY_SUBJECT = DeniedPeer(REASON, subjects=(subject(INSTANCES[0]),))


@dataclass(frozen=True)
class Scene:
    """One Envoy and its server. contexts: of three callers with one identity. peers: where its upstream is reached."""

    proxy: Envoy
    server: Server
    service: Service
    contexts: tuple[ssl.SSLContext, ...]

    @property
    def peers(self) -> tuple[HostPort, ...]:
        return self.service.upstreams[0].peers

    async def deny(
        self, *callers: DeniedPeer, revoked: tuple[Leaf, ...] = (), without: tuple[HostPort, ...] = ()
    ) -> None:
        """These and nobody else, once that is in force. without: peers that are not to be called."""
        await self.publish(served(self.service, *callers, revoked=revoked, without=without))

    async def publish(self, snapshot: Snapshot) -> None:
        settlement = await self.server.publish(snapshot).acknowledged(PATIENCE)
        assert settlement.in_force, settlement


def served(
    service: Service, *callers: DeniedPeer, revoked: tuple[Leaf, ...] = (), without: tuple[HostPort, ...] = ()
) -> Snapshot:
    """Everything an Envoy needs, with what is denied to it."""
    return Snapshot.of(
        tls_certificate("default", OURS.chain_pem, OURS.key_pem),
        validation_context("ROOTCA", AUTHORITY.bundle_pem, crl_pem=AUTHORITY.crl(*revoked), only_leaf_crl=True),
        *_filters(callers),
        *mesh.clusters(service),
        *mesh.endpoints(service, {"peer": without}),
        *mesh.routes(service),
        *mesh.listeners(service, ttl=None),
    )


def _filters(callers: tuple[DeniedPeer, ...]) -> tuple[Resource, ...]:
    return (
        extension_config("rbac-inbound-http", http_deny_peers(callers)),
        extension_config("rbac-inbound-tcp", tcp_deny_peers(callers)),
        extension_config("rbac-outbound-http", http_allow_all()),
        extension_config("rbac-outbound-tcp", tcp_allow_all()),
    )


def played(
    folder: Path,
    story: Callable[[Scene], Awaitable[None]],
    protocol: Application = "http",
    *,
    app: Callable[[], AbstractAsyncContextManager[int]] = application,
    ports: int = 1,
    peers: int = 0,
    health_check: bool = False,
) -> None:
    """app: what is called. ports: at how many. peers: how many instances its upstream has; with 0 that is itself."""

    async def scenario() -> None:
        async with (
            app() as called,
            replicas(folder, peers) as reached,
            make_server(folder / "xds.sock", Events()) as server,
        ):
            description = describe(folder, called, protocol=protocol)
            (first,), (upstream,) = description.service.inbound, description.service.upstreams
            more = (replace(first, listen=HostPort(LOCALHOST, free_port())) for _ in range(1, ports))
            upstream = replace(upstream, peers=reached or upstream.peers, health_check=health_check)
            service = replace(description.service, inbound=(first, *more), upstreams=(upstream,))
            server.publish(served(service))
            contexts = tuple(client_context(leaf, AUTHORITY.bundle_pem, folder) for leaf in LEAVES)
            async with envoy(replace(description, service=service), folder, delivered=True) as proxy:
                await proxy.until_ready()
                await story(Scene(proxy, server, service, contexts))

    asyncio.run(scenario())


@asynccontextmanager
async def replicas(folder: Path, count: int) -> AsyncIterator[tuple[HostPort, ...]]:
    """Applications behind mutual TLS, each with its own certificate of one identity; each answers with its number."""
    async with AsyncExitStack() as stack:
        servers = [
            await replica(str(number), server_context(LEAVES[number], AUTHORITY.bundle_pem, folder))
            for number in range(count)
        ]
        for server in servers:
            stack.callback(server.close)
        yield tuple(HostPort(*server.sockets[0].getsockname()[:2]) for server in servers)


async def replica(name: str, context: ssl.SSLContext, port: int = 0) -> asyncio.Server:
    """Answers with its name."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return await asyncio.start_server(serve, LOCALHOST, port, ssl=context)


async def until_cut(caller: Caller) -> None:
    """Asks on until the connection ends, for which it raises one of REFUSED."""
    async with asyncio.timeout(WORKERS_FOLLOW):
        while True:
            await caller.get()
