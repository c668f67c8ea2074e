"""A real Envoy that is delivered everything over one aggregated stream: listeners, routes, clusters and endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.xds.pki import Authority
from tests.system.xds.rig import (
    LOCALHOST,
    PATIENCE,
    SPIFFE_ID,
    Caller,
    Events,
    application,
    describe,
    envoy,
    make_server,
)
from xds.resources import mesh
from xds.resources.ecds import extension_config
from xds.resources.rbac import http_allow_all
from xds.resources.secrets import tls_certificate, validation_context
from xds.resources.service import HostPort, Service
from xds.server import Server
from xds.snapshot import Resource, Snapshot

CUT = (ConnectionError, asyncio.IncompleteReadError)
AUTHORITY = Authority("mesh")
LEAF = AUTHORITY.leaf(SPIFFE_ID)
IDENTITY = (
    tls_certificate("default", LEAF.chain_pem, LEAF.key_pem),
    validation_context("ROOTCA", AUTHORITY.bundle_pem),
)
FILTERS = tuple(extension_config(f"rbac-{way}-http", http_allow_all()) for way in ("inbound", "outbound"))


def behind(service: Service, *listeners: Resource, without: tuple[HostPort, ...] = ()) -> Snapshot:
    """Everything but the listeners, which are given."""
    return Snapshot.of(
        *IDENTITY,
        *FILTERS,
        *mesh.clusters(service),
        *mesh.endpoints(service, {"peer": without}),
        *mesh.routes(service),
        *listeners,
    )


async def bound(port: int) -> Caller:
    """A listener is acknowledged before it is warm, and bound when it is: nothing tells of that."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await Caller.connect(port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)


async def unbound(port: int) -> None:
    """Two listeners end one after the other."""
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionRefusedError):
            while True:
                with suppress(ConnectionResetError):  # it ended before it accepted us
                    _, writer = await asyncio.open_connection(LOCALHOST, port)
                    writer.close()


def standing(folder: Path, story: Callable[[Server, Service, Caller], Awaitable[None]]) -> None:
    """The story of a kept-alive connection through an Envoy that was delivered everything."""

    async def scenario() -> None:
        async with application() as app, make_server(folder / "xds.sock", Events()) as server:
            description = describe(folder, app)
            service = description.service
            server.publish(behind(service, *mesh.listeners(service, ttl=None)))
            async with envoy(description, folder, delivered=True) as proxy:
                await proxy.until_ready()
                caller = await Caller.connect(proxy.outbound)
                await caller.until_status(200)
                await story(server, service, caller)
                await caller.close()

    asyncio.run(scenario())


def test_removed_listeners_cut_what_runs_through_them_and_close_their_ports(tmp_path: Path) -> None:
    async def story(server: Server, service: Service, caller: Caller) -> None:
        closed = server.publish(behind(service))
        assert (await closed.acknowledged(PATIENCE)).in_force
        with pytest.raises(CUT):
            await caller.get()
        await unbound(service.inbound[0].listen.port)
        opened = server.publish(behind(service, *mesh.listeners(service, ttl=None)))
        assert (await opened.acknowledged(PATIENCE)).in_force
        again = await bound(service.upstreams[0].listen.port)
        await again.until_status(200)
        await again.close()

    standing(tmp_path, story)


def test_listeners_with_a_lifetime_close_and_cut_when_nobody_prolongs_it(tmp_path: Path) -> None:
    async def story(server: Server, service: Service, caller: Caller) -> None:
        lasting = server.publish(behind(service, *mesh.listeners(service, ttl=3.0)))
        assert (await lasting.acknowledged(PATIENCE)).in_force
        held = await Caller.connect(service.upstreams[0].listen.port)
        await held.until_status(200)
        for _ in range(9):
            server.heartbeat()
            await asyncio.sleep(0.5)
            assert (await held.get()).status == 200
        with pytest.raises(CUT):
            async with asyncio.timeout(PATIENCE):
                while True:
                    await held.get()
        await unbound(service.inbound[0].listen.port)

    standing(tmp_path, story)


def test_a_benign_change_drops_no_connection(tmp_path: Path) -> None:
    async def story(server: Server, service: Service, caller: Caller) -> None:
        other = AUTHORITY.leaf(SPIFFE_ID)
        renewed = behind(service, *mesh.listeners(service, ttl=None)).replacing(
            tls_certificate("default", other.chain_pem, other.key_pem)
        )
        assert (await server.publish(renewed).acknowledged(PATIENCE)).in_force
        assert (await caller.get()).status == 200

    standing(tmp_path, story)


def test_an_upstream_without_its_endpoint_is_reached_by_nobody(tmp_path: Path) -> None:
    async def story(server: Server, service: Service, caller: Caller) -> None:
        listeners = mesh.listeners(service, ttl=None)
        denied = server.publish(behind(service, *listeners, without=service.upstreams[0].peers))
        assert (await denied.acknowledged(PATIENCE)).in_force
        await caller.until_status(503)
        allowed = server.publish(behind(service, *listeners))
        assert (await allowed.acknowledged(PATIENCE)).in_force
        await caller.until_status(200)

    standing(tmp_path, story)
