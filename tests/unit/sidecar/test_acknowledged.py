"""Which list of whom to refuse Envoy carries out: the one that it acknowledged, and no other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from sidecar import clock
from sidecar.config import DeliverySettings
from sidecar.delivery import poison
from sidecar.delivery.delivery import Delivery
from sidecar.delivery.resources import Catalogue, Identity
from sidecar.denials import Refusals, nobody
from tests.unit.xds.grpc_client import SocketClient, Told
from tests.unit.xds.stage import serving
from xds.server import Server

POISON, MADE = poison.make(0.0), poison.make(1.0)
IDENTITY = Identity(MADE.chain, MADE.key, MADE.bundle)
PATIENCE = 5.0


def refusing(version: int) -> Catalogue:
    refusals: Refusals = replace(nobody(), version=version, crl=b"crl %d" % version)
    return Catalogue.under(DeliverySettings(socket=Path("xds.sock")), 5.0, refusals)


def delivering(server: Server) -> tuple[Delivery, asyncio.Queue[int]]:
    """With what it says of versions that are carried out."""
    heard: asyncio.Queue[int] = asyncio.Queue()
    delivery = Delivery(
        server,
        refusing(0),
        POISON,
        clock=clock.now,
        order=lambda _: None,
        tell=lambda _: None,
        escalate_after=PATIENCE,
        silent=False,
        refuses=heard.put_nowait,
    )
    delivery.start()
    return delivery, heard


class Envoy:
    """Takes what peers are checked against, and says what it thinks of it."""

    def __init__(self, client: SocketClient, stream: int) -> None:
        self._client = client
        self._stream = stream
        self._told = 0

    @classmethod
    async def started(cls, folder: Path) -> Envoy:
        client = await SocketClient.connect(folder / "xds.sock")
        stream, _ = await client.subscribed("ROOTCA")
        return cls(client, stream)

    async def told(self) -> Told:
        self._told += 1
        return await self._client.told(self._stream, self._told)

    def answer(self, told: Told, rejection: str | None = None) -> None:
        self._client.answer(self._stream, told, rejection)

    async def answers(self, rejection: str | None = None) -> None:
        self.answer(await self.told(), rejection)


def test_it_is_the_one_that_envoy_has_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as at:
            delivery, heard = delivering(at.server)
            envoy = await Envoy.started(tmp_path)
            await envoy.answers()
            delivery.serve(IDENTITY, None)
            await envoy.answers()
            delivery.refuse(refusing(3))
            asked = await envoy.told()
            assert b"crl 3" in asked.bodies[0]
            assert heard.empty()
            envoy.answer(asked)
            assert await asyncio.wait_for(heard.get(), PATIENCE) == 3
            delivery.refuse(refusing(4))
            await envoy.answers("no such CRL")
            delivery.refuse(refusing(5))
            await envoy.answers()
            assert await asyncio.wait_for(heard.get(), PATIENCE) == 5, "4 was refused"
            delivery.stop()

    asyncio.run(scenario())


def test_without_an_envoy_none_is_carried_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as at:
            delivery, heard = delivering(at.server)
            delivery.serve(IDENTITY, None)
            delivery.refuse(refusing(3))
            assert heard.empty()
            envoy = await Envoy.started(tmp_path)
            await envoy.answers()
            delivery.serve(IDENTITY, None)
            assert await asyncio.wait_for(heard.get(), PATIENCE) == 3
            delivery.stop()

    asyncio.run(scenario())


def test_what_is_closed_stays_so_when_the_list_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as at:
            delivery, heard = delivering(at.server)
            before = at.server.snapshot
            delivery.refuse(refusing(3))
            assert at.server.snapshot is before
            assert heard.empty()

    asyncio.run(scenario())
