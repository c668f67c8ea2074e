"""One instance of an identity that three share is denied, as a caller and as a peer; the other two go on.

Every denial is tried on a real handshake: Envoy acknowledges a key that it never finds, and then denies nobody.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

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
    call_once,
    describe,
    envoy,
    free_port,
    make_server,
    until,
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
REASON = "execution-foreign:c-0123"
MATCHED = f"rbac_access_denied_matched_policy[{REASON}]"
CUT = (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)
INSTANCES = ("i-" + "a" * 32, "i-" + "b" * 32, "i-" + "c" * 32)
PASSED = 502
"""Of a request that the filters let pass to an application which speaks no HTTP/2."""

LEAVES = tuple(AUTHORITY.leaf(SPIFFE_ID, instance) for instance in INSTANCES)
OURS = AUTHORITY.leaf(SPIFFE_ID, "i-" + "0" * 32)
BY_FINGERPRINT = DeniedPeer(REASON, fingerprints=(LEAVES[0].fingerprint,))


def subject(instance: str) -> str:
    """Of every leaf of an instance, as Envoy writes it."""
    return f"OU={instance},O=Proofbeat"


BY_SUBJECT = DeniedPeer(REASON, subjects=(subject(INSTANCES[0]),))


def served(
    service: Service,
    *denied: DeniedPeer,
    revoked: tuple[Leaf, ...] = (),
    without: tuple[HostPort, ...] = (),
) -> Snapshot:
    """Everything an Envoy needs, with what is denied to it."""
    return Snapshot.of(
        tls_certificate("default", OURS.chain_pem, OURS.key_pem),
        validation_context("ROOTCA", AUTHORITY.bundle_pem, crl_pem=AUTHORITY.crl(*revoked), only_leaf_crl=True),
        *_filters(denied),
        *mesh.clusters(service),
        *mesh.endpoints(service, {"peer": without}),
        *mesh.routes(service),
        *mesh.listeners(service, ttl=None),
    )


def _filters(denied: tuple[DeniedPeer, ...]) -> tuple[Resource, ...]:
    return (
        extension_config("rbac-inbound-http", http_deny_peers(denied)),
        extension_config("rbac-inbound-tcp", tcp_deny_peers(denied)),
        extension_config("rbac-outbound-http", http_allow_all()),
        extension_config("rbac-outbound-tcp", tcp_allow_all()),
    )


@dataclass(frozen=True)
class Scene:
    """One Envoy and its server. contexts: of three callers with one identity."""

    proxy: Envoy
    server: Server
    service: Service
    contexts: tuple[ssl.SSLContext, ...]

    async def publish(self, snapshot: Snapshot) -> None:
        settlement = await self.server.publish(snapshot).acknowledged(PATIENCE)
        assert settlement.in_force, settlement


def scene(
    folder: Path,
    story: Callable[[Scene], Awaitable[None]],
    protocol: Application = "http",
    *,
    app: int | None = None,
    peers: tuple[HostPort, ...] = (),
    health_check: bool = False,
    ports: int = 1,
) -> Callable[[], Awaitable[None]]:
    """peers: of its one upstream, by default its own port. ports: at how many it is called."""

    async def scenario() -> None:
        async with application() as small, make_server(folder / "xds.sock", Events()) as server:
            description = describe(folder, app or small, protocol=protocol)
            upstream = description.service.upstreams[0]
            upstream = replace(upstream, peers=peers or upstream.peers, health_check=health_check)
            inbound = description.service.inbound
            inbound += tuple(replace(inbound[0], listen=HostPort(LOCALHOST, free_port())) for _ in range(1, ports))
            service = replace(description.service, inbound=inbound, upstreams=(upstream,))
            description = replace(description, service=service)
            server.publish(served(service))
            contexts = tuple(client_context(leaf, AUTHORITY.bundle_pem, folder) for leaf in LEAVES)
            async with envoy(description, folder, delivered=True) as proxy:
                await proxy.until_ready()
                await story(Scene(proxy, server, service, contexts))

    return scenario


@pytest.mark.parametrize("denied", [BY_FINGERPRINT, BY_SUBJECT], ids=["by fingerprint", "by subject"])
def test_a_denied_caller_gets_the_cause_on_its_open_connection_and_its_sisters_are_served(
    denied: DeniedPeer, tmp_path: Path
) -> None:
    async def story(at: Scene) -> None:
        callers = [await Caller.connect(at.proxy.inbound, context) for context in at.contexts]
        for caller in callers:
            assert (await caller.get()).status == 200
        await at.publish(served(at.service, denied))
        answer = await callers[0].until_answer(lambda answer: answer.status == 403)
        assert json.loads(answer.body)["detail"] == MATCHED
        assert [(await caller.get()).status for caller in callers[1:]] == [200, 200]
        assert [(await call_once(at.proxy.inbound, context)).status for context in at.contexts] == [403, 200, 200]
        entry = await at.proxy.until_logged(lambda entry: entry["details"] == MATCHED)
        assert entry["peer_fingerprint"] == LEAVES[0].fingerprint
        assert entry["peer_subject"] == subject(INSTANCES[0])
        await at.publish(served(at.service))
        await callers[0].until_status(200)

    asyncio.run(scene(tmp_path, story)())


@pytest.mark.parametrize("denied", [BY_FINGERPRINT, BY_SUBJECT], ids=["by fingerprint", "by subject"])
def test_a_denied_callers_new_tcp_connection_is_closed_and_logged(denied: DeniedPeer, tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        for context in at.contexts:
            assert (await call_once(at.proxy.inbound, context)).status == 200
        await at.publish(served(at.service, denied))
        await refused(at.proxy.inbound, at.contexts[0])
        for context in at.contexts[1:]:
            assert (await call_once(at.proxy.inbound, context)).status == 200
        entry = await at.proxy.until_logged(lambda entry: entry["termination"] == MATCHED)
        assert entry["peer_fingerprint"] == LEAVES[0].fingerprint

    asyncio.run(scene(tmp_path, story, "tcp")())


async def refused(port: int, context: ssl.SSLContext) -> None:
    """Its workers follow Envoy's acknowledgement within moments; then for good."""
    async with asyncio.timeout(WORKERS_FOLLOW):
        with pytest.raises(CUT):
            while True:
                await call_once(port, context)
    with pytest.raises(CUT):
        await call_once(port, context)


