"""Connections of one network namespace: to where each goes, and which end opened it, out of sock_diag(7)'s answers.

No answer says who opened a TCP connection, but the kernel counts it: who connects has a SYN of theirs acknowledged, one
byte more than what they sent (tcp_ack in net/ipv4/tcp_input.c); who accepts begins to count behind it. So nothing
depends on who listens where, or still does.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from attestation.destinations import TCP, UDP
from attestation.facts import Opened
from measurer import kernel as k
from measurer import sockdiag
from measurer.sockdiag import Diagnosis

_MESSAGE = struct.Struct("=BBBB2s2s16s16sIQIIIII")
"""struct inet_diag_msg, up to its attributes (linux/inet_diag.h)."""
_COOKIE = struct.Struct("=44xQ")
_ATTRIBUTE = struct.Struct("=HH")
_COUNTS = struct.Struct("=120xQ16xI52xQQ")
"""Of struct tcp_info: bytes_acked, notsent_bytes, bytes_sent, bytes_retrans (linux/tcp.h, whole since Linux 4.19)."""
_PARTIES = 0xFFFF & ~(1 << k.TCP_SYN_RECV | 1 << k.TCP_TIME_WAIT | 1 << k.TCP_CLOSE | 1)
"""A bit a state: listeners, and all that a process can hold which has an other end."""
_FIN_QUEUED = frozenset({k.TCP_FIN_WAIT1, k.TCP_FIN_WAIT2, k.TCP_LAST_ACK, k.TCP_CLOSING})
_BEFORE = {k.TCP_SYN_SENT: Opened.HERE, k.TCP_LISTEN: Opened.THERE}
"""Before there is anything to count."""
_MAPPED = bytes(10) + b"\xff\xff"
_LOOPBACK_4, _LOOPBACK_6 = 127, 1
_NUMBERS = {TCP: socket.IPPROTO_TCP, UDP: socket.IPPROTO_UDP}
_INET = 2
_COUNTERS, _COUNTERS_BYTES = ("net/snmp", "net/snmp6"), 1 << 15


@dataclass(frozen=True, slots=True)
class Connection:
    """One socket. version: of IP. address, port: of the other end; the port is 0 where there is none.

    opened: UNKNOWN where the kernel does not say, as of UDP. home: the other end is this machine.
    """

    protocol: str
    cookie: int
    inode: int
    version: int
    address: int
    port: int
    opened: Opened
    local_port: int
    home: bool = False

    @property
    def takes(self) -> bool:
        """It has no other end: whoever comes to its port is taken."""
        return not self.port

    @property
    def listens(self) -> bool:
        return self.takes and self.protocol == TCP

    @property
    def host(self) -> str:
        return str(IPv4Address(self.address) if self.version == 4 else IPv6Address(self.address))

    @property
    def remote(self) -> str:
        if not self.port:
            return ""
        return f"[{self.host}]:{self.port}" if self.version == 6 else f"{self.host}:{self.port}"


class Connections:
    """Of the network namespace behind an open ns/net link. Raises OSError where we may not enter it.

    proc: /proc/PID of a process that is in it.
    """

    def __init__(self, namespace: int, proc: int) -> None:
        if namespace < 0:
            raise PermissionError(errno.EACCES, "the workload's network namespace may not be looked into")
        self._diagnosis = Diagnosis(None if _leads_to(namespace, "/proc/self/ns/net") else namespace)
        there = _leads_to(namespace, "ns/net", proc)
        self._counters = [each for name in _COUNTERS if there and (each := _opened(proc, name)) >= 0]

    def close(self) -> None:
        self._diagnosis.close()
        for each in self._counters:
            os.close(each)

    def counted(self) -> tuple[int, ...]:
        """How many connections of TCP were opened from here, and datagrams of UDP sent, since the namespace began.

        Empty where the kernel does not say. What was opened before is in a dump, unless it is over.
        """
        found: list[int] = []
        for each in self._counters:
            found += counts(os.pread(each, _COUNTERS_BYTES, 0))
        return tuple(found)

    def each(self) -> Iterator[tuple[str, bytes]]:
        """All sockets, as the kernel writes them, with their protocols. Raises OSError.

        To be read to its end before anything else is asked.
        """
        for body in self._diagnosis.tcp(_PARTIES, 1 << (k.INET_DIAG_INFO - 1)):
            yield TCP, body
        for body in self._diagnosis.udp():
            yield UDP, body

    def destroy(self, bodies: Iterable[tuple[str, bytes]]) -> None:
        """End these, as `each` gave them. One that is gone already is passed over."""
        found = (sockdiag.parse(body, _NUMBERS[protocol]) for protocol, body in bodies)
        self._diagnosis.destroy([each for each in found if each is not None])

    def find(self, inodes: Collection[int]) -> list[Connection]:
        """Of these sockets those that there are. Raises OSError."""
        every = [each for protocol, body in self.each() if (each := parse(body, protocol)) is not None]
        taking = Takers(every)
        return [taking.judge(each) for each in every if each.inode in inodes]


class Takers:
    """Local ports to which anybody may come, by protocol: of the sockets that have no other end."""

    def __init__(self, among: Iterable[Connection] = ()) -> None:
        self._ports = {(each.protocol, each.local_port) for each in among if each.takes}

    def add(self, taker: Connection) -> None:
        self._ports.add((taker.protocol, taker.local_port))

    def judge(self, connection: Connection) -> Connection:
        """With who opened it, where the kernel does not say: there if it is at such a port, else here."""
        if connection.opened is not Opened.UNKNOWN:
            return connection
        there = (connection.protocol, connection.local_port) in self._ports
        return replace(connection, opened=Opened.THERE if there else Opened.HERE)


def cookie_of(body: bytes) -> int:
    """By which a socket is known as long as there is any; 0 where the answer is cut short."""
    return int(_COOKIE.unpack_from(body)[0]) if len(body) >= _MESSAGE.size else 0


def parse(body: bytes, protocol: str) -> Connection | None:
    """One answer; None for one that is cut short."""
    if len(body) < _MESSAGE.size:
        return None
    family, state, _, _, local_port, port, local, remote, _, cookie, _, _, waiting, _, inode = _MESSAGE.unpack_from(
        body
    )
    version, address = _address(family, remote)
    return Connection(
        protocol,
        cookie,
        inode,
        version,
        address,
        int.from_bytes(port, "big"),
        _tcp_opened(state, waiting, body) if protocol == TCP else Opened.UNKNOWN,
        int.from_bytes(local_port, "big"),
        home=local == remote or _loops(version, address),
    )


def beginning(family: int, local: bytes, remote: bytes, port: int, cookie: int) -> Connection:
    """One of TCP that is only about to be, as the kernel's program tells of it. local, remote: 16 bytes each."""
    version, address = _address(family, remote)
    home = local == remote or _loops(version, address)
    return Connection(TCP, cookie, 0, version, address, port, Opened.HERE, 0, home)


