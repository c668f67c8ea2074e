"""The addresses of a network namespace (rtnetlink(7)): what is connected to there stays on this machine."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from measurer import kernel as k
from measurer import netlink
from measurer.sockdiag import inside

_GETADDR = 22
_GROUPS = 0x10 | 0x100
"""Changes of addresses, of IPv4 and IPv6."""
_HEAD, _ATTRIBUTE = struct.Struct("=BBBBI"), struct.Struct("=HH")
_ADDRESS, _LOCAL = 1, 2
_BUFFER = 1 << 16


class Addresses:
    """Of the namespace behind an open ns/net link; -1 for our own. Raises OSError where we may not enter it."""

    def __init__(self, namespace: int) -> None:
        self._events = _opened(namespace)
        try:
            self._events.bind((0, _GROUPS))
            self._events.setblocking(False)
            self._asking = _opened(namespace)
        except OSError:
            self._events.close()
            raise

    @property
    def descriptor(self) -> int:
        """Readable when they have changed."""
        return self._events.fileno()

    def close(self) -> None:
        self._events.close()
        self._asking.close()

    def read(self) -> frozenset[tuple[int, int]]:
        """Version and number of each, by now. Raises OSError."""
        with suppress(BlockingIOError):
            while True:
                self._forget_one()
        self._asking.send(netlink.message(_GETADDR, k.NLM_F_REQUEST | k.NLM_F_DUMP, _HEAD.pack(0, 0, 0, 0, 0)))
        found: set[tuple[int, int]] = set()
        while True:
            for kind, body in netlink.messages(netlink.from_kernel(self._asking, _BUFFER)):
                if kind == k.NLMSG_DONE:
                    return frozenset(found)
                if kind == k.NLMSG_ERROR:
                    raise OSError(errno.EPROTO, "the kernel does not list addresses")
                found |= set(parse(body))

    def _forget_one(self) -> None:
        try:
            self._events.recv(_BUFFER)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # there were more than it keeps: they are all read now
                raise


def parse(body: bytes) -> Iterator[tuple[int, int]]:
    """The address that one ifaddrmsg is about, with its version; of a pair of ends our own."""
    if len(body) < _HEAD.size:
        return
    version = {socket.AF_INET: 4, socket.AF_INET6: 6}.get(_HEAD.unpack_from(body)[0])
    told: dict[int, bytes] = {}
    position = _HEAD.size
    while position + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, position)
        if length < _ATTRIBUTE.size:
            break
        told[kind] = body[position + _ATTRIBUTE.size : position + length]
        position += (length + 3) & ~3
    address = told.get(_LOCAL, told.get(_ADDRESS, b""))
    if version is not None and len(address) == (4 if version == 4 else 16):
        yield version, int.from_bytes(address, "big")


def _opened(namespace: int) -> socket.socket:
    if namespace < 0 or os.path.samestat(os.fstat(namespace), Path("/proc/self/ns/net").stat()):
        return _made()
    return inside(namespace, _made)


def _made() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
