"""The sidecar's delivery with a real Envoy, a real measurer and real traffic, and nothing that attests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from attestation.channel import Guard, Message, Scope, Swept
from sidecar import clock
from sidecar.config import DeliverySettings
from sidecar.delivery import poison
from sidecar.delivery.delivery import Delivery
from sidecar.delivery.poison import Poison
from sidecar.delivery.resources import Catalogue, Identity
from sidecar.delivery.told import Happening, Told
from sidecar.measurement import Measurer, spawn
from sidecar.service import InboundSettings, ServiceSettings, UpstreamSettings
from sidecar.states import Lease
from tests.system.closing.clients import ENDED, Client, Http2, KeptAlive, Tcp
from tests.system.closing.service import Service
from tests.system.xds.pki import Authority
from tests.system.xds.rig import ENVOY, LOCALHOST, PATIENCE, SPIFFE_ID, free_port
from xds.admission import Admission
from xds.bootstrap import delivered_bootstrap, envoy_command, write_bootstrap
from xds.listening import Endpoint
from xds.peer import Peer
from xds.server import Server

DEADMAN, ESCALATE = 5.0, 1.0
AUTHORITY = Authority("served")


def identity() -> Identity:
    """Another leaf each time."""
    leaf = AUTHORITY.leaf(SPIFFE_ID)
    return Identity(leaf.chain_pem, leaf.key_pem, AUTHORITY.bundle_pem)


def lease(seconds: float) -> Lease:
    """One that ends so many seconds from now."""
    now = clock.now()
    return Lease(1, now.boot + seconds, now.wall + seconds)


@dataclass
class Served:
    """Delivery and what it told. http, tcp: ports that lead out of Envoy, into it again, and to a service."""

    delivery: Delivery
    settings: DeliverySettings
    server: Server
    envoy: asyncio.subprocess.Process
    http: int
    tcp: int
    told: list[Told] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, told: Told) -> None:
        self.told.append(told)
        self._news.set()

    async def until(self, happening: Happening) -> Told:
        """The next of its kind; what is found is not found again."""
        async with asyncio.timeout(PATIENCE):
            while not (found := [each for each in self.told if each.happening is happening]):
                self._news.clear()
                await self._news.wait()
        self.told.remove(found[0])
        return found[0]

    def retime(self, deadman: float) -> None:
        self.delivery.retime(Catalogue.under(self.settings, ttl=deadman), ESCALATE)

    async def opened(self, kind: type[Client], port: int) -> Client:
        """One that is served. A listener is bound once it is warm, and nothing tells of that."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    client = await kind.open(LOCALHOST, port)
                    await client.ask()
                except ENDED:
                    await asyncio.sleep(0.02)
                else:
                    return client

    async def held(self) -> tuple[Client, Client, Client]:
        """A TCP connection, an HTTP/1.1 connection that is kept, and HTTP/2 streams in flight."""
        return (
            await self.opened(Tcp, self.tcp),
            await self.opened(KeptAlive, self.http),
            await self.opened(Http2, self.http),
        )


async def ended(client: Client, within: float) -> bool:
    """Whether it ends in so many seconds."""
    try:
        async with asyncio.timeout(within):
            while True:
                await client.ask()
                await asyncio.sleep(0.01)
    except TimeoutError:  # which is an OSError too
        return False
    except ENDED:
        return True


def _described(folder: Path, app_http: int, app_tcp: int) -> tuple[DeliverySettings, int, int]:
    ways = {kind: (free_port(), free_port(), app) for kind, app in (("http", app_http), ("tcp", app_tcp))}
    inbound = [
        {"listen": f"{LOCALHOST}:{into}", "app": f"{LOCALHOST}:{app}", "protocol": kind, "callers": [SPIFFE_ID]}
        for kind, (into, _, app) in ways.items()
    ]
    upstreams = [
        {
            "name": kind,
            "listen": f"{LOCALHOST}:{out}",
            "peers": [f"{LOCALHOST}:{into}"],
            "protocol": kind,
            "identities": [SPIFFE_ID],
        }
        for kind, (into, out, _) in ways.items()
    ]
    service = ServiceSettings(
        bootstrap=folder / "envoy.json",
        admin=folder / "admin.sock",
        access_log=folder / "access.log",
        inbound=tuple(InboundSettings.model_validate(each) for each in inbound),
        upstreams=tuple(UpstreamSettings.model_validate(each) for each in upstreams),
    )
    settings = DeliverySettings(mode="xds", service=service, socket=folder / "xds.sock")
    return settings, ways["http"][1], ways["tcp"][1]


@asynccontextmanager
async def served(
    folder: Path, *, poisoned: Callable[[float], Poison] = poison.make, silent: bool = False
) -> AsyncIterator[Served]:
    """Everything up and closed. poisoned: makes the poison. silent: it is not served before the first closing."""
    service = Service()
    app_http = await asyncio.start_server(service.http, LOCALHOST, 0)
    app_tcp = await asyncio.start_server(service.echo, LOCALHOST, 0)
    settings, http, tcp = _described(folder, *(each.sockets[0].getsockname()[1] for each in (app_http, app_tcp)))
    write_bootstrap(delivered_bootstrap("test", "test", settings.socket, folder / "admin.sock"), folder / "envoy.json")

    def heard(message: Message, body: bytes | None) -> None:
        if isinstance(message, Swept):
            made.delivery.swept(message)

    def lost(reason: str) -> None:
        raise AssertionError(reason)

    def seated(peer: Peer, new: bool) -> None:
        if new:
            measurer.send(Guard(peer.pid), peer.pidfd)

    measurer = Measurer(heard, lost)
    workload = await asyncio.create_subprocess_exec("sleep", "600")
    server = Server(Endpoint(settings.socket), Admission(frozenset({os.getuid()}), on_seated=seated))
    await server.start()
    measurer.start(asyncio.get_running_loop(), spawn())
    measurer.send(Scope(workload.pid, (str(folder),), deadman=600.0))
    delivery = Delivery(
        server,
        Catalogue.under(settings, ttl=DEADMAN),
        poisoned(clock.now().wall),
        clock=clock.now,
        order=measurer.send,
        tell=lambda told: made.tell(told),
        escalate_after=ESCALATE,
        silent=silent,
        admin=folder / "admin.sock",
    )
    delivery.start()
    with (folder / "envoy.log").open("wb") as log:
        envoy = await asyncio.create_subprocess_exec(
            *envoy_command(ENVOY, folder / "envoy.json", concurrency=1), stdout=log, stderr=log
        )
    made = Served(delivery, settings, server, envoy, http, tcp)
    try:
        async with asyncio.timeout(PATIENCE):
            while server.streams == 0:  # noqa: ASYNC110 - the streams are Envoy's to open, and nothing tells of it
                await asyncio.sleep(0.01)
        yield made
    finally:
        delivery.stop()
        if envoy.returncode is None:
            envoy.kill()
        await envoy.wait()
        await asyncio.to_thread(measurer.stop)
        workload.kill()
        await workload.wait()
        await server.close()
        for each in (app_http, app_tcp):
            each.close()