def _address(family: int, remote: bytes) -> tuple[int, int]:
    """Version and number."""
    if family == _INET:
        return 4, int.from_bytes(remote[:4], "big")
    if remote[:12] == _MAPPED:
        return 4, int.from_bytes(remote[12:], "big")
    return 6, int.from_bytes(remote, "big")


def _loops(version: int, address: int) -> bool:
    return address >> 24 == _LOOPBACK_4 if version == 4 else address == _LOOPBACK_6


def counts(text: bytes) -> Iterator[int]:
    """The numbers of interest in /proc/net/snmp, which has a line of names before each of numbers, or in snmp6."""
    names: list[bytes] = []
    for line in text.split(b"\n"):
        if line.startswith(_IN_SNMP6):
            yield int(line.split()[1])
        elif line.startswith(_IN_SNMP):
            words = line.split()
            if names:
                yield from (int(number) for name, number in zip(names, words, strict=False) if name in _COUNTED)
            names = [] if names else words


_IN_SNMP, _IN_SNMP6 = (b"Tcp:", b"Udp:"), b"Udp6OutDatagrams"
_COUNTED = frozenset({b"ActiveOpens", b"OutDatagrams"})


def _tcp_opened(state: int, waiting: int, body: bytes) -> Opened:
    """waiting: bytes that are written and not acknowledged."""
    if state in _BEFORE:
        return _BEFORE[state]
    info = _attribute(body, k.INET_DIAG_INFO)
    if len(info) < _COUNTS.size:
        return Opened.UNKNOWN
    acknowledged, unsent, sent, again = _COUNTS.unpack_from(info)
    fin = int(state in _FIN_QUEUED and not unsent)
    more = acknowledged + (waiting - unsent) - (sent - again) - fin
    return {0: Opened.THERE, 1: Opened.HERE}.get(more, Opened.UNKNOWN)


def _attribute(body: bytes, wanted: int) -> bytes:
    position = _MESSAGE.size
    while position + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, position)
        if length < _ATTRIBUTE.size:
            break
        if kind == wanted:
            return body[position + _ATTRIBUTE.size : position + length]
        position += (length + 3) & ~3
    return b""


def _opened(proc: int, name: str) -> int:
    """-1 where there is none. What is open stays that of the network namespace in which it was opened."""
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:
        return -1


def _leads_to(namespace: int, link: str, folder: int | None = None) -> bool:
    try:
        return os.path.samestat(os.fstat(namespace), os.stat(link, dir_fd=folder))
    except OSError:
        return False
