"""One measurer for all workloads of a node: a connection to its Unix socket is what a socketpair is beside a pod.

The same messages, and for each connection the same that `process.run` does for its one sidecar: an own scope, own
collectors, an own guardian in an own thread. What all share are the kernel's process events, read once, and the turns:
long work goes round among the connections in slices. What fails in one connection ends that one, and its Envoy; what
fails in what they share ends them all.
"""

from __future__ import annotations

import grp
import os
import select
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from attestation import cgroups
from attestation.channel import Message
from attestation.errors import InvalidConfiguration, InvalidInput, ProofbeatError, Unavailable
from measurer import grants, kernel, scope
from measurer.channel import Channel, Hangup
from measurer.clock import monotonic
from measurer.deadman import Deadman
from measurer.grants import Grant
from measurer.guardian import Guardian
from measurer.loop import Loop, Reactor
from measurer.process import Measurer, first_word, tell_fault
from measurer.processes.held import allow_descriptors
from measurer.processes.proc import open_process, read_small
from measurer.processes.sources import Sources
from measurer.relief import Relief
from measurer.seccomp.arrivals import Arrivals
from measurer.stalls import Stalls

MOST_SESSIONS, MOST_A_POD = 512, 16
"""Connections at once: of all, and of one pod (or one user, outside of pods)."""
_SCOPE_WITHIN = 5.0
"""Seconds in which a connection has to say whom to measure."""
_STOPS_WITHIN = 1.0
_MOST_A_TURN = 16
"""Messages of one sidecar that are read before others have their turn."""
_CGROUP_BYTES = 1 << 16
_UCRED = struct.Struct("3i")
_WHERE = "measurer socket"


class Peer:
    """The process that connected, held by the kernel's own pidfd. Raises OSError, Hangup."""

    def __init__(self, connection: socket.socket) -> None:
        _, self.uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        self.pidfd = connection.getsockopt(socket.SOL_SOCKET, kernel.SO_PEERPIDFD)
        self.cgroups = _cgroups_of(self.pidfd)

    @property
    def place(self) -> tuple[int, str]:
        """What its connections are counted by."""
        return self.uid, next(iter(sorted(grants.pods(cgroups.memberships(self.cgroups)).values())), "")


