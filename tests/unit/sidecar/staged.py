"""Delivery on a stage: a real server, and a real process in Envoy's place.

What that says, when it ends, what the measurer answers and when time passes is for a test to say, so that things happen
in whatever order it wants.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from attestation.channel import KillEnvoy, Message, Sweep, Swept
from sidecar.config import DeliverySettings
from sidecar.delivery.delivery import Delivery
from sidecar.delivery.poison import Poison
from sidecar.delivery.resources import Catalogue, Identity
from sidecar.delivery.told import Happening, Told
from sidecar.denials import nobody
from sidecar.states import Lease, Now
from tests.unit.xds.grpc_client import DELTA_AGGREGATED, SECRETS, SocketClient
from tests.unit.xds.grpc_client import Told as Response
from xds.admission import Admission
from xds.listening import Endpoint
from xds.peer import Peer
from xds.resources.ecds import EXTENSION_CONFIG_TYPE as FILTERS
from xds.server import Server

DEADMAN, ESCALATE = 5.0, 0.25
"""Seconds."""
LONG = 3600.0
"""Seconds of a lease whose end no test lives to see."""
WALL = 1_700_000_000.0
POISON = Poison(b"poisoned chain", b"poisoned key", b"poisoned bundle")
_IDENTITY = re.compile(rb"chain (\d+) of ours")
_MOST_RUNGS = 20
_TURNS = 10
"""Of the event loop, in which both sides of every connection live."""


class PacedLoop(asyncio.SelectorEventLoop):
    """Its time goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0
        super().__init__()

    def time(self) -> float:
        return self.now


def in_paced_time(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=PacedLoop) as runner:
        runner.run(scenario())


def identity(number: int) -> Identity:
    return Identity(b"chain %d of ours" % number, b"key", b"bundle")


def identity_in(body: bytes) -> int | None:
    """Which of ours it is; None for poison."""
    found = _IDENTITY.search(body)
    return int(found[1]) if found else None


async def settled() -> None:
    """Whatever was written has been read and acted on."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class Body:
    """A process that connects when it is told to and hands over what it connected, so that the test speaks for it."""

    def __init__(self, path: Path) -> None:
        self._strings, theirs = socket.socketpair()
        self.alive = True
        self.pid = os.fork()
        if self.pid == 0:
            _be_there(theirs, path)
        theirs.close()
        self._pidfd = os.pidfd_open(self.pid)

    def connected(self) -> socket.socket:
        self._strings.send(b"c")
        _, (descriptor,), _, _ = socket.recv_fds(self._strings, 1, 1)
        return socket.socket(fileno=descriptor)

    def ended(self, within: float) -> bool:
        """Whether it ends in so many seconds, by somebody else's hand."""
        return bool(select.select([self._pidfd], [], [], within)[0])

    def die(self) -> None:
        """It has ended when this returns."""
        if self.alive:
            self.alive = False
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._strings.close()
            os.close(self._pidfd)


def _be_there(strings: socket.socket, path: Path) -> NoReturn:
    """With nothing open of the process that it was forked from, which must be the only one to hold its sockets."""
    held = strings.fileno()
    os.closerange(3, held)
    os.closerange(held + 1, os.sysconf("SC_OPEN_MAX"))
    with suppress(OSError):
        while strings.recv(1):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                socket.send_fds(strings, [b"c"], [connection.fileno()])
    os._exit(0)


