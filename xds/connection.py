"""The edge between a transport and an HTTP/2 connection: one write a turn, back-pressure both ways."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from xds.http2 import Http2Connection, MessageStream
from xds.peer import Peer


class Owner(Protocol):
    """What a connection needs of its server."""

    def admit(self, connection: Connection, transport_socket: socket.socket) -> Peer | None:
        """Seat the client, or None."""

    def connection_lost(self, connection: Connection) -> None:
        """The connection is over."""

    def open(self, path: str, connection: int, stream: int) -> MessageStream:
        """Start a stream."""

    def turn(self) -> None:
        """Begin a round with fresh nonces."""


class Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, owner: Owner) -> None:
        self.number = 0
        self.peer: Peer | None = None
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._http2: Http2Connection | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the client, or hang up before a byte is exchanged."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"a stream transport is needed, not {type(transport).__name__}")
        try:
            self.peer = self._owner.admit(self, transport.get_extra_info("socket"))
        finally:
            if self.peer is None:
                transport.abort()
        if self.peer is None:
            return
        self._transport = transport
        self._http2 = Http2Connection(self)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Answer what the client sent."""
        http2 = self._live()
        if http2 is not None:
            self._owner.turn()
            http2.receive(data)
            self._flush()

    def pause_writing(self) -> None:
        """The client reads too slowly: stop reading from it as well, so that nothing piles up."""
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client caught up: what it missed is made up by the newest state."""
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()
        self._owner.turn()
        self.push()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what hung on the connection."""
        self._transport = None
        if self._http2 is not None:
            self._http2.lost()
        self._owner.connection_lost(self)
        if self.peer is not None:
            self.peer.close()

    def push(self) -> None:
        """Write, now and in one piece, what the streams have to say."""
        http2 = self._live()
        if http2 is not None and not self._paused:
            http2.pump_all()
            self._flush()

    def heartbeat(self) -> int:
        """Write a heartbeat on every stream that is free; returns their number."""
        http2 = self._live()
        if http2 is None or self._paused:
            return 0
        written = http2.heartbeat()
        self._flush()
        return written

    def close(self, message: str) -> None:
        """End every stream with UNAVAILABLE, and close once that is written."""
        if self._http2 is not None:
            self._http2.close(message)
            self._flush()

    def abort(self) -> None:
        """Close without a word."""
        if self._transport is not None:
            self._transport.abort()

    def open(self, path: str, stream_id: int) -> MessageStream:
        """Start a stream, for the HTTP/2 side."""
        return self._owner.open(path, self.number, stream_id)

    def _live(self) -> Http2Connection | None:
        """The connection, while the admitted process runs: its descendants may hold the socket, but are not it."""
        if self._transport is None or self.peer is None:
            return None
        if not self.peer.alive():
            self.abort()
            return None
        return self._http2

    def _flush(self) -> None:
        if self._transport is None or self._http2 is None:
            return
        data = self._http2.outgoing()
        if data and not self._transport.is_closing():
            self._transport.write(data)
        if self._http2.ended:
            self._transport.close()