class Session:
    """One connection."""

    def __init__(self, node: Node, connection: socket.socket, peer: Peer) -> None:
        self._node, self.peer = node, peer
        self._loop = Loop(node.reactor, self._failed)
        descriptor = connection.detach()
        self._channel = Channel(descriptor, lambda: self._loop.change(descriptor, select.EPOLLIN | select.EPOLLOUT))
        self._deadman: Deadman | None = None
        self._measurer: Measurer | None = None
        self._pinned: scope.Pinned | None = None
        self._over = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        node.own.watch(self._over, self._guardian_is_over)
        self._loop.watch(descriptor, self._read)
        self._loop.after("scope", _SCOPE_WITHIN, self._too_late)

    def give_up(self, *, stands: bool) -> None:
        """The measurer ends: its Envoy is cut off. stands: no thread runs the loop any more."""
        if stands:
            self._loop.close()
        if self._deadman is not None:
            self._deadman.hang_up(1)

    def join(self) -> None:
        if self._deadman is not None:
            self._deadman.join()

    def _read(self) -> None:
        if self._channel.waits and self._channel.flush():
            self._loop.change(self._channel.descriptor, select.EPOLLIN)
        for _ in range(_MOST_A_TURN):
            received = self._channel.receive()
            if received is None:
                return
            if self._measurer is None:
                self._begin(*received)
            else:
                self._measurer.handle(*received)

    def _begin(self, message: Message, descriptors: list[int]) -> None:
        wanted, pidfd = first_word(message, descriptors)
        if pidfd is None:
            raise InvalidInput("Scope came without a pidfd", where=_WHERE, mend="Send one of the workload beside it.")
        self._pinned = scope.pin(wanted, pidfd)
        self._node.stalls.check(self._stalls_by, monotonic())
        self._node.admit(self.peer)
        cgroup = self._pinned.cgroup
        self._node.check(self.peer, self._pinned.cgroups, (cgroup.hierarchy, cgroup.path) if cgroup else None)
        self._loop.cancel("scope")
        self._deadman = Deadman(Guardian(wanted.deadman), os.dup(self.peer.pidfd), self._guardian_over)
        self._deadman.start()
        self._measurer = Measurer(
            self._loop,
            self._channel,
            self._node.sources,
            self._deadman,
            wanted,
            self._pinned,
            self._permits,
            self._node.arrivals,
        )
        self._measurer.start()

    def _permits(self, envoy: bytes) -> None:
        self._node.check(self.peer, envoy, None)

    def _too_late(self) -> None:
        raise Unavailable(f"nothing was asked for within {_SCOPE_WITHIN:g} s", where=_WHERE)

    def _failed(self, error: Exception) -> None:
        """Told to the sidecar, and its Envoy is cut off: by the guardian's thread, so that nobody else waits for it."""
        if not isinstance(error, Hangup):
            tell_fault(self._channel, error)
        if self._loop.hangs:
            self._node.stalls.note(self._stalls_by, monotonic())
        if self._deadman is None:
            self._loop.once_back(self._release)
        else:
            self._deadman.hang_up(1)

    def _guardian_over(self, status: int) -> None:
        """Called in the guardian's thread, last of all: the sidecar died, hung up or was given up."""
        os.eventfd_write(self._over, 1)

    def _guardian_is_over(self) -> None:
        os.eventfd_read(self._over)
        self._loop.once_back(self._release)

    @property
    def _stalls_by(self) -> str:
        """Who is remembered for a file system that does not answer: the pod, else the workload."""
        return self.peer.place[1] or (str(self._pinned.instance) if self._pinned is not None else "")

    def _release(self) -> None:
        self._loop.close()
        self._node.own.forget(self._over)
        if self._measurer is not None:
            self._measurer.close()
        if self._deadman is not None:
            self._deadman.join()
            self._deadman.close()
        if self._pinned is not None:
            self._pinned.close()
        self._channel.close()
        for descriptor in (self._over, self.peer.pidfd):
            os.close(descriptor)
        self._node.sessions.discard(self)


class Node:
    """Listens until it is told to end. runtimes: where container runtimes hand over seccomp listeners."""

    def __init__(
        self, listener: socket.socket, granted: Sequence[Grant], runtimes: socket.socket | None = None
    ) -> None:
        self.reactor = Reactor()
        self.own = Loop(self.reactor)
        self.sources = Sources(self.own, many=True)
        self.sessions: set[Session] = set()
        self.stalls = Stalls()
        self.relief = Relief(self.reactor, self.own, self.sources.resume)
        self.arrivals = Arrivals(self.own, runtimes) if runtimes is not None else None
        self._listener, self._granted = listener, tuple(granted)
        self.own.watch(listener.fileno(), self._accept)

    def admit(self, peer: Peer) -> None:
        """Raises InvalidConfiguration for a user that nothing is granted to."""
        if not grants.admits(self._granted, peer.uid):
            raise InvalidConfiguration(f"user {peer.uid} is not allowed here", where=_WHERE, mend=grants.MEND)

    def check(self, peer: Peer, membership: bytes, cgroup: tuple[int, str] | None) -> None:
        """Raises InvalidConfiguration where this sidecar has nothing to do with a process of such a membership."""
        why = grants.refusal(self._granted, peer.uid, peer.cgroups, membership, cgroup)
        if why:
            raise InvalidConfiguration(why, where=_WHERE, mend=grants.MEND)

    def end(self) -> None:
        """Every Envoy is cut off, all at the same time, which is waited for."""
        stands = self.relief.stop(_STOPS_WITHIN)
        sessions = list(self.sessions)
        for session in sessions:
            session.give_up(stands=stands)
        for session in sessions:
            session.join()
        if self.arrivals is not None:
            self.arrivals.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it hung up before we came to it, or we have no descriptor left: then it comes again
            return
        connection.setblocking(False)
        try:
            peer = Peer(connection)
        except (OSError, Hangup):
            connection.close()
            return
        if self._is_one_too_many(peer):
            os.close(peer.pidfd)
            connection.close()
            return
        self.sessions.add(Session(self, connection, peer))

    def _is_one_too_many(self, peer: Peer) -> bool:
        alike = Counter(each.peer.place for each in self.sessions)[peer.place]
        trusted = Grant(peer.uid, grants.ANY) in self._granted
        return len(self.sessions) >= MOST_SESSIONS or (alike >= MOST_A_POD and not trusted)


