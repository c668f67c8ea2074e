"""Ending the TCP connections of one process, and no other's.

A network namespace is often shared, so a socket counts as Envoy's only when its inode is among Envoy's descriptors,
or when it has no inode (nobody has accepted it yet, or its owner has closed it) and its local address and port are
what Envoy listens on: another Envoy may listen on the same port of another address.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from measurer import kernel as k
from measurer.processes.descriptors import socket_inodes
from measurer.sockdiag import Diagnosis, Remote, Socket, can_destroy

_OPEN_STATES = 0xFFFF & ~(1 << k.TCP_LISTEN | 1 << k.TCP_TIME_WAIT | 1 << k.TCP_CLOSE | 1)
"""A bit a state: all that can still carry data."""
_MOST_PASSES = 20
_EVERY_ADDRESS = bytes(16)


@dataclass(frozen=True, slots=True)
class Cut:
    """What a sweep did. destroyed: those it was the first to meet. left: connections of the dumps before the last one
    that were still in it."""

    destroyed: int
    left: int
    passes: int


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
        everything = list(self._diagnosis.dump(_OPEN_STATES | 1 << k.TCP_LISTEN))
        self._attribute({each.inode for each in everything if each.inode})
        own = self._own
        listening = {
            (each.port, each.address) for each in everything if each.state == k.TCP_LISTEN and each.inode in own
        }
        return [
            each
            for each in everything
            if each.state != k.TCP_LISTEN
            and not _is_spent(each)
            and (each.inode in own or (not each.inode and _accepts(listening, each)) or each.cookie in self._seen)
        ]

    def _attribute(self, inodes: set[int]) -> None:
        """Learn which of these sockets the process holds; asked once a sweep for each, since /proc is slow to read."""
        unknown = inodes - self._own - self._foreign
        if unknown:
            try:
                held = socket_inodes(self._proc)
            except PermissionError:
                if not k.has_ended(self._pidfd):
                    raise
                held = set()  # of a process that has ended the kernel shows nothing, and it has nothing
            self._own |= unknown & held
            self._foreign |= unknown - held


def _is_spent(connection: Socket) -> bool:
    """Closed by its owner with all that it had to send: the kernel answers whatever still comes with a reset."""
    return connection.state == k.TCP_FIN_WAIT2 and not connection.inode


def _accepts(listening: set[tuple[bytes, bytes]], connection: Socket) -> bool:
    """Is this connection one that would be accepted there?"""
    return (connection.port, connection.address) in listening or (connection.port, _EVERY_ADDRESS) in listening


def _in_our_network(proc: int) -> bool:
    try:
        return os.readlink("ns/net", dir_fd=proc) == os.readlink("/proc/self/ns/net")  # noqa: PTH115 - as the left side
    except OSError:
        return True
