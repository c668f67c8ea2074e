"""A real Envoy that has its listeners from its bootstrap, and its secrets and filters from our server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from typing import Any

from tests.system.xds.pki import Authority, client_context
from tests.system.xds.rig import PATIENCE, SPIFFE_ID, Envoy, Events, application, describe, envoy, make_server
from xds.acks import Settlement
from xds.resources.ecds import extension_config
from xds.resources.rbac import TypedConfig, http_allow_all
from xds.resources.secrets import tls_certificate, validation_context
from xds.server import Server
from xds.snapshot import Resource, Snapshot

AUTHORITY, NOBODY = Authority("mesh"), Authority("nobody")
"""Whoever vouches for us and for our callers, and whom nobody trusts."""


def identity(authority: Authority = AUTHORITY) -> tuple[Resource, Resource]:
    """Another certificate each time."""
    leaf = authority.leaf(SPIFFE_ID)
    return (
        tls_certificate("default", leaf.chain_pem, leaf.key_pem),
        validation_context("ROOTCA", authority.bundle_pem),
    )


def filters(config: TypedConfig | None = None, *, kind: str = "http", ttl: float | None = None) -> tuple[Resource, ...]:
    """Of both ways, by default letting everything pass."""
    names = (f"rbac-inbound-{kind}", f"rbac-outbound-{kind}")
    return tuple(extension_config(name, http_allow_all() if config is None else config, ttl=ttl) for name in names)


@dataclass(frozen=True)
class Scene:
    """One Envoy, its server, and what that reported."""

    folder: Path
    server: Server
    events: Events
    proxy: Envoy

    def caller(self, spiffe_id: str = SPIFFE_ID) -> SSLContext:
        """A peer of this name whom our authority vouches for."""
        return client_context(AUTHORITY.leaf(spiffe_id), AUTHORITY.bundle_pem, self.folder)

    async def publish(self, *resources: Resource) -> Settlement:
        """These and nothing else, once Envoy has answered."""
        return await self.server.publish(Snapshot.of(*resources)).acknowledged(PATIENCE)

    async def replace(self, *resources: Resource) -> Settlement:
        """These in the place of those of their names, once Envoy has answered."""
        return await self.server.publish(self.server.snapshot.replacing(*resources)).acknowledged(PATIENCE)


def played(
    folder: Path,
    story: Callable[[Scene], Awaitable[None]],
    *published: Resource,
    ready: bool = True,
    status: int = 200,
    api_type: str = "DELTA_GRPC",
    **described: Any,
) -> None:
    """A story after these were published. ready: it begins once Envoy is. status: what the application answers.

    described: as the rig's `describe` has them.
    """

    async def scenario() -> None:
        events = Events()
        async with application(status) as app, make_server(folder / "xds.sock", events) as server:
            if published:
                server.publish(Snapshot.of(*published))
            async with envoy(describe(folder, app, **described), folder, api_type=api_type) as proxy:
                if ready:
                    await proxy.until_ready()
                await story(Scene(folder, server, events, proxy))

    asyncio.run(scenario())