class _Ended(BaseException):
    """SIGTERM or SIGINT."""


def serve(path: Path, group: str | None, granted: Sequence[Grant], runtimes: Path | None = None) -> int:
    """Listen on a Unix socket of mode 0600, or 0660 for a group. Returns the exit status.

    runtimes: where container runtimes hand over seccomp listeners, for ourselves and root.

    However it ends, every guarded Envoy is cut off first. Raises InvalidConfiguration, Unavailable.
    """
    kernel.forbid_tracing()
    allow_descriptors()
    listener = listen(path, group)
    node = Node(listener, granted, listen(runtimes, None, socket.SOCK_STREAM) if runtimes is not None else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        node.relief.run()
    except _Ended:
        return 0
    finally:
        node.end()
        for each in filter(None, (path, runtimes)):
            with suppress(OSError):
                each.unlink()
    return 0


def listen(path: Path, group: str | None, kind: socket.SocketKind = socket.SOCK_SEQPACKET) -> socket.socket:
    """Raises InvalidConfiguration, Unavailable."""
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        gid = grp.getgrnam(group).gr_gid if group is not None else None
        _remove_left_over(path, kind)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if gid is not None:
            os.chown(path, -1, gid)
            path.chmod(0o660)
        listener.listen(MOST_SESSIONS)
    except KeyError as error:
        raise InvalidConfiguration(f"no group {group!r}", where="--group", mend="Make it with groupadd.") from error
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot be listened on: {error.strerror}", where=str(path), mend="Name a socket in a folder of yours."
        ) from error
    return listener


def _remove_left_over(path: Path, kind: socket.SocketKind) -> None:
    """A socket at which nobody listens any more. Raises InvalidConfiguration where somebody does."""
    with socket.socket(socket.AF_UNIX, kind) as trying:
        try:
            trying.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except FileNotFoundError:
            pass
        else:
            raise InvalidConfiguration("another measurer listens here", where=str(path), mend="One a node is enough.")


def _cgroups_of(pidfd: int) -> bytes:
    """The /proc/PID/cgroup text of the process behind a pidfd. Raises OSError, Hangup once it is gone."""
    folder = open_process(scope.pid_of(pidfd))
    try:
        text = read_small(folder, "cgroup", _CGROUP_BYTES)
    finally:
        os.close(folder)
    if kernel.has_ended(pidfd):  # and the pid may be somebody else's by now
        raise Hangup
    return text


def _end(number: int, frame: FrameType | None) -> None:
    raise _Ended


def main(arguments: Sequence[str]) -> int:
    """`--listen PATH [--group NAME] [--allow UID[:pod|any|/cgroup]]... [--seccomp PATH]`"""
    import argparse

    parser = argparse.ArgumentParser("measurer", description="One measurer for all workloads of a node.")
    parser.add_argument("--listen", type=Path, required=True, metavar="PATH", help="Unix socket, mode 0600")
    parser.add_argument("--group", help="whose members may connect too (mode 0660)")
    parser.add_argument("--allow", action="append", metavar="UID[:pod|any|/cgroup]", help="whose sidecars, for what")
    parser.add_argument("--seccomp", type=Path, metavar="PATH", help="`listenerPath` of containers' seccomp profiles")
    given = parser.parse_args(arguments)
    try:
        granted = [grants.parse(each) for each in given.allow or (f"{os.geteuid()}:{grants.POD}",)]
        runtimes = given.seccomp.absolute() if given.seccomp is not None else None
        return serve(given.listen.absolute(), given.group, granted, runtimes)
    except ProofbeatError as error:
        sys.stderr.write(f"measurer: {error.sentence}\n")
        return 2 if isinstance(error, InvalidInput) else 1
