"""A server on a real Unix socket, what it reported, and one client that speaks to it."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.unit.xds.grpc_client import SECRETS, SocketClient
from xds.acks import Verdict
from xds.admission import Admission, Refusal
from xds.listening import Endpoint
from xds.peer import Peer
from xds.server import Server
from xds.snapshot import Resource, Snapshot

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
NOW = 42.0
"""What the server's clock says, always."""


@dataclass(frozen=True)
class Stage:
    """refusals: of peers that may not connect, the peer None where it could not be identified."""

    path: Path
    server: Server
    verdicts: list[Verdict]
    refusals: list[tuple[Peer | None, Refusal]]

    async def connect(self, window: int = 65_535) -> SocketClient:
        """Another client."""
        return await SocketClient.connect(self.path, window)


@asynccontextmanager
async def serving(
    folder: Path,
    *published: Resource,
    uids: frozenset[int] | None = None,
    admit: Callable[[Peer], Refusal | None] = lambda _: None,
) -> AsyncIterator[Stage]:
    """A server that has published these, or nothing yet. uids: who may connect, by default we."""
    verdicts: list[Verdict] = []
    refusals: list[tuple[Peer | None, Refusal]] = []
    rules = Admission(
        frozenset({os.getuid()}) if uids is None else uids,
        admit=admit,
        on_refused=lambda peer, refusal: refusals.append((peer, refusal)),
    )
    path = folder / "xds.sock"
    async with Server(Endpoint(path), rules, on_verdict=verdicts.append, clock=lambda: NOW) as server:
        if published:
            server.publish(Snapshot.of(*published))
        yield Stage(path, server, verdicts, refusals)


def play(folder: Path, scene: Callable[[Stage, SocketClient], Awaitable[None]], *published: Resource) -> None:
    """A scene between a server that has published these and a client that is connected to it."""

    async def scenario() -> None:
        async with serving(folder, *published) as at:
            await scene(at, await at.connect())

    asyncio.run(scenario())


def secret(name: str, body: bytes, ttl: float | None = None) -> Resource:
    return Resource.of(SECRETS, name, body, ttl=ttl)


def descriptors() -> int:
    """How many we have open, but for what an earlier test has left to the garbage collector."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))