class Envoy:
    """Its two types on one stream, answered one response after the other."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self._client: SocketClient | None = None
        self._stream = 0
        self._answered = 0
        self._seen: list[Response] = []

    async def connect(self, settings: DeliverySettings) -> None:
        """Comes (again), and asks for everything."""
        connection = self.body.connected()
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        _, client = await loop.create_unix_connection(lambda: SocketClient(65_535), sock=connection)
        self._client, self._answered, self._seen = client, 0, []
        self._stream = client.grpc.open(DELTA_AGGREGATED)
        client.grpc.subscribe(self._stream, settings.certificate, settings.validation)
        client.grpc.subscribe(self._stream, *settings.http_filters, *settings.tcp_filters, type_url=FILTERS)
        client.flush()

    @property
    def connected(self) -> bool:
        return self._client is not None and not self._client.hung_up

    @property
    def unanswered(self) -> list[Response]:
        if self._client is None or not self.connected or not self.body.alive:
            return []
        return self._client.grpc.streams[self._stream].told()[self._answered :]

    def answer(self, rejection: str | None = None) -> None:
        """To the oldest response that has none yet, where there is one."""
        waiting = self.unanswered
        if self._client is not None and waiting:
            self._answered += 1
            self._client.answer(self._stream, waiting[0], rejection)

    def news(self) -> list[Response]:
        """What it was told since this was asked last."""
        told = self._client.grpc.streams[self._stream].told() if self._client is not None else []
        news, self._seen = told[len(self._seen) :], told
        return news

    def read_no_more(self) -> None:
        """Whatever is more than its window holds waits with the server."""
        if self._client is not None:
            self._client.transport.pause_reading()

    def hang_up(self) -> None:
        """It lives on: a connection that is lost is no end."""
        if self._client is not None:
            self._client.transport.abort()


@dataclass
class Stage:
    """told: what delivery told. orders: to the measurer. closings: what each came to, None where it has not ended.

    acknowledged: the versions of the list of denials that delivery heard of. severed: at each order to end what is open
    to the denied, the version of the list that was to be carried out.
    """

    loop: PacedLoop
    settings: DeliverySettings
    told: list[Told] = field(default_factory=list)
    orders: list[Sweep | KillEnvoy] = field(default_factory=list)
    closings: list[Told | None] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    severed: list[int] = field(default_factory=list)
    version: int = 0
    crl: bytes = b""
    deadman: float = DEADMAN
    envoy: Envoy | None = None
    seats: int = 0
    _answered: int = 0
    _slept: float = 0.0

    def __post_init__(self) -> None:
        rules = Admission(frozenset({os.getuid()}), on_seated=self._seated)
        self.server = Server(Endpoint(self.settings.socket), rules)
        self.delivery = Delivery(
            self.server,
            self._catalogue,
            POISON,
            clock=self.now,
            order=self._ordered,
            tell=self._tells,
            refuses=self._refuses,
            sever=self._severs,
            escalate_after=ESCALATE,
            silent=False,
        )

    def now(self) -> Now:
        boot = self.loop.now + self._slept
        return Now(boot, WALL + boot)

    def lease(self, seconds: float = LONG) -> Lease:
        now = self.now()
        return Lease(1, now.boot + seconds, now.wall + seconds)

    @property
    def served(self) -> int | None:
        """The identity that whoever asks now is given; None for poison."""
        certificate = self.server.snapshot.get(SECRETS, self.settings.certificate)
        return identity_in(certificate.body) if certificate is not None else None

    def count(self, happening: Happening) -> int:
        return sum(each.happening is happening for each in self.told)

    # What happens.

    async def envoy_comes(self) -> None:
        """A new one, where none runs; else the one that runs, where it has lost its connection."""
        if self.envoy is None or not self.envoy.body.alive:
            self.envoy = Envoy(Body(self.settings.socket))
        if not self.envoy.connected:
            await self.envoy.connect(self.settings)
        await settled()

    async def envoy_answers(self, rejection: str | None = None) -> None:
        if self.envoy is not None:
            self.envoy.answer(rejection)
        await settled()

    async def envoy_takes_everything(self) -> None:
        await settled()
        while self.envoy is not None and self.envoy.unanswered:
            await self.envoy_answers()

    async def envoy_hangs_up(self) -> None:
        if self.envoy is not None:
            self.envoy.hang_up()
        await settled()

    async def envoy_ends(self) -> None:
        self._end_envoy()
        await settled()

    async def measurer_answers(self, left: int = 0) -> None:
        """To the oldest order that has none yet, where there is one."""
        if self._answered < len(self.orders):
            self._answered += 1
            await self.swept(self.orders[self._answered - 1].number, left)

    async def measurer_answers_everything(self) -> None:
        while self._answered < len(self.orders):
            await self.measurer_answers()

    async def swept(self, number: int, left: int = 0) -> None:
        self.delivery.swept(Swept(number, 1, left, 1, self.now().boot))
        await settled()

    async def passes(self, seconds: float) -> None:
        self.loop.now += seconds
        await settled()

    async def sleeps(self, seconds: float) -> None:
        """The machine does: timers of the loop do not count it."""
        self._slept += seconds
        await settled()

    async def lists(self, version: int, crl: bytes = b"") -> None:
        """Other peers are to be refused."""
        self.version = version
        self.crl = crl or b"list %d" % version
        self.delivery.refuse(self._catalogue)
        await settled()

    def retimed(self, deadman: float, escalate_after: float = ESCALATE) -> None:
        self.deadman = deadman
        self.delivery.retime(self._catalogue, escalate_after)

    async def opened(self, number: int, seconds: float = LONG) -> None:
        """An Envoy that is open under this identity."""
        await self.envoy_comes()
        await self.envoy_takes_everything()
        self.delivery.serve(identity(number), self.lease(seconds))
        await settled()
        await self.envoy_takes_everything()
        assert self.served == number

    async def verified(self) -> None:
        """All goes as it should until no closing is under way, which does not take for ever."""
        for _ in range(_MOST_RUNGS):
            await self.envoy_takes_everything()
            await self.measurer_answers_everything()
            if not self.delivery.closing:
                return
            await self.passes(ESCALATE)
        raise AssertionError("a closing has no end")

    @property
    def _catalogue(self) -> Catalogue:
        refusals = replace(nobody(), version=self.version, crl=self.crl)
        return Catalogue.under(self.settings, self.deadman, refusals)

    def _seated(self, peer: Peer, new: bool) -> None:
        if new:
            self.seats += 1
            self.delivery.seated()

    def _ordered(self, message: Message) -> None:
        assert isinstance(message, Sweep | KillEnvoy)
        self.orders.append(message)
        if isinstance(message, KillEnvoy):
            self._end_envoy()
        elif not message.verify:
            self.closings.append(None)

    def _tells(self, told: Told) -> None:
        self.told.append(told)
        if told.happening in (Happening.CLOSED, Happening.BOUNDED):
            assert self.closings[-1] is None, "it has ended before"
            self.closings[-1] = told

    def _refuses(self, version: int) -> None:
        self.acknowledged.append(version)
        self._severs()

    def _severs(self) -> None:
        self.severed.append(self.version)

    def _end_envoy(self) -> None:
        if self.envoy is not None:
            self.envoy.body.die()
            self.envoy.hang_up()


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """Closed, and nobody there."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, PacedLoop)
    stage = Stage(loop, DeliverySettings(socket=folder / "xds.sock"))
    async with stage.server:
        stage.delivery.start()
        try:
            yield stage
        finally:
            stage.delivery.stop()
            await stage.envoy_ends()


Story = Callable[[Stage], Awaitable[None]]


def told(folder: Path, story: Story) -> None:
    async def scenario() -> None:
        async with staged(folder) as stage:
            await story(stage)

    in_paced_time(scenario)
