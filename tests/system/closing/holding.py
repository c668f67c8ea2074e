"""Traffic of every kind in both directions, gone on with as long as it is served, and judged by what was."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from proofbeat.demo.layout import OUT_HTTP, OUT_TCP, Layout
from proofbeat.demo.ledger import Ledger
from proofbeat.demo.load import Record
from proofbeat.ephemeral.clock import now
from tests.news import News
from tests.system.closing.clients import ENDED, Client, Http2, KeptAlive, Tcp, Upload, WebSocket

ANSWER_SECONDS = 2.0
PATIENCE = 30.0
PAUSE = 0.01
ABREAST = 8
_STAMP = struct.Struct("<d")

KINDS: tuple[tuple[type[Client], int], ...] = (
    (Tcp, OUT_TCP),
    (KeptAlive, OUT_HTTP),
    (WebSocket, OUT_HTTP),
    (Http2, OUT_HTTP),
    (Upload, OUT_HTTP),
)


@dataclass(frozen=True)
class Way:
    """One kind of traffic in one direction. into: the side whose Envoy it reaches last."""

    kind: type[Client]
    host: str
    port: int
    into: str

    @property
    def name(self) -> str:
        return f"{self.kind.__name__} into {self.into}"

    async def open(self) -> Client:
        return await self.kind.open(self.host, self.port)


def ways(layout: Layout) -> tuple[Way, ...]:
    """All kinds, both ways."""
    return tuple(
        Way(kind, caller.address, port, layout.peer(caller).name) for caller in layout.sides for kind, port in KINDS
    )


class Traffic:
    """One client a way that goes on and on, and opens anew what has ended. ledger: what came of each exchange."""

    def __init__(self, every: Sequence[Way]) -> None:
        self.ways = every
        self.ledger = Ledger()
        self._news = News()

    @property
    def all(self) -> range:
        """The numbers of all ways, as the ledger has them."""
        return range(len(self.ways))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for number in self.all:
                tasks.create_task(self._go_on(number))

    async def until_served(self, since: float) -> float:
        """Until each was served by something that began since; when that was."""
        await self._news.until(lambda: self.ledger.recovered_after(self.all, since) is not None, PATIENCE)
        return now()

    async def until_refused(self, since: float) -> None:
        """Until each that was open has ended, or was refused what it asked for."""
        await self._news.until(lambda: self.ledger.refused_after(self.all, since) is not None, PATIENCE)

    async def _go_on(self, number: int) -> None:
        while True:
            began = now()
            client: Client | None = None
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    client = await self.ways[number].open()
                while True:
                    began = now()
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await client.ask()
                    self._note(Record(number, True, began, now()))
                    await asyncio.sleep(PAUSE)
            except (*ENDED, TimeoutError):
                self._note(Record(number, False, began, now()))
            finally:
                if client is not None:
                    client.close()
            await asyncio.sleep(PAUSE)

    def _note(self, record: Record) -> None:
        self.ledger.add([record])
        self._news.tell()


@dataclass
class Rush:
    """New TCP connections, many at a time, as fast as each is answered or ends; none is given up by us.

    echoed: when each message that came back was sent.
    """

    way: Way
    echoed: list[float] = field(default_factory=list)
    _open: set[asyncio.Transport] = field(default_factory=set)
    _news: News = field(default_factory=News)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(ABREAST):
                tasks.create_task(self._rush())

    async def _rush(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, one = await loop.create_connection(lambda: _One(self), self.way.host, self.way.port)
            except OSError:
                await asyncio.sleep(PAUSE)
                continue
            await one.answered.wait()

    def say(self) -> None:
        """One more message over each that is open."""
        for transport in self._open:
            transport.write(_STAMP.pack(now()))

    async def until_under_way(self) -> None:
        """Until each lane has been answered, on the average."""
        await self._news.until(lambda: len(self.echoed) >= ABREAST, PATIENCE)

    async def until_none_is_open(self) -> None:
        await self._news.until(lambda: not self._open, PATIENCE)

    def close(self) -> None:
        for transport in tuple(self._open):
            transport.abort()

    def _joined(self, transport: asyncio.Transport) -> None:
        self._open.add(transport)

    def _echoed(self, sent: float) -> None:
        self.echoed.append(sent)
        self._news.tell()

    def _left(self, transport: asyncio.Transport) -> None:
        self._open.discard(transport)
        self._news.tell()


class _One(asyncio.Protocol):
    """One connection of a rush. answered: by an echo, or by its end."""

    def __init__(self, rush: Rush) -> None:
        self.answered = asyncio.Event()
        self._rush = rush
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._rush._joined(transport)
        transport.write(_STAMP.pack(now()))

    def data_received(self, data: bytes) -> None:
        self._heard += data
        while len(self._heard) >= _STAMP.size:
            self._rush._echoed(*_STAMP.unpack_from(self._heard))
            self._heard = self._heard[_STAMP.size :]
        self.answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rush._left(self._transport)
        self.answered.set()


async def all_end(idle: Sequence[Client]) -> None:
    """Each ends by itself: nobody says anything over it."""
    async with asyncio.timeout(PATIENCE):
        for client in idle:
            await client.over()
            client.close()