class Http2Caller:
    """An HTTP/2 client that keeps its connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._state.initiate_connection()

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext) -> Http2Caller:
        tls.set_alpn_protocols(["h2"])
        return cls(*await asyncio.open_connection(LOCALHOST, port, ssl=tls))

    async def status(self) -> int:
        """Of one more request."""
        stream = self._state.get_next_available_stream_id()
        fields = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": "test"}
        self._state.send_headers(stream, list(fields.items()), end_stream=True)
        async with asyncio.timeout(PATIENCE):
            while True:
                self._writer.write(self._state.data_to_send())
                data = await self._reader.read(65_536)
                if not data:
                    raise ConnectionResetError
                for event in self._state.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream:
                        return int(dict(event.headers)[":status"])

    async def until_status(self, wanted: int) -> None:
        async with asyncio.timeout(WORKERS_FOLLOW):
            while await self.status() != wanted:
                pass


def test_a_denied_caller_is_refused_on_its_open_http2_connection(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        denied, sister = [await Http2Caller.connect(at.proxy.inbound, context) for context in at.contexts[:2]]
        assert (await denied.status(), await sister.status()) == (PASSED, PASSED)
        await at.publish(served(at.service, BY_FINGERPRINT))
        await denied.until_status(403)
        assert await sister.status() == PASSED

    asyncio.run(scene(tmp_path, story)())


def test_the_server_knows_which_tcp_connections_are_whose_from_their_handshakes_to_their_ends(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        present = at.server.callers
        callers = [await Caller.connect(at.proxy.inbound, context) for context in at.contexts]
        for caller, instance in zip(callers, INSTANCES, strict=True):
            assert (await caller.get()).status == 200
            where = HostPort(LOCALHOST, caller.port)
            await until(lambda where=where, instance=instance: present.named({subject(instance)}) == (where,))
        await callers[0].close()
        await until(lambda: present.named({subject(INSTANCES[0])}) == ())
        assert len(present) == len(callers) - 1

    asyncio.run(scene(tmp_path, story, "tcp")())


def test_from_one_end_two_ports_are_called_and_each_connection_is_known_until_its_own_end(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        present = at.server.callers
        ports = tuple(each.listen.port for each in at.service.inbound)
        first, second = await from_one_end(ports, at.contexts)
        assert [(await caller.get()).status for caller in (first, second)] == [200, 200]
        where = (HostPort(LOCALHOST, first.port),)
        both = {subject(instance) for instance in INSTANCES[:2]}
        await until(lambda: all(present.named({each}) == where for each in both))
        await second.close()
        await until(lambda: len(present) == 1)
        assert present.named({subject(INSTANCES[0])}) == where

    asyncio.run(scene(tmp_path, story, "tcp", ports=2)())


async def from_one_end(ports: tuple[int, ...], contexts: tuple[ssl.SSLContext, ...]) -> list[Caller]:
    """A caller of each port, all from one port of ours, each with its own certificate."""
    callers: list[Caller] = []
    for port, context in zip(ports, contexts, strict=False):
        ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind((LOCALHOST, callers[0].port if callers else 0))
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_connect(ours, (LOCALHOST, port))
        callers.append(Caller(*await asyncio.open_connection(sock=ours, ssl=context, server_hostname="")))
    return callers


def test_a_revoked_caller_shakes_no_hands_any_more_and_the_listener_says_whose_they_were(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        assert (await call_once(at.proxy.inbound, at.contexts[0])).status == 200
        await at.publish(served(at.service, revoked=LEAVES[:1]))
        await refused(at.proxy.inbound, at.contexts[0])
        for context in at.contexts[1:]:
            assert (await call_once(at.proxy.inbound, context)).status == 200
        entry = await at.proxy.until_logged(lambda entry: "revoked" in str(entry["downstream_failure"]))
        assert entry["peer_fingerprint"] == LEAVES[0].fingerprint

    asyncio.run(scene(tmp_path, story)())


def test_a_revoked_caller_hears_nothing_of_an_application_that_speaks_first(tmp_path: Path) -> None:
    """Envoy asks its network filters at the caller's first byte, which is too late there: the handshake must fail."""

    async def scenario() -> None:
        async with greeter() as app:

            async def story(at: Scene) -> None:
                assert await greeting(at.proxy.inbound, at.contexts[0]) == b"welcome"
                await at.publish(served(at.service, BY_FINGERPRINT, revoked=LEAVES[:1]))
                async with asyncio.timeout(WORKERS_FOLLOW):
                    with pytest.raises(CUT):
                        while await greeting(at.proxy.inbound, at.contexts[0]):
                            pass
                assert await greeting(at.proxy.inbound, at.contexts[1]) == b"welcome"

            await scene(tmp_path, story, "tcp", app=app)()

    asyncio.run(scenario())


