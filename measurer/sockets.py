"""Ending one process's TCP connections through sock_diag(7): SOCK_DESTROY resets them, whatever they are doing.

A network namespace is often shared, so a socket counts as Envoy's only when its inode is among Envoy's descriptors,
or when it has no inode (nobody has accepted it yet, or its owner has closed it) and its local address and port are
what Envoy listens on: another Envoy may listen on the same port of another address. Needs CAP_NET_ADMIN in the
namespace's user namespace and CONFIG_INET_DIAG_DESTROY.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from measurer import kernel as k

_NLMSG = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48s")
_OLD_REQUEST = struct.Struct("=BBBB48sII")
_ANSWER = struct.Struct("=BBBB48sIIIII")
_ERROR = struct.Struct("=i")
_TCP_FIN_WAIT2, _TCP_LISTEN, _TCP_TIME_WAIT, _TCP_CLOSE = 5, 10, 6, 7
_OPEN_STATES = 0xFFFF & ~(1 << _TCP_LISTEN | 1 << _TCP_TIME_WAIT | 1 << _TCP_CLOSE | 1)
"""A bit a state of linux/tcp_states.h: all that can still carry data."""
_BUFFER = 1 << 16
_OUR_OWN_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_MOST_PASSES = 20
_BATCH = 64
_EVERY_ADDRESS = bytes(16)
_MAPPED = bytes(10) + b"\xff\xff"
"""Before an IPv4 address in an IPv6 one (RFC 4291 section 2.5.5.2)."""


Remote = tuple[bytes, bytes]
"""A port and an address of 16 bytes in network order; the first four for IPv4, the others zero."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One TCP socket. identity: the kernel's inet_diag_sockid, which ends with a cookie that is never used again."""

    family: int
    state: int
    identity: bytes
    inode: int

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


@dataclass(frozen=True, slots=True)
class Cut:
    """What a sweep did. destroyed: those it was the first to meet. left: connections of the dumps before the last one
    that were still in it."""

    destroyed: int
    left: int
    passes: int


