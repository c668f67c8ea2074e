"""The public socket: who may stand in the door, for how long, and how much may be carried in.

Whoever has not proven anything costs a descriptor and some memory, so there are bounds: on the handshake, on the
time until a request is complete, on how many may stand there at once, and on large bodies under way. Beyond the bound
somebody at random has to go: whoever floods cannot choose that it is the others, and an honest sidecar, in and out
within milliseconds, is rarely hit and comes again. An open session is proven, and stands in nobody's way.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from attestation.errors import Refused, Unavailable
from wire.problems import Kind

MOST_STRANGERS = 512
HANDSHAKE_SECONDS = 5.0
HEAD_SECONDS = 10.0
BODY_SECONDS = 20.0
IDLE_SECONDS = 75.0
"""How long a connection may lie unused between two requests."""
SMALL_BODY = 64 * 1024
MOST_LARGE_BODIES = 4
_BACKLOG = 1024
_FULL_PAUSE = 0.1


@dataclass
class _Stranger:
    """Somebody who has proven nothing. spoken: a whole request's head has come from there."""

    greeting: asyncio.Task[None] | None = None
    transport: asyncio.Transport | None = None
    spoken: bool = False

    @property
    def gone(self) -> bool:
        return self.transport is not None and self.transport.is_closing()

    def throw_out(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        elif self.greeting is not None:
            self.greeting.cancel()


class Doors:
    """context: TLS, for connections from now on."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._strangers: dict[asyncio.BaseProtocol, _Stranger] = {}
        self._listener: socket.socket | None = None
        self._chance = random.SystemRandom()

    def open(self, host: str, port: int) -> tuple[str, int]:
        """Listens; returns the address. Raises Unavailable."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise Unavailable(
                f"cannot listen: {error.strerror or error}",
                where=f"{host}:{port}",
                mend="Name another address in `listen`, or end what listens there.",
            ) from error
        self._listener.setblocking(False)
        found = self._listener.getsockname()
        return str(found[0]), int(found[1])

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()

    async def serve(self, server: Callable[[], asyncio.Protocol] | None) -> None:
        """Lets in, until cancelled. server: makes a protocol for each connection."""
        assert server is not None  # noqa: S101 - aiohttp's runner has one from its set-up on
        listener = self._listener
        assert listener is not None  # noqa: S101 - open() comes first
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                except OSError:
                    # Out of descriptors, or a caller who left again: whoever goes makes room for the next.
                    self._make_room(len(self._strangers))
                    await asyncio.sleep(_FULL_PAUSE)
                    continue
                self._make_room(MOST_STRANGERS)
                protocol, stranger = server(), _Stranger()
                self._strangers[protocol] = stranger
                stranger.greeting = tasks.create_task(self._greet(protocol, stranger, connection))

    @property
    def watch(self) -> Middleware:
        """Sees a request's head come: from here on the time for a body, or between requests, is what counts."""

        @web.middleware
        async def spoken(request: web.Request, handler: Handler) -> web.StreamResponse:
            stranger = self._strangers.get(request.protocol)
            if stranger is not None:
                stranger.spoken = True
            return await handler(request)

        return spoken

    def proven(self, request: web.Request) -> None:
        """Whoever made this request may stay, however many come after."""
        self._strangers.pop(request.protocol, None)

    async def _greet(self, protocol: asyncio.Protocol, stranger: _Stranger, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            stranger.transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, TimeoutError):
            self._strangers.pop(protocol, None)
        else:
            loop.call_later(HEAD_SECONDS, self._lose_patience, protocol)

    def _lose_patience(self, protocol: asyncio.Protocol) -> None:
        stranger = self._strangers.get(protocol)
        if stranger is not None and not stranger.spoken:
            del self._strangers[protocol]
            stranger.throw_out()

    def _make_room(self, most: int) -> None:
        """Fewer than `most` are left, or nobody."""
        if len(self._strangers) >= most:
            self._strangers = {each: found for each, found in self._strangers.items() if not found.gone}
        while self._strangers and len(self._strangers) >= most:
            self._strangers.pop(self._chance.choice(list(self._strangers))).throw_out()


class Intake:
    """Reads bodies: within a bound, within a time, and only a few large ones at once."""

    def __init__(self) -> None:
        self._large = asyncio.Semaphore(MOST_LARGE_BODIES)

    async def body(self, request: web.Request, most: int) -> bytes:
        """most: bytes. Raises Refused (too-large, too-slow)."""
        try:
            async with asyncio.timeout(BODY_SECONDS), AsyncExitStack() as held:
                return await self._read(request, most, held)
        except TimeoutError as error:
            raise Refused(
                f"a request that was not complete within {BODY_SECONDS:g} s",
                kind=Kind.TOO_SLOW,
                where=request.path,
                mend="Send it in one go, or use a session.",
            ) from error

    async def _read(self, request: web.Request, most: int, held: AsyncExitStack) -> bytes:
        content, small = bytearray(), True
        async for part in request.content.iter_any():
            content += part
            if len(content) > most:
                raise Refused(
                    f"a request of more than {most} bytes",
                    kind=Kind.TOO_LARGE,
                    where=request.path,
                    mend="A layer's body has to fit into one message: measure fewer files, or name volatile ones.",
                )
            if small and len(content) > SMALL_BODY:
                small = False
                await held.enter_async_context(self._large)
        return bytes(content)
