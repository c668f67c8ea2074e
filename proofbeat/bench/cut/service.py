"""A service whose callers hold connections open: it tells when the last of them has ended, by its own clock.

Copied into the workload's folder and run from there, so it imports the standard library alone. It answers any GET,
echoes what follows an upgrade to WebSocket (Envoy does not look into the frames, nor does this), answers an HTTP/2
stream with headers and never ends it, and echoes over TCP. Usage: service.py NAME ADDRESS HTTP_PORT ECHO_PORT. It runs
until its stdin ends, and writes a JSON line each time the last held connection or stream has ended.
"""

import asyncio
import json
import struct
import sys
import time
from collections.abc import Iterator

HOLD = b"hold"
"""What a TCP connection that is to be held begins with."""
TOGETHER = b"/together/"
"""GETs of this path, a number and anything more are answered once so many of the same path wait: each of them needs a
connection of its own all the way."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0x1, 0x3, 0x4, 0x6, 0x7  # RFC 9113 section 6
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
STATUS_200 = b"\x88"  # an indexed field, RFC 7541 appendix A
_HEAD = struct.Struct(">HBBBI")


def now() -> float:
    """CLOCK_BOOTTIME seconds, the same in every process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame (RFC 9113 section 4.1)."""
    return _HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


class Frames:
    """The frames of one direction of a connection."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of each complete one."""
        self._pending += data
        while len(self._pending) >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(self._pending)
            end = _HEAD.size + (high << 8 | low)
            if len(self._pending) < end:
                return
            payload, self._pending = self._pending[_HEAD.size : end], self._pending[end:]
            yield kind, flags, stream, payload


def replied(kind: int, flags: int, payload: bytes) -> bytes:
    """What a connection owes for settings and pings; nothing for the rest."""
    if kind in (SETTINGS, PING) and not flags & ACK:
        return frame(kind, ACK, 0, payload if kind == PING else b"")
    return b""


class Held:
    """What is held, and when the last of it ended. waiting: who asked for TOGETHER, by path."""

    def __init__(self) -> None:
        self._open: set[object] = set()
        self._ended = 0
        self.waiting: dict[bytes, list[asyncio.Transport]] = {}

    def began(self, what: object) -> None:
        self._open.add(what)

    def ended(self, what: object) -> None:
        at = now()
        if what not in self._open:
            return
        self._open.discard(what)
        self._ended += 1
        if not self._open:
            print(json.dumps({"ended": self._ended, "last": at}), flush=True)
            self._ended = 0


class Connection(asyncio.Protocol):
    """What both ports have in common."""

    def __init__(self, held: Held) -> None:
        self.held = held

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"{transport!r} is no stream")
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.held.ended(self)


class Echo(Connection):
    def data_received(self, data: bytes) -> None:
        if data.startswith(HOLD):
            self.held.began(self)
        self.transport.write(data)


class Web(Connection):
    """HTTP/1.1 until the bytes say otherwise."""

    def __init__(self, held: Held) -> None:
        super().__init__(held)
        self._pending = b""
        self._frames: Frames | None = None
        self._streams: set[int] = set()
        self._upgraded = False

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            self.transport.write(data)
        elif self._frames is not None:
            self._http2(self._frames, data)
        else:
            self._pending += data
            self._http1()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for stream in self._streams:
            self.held.ended((self, stream))

    def _http1(self) -> None:
        if self._pending.startswith(PREFACE):
            rest, self._pending = self._pending[len(PREFACE) :], b""
            self._frames = Frames()
            self.transport.write(frame(SETTINGS, 0, 0))
            self._http2(self._frames, rest)
            return
        while b"\r\n\r\n" in self._pending and not self._upgraded:
            request, _, self._pending = self._pending.partition(b"\r\n\r\n")
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        path = request.split(b" ", 2)[1]
        if b"upgrade: websocket" in request.lower():
            self._upgraded = True
            self.held.began(self)
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            )
        elif path.startswith(TOGETHER):
            waiting = self.held.waiting.setdefault(path, [])
            waiting.append(self.transport)
            if len(waiting) == int(path.split(b"/")[2]):
                for transport in self.held.waiting.pop(path):
                    transport.write(_PAGE)
        else:
            self.transport.write(_PAGE)

    def _http2(self, frames: Frames, data: bytes) -> None:
        for kind, flags, stream, payload in frames.feed(data):
            if kind == HEADERS:
                self._streams.add(stream)
                self.held.began((self, stream))
                self.transport.write(frame(HEADERS, END_HEADERS, stream, STATUS_200))
            elif kind == RST_STREAM:
                self._streams.discard(stream)
                self.held.ended((self, stream))
            else:
                self.transport.write(replied(kind, flags, payload))


_PAGE = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"


async def main() -> None:
    name, address, http, tcp = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    loop, held = asyncio.get_running_loop(), Held()
    await loop.create_server(lambda: Web(held), address, http, backlog=1024)
    await loop.create_server(lambda: Echo(held), address, tcp, backlog=1024)
    print(name, "serves", flush=True)
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    await stdin.read()


if __name__ == "__main__":
    asyncio.run(main())
