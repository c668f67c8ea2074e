"""A service for every kind of traffic: HTTP/1 pages, uploads, WebSockets, HTTP/2 streams, and an echo over TCP.

Copied into a workload's own folder and run from there with nothing but the standard library, which knows no HTTP/2: of
that it speaks as little as Envoy needs, and understands no header. Usage: service.py NAME ADDRESS HTTP_PORT ECHO_PORT
"""

import asyncio
import base64
import hashlib
import struct
import sys
import time
from dataclasses import dataclass

_HTTP2 = b"PRI * HTTP/2.0\r\n\r\n"
_WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x6, 0x8
_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_STATUS_200 = b"\x88"  # index 8 of HPACK's static table (RFC 7541, appendix A)


@dataclass
class Uploaded:
    """Bytes of uploads that arrived, and when the last did (CLOCK_BOOTTIME seconds)."""

    count: int = 0
    last: float = 0.0


class Service:
    """name: told to whoever asks for /name; and uploaded, for /uploaded."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.uploaded = Uploaded()

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, of either version of HTTP."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head == _HTTP2:
                    await _streams(reader, writer)
                await self._answer(head, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends back what comes."""
        try:
            while data := await reader.read(4096):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.decode().strip().split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if "upgrade" in fields:
            await _websocket(fields["sec-websocket-key"].encode(), reader, writer)
        if first.startswith("POST"):
            await self._upload(int(fields["content-length"]), reader, writer)
            return
        known = {"/uploaded": f"{self.uploaded.count} {self.uploaded.last}", "/name": self.name}
        body = known.get(first.split()[1], "ok").encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async def _upload(self, length: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends back what it gets as it gets it, so that whoever uploads knows how far it came."""
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while length > 0:
            data = await reader.read(min(length, 4096))
            if not data:
                raise ConnectionResetError
            length -= len(data)
            self.uploaded.count += len(data)
            self.uploaded.last = time.clock_gettime(time.CLOCK_BOOTTIME)
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        writer.write(b"0\r\n\r\n")


async def _websocket(key: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Shakes hands and sends back each short message (RFC 6455), until the connection ends."""
    accept = base64.b64encode(hashlib.sha1(key + _WEBSOCKET, usedforsecurity=False).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: %s\r\n\r\n" % accept
    )
    while True:
        _, length = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        data = await reader.readexactly(length & 0x7F)
        writer.write(bytes((0x82, len(data))) + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))


async def _streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each stream with 200 and sends back its data (RFC 9113), until the connection ends."""
    await reader.readexactly(len(b"SM\r\n\r\n"))
    writer.write(_frame(_SETTINGS, 0, 0))
    while True:
        head = await reader.readexactly(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        body = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if kind == _HEADERS:
            writer.write(_frame(_HEADERS, _END_HEADERS | flags & _END_STREAM, stream, _STATUS_200))
        elif kind == _DATA:
            writer.write(_frame(_DATA, flags & _END_STREAM, stream, body))
            if body:
                spent = len(body).to_bytes(4, "big")
                writer.write(_frame(_WINDOW_UPDATE, 0, 0, spent) + _frame(_WINDOW_UPDATE, 0, stream, spent))
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            writer.write(_frame(kind, _ACK, 0, body if kind == _PING else b""))


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + body


async def main() -> None:
    name, address, http, tcp = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    service = Service(address)
    await asyncio.start_server(service.http, address, http)
    await asyncio.start_server(service.echo, address, tcp)
    sys.stdout.write(f"{name} serves\n")
    sys.stdout.flush()
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    # A line names a program to run, as whoever broke in would have it.
    while line := await stdin.readline():
        await (await asyncio.create_subprocess_exec(*line.decode().split())).wait()


if __name__ == "__main__":
    asyncio.run(main())
