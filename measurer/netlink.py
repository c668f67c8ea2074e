"""netlink(7) messages, as the kernel writes them and as it reads them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_HEAD = struct.Struct("=IHHII")
HEAD_BYTES = _HEAD.size


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    """One message to the kernel."""
    return _HEAD.pack(_HEAD.size + len(body), kind, flags, sequence, 0) + body


def messages(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message in a buffer. What is cut short is left out."""
    position = 0
    while position + _HEAD.size <= len(buffer):
        length, kind, _, _, _ = _HEAD.unpack_from(buffer, position)
        if length < _HEAD.size or position + length > len(buffer):
            return
        yield kind, buffer[position + _HEAD.size : position + length]
        position += (length + 3) & ~3


def from_kernel(port: socket.socket, most_bytes: int) -> bytes:
    """The kernel's next datagram. Raises OSError.

    A workload with CAP_NET_ADMIN in this network namespace can write to our port as well: that is passed over.
    """
    while True:
        datagram, sender = port.recvfrom(most_bytes)
        if sender[0] == 0:
            return datagram
