"""Sockets through sock_diag(7): all of a network namespace listed, and single ones reset, whatever they are doing.

SOCK_DESTROY needs CAP_NET_ADMIN in the namespace's user namespace and CONFIG_INET_DIAG_DESTROY.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from measurer import kernel as k
from measurer import netlink

_REQUEST = struct.Struct("=BBBBI48s")
_OLD_REQUEST = struct.Struct("=BBBB48sII")
_ANSWER = struct.Struct("=BBBB48sIIIII")
_ERROR = struct.Struct("=i")
_BUFFER = 1 << 16
_BATCH = 64
_EVERY_STATE = 0xFFFF
_MAPPED = bytes(10) + b"\xff\xff"
"""Before an IPv4 address in an IPv6 one (RFC 4291 section 2.5.5.2)."""

Remote = tuple[bytes, bytes]
"""A port and an address of 16 bytes in network order; the first four for IPv4, the others zero."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket, of TCP unless protocol says otherwise. identity: the kernel's inet_diag_sockid, which ends with a
    cookie that is never used again."""

    family: int
    state: int
    identity: bytes
    inode: int
    protocol: int = socket.IPPROTO_TCP

    @property
    def cookie(self) -> bytes:
        return self.identity[40:48]

    @property
    def port(self) -> bytes:
        """Local port, as the kernel wrote it."""
        return self.identity[:2]

    @property
    def remote(self) -> Remote:
        """Remote port and address, as the kernel wrote them."""
        return self.identity[2:4], self.identity[20:36]

    @property
    def address(self) -> bytes:
        """Local address, 16 bytes; the first four for IPv4. All zeros where a socket listens on every address."""
        return self.identity[4:20]


class Diagnosis:
    """A netlink socket in one network namespace: our own, or that of a pidfd or of an open ns/net link."""

    def __init__(self, pidfd: int | None = None) -> None:
        self._socket = _netlink() if pidfd is None else _netlink_of(pidfd)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def dump(self, states: int) -> Iterator[Socket]:
        """All TCP sockets of the namespace in these states. Raises OSError.

        The older request answers for IPv4 and IPv6 at once, where the newer one walks the whole hash table of
        connections for each: with an empty table that is most of the time (2.2 of 4.4 ms here).
        """
        for body in self.tcp(states):
            found = parse(body)
            if found is not None:
                yield found

    def tcp(self, states: int, extensions: int = 0) -> Iterator[bytes]:
        """The same, as the kernel writes them. extensions: a bit for each attribute that is to come along."""
        request = _OLD_REQUEST.pack(socket.AF_INET, 0, 0, extensions, bytes(48), states, 0)
        yield from self._ask(k.TCPDIAG_GETSOCK, request)

    def udp(self) -> Iterator[bytes]:
        """All UDP sockets of the namespace. Raises OSError."""
        for family in (socket.AF_INET, socket.AF_INET6):
            yield from self._ask(
                k.SOCK_DIAG_BY_FAMILY, _REQUEST.pack(family, socket.IPPROTO_UDP, 0, 0, _EVERY_STATE, bytes(48))
            )

    def _ask(self, kind: int, request: bytes) -> Iterator[bytes]:
        self._sequence += 1
        flags = k.NLM_F_REQUEST | k.NLM_F_DUMP
        self._socket.send(netlink.message(kind, flags, request, self._sequence))
        yield from self._answers()

    def destroy(self, victims: list[Socket]) -> None:
        """Reset these. One that is gone already, or was changing hands, is left to the next dump."""
        for start in range(0, len(victims), _BATCH):
            batch = victims[start : start + _BATCH]
            self._socket.send(b"".join([self._order(victim, k.NLM_F_REQUEST) for victim in batch]))
        self._forget_refusals()

    def try_destroy(self, victim: Socket) -> int:
        """Reset one and return the kernel's errno, 0 when it did."""
        self._socket.send(self._order(victim, k.NLM_F_REQUEST | k.NLM_F_ACK))
        for kind, body in netlink.messages(netlink.from_kernel(self._socket, _BUFFER)):
            if kind == k.NLMSG_ERROR:
                return -int(_ERROR.unpack_from(body)[0])
        return errno.EPROTO

    def _order(self, victim: Socket, flags: int) -> bytes:
        request = _REQUEST.pack(victim.family, victim.protocol, 0, 0, 1 << victim.state, victim.identity)
        return netlink.message(k.SOCK_DESTROY, flags, request)

    def _answers(self) -> Iterator[bytes]:
        while True:
            for kind, body in netlink.messages(netlink.from_kernel(self._socket, _BUFFER)):
                if kind == k.NLMSG_DONE:
                    return
                if kind == k.NLMSG_ERROR:
                    code = -int(_ERROR.unpack_from(body)[0])
                    raise OSError(code, os.strerror(code), "sock_diag")
                yield body

    def _forget_refusals(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(_BUFFER, socket.MSG_DONTWAIT)


def remotes(host: str, port: int) -> tuple[Remote, ...]:
    """An IP address and a port as the kernel writes them: of IPv4 also as a socket of both families has it."""
    number, packed = port.to_bytes(2, "big"), ipaddress.ip_address(host).packed
    if len(packed) == 16:
        return ((number, packed),)
    return (number, packed.ljust(16, b"\0")), (number, _MAPPED + packed)


def can_destroy(pidfd: int | None = None) -> int:
    """0 when this kernel lets us destroy sockets there, else its errno: tried on a listening socket of our own."""
    try:
        diagnosis = Diagnosis(pidfd)
    except OSError as error:
        return error.errno or errno.EPERM
    try:
        with _listener(pidfd) as bait:
            port, inode = bait.getsockname()[1].to_bytes(2, "big"), os.fstat(bait.fileno()).st_ino
            for each in list(diagnosis.dump(1 << k.TCP_LISTEN)):  # read to its end, or the next answer is the dump's
                if each.inode == inode and each.port == port:
                    return diagnosis.try_destroy(each)
    except OSError as error:
        return error.errno or errno.EPERM
    finally:
        diagnosis.close()
    return errno.ENOENT


def parse(body: bytes, protocol: int = socket.IPPROTO_TCP) -> Socket | None:
    """One inet_diag_msg (linux/inet_diag.h); None when it is too short."""
    if len(body) < _ANSWER.size:
        return None
    family, state, _, _, identity, _, _, _, _, inode = _ANSWER.unpack_from(body)
    return Socket(family, state, identity, inode, protocol)


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, k.NETLINK_SOCK_DIAG)


def _listener(pidfd: int | None) -> socket.socket:
    def listen() -> socket.socket:
        bait = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        bait.bind(("127.0.0.1", 0))
        bait.listen(1)
        return bait

    return listen() if pidfd is None else inside(pidfd, listen)


def _netlink_of(pidfd: int) -> socket.socket:
    return inside(pidfd, _netlink)


def inside(pidfd: int, make: Callable[[], socket.socket]) -> socket.socket:
    """Make a socket in the network namespace of a pidfd's process. Raises OSError.

    A socket stays in the namespace it was made in, and only a thread that ends right after has to enter it.
    """
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            k.enter_network(pidfd)
            made.append(make())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
