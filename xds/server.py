"""The xDS server: an immutable snapshot, the streams that must have it, and the one socket between them.

`publish` and `heartbeat` are synchronous: when they return, the bytes are in the sockets. Only a full transport or
a closed flow-control window makes a remainder wait, and then what is sent later is the newest snapshot.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from xds import callers
from xds.acks import Publication, StreamId, Verdict
from xds.admission import Admission, Refusal, Seat
from xds.callers import Callers, CallerStream
from xds.connection import Connection
from xds.errors import PeerError, SocketInUse, SocketUnusable
from xds.http2 import MessageStream
from xds.ledger import Edition
from xds.listening import Endpoint, Listening, listen
from xds.peer import Peer, identify
from xds.services import method
from xds.snapshot import Snapshot
from xds.streams import Round, ServedStream

MAX_UNSETTLED: Final = 64
"""Publications followed at a time; the oldest is given up beyond that."""


def _silence(verdict: Verdict) -> None:
    return None


class Server:
    """Serves one client process. Use it as an async context manager, or call `start` and `close`.

    `on_verdict` hears every ACK and NACK, also of heartbeats and of streams that came after a publication;
    `clock` (seconds) dates them. Callbacks run inside the event loop's read: they must not block, and may publish.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        admission: Admission,
        *,
        on_verdict: Callable[[Verdict], None] = _silence,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._admission = admission
        self._seat = Seat(admission)
        self.callers = Callers()
        """Who is connected to the client's TCP ports, as far as its listeners tell."""
        self._told_by: object = None
        self._on_verdict = on_verdict
        self._clock = clock
        self._round = Round(0, Edition(Snapshot.EMPTY, 0))
        self._connections: dict[int, Connection] = {}
        self._connections_seen = 0
        self._streams: dict[StreamId, ServedStream] = {}
        self._unsettled: deque[Publication] = deque()
        self._listening: Listening | None = None
        self._acceptor: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen. Raises SocketInUse and SocketUnusable."""
        self._listening = listen(self._endpoint)
        loop = asyncio.get_running_loop()
        self._acceptor = await loop.create_unix_server(lambda: Connection(self), sock=self._listening.socket)

    async def close(self) -> None:
        """Stop listening, end every stream with UNAVAILABLE, and remove the socket file."""
        if self._acceptor is None or self._listening is None:
            return
        self._acceptor.close()
        for connection in tuple(self._connections.values()):
            connection.close("the server is closing")
        self._listening.close()
        self._acceptor = self._listening = None
        self._seat.vacate()

    async def keep_listening(self, lost: Callable[[str], None], every: float = 1.0) -> None:
        """Looks after the socket's file until cancelled: a client that starts anew finds us by it alone.

        `lost` is told when the file is gone or is another's; where the place is free, there is a new one right after.
        """
        told = ""
        while True:
            await asyncio.sleep(every)
            if self._listening is None or self._listening.stands:
                told = ""
                continue
            why = await self._listen_again()
            if why != told:
                lost(why)
            told = why

    async def _listen_again(self) -> str:
        """What happened to the file, and what came of it. Connections that are open go on."""
        if self._listening is None or self._acceptor is None:
            return "the server is closed"
        try:
            self._listening = self._listening.again(self._endpoint)
        except (SocketInUse, SocketUnusable) as taken:
            return f"its file is gone or another's: {taken}"
        self._acceptor.close()
        loop = asyncio.get_running_loop()
        self._acceptor = await loop.create_unix_server(lambda: Connection(self), sock=self._listening.socket)
        return "its file was gone; there is a new one"

    @property
    def snapshot(self) -> Snapshot:
        """What is served now."""
        return self._round.edition.snapshot

    @property
    def client(self) -> Peer | None:
        """The process that receives resources; it keeps its place until it has ended."""
        return self._seat.holder

    @property
    def streams(self) -> int:
        """Open streams."""
        return len(self._streams)

    def publish(self, snapshot: Snapshot, now: float | None = None) -> Publication:
        """Bring every stream to `snapshot` and write it before returning; `now` (seconds) dates the publication."""
        sequence = self._round.edition.sequence + 1
        self._turn(Edition(snapshot, sequence))
        for connection in tuple(self._connections.values()):
            connection.push()
        return self._follow(Publication(sequence, self._clock() if now is None else now))

    def heartbeat(self) -> int:
        """Send every resource with a lifetime again, in full; returns the number of streams written to.

        Call it only while the resources deserve to live on. A stream that cannot be written to now is passed over,
        so that no heartbeat arrives late on behalf of a caller who has since changed its mind.
        """
        self._turn(self._round.edition)
        return sum(connection.heartbeat() for connection in tuple(self._connections.values()))

    # What follows is for connections and streams.

    @property
    def round(self) -> Round:
        """The present round of writing."""
        return self._round

    def now(self) -> float:
        """The server's clock."""
        return self._clock()

    def turn(self) -> None:
        """Begin a new round of the same edition, with fresh nonces."""
        self._turn(self._round.edition)

    def admit(self, connection: Connection, transport_socket: socket.socket) -> Peer | None:
        """Identify and seat the client; None when it was refused."""
        try:
            peer = identify(transport_socket)
        except (PeerError, OSError) as unknown:
            self._admission.on_refused(None, Refusal(str(unknown)))
            return None
        with ExitStack() as refused:
            refused.callback(peer.close)
            refusal = self._seat.take(peer)
            if refusal is not None:
                self._admission.on_refused(peer, refusal)
                return None
            refused.pop_all()
        self._drop_other_processes(peer)
        if peer.identity != self._told_by:
            self._told_by = peer.identity
            self.callers.forget()
        self._connections_seen += 1
        connection.number = self._connections_seen
        self._connections[connection.number] = connection
        return peer

    def connection_lost(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection.number, None)

    def open(self, path: str, connection: int, stream: int) -> MessageStream:
        """Start a stream of the method at `path`; raises StreamError (UNIMPLEMENTED)."""
        if path == callers.PATH:
            return CallerStream(self.callers)
        served = ServedStream(self, StreamId(connection, stream), method(path))
        self._streams[served.id] = served
        return served

    def written(self, stream: ServedStream) -> None:
        """A stream that was late has said the newest now: the publication knows from here on what to await of it."""
        newest = self._unsettled[-1] if self._unsettled else None
        if newest is not None and newest.sequence == self._round.edition.sequence and newest.not_written(stream.id):
            stream.follow(newest)
            self._drop_settled()

    def stream_ended(self, stream: ServedStream) -> None:
        """Forget a stream, and have publications no longer wait for it."""
        self._streams.pop(stream.id, None)
        for publication in tuple(self._unsettled):
            publication.stream_gone(stream.id)
        self._drop_settled()

    def judged(self, verdict: Verdict) -> None:
        """Pass an answer on, rejections and all, at once."""
        for publication in tuple(self._unsettled):
            publication.answered(verdict)
        self._drop_settled()
        self._on_verdict(verdict)

    def _turn(self, edition: Edition) -> None:
        self._round = Round(self._round.number + 1, edition)

    def _follow(self, publication: Publication) -> Publication:
        """All that has to be known about the answers, after everything is written."""
        for stream in tuple(self._streams.values()):
            stream.follow(publication)
        earlier = tuple(self._unsettled)
        if not publication.settled:
            self._unsettled.append(publication)
        for overtaken in earlier:
            overtaken.superseded()
        while len(self._unsettled) > MAX_UNSETTLED:
            self._unsettled.popleft().abandon()
        self._drop_settled()
        return publication

    def _drop_settled(self) -> None:
        if any(publication.settled for publication in self._unsettled):
            self._unsettled = deque(p for p in self._unsettled if not p.settled)

    def _drop_other_processes(self, peer: Peer) -> None:
        """The seat was free, so whoever else is still connected has ended; a descendant may hold its socket."""
        for connection in tuple(self._connections.values()):
            if connection.peer is not None and connection.peer.identity != peer.identity:
                connection.abort()