@asynccontextmanager
async def greeter() -> AsyncIterator[int]:
    """A TCP application that speaks first; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, LOCALHOST, 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def greeting(port: int, context: ssl.SSLContext) -> bytes:
    """Raises as soon as the other end refuses."""
    reader, writer = await asyncio.open_connection(LOCALHOST, port, ssl=context)
    try:
        return await reader.readexactly(len(b"welcome"))
    finally:
        writer.close()


# Peers that are denied.


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


async def answering(port: int) -> set[str]:
    """Who answers, of many calls."""
    answers = [await call_once(port) for _ in range(12)]
    return {answer.body.decode() if answer.status == 200 else str(answer.status) for answer in answers}


async def until_answering(port: int, wanted: set[str]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await answering(port) != wanted:
            pass


def test_of_three_peers_the_denied_one_gets_no_request_any_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(tmp_path, 3) as peers:

            async def story(at: Scene) -> None:
                await until_answering(at.proxy.outbound, {"0", "1", "2"})
                await at.publish(served(at.service, revoked=LEAVES[:1], without=peers[:1]))
                await until_answering(at.proxy.outbound, {"1", "2"})
                assert await answering(at.proxy.outbound) == {"1", "2"}
                await at.publish(served(at.service, without=peers))
                await until_answering(at.proxy.outbound, {"503"})
                await at.publish(served(at.service))
                await until_answering(at.proxy.outbound, {"0", "1", "2"})

            await scene(tmp_path, story, peers=peers)()

    asyncio.run(scenario())


def test_a_revoked_peer_is_called_by_no_new_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(tmp_path, 1) as peers:

            async def story(at: Scene) -> None:
                await at.publish(served(at.service, revoked=LEAVES[:1]))
                await until_answering(at.proxy.outbound, {"503"})
                assert await at.proxy.stat("cluster.peer.ssl.fail_verify_error") > 0
                await at.proxy.until_logged(lambda entry: "revoked" in str(entry["upstream_failure"]))

            await scene(tmp_path, story, peers=peers)()

    asyncio.run(scenario())


def test_an_open_tcp_connection_to_a_revoked_peer_ends_by_the_health_check(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(tmp_path, 2) as peers:

            async def story(at: Scene) -> None:
                held = {await answered(caller): caller for caller in await connected(at.proxy.outbound, 6)}
                await at.publish(served(at.service, revoked=LEAVES[:1], without=peers[:1]))
                with pytest.raises(CUT):
                    await until_cut(held["0"])
                assert await answered(held["1"]) == "1"
                assert await answering(at.proxy.outbound) == {"1"}

            await scene(tmp_path, story, "tcp", peers=peers, health_check=True)()

    asyncio.run(scenario())


def test_a_peer_that_is_healthy_but_denied_gets_nothing_new(tmp_path: Path) -> None:
    """Envoy would go on calling an endpoint that was removed for as long as its health check holds."""

    async def scenario() -> None:
        async with replicas(tmp_path, 2) as peers:

            async def story(at: Scene) -> None:
                await until_answering(at.proxy.outbound, {"0", "1"})
                await at.publish(served(at.service, without=peers[:1]))
                await until_answering(at.proxy.outbound, {"1"})
                await at.publish(served(at.service, without=peers))
                await until_answering(at.proxy.outbound, {"503"})

            await scene(tmp_path, story, peers=peers, health_check=True)()

    asyncio.run(scenario())


def test_an_instance_that_is_denied_is_neither_called_nor_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(tmp_path, 3) as peers:

            async def story(at: Scene) -> None:
                caller = await Caller.connect(at.proxy.inbound, at.contexts[0])
                assert (await caller.get()).status == 200
                await at.publish(served(at.service, BY_SUBJECT, revoked=LEAVES[:1], without=peers[:1]))
                await caller.until_status(403)
                await refused(at.proxy.inbound, at.contexts[0])
                await until_answering(at.proxy.outbound, {"1", "2"})
                assert [(await call_once(at.proxy.inbound, context)).status for context in at.contexts[1:]] == [
                    200,
                    200,
                ]

            await scene(tmp_path, story, peers=peers)()

    asyncio.run(scenario())


def test_a_changed_upstream_is_in_force_at_once(tmp_path: Path) -> None:
    """A changed cluster waits for its endpoints, which have not changed: they must be sent again."""

    async def story(at: Scene) -> None:
        assert (await call_once(at.proxy.outbound)).status == 200
        upstream = replace(at.service.upstreams[0], connection_per_request=True)
        await at.publish(served(replace(at.service, upstreams=(upstream,))))
        async with asyncio.timeout(WORKERS_FOLLOW):
            while await handshakes(at.proxy, 2) < 2:
                pass

    asyncio.run(scene(tmp_path, story)())


async def handshakes(proxy: Envoy, calls: int) -> int:
    """How many it takes to be answered so often."""
    before = await proxy.stat("cluster.peer.ssl.handshake")
    for _ in range(calls):
        await call_once(proxy.outbound)
    return await proxy.stat("cluster.peer.ssl.handshake") - before


async def connected(port: int, count: int) -> list[Caller]:
    return [await Caller.connect(port) for _ in range(count)]


async def answered(caller: Caller) -> str:
    return (await caller.get()).body.decode()


async def until_cut(caller: Caller) -> None:
    """Asks on until the connection ends, for which it raises."""
    async with asyncio.timeout(WORKERS_FOLLOW):
        while await caller.get():
            pass
