"""Plain clients of every kind, each with something open that goes on as long as it is served.

All take a host and a port of plaintext, and mark every message with the moment (CLOCK_BOOTTIME) at which it was sent.
`ask` is one exchange over what is open; it raises one of ENDED when that is over or was refused.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import ssl
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol, Self

import h2.config
import h2.connection
import h2.events
from cryptography import x509

from proofbeat.ephemeral.clock import now

ENDED = (OSError, EOFError)
STREAMS = 3
_STAMP = struct.Struct("<d")
_UPLOAD_BYTES = 1_000_000


class Client(Protocol):
    @classmethod
    async def open(cls, host: str, port: int) -> Client:
        """Raises one of ENDED when it is refused."""

    async def ask(self) -> None:
        """One exchange over what is open."""

    async def over(self) -> None:
        """Until it has ended by itself, without a word of ours."""

    def close(self) -> None:
        """At once."""


class _Connected:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connected(cls, host: str, port: int) -> Self:
        return cls(*await asyncio.open_connection(host, port))

    def close(self) -> None:
        self._writer.transport.abort()

    async def over(self) -> None:
        with suppress(*ENDED):
            while await self._reader.read(4096):
                pass

    async def _head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of an answer."""
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines)


class Tcp(_Connected):
    """An open TCP connection to an echo."""

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        return await cls.connected(host, port)

    async def ask(self) -> None:
        stamp = _STAMP.pack(now())
        self._writer.write(stamp)
        while await self._reader.readexactly(len(stamp)) != stamp:
            pass


class KeptAlive(_Connected):
    """An HTTP/1.1 connection that is kept."""

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        return await cls.connected(host, port)

    async def ask(self) -> None:
        await self.got("/")

    async def got(self, path: str) -> bytes:
        self._writer.write(f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
        status, fields = await self._head()
        body = await self._reader.readexactly(int(fields.get("content-length", "0")))
        if status != 200:
            raise ConnectionRefusedError(status)
        return body


class WebSocket(_Connected):
    """An open WebSocket (RFC 6455) to an echo."""

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        client = await cls.connected(host, port)
        key = base64.b64encode(secrets.token_bytes(16))
        client._writer.write(
            b"GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: %s\r\n\r\n" % key
        )
        status, _ = await client._head()
        if status != 101:
            client.close()
            raise ConnectionRefusedError(status)
        return client

    async def ask(self) -> None:
        stamp, mask = _STAMP.pack(now()), secrets.token_bytes(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(stamp))
        self._writer.write(bytes((0x82, 0x80 | len(stamp))) + mask + masked)
        if await self._reader.readexactly(2 + len(stamp)) != bytes((0x82, len(stamp))) + stamp:
            raise ConnectionResetError


class Http2(_Connected):
    """An HTTP/2 connection with streams in flight, each of which echoes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._heard: dict[int, bytes] = {}
        self._refused: int | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        client = await cls.connected(host, port)
        client._h2.initiate_connection()
        fields = {":method": "POST", ":path": "/", ":scheme": "http", ":authority": "test"}
        for _ in range(STREAMS):
            stream = client._h2.get_next_available_stream_id()
            client._h2.send_headers(stream, list(fields.items()))
            client._heard[stream] = b""
        return client

    async def ask(self) -> None:
        stamp = _STAMP.pack(now())
        for stream in self._heard:
            self._heard[stream] = b""
            self._h2.send_data(stream, stamp)
        await self._until(lambda: all(heard == stamp for heard in self._heard.values()))

    async def over(self) -> None:
        """Every stream of it; the connection may go on."""
        over: set[int] = set()
        while over < self._heard.keys():
            try:
                for event in await self._events():
                    if isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                        over.add(event.stream_id)
            except ENDED:
                return

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            for event in await self._events():
                self._hear(event)

    async def _events(self) -> list[h2.events.Event]:
        self._writer.write(self._h2.data_to_send())
        data = await self._reader.read(65_536)
        if not data:
            raise EOFError
        return self._h2.receive_data(data)

    def _hear(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() if (status := texts(event.headers)[":status"]) != "200":
                raise ConnectionRefusedError(status)
            case h2.events.DataReceived():
                self._heard[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset() | h2.events.StreamEnded() | h2.events.ConnectionTerminated():
                raise ConnectionResetError(type(event).__name__)


def texts(headers: Iterable[tuple[object, object]]) -> dict[str, str]:
    """Header fields as a connection gives them that decodes them; its types say bytes."""
    return {str(name): str(value) for name, value in headers}


class Upload(_Connected):
    """An upload that is never complete; what arrived of it is told back."""

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        client = await cls.connected(host, port)
        client._writer.write(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % _UPLOAD_BYTES)
        client._writer.write(_STAMP.pack(now()))
        status, _ = await client._head()
        if status != 200:
            client.close()
            raise ConnectionRefusedError(status)
        await client._chunk()
        return client

    async def ask(self) -> None:
        stamp = _STAMP.pack(now())
        self._writer.write(stamp)
        if await self._chunk() != stamp:
            raise ConnectionResetError

    async def _chunk(self) -> bytes:
        size = int(await self._reader.readline() or b"0", 16)
        chunk = await self._reader.readexactly(size)
        await self._reader.readexactly(2)
        return chunk


class Silent(_Connected):
    """A connection that says nothing until it asks who is there, in a TLS handshake; it has no certificate itself."""

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        return await cls.connected(host, port)

    async def ask(self) -> None:
        await self.offered()

    async def offered(self) -> tuple[str, ...]:
        """The URI names in the certificate that it is shown."""
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        await self._writer.start_tls(anybody)
        shown = x509.load_der_x509_certificate(self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        try:
            names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


async def uploaded(host: str, port: int) -> float:
    """When a byte of an upload last reached the service that listens there (CLOCK_BOOTTIME)."""
    asking = await KeptAlive.open(host, port)
    try:
        return float((await asking.got("/uploaded")).split()[1])
    finally:
        asking.close()
