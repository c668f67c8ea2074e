"""The process events connector (linux/cn_proc.h): every fork, exec, exit, change of user and attachment on the host.

Needs CAP_NET_ADMIN, and that we live in the initial user, pid and network namespaces. Membership of the workload's
tree is exact with it, because the kernel reports a child before that child has run a single instruction. Where the
kernel's programs tell that (marks.py), it is heard for what they lack alone: changes of user, and attachments that
they do not see.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from measurer import kernel as k
from measurer import netlink
from measurer.clock import monotonic
from measurer.processes import eventfilter

_CONNECTOR = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")
_OPERATION = struct.Struct("=I")
_PIDS = struct.Struct("=IIII")
_ACKNOWLEDGED_WITHIN = 0.5
_RECEIVE_BUFFER = 4 << 20
_OF_ONE = frozenset(
    (
        k.PROC_EVENT_EXEC,
        k.PROC_EVENT_UID,
        k.PROC_EVENT_GID,
        k.PROC_EVENT_SID,
        k.PROC_EVENT_COMM,
        k.PROC_EVENT_EXIT,
    )
)
_MOST_BYTES = 8192
MOVED, BEAT = -1, -2
"""Beside the kernel's numbers: it was put into another cgroup; our own heartbeat by the kernel's programs."""


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """One event of one process.

    what: one of the PROC_EVENT_ numbers, MOVED or BEAT. pid and thread: whose event it is. other and other_thread: the
    child after a fork, the tracer after an attachment. at: CLOCK_BOOTTIME seconds; of what the connector tells,
    CLOCK_MONOTONIC. mark: the number of the workload that the kernel has the process as; 0 where it says nothing of
    that. nameless: no name leads to what it executed.
    """

    what: int
    pid: int
    thread: int
    other: int = 0
    other_thread: int = 0
    at: float = 0.0
    mark: int = 0
    nameless: bool = False


class Lost(Exception):
    """Events are missing: the socket's buffer ran over."""


class Connector:
    """Subscribed from construction on. rarely: to changes of user and attachments alone. Raises OSError where the
    kernel refuses.
    """

    def __init__(self, *, rarely: bool = False) -> None:
        self._rarely = rarely
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, k.NETLINK_CONNECTOR
        )
        try:
            self._subscribe()
        except OSError:
            self._socket.close()
            raise

    @property
    def descriptor(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[ProcessEvent]:
        """The events there are, without waiting. Raises Lost, OSError."""
        while True:
            try:
                datagram = netlink.from_kernel(self._socket, _MOST_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Lost from error
                raise
            yield from parse(datagram)

    def close(self) -> None:
        self._socket.close()

    def _subscribe(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, k.SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        eventfilter.attach(self._socket, rarely=self._rarely)
        self._socket.bind((0, k.CN_IDX_PROC))
        body = _OPERATION.pack(k.PROC_CN_MCAST_LISTEN)
        subscription = _CONNECTOR.pack(k.CN_IDX_PROC, k.CN_VAL_PROC, 0, 0, len(body), 0) + body
        self._socket.send(netlink.message(k.NLMSG_DONE, 0, subscription))
        self._await_acknowledgement()

    def _await_acknowledgement(self) -> None:
        """Outside the initial namespaces the kernel says nothing at all, so silence is a refusal."""
        poll, end = select.poll(), monotonic() + _ACKNOWLEDGED_WITHIN
        poll.register(self._socket, select.POLLIN)
        while (left := end - monotonic()) > 0:
            if not poll.poll(left * 1000):
                break
            for event in self.read():
                if event.what == k.PROC_EVENT_NONE:
                    if event.pid:
                        raise OSError(event.pid, os.strerror(event.pid))
                    return
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def parse(datagram: bytes) -> Iterator[ProcessEvent]:
    """The events in one datagram. An acknowledgement is PROC_EVENT_NONE with the errno as pid."""
    start = netlink.HEAD_BYTES + _CONNECTOR.size
    if len(datagram) < start + _EVENT.size:
        return
    index, value, *_ = _CONNECTOR.unpack_from(datagram, netlink.HEAD_BYTES)
    if (index, value) != (k.CN_IDX_PROC, k.CN_VAL_PROC):
        return
    what, _, nanoseconds = _EVENT.unpack_from(datagram, start)
    at = nanoseconds / 1e9
    numbers = datagram[start + _EVENT.size :][: _PIDS.size].ljust(_PIDS.size, b"\0")
    first, second, third, fourth = _PIDS.unpack(numbers)
    if what == k.PROC_EVENT_NONE:
        yield ProcessEvent(what, first, 0, at=at)
    elif what in (k.PROC_EVENT_FORK, k.PROC_EVENT_PTRACE):
        yield ProcessEvent(what, second, first, fourth, third, at)
    elif what in _OF_ONE:
        yield ProcessEvent(what, second, first, at=at)