class Diagnosis:
    """A netlink socket in one network namespace: our own, or that of a pidfd."""

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
        self._sequence += 1
        request = _OLD_REQUEST.pack(socket.AF_INET, 0, 0, 0, bytes(48), states, 0)
        flags = k.NLM_F_REQUEST | k.NLM_F_DUMP
        head = _NLMSG.pack(_NLMSG.size + len(request), k.TCPDIAG_GETSOCK, flags, self._sequence, 0)
        self._socket.send(head + request)
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
        for kind, body in messages(self._received()):
            if kind == k.NLMSG_ERROR:
                return -int(_ERROR.unpack_from(body)[0])
        return errno.EPROTO

    def _order(self, victim: Socket, flags: int) -> bytes:
        request = _REQUEST.pack(victim.family, socket.IPPROTO_TCP, 0, 0, 1 << victim.state, victim.identity)
        return _NLMSG.pack(_NLMSG.size + len(request), k.SOCK_DESTROY, flags, 0, 0) + request

    def _answers(self) -> Iterator[Socket]:
        while True:
            for kind, body in messages(self._received()):
                if kind == k.NLMSG_DONE:
                    return
                if kind == k.NLMSG_ERROR:
                    code = -int(_ERROR.unpack_from(body)[0])
                    raise OSError(code, os.strerror(code), "sock_diag")
                found = parse(body)
                if found is not None:
                    yield found

    def _received(self) -> bytes:
        """The kernel's next answer. A workload with CAP_NET_ADMIN in this namespace can write to our port as well."""
        while True:
            answer, sender = self._socket.recvfrom(_BUFFER)
            if sender[0] == 0:
                return answer

    def _forget_refusals(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(_BUFFER, socket.MSG_DONTWAIT)


_UNSEEN = Cut(0, 1, 1)
"""Of a process that cannot be looked into: at least one connection counts as open."""


class Cutter:
    """The connections of one process. proc: its /proc folder, open; pidfd: its network namespace is used.

    may_destroy: whether the kernel lets us, found out by trying.
    """

    def __init__(self, proc: int, pidfd: int) -> None:
        elsewhere = None if _in_our_network(proc) else pidfd
        self._proc, self._pidfd = proc, pidfd
        self.refusal = can_destroy(elsewhere)
        self._diagnosis = Diagnosis(elsewhere)
        self._seen: set[bytes] = set()
        self._own: set[int] = set()
        self._foreign: set[int] = set()

    @property
    def may_destroy(self) -> bool:
        return self.refusal == 0

    def close(self) -> None:
        self._diagnosis.close()

    def sweep(self, *, goes_on: bool = False) -> Cut:
        """Destroy all, dump, and again until nothing is left that an earlier dump had seen. Raises OSError.

        A connection that appears while we sweep is destroyed too if another pass is needed; one that was in no dump
        but the last may remain, because its handshake happens under the new state. goes_on: what the sweep before
        had seen counts as seen, even if the process is gone and its descriptors with it. A process that the kernel
        does not let us look into has something left: then only its end closes.
        """
        self._own, self._foreign = set(), set()
        if not goes_on:
            self._seen = set()
        before = len(self._seen)
        left: list[Socket] = []
        for passes in range(1, _MOST_PASSES + 1):
            try:
                mine = self._mine()
            except PermissionError:
                return _UNSEEN
            left = [each for each in mine if each.cookie in self._seen]
            if not mine or (self._seen and not left):
                return Cut(len(self._seen) - before, 0, passes)
            self._seen.update(each.cookie for each in mine)
            if not self.may_destroy:
                return Cut(0, len(mine), passes)
            self._diagnosis.destroy(mine)
        return Cut(max(0, len(self._seen) - before - len(left)), len(left), _MOST_PASSES)

    def strike(self) -> Cut:
        """Destroy all that is open now, without looking again. Raises OSError."""
        self._own, self._foreign = set(), set()
        self._seen = set()
        try:
            mine = self._mine()
        except PermissionError:
            return _UNSEEN
        self._seen.update(each.cookie for each in mine)
        if self.may_destroy:
            self._diagnosis.destroy(mine)
        return Cut(len(mine), 0, 1) if self.may_destroy else Cut(0, len(mine), 1)

    def sever(self, remotes: frozenset[Remote]) -> Cut:
        """Destroy what is open to these remote ends, again and again until a dump has none. Raises OSError."""
        self._own, self._foreign = set(), set()
        met: set[bytes] = set()
        open_to: list[Socket] = []
        for passes in range(1, _MOST_PASSES + 1):
            try:
                open_to = [each for each in self._mine() if each.remote in remotes]
            except PermissionError:
                return _UNSEEN
            if not open_to:
                return Cut(len(met), 0, passes)
            if not self.may_destroy:
                return Cut(0, len(open_to), passes)
            met.update(each.cookie for each in open_to)
            self._diagnosis.destroy(open_to)
        return Cut(len(met) - len(open_to), len(open_to), _MOST_PASSES)

    def _mine(self) -> list[Socket]:
        everything = list(self._diagnosis.dump(_OPEN_STATES | 1 << _TCP_LISTEN))
        self._attribute({each.inode for each in everything if each.inode})
        own = self._own
        listening = {
            (each.port, each.address) for each in everything if each.state == _TCP_LISTEN and each.inode in own
        }
        return [
            each
            for each in everything
            if each.state != _TCP_LISTEN
            and not _is_spent(each)
            and (each.inode in own or (not each.inode and _accepts(listening, each)) or each.cookie in self._seen)
        ]

    def _attribute(self, inodes: set[int]) -> None:
        """Learn which of these sockets the process holds; asked once a sweep for each, since /proc is slow to read."""
        unknown = inodes - self._own - self._foreign
        if unknown:
            try:
                held = _socket_inodes(self._proc)
            except PermissionError:
                if not has_ended(self._pidfd):
                    raise
                held = set()  # of a process that has ended the kernel shows nothing, and it has nothing
            self._own |= unknown & held
            self._foreign |= unknown - held


def _is_spent(connection: Socket) -> bool:
    """Closed by its owner with all that it had to send: the kernel answers whatever still comes with a reset."""
    return connection.state == _TCP_FIN_WAIT2 and not connection.inode


def _accepts(listening: set[tuple[bytes, bytes]], connection: Socket) -> bool:
    """Is this connection one that would be accepted there?"""
    return (connection.port, connection.address) in listening or (connection.port, _EVERY_ADDRESS) in listening


def remotes(host: str, port: int) -> tuple[Remote, ...]:
    """An IP address and a port as the kernel writes them: of IPv4 also as a socket of both families has it."""
    number, packed = port.to_bytes(2, "big"), ipaddress.ip_address(host).packed
    if len(packed) == 16:
        return ((number, packed),)
    return (number, packed.ljust(16, b"\0")), (number, _MAPPED + packed)


def has_ended(pidfd: int) -> bool:
    """A zombie has: it runs no more, though it can still be signalled (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def can_destroy(pidfd: int | None = None) -> int:
    """0 when this kernel lets us destroy sockets there, else its errno: tried on a listening socket of our own."""
    try:
        diagnosis = Diagnosis(pidfd)
    except OSError as error:
        return error.errno or errno.EPERM
    try:
        with _listener(pidfd) as bait:
            port, inode = bait.getsockname()[1].to_bytes(2, "big"), os.fstat(bait.fileno()).st_ino
            for each in list(diagnosis.dump(1 << _TCP_LISTEN)):  # read to its end, or the next answer is the dump's
                if each.inode == inode and each.port == port:
                    return diagnosis.try_destroy(each)
    except OSError as error:
        return error.errno or errno.EPERM
    finally:
        diagnosis.close()
    return errno.ENOENT


def messages(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each netlink message in a buffer (netlink(7)). What is cut short is left out."""
    position = 0
    while position + _NLMSG.size <= len(buffer):
        length, kind, _, _, _ = _NLMSG.unpack_from(buffer, position)
        if length < _NLMSG.size or position + length > len(buffer):
            return
        yield kind, buffer[position + _NLMSG.size : position + length]
        position += (length + 3) & ~3


def parse(body: bytes) -> Socket | None:
    """One inet_diag_msg (linux/inet_diag.h); None when it is too short."""
    if len(body) < _ANSWER.size:
        return None
    family, state, _, _, identity, _, _, _, _, inode = _ANSWER.unpack_from(body)
    return Socket(family, state, identity, inode)


def _socket_inodes(proc: int) -> set[int]:
    """Inodes of the sockets that a process has open; none once it is gone.

    Raises OSError where we could not look, PermissionError where the kernel does not let us (a non-dumpable process,
    for whom has no CAP_SYS_PTRACE): neither is the same as finding nothing.
    """
    found: set[int] = set()
    try:
        folder = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    except OSError as error:
        return _nothing_if_gone(error)
    try:
        for name in os.listdir(folder):  # noqa: PTH208 - a descriptor, not a path
            try:
                link = os.readlink(name, dir_fd=folder)
            except PermissionError:
                raise
            except OSError:  # closed since it was listed
                continue
            if link.startswith("socket:["):
                found.add(int(link[8:-1]))
    except OSError as error:
        return found | _nothing_if_gone(error)
    finally:
        os.close(folder)
    return found


def _nothing_if_gone(error: OSError) -> set[int]:
    if error.errno in _OUR_OWN_LACK or isinstance(error, PermissionError):
        raise error
    return set()


def _in_our_network(proc: int) -> bool:
    try:
        return os.readlink("ns/net", dir_fd=proc) == os.readlink("/proc/self/ns/net")  # noqa: PTH115 - as the left side
    except OSError:
        return True


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, k.NETLINK_SOCK_DIAG)


def _listener(pidfd: int | None) -> socket.socket:
    def listen() -> socket.socket:
        bait = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        bait.bind(("127.0.0.1", 0))
        bait.listen(1)
        return bait

    return listen() if pidfd is None else _inside(pidfd, listen)


def _netlink_of(pidfd: int) -> socket.socket:
    return _inside(pidfd, _netlink)


def _inside(pidfd: int, make: Callable[[], socket.socket]) -> socket.socket:
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
