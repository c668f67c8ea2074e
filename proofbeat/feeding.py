"""Relays a detector's lines to a sidecar's socket: nothing is lost in silence, and the detector never waits.

Lines are kept until the sidecar has said that it read them, and sent again on another connection where one broke. While
it cannot be reached they wait, within bounds; beyond those the oldest are given up, and both the sidecar and stderr are
told how many. A detector that had to wait for us would drop alerts that others are waiting for.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

from attestation.detectors import relay
from attestation.detectors.alerts import Detector
from attestation.detectors.relay import Dropped, Relays, Taken, Turned
from attestation.errors import InvalidInput
from attestation.wording import shown

MOST_LINES, MOST_BYTES = 10_000, 8 << 20
LINGER = 5.0
"""Seconds in which what is left has to be taken once stdin has ended."""
_BYTES = 64 * 1024
_PAUSE, _MOST_PAUSE = 0.1, 5.0
_DONE, _NOT_ALL = 0, 1


class Backlog:
    """Lines, with their ends, that the sidecar has not said it read. Pure."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._sent = 0
        self._gone = 0
        """Lines that were given up while they were on their way."""
        self._half = b""
        self.dropped = 0
        """Lines that were given up since that was told last."""

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, data: bytes) -> None:
        """As it comes, whole lines or not."""
        *ended, self._half = (self._half + data).split(b"\n")
        for each in ended:
            self._lines.append(each + b"\n")
            self._bytes += len(each) + 1
        if len(self._half) > MOST_BYTES:
            self._half = b""
            self.dropped += 1
        while len(self._lines) > MOST_LINES or self._bytes > MOST_BYTES:
            self._bytes -= len(self._lines.popleft())
            self.dropped += 1
            if self._sent:
                self._sent -= 1
                self._gone += 1

    def end(self) -> None:
        """Nothing more comes: a last line without its end is a line."""
        if self._half:
            self.add(b"\n")

    def unsent(self) -> bytes | None:
        """The next line to send, which then is on its way; None for none."""
        if self._sent >= len(self._lines):
            return None
        self._sent += 1
        return self._lines[self._sent - 1]

    def taken(self, count: int) -> None:
        """The first ones on their way have been read."""
        known = min(count, self._gone)
        self._gone -= known
        for _ in range(min(count - known, self._sent)):
            self._bytes -= len(self._lines.popleft())
            self._sent -= 1

    def again(self) -> None:
        """What was on its way may not have arrived."""
        self._sent = self._gone = 0


class Relay:
    """One run. of: whose lines these are, where that was said."""

    def __init__(self, path: Path, of: Detector | None, source: int) -> None:
        self._path, self._of, self._source = path, of, source
        self._backlog = Backlog()
        self._socket: socket.socket | None = None
        self._out = self._in = b""
        self._taken = 0
        self._again, self._pause = 0.0, _PAUSE
        self._whole, self._ended = True, False
        self._said = ""

    def run(self) -> int:
        """Until stdin has ended, and what came there is taken or was given up."""
        until = float("inf")
        while not (self._ended and (not self._backlog or time.monotonic() > until)):
            if self._socket is None and time.monotonic() >= self._again:
                self._connect()
            self._turn()
            if self._ended and until == float("inf"):
                until = time.monotonic() + LINGER
        if self._backlog:
            self._tell(f"{len(self._backlog)} lines were not taken")
        if self._socket is not None:
            self._socket.close()
        return _DONE if self._whole and not self._backlog else _NOT_ALL

    def _turn(self) -> None:
        self._fill()
        poll = select.poll()
        if not self._ended:
            poll.register(self._source, select.POLLIN)
        if self._socket is not None:
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        ready = dict(poll.poll(100 if self._ended or self._socket is None else None))
        if self._source in ready:
            self._read()
        if self._socket is not None and (events := ready.get(self._socket.fileno())):
            self._talk(events)

    def _read(self) -> None:
        data = os.read(self._source, _BYTES)
        if data:
            self._backlog.add(data)
        else:
            self._backlog.end()
            self._ended = True
        if self._backlog.dropped:
            self._whole = False
            self._tell(f"{self._backlog.dropped} lines were given up, for they were not taken in time")

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            self._lost(f"{self._path}: {error.strerror}")
            return
        connection.setblocking(False)
        self._socket, self._in, self._taken = connection, b"", 0
        self._out = relay.encode(Relays(self._of)) if self._of is not None else b""
        self._backlog.again()

    def _fill(self) -> None:
        """As much as fits, so that little is sent for nothing where the connection breaks."""
        if self._socket is None:
            return
        if self._backlog.dropped:
            self._out += relay.encode(Dropped(self._backlog.dropped))
            self._backlog.dropped = 0
        while len(self._out) < _BYTES and (line := self._backlog.unsent()) is not None:
            self._out += line

    def _talk(self, events: int) -> None:
        assert self._socket is not None  # noqa: S101 - whoever calls has looked
        try:
            if events & ~select.POLLOUT:
                data = self._socket.recv(_BYTES)
                if not data:
                    self._lost("the sidecar ended the connection")
                    return
                self._hear(data)
            if events & select.POLLOUT and self._out:
                self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(f"the connection broke: {error.strerror}")

    def _hear(self, data: bytes) -> None:
        *lines, self._in = (self._in + data).split(b"\n")
        for line in lines:
            try:
                word = relay.decode(line)
            except InvalidInput:
                word = None
            match word:
                case Taken(lines=count):
                    self._pause, self._said = _PAUSE, ""
                    self._backlog.taken(count - self._taken)
                    self._taken = count
                case Turned(0, why):
                    self._tell(f"the sidecar does not let us in: {why}")
                case Turned(line=number, why=why):
                    self._whole = False
                    self._tell(f"line {number} of this connection was not taken: {why}")
                case _:
                    self._tell("who listens there is no sidecar that is understood")

    def _lost(self, why: str) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._out = b""
        self._again = time.monotonic() + self._pause
        self._pause = min(_MOST_PAUSE, 2 * self._pause)
        self._tell(f"{why}; {len(self._backlog)} lines wait")

    def _tell(self, what: str) -> None:
        """Once, while it stays the same."""
        if what != self._said:
            self._said = what
            sys.stderr.write(f"proofbeat detector feed: {shown(what)}\n")
            sys.stderr.flush()


def feed(path: Path, of: Detector | None) -> int:
    """Relays stdin. The exit code: 0 where all of it was taken."""
    try:
        return Relay(path, of, sys.stdin.fileno()).run()
    except KeyboardInterrupt:
        return _NOT_ALL
