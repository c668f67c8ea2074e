"""gRPC over HTTP/2: length-prefixed messages and the headers around them (gRPC, doc/PROTOCOL-HTTP2.md)."""

from __future__ import annotations

import struct
from typing import Final
from urllib.parse import quote

from xds.errors import GrpcStatus, StreamError

_PREFIX: Final = struct.Struct(">BI")
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""The largest request accepted; gRPC's own default."""

RESPONSE_HEADERS: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))

Headers = tuple[tuple[bytes, bytes], ...]


def frame(message: bytes) -> bytes:
    """One uncompressed length-prefixed message."""
    return _PREFIX.pack(0, len(message)) + message


def trailers(status: int, message: str) -> Headers:
    """The trailers that end a stream; `status` 0 is success."""
    encoded = quote(message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode("ascii")
    return ((b"grpc-status", str(int(status)).encode("ascii")), (b"grpc-message", encoded))


class MessageReader:
    """Cuts a stream's bytes into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages completed by `data`; raises StreamError for one too large or compressed."""
        buffer = self._buffer + data if self._buffer else data
        messages = []
        start = 0
        while len(buffer) - start >= _PREFIX.size:
            compressed, length = _PREFIX.unpack_from(buffer, start)
            _check_prefix(compressed, length)
            end = start + _PREFIX.size + length
            if end > len(buffer):
                break
            messages.append(buffer[start + _PREFIX.size : end])
            start = end
        self._buffer = buffer[start:]
        return messages

    def finish(self) -> None:
        """The client sends no more; raises StreamError if it stopped inside a message."""
        if self._buffer:
            raise StreamError(GrpcStatus.INTERNAL, f"the request ends inside a message, {len(self._buffer)} bytes in")


def _check_prefix(compressed: int, length: int) -> None:
    if compressed:
        raise StreamError(
            GrpcStatus.UNIMPLEMENTED, "compressed messages are not accepted; send them with encoding identity"
        )
    if length > MAX_MESSAGE_BYTES:
        raise StreamError(
            GrpcStatus.RESOURCE_EXHAUSTED,
            f"a message of {length} bytes exceeds the limit of {MAX_MESSAGE_BYTES}; subscribe on more streams",
        )
