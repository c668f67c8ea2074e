"""`GET /metrics`, answered in the program's own loop without a task, a wait or a thread.

Whoever asks, how often and how slowly, costs a bounded amount: few connections at a time, a deadline each, one
request a connection, and text that is rendered at most once a second.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from attestation.errors import Unavailable
from telemetry import exposition, metrics
from telemetry.recorder import Recorder

MOST_SCRAPES = 8
"""Connections at a time; one more is hung up on."""
DEADLINE = 5.0
"""Seconds from a connection's beginning to its end."""
KEPT = 1.0
"""Seconds that a rendered text is handed out again: a finer look would time rounds, and cost more."""
_MOST_HEAD = 8192


@asynccontextmanager
async def served(recorder: Recorder, listen: str) -> AsyncIterator[None]:
    """listen: `unix:PATH` or `HOST:PORT`. Raises Unavailable when it cannot be listened on."""
    loop = asyncio.get_running_loop()
    page = _Page(recorder)
    with _listener(listen) as listener:
        listening = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
        server = await listening(lambda: _Scrape(page), sock=listener)
        try:
            yield
        finally:
            server.close()
            page.hang_up()


class _Page:
    """What is served, and to whom just now."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._text = b""
        self._rendered = float("-inf")
        self.scrapes: set[_Scrape] = set()

    def text(self) -> bytes:
        now = time.monotonic()
        if now - self._rendered >= KEPT:
            self._text, self._rendered = exposition.render(self._recorder), now
        return self._text

    def failed(self) -> None:
        self._recorder.count(metrics.DROPPED, "scrape")

    def hang_up(self) -> None:
        for scrape in tuple(self.scrapes):
            scrape.end()


class _Scrape(asyncio.Protocol):
    def __init__(self, page: _Page) -> None:
        self._page = page
        self._head = b""
        self._answered = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream's transport always is
        self._transport = transport
        if len(self._page.scrapes) >= MOST_SCRAPES:
            self._page.failed()
            transport.abort()
            return
        self._page.scrapes.add(self)
        self._deadline = asyncio.get_running_loop().call_later(DEADLINE, self._late)

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._head += data
        if b"\r\n\r\n" in self._head or b"\n\n" in self._head:
            self._answer(self._head.split(b"\r\n", 1)[0].split())
        elif len(self._head) > _MOST_HEAD:
            self._page.failed()
            self.end()

    def connection_lost(self, _: Exception | None) -> None:
        self._page.scrapes.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _late(self) -> None:
        self._page.failed()
        self.end()

    def _answer(self, request: list[bytes]) -> None:
        self._answered, self._head = True, b""
        match request:
            case [b"GET" | b"HEAD" as method, target, *_] if target.partition(b"?")[0] == b"/metrics":
                self._write("200 OK", self._page.text(), with_body=method == b"GET")
            case [b"GET" | b"HEAD", *_]:
                self._write("404 Not Found", b"metrics are at /metrics\n")
            case _:
                self._write("405 Method Not Allowed", b"only GET and HEAD\n")

    def _write(self, status: str, body: bytes, *, with_body: bool = True) -> None:
        if self._transport is None:
            return
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {exposition.CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + (body if with_body else b""))
        self._transport.close()


@contextmanager
def _listener(listen: str) -> Iterator[socket.socket]:
    with _bound(listen) as listener:
        try:
            yield listener
        finally:
            if listen.startswith("unix:"):
                Path(listen.removeprefix("unix:")).unlink(missing_ok=True)


def _bound(listen: str) -> socket.socket:
    if listen.startswith("unix:"):
        return _bound_unix(Path(listen.removeprefix("unix:")))
    host, _, port = listen.rpartition(":")
    try:
        return socket.create_server(
            (host.strip("[]"), int(port)), family=socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        )
    except (OSError, OverflowError) as error:
        raise _unavailable(listen, error) from error


def _bound_unix(path: Path) -> socket.socket:
    """Mode 0600 from its first moment; a socket that nobody answers on is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise FileExistsError(0, "somebody else answers there")
            path.unlink()
        os.fchmod(listener.fileno(), 0o600)  # Linux gives the file the mode that its socket has when it is bound
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise _unavailable(f"unix:{path}", error) from error
    return listener


def _unavailable(listen: str, error: Exception) -> Unavailable:
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return Unavailable(
        f"metrics cannot be served: {reason}",
        where=f"telemetry.listen: {listen}",
        mend="Name another socket or port, or leave `telemetry.listen` out.",
    )
