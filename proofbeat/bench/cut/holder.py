"""The client's end: opens connections of one kind, and tells when the last of them was cut.

A process of its own around epoll(7), because what is measured is milliseconds over a thousand connections: the time of
an end is read when the kernel names the sockets, before any of them is looked at. Reads a JSON object a line on stdin,
an `Order` or `{"drop": true}`. Writes `{"held"}` when all are open, or `{"refused"}` where one could not be opened and
all were given up; and `{"ended", "last", "left"}` when none is left, or what was left is dropped. last: CLOCK_BOOTTIME
seconds.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from proofbeat.bench.cut.service import (
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    HOLD,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    TOGETHER,
    Frames,
    frame,
    now,
    replied,
)


class Kind(StrEnum):
    TCP = "tcp"
    KEPT = "http1"
    """Idle between two requests."""
    STREAM = "http2"
    """One stream in flight on each connection: headers came, the body does not."""
    WEBSOCKET = "websocket"


@dataclass(frozen=True, slots=True)
class Order:
    """attempt: the next one is slower."""

    kind: Kind
    address: str
    port: int
    count: int
    attempt: int = 0

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


DROP = b'{"drop": true}\n'

AT_ONCE = 16
"""Connections that are being opened at a time: a handshake each, twice, on the machine that is measured."""
PACE_SECONDS = 0.004
"""Between two requests that all wait for each other: Envoy gives a new connection one second."""

_HEADERS_BLOCK = b"\x82\x86\x84\x41\x05bench"  # GET http / with an authority, RFC 7541 appendix A


class Tcp:
    """What one connection says first, whether it is open by what it heard, and whether that ends it."""

    waits_for_others = False

    def __init__(self, order: Order) -> None:
        self.heard = b""

    def opening(self) -> bytes:
        return HOLD

    def opened(self, data: bytes) -> bool:
        """Takes what comes. Raises ConnectionError where it is a refusal."""
        self.heard += data
        return self.heard == HOLD

    def ends(self, data: bytes) -> bool:
        """Does this, on an open connection, mean its end?"""
        return False

    def owed(self) -> bytes:
        """What has to be written because of what came."""
        return b""


class WebSocket(Tcp):
    def opening(self) -> bytes:
        return (
            b"GET /socket HTTP/1.1\r\nhost: bench\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: cHJvb2ZiZWF0LWJlbmNoIQ==\r\n\r\n"
        )

    def opened(self, data: bytes) -> bool:
        return self._answered(data, b" 101 ")

    def _answered(self, data: bytes, status: bytes) -> bool:
        self.heard += data
        head, found, _ = self.heard.partition(b"\r\n\r\n")
        if found and status not in head.split(b"\r\n", 1)[0]:
            raise ConnectionError(head.split(b"\r\n", 1)[0].decode("ascii", "replace"))
        return bool(found)


class Kept(WebSocket):
    waits_for_others = True

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self._path = TOGETHER + b"%d/%d" % (order.count, order.attempt)

    def opening(self) -> bytes:
        return b"GET %s HTTP/1.1\r\nhost: bench\r\n\r\n" % self._path

    def opened(self, data: bytes) -> bool:
        return self._answered(data, b" 200 ") and self.heard.endswith(b"yes")


class Stream(Tcp):
    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self._frames = Frames()
        self._owed = b""

    def opening(self) -> bytes:
        request = frame(HEADERS, END_HEADERS | END_STREAM, 1, _HEADERS_BLOCK)
        return PREFACE + frame(SETTINGS, 0, 0) + request

    def opened(self, data: bytes) -> bool:
        kinds = self._kinds(data)
        if kinds & {RST_STREAM, GOAWAY}:
            raise ConnectionError("the stream was reset")
        return HEADERS in kinds

    def ends(self, data: bytes) -> bool:
        return bool(self._kinds(data) & {RST_STREAM, GOAWAY})

    def owed(self) -> bytes:
        owed, self._owed = self._owed, b""
        return owed

    def _kinds(self, data: bytes) -> set[int]:
        kinds = set()
        for kind, flags, _, payload in self._frames.feed(data):
            kinds.add(kind)
            self._owed += replied(kind, flags, payload)
        return kinds


_TALKS: dict[Kind, type[Tcp]] = {Kind.TCP: Tcp, Kind.KEPT: Kept, Kind.STREAM: Stream, Kind.WEBSOCKET: WebSocket}


class Holder:
    """One order at a time. tell: called with each line for whoever gave it."""

    def __init__(self, tell: Callable[[dict[str, object]], None]) -> None:
        self._tell = tell
        self._epoll = select.epoll()
        self._epoll.register(sys.stdin, select.EPOLLIN)
        self._order = Order(Kind.TCP, "", 0, 0)
        self._sockets: dict[int, tuple[socket.socket, Tcp]] = {}
        self._opening: set[int] = set()
        self._begun = self._ended = 0
        self._last = 0.0
        self._unread = b""
        self._ending = False

    def run(self) -> None:
        """Until stdin ends."""
        while not self._ending:
            more = self._begun < self._order.count
            events = self._epoll.poll(PACE_SECONDS * 2**self._order.attempt if more else None)
            at = now()
            # What an exception leaves unread, epoll names again.
            try:
                for descriptor, _ in events:
                    if descriptor == sys.stdin.fileno():
                        self._read_orders()
                    elif descriptor in self._sockets:
                        self._hear(descriptor, at)
                self._open_more()
            except ConnectionError as refused:
                self._begun = self._order.count
                self._forget_all()
                self._tell({"refused": str(refused)})

    def _read_orders(self) -> None:
        read = os.read(sys.stdin.fileno(), 4096)
        self._ending = not read
        *lines, self._unread = (self._unread + read).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, order: dict[str, Any]) -> None:
        if order.get("drop"):
            left = len(self._sockets)
            self._forget_all()
            self._over(left)
        else:
            self._order = Order(**{**order, "kind": Kind(order["kind"])})
            self._begun = self._ended = 0

    def _open_more(self) -> None:
        talks = _TALKS[self._order.kind]
        for _ in range(1 if talks.waits_for_others else AT_ONCE - len(self._opening)):
            if self._begun == self._order.count:
                return
            self._begun += 1
            made = socket.create_connection((self._order.address, self._order.port))
            made.setblocking(False)
            talk = talks(self._order)
            made.send(talk.opening())
            self._sockets[made.fileno()] = made, talk
            self._opening.add(made.fileno())
            self._epoll.register(made, select.EPOLLIN | select.EPOLLRDHUP)

    def _hear(self, descriptor: int, at: float) -> None:
        connection, talk = self._sockets[descriptor]
        try:
            data = connection.recv(1 << 16)
        except ConnectionError:
            data = b""
        if descriptor in self._opening:
            if not data:
                raise ConnectionError(f"connection {self._begun} of {self._order.count} was refused")
            if talk.opened(data):
                self._opening.discard(descriptor)
                if self._begun == self._order.count and not self._opening:
                    self._tell({"held": self._begun})
        elif not data or talk.ends(data):
            if self._opening or self._begun < self._order.count:
                raise ConnectionError("a connection was cut while others were still being opened")
            self._forget(descriptor)
            self._ended += 1
            self._last = at
            if not self._sockets:
                self._over(0)
            return
        if owed := talk.owed():
            connection.send(owed)

    def _over(self, left: int) -> None:
        self._tell({"ended": self._ended, "last": self._last, "left": left})

    def _forget_all(self) -> None:
        for descriptor in tuple(self._sockets):
            self._forget(descriptor)

    def _forget(self, descriptor: int) -> None:
        connection, _ = self._sockets.pop(descriptor)
        self._opening.discard(descriptor)
        self._epoll.unregister(connection)
        connection.close()


def _tell(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    Holder(_tell).run()
