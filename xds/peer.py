"""Who is at the other end of a Unix socket, pinned so that a reused process id cannot take its place.

unix(7) SO_PEERCRED and SO_PEERPIDFD, pidfd_open(2), proc(5). The credentials are those at the time of connect(2).
"""

from __future__ import annotations

import os
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from xds.errors import PeerError

_UCRED: Final = struct.Struct("3i")
_SO_PEERPIDFD: Final = 77  # asm-generic/socket.h, Linux 6.5; not in Python's socket module
_START_TIME_FIELD: Final = 19  # field 22 of /proc/PID/stat, counted behind the name


class PeerSocket(Protocol):
    """What is asked of a socket; asyncio's TransportSocket offers it too."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...
    def fileno(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A connected process. `pidfd` belongs to the connection that made the peer, which closes it.

    `start_time` (clock ticks after boot) and `executable` are None when the process is invisible to us, as in
    another PID namespace, where `pid` is 0.
    """

    pid: int
    uid: int
    gid: int
    pidfd: int
    start_time: int | None
    executable: str | None
    identity: tuple[int, ...]

    def alive(self) -> bool:
        """Whether the process still runs; a zombie does not."""
        return not has_ended(self.pidfd)

    def close(self) -> None:
        """Give the pidfd back."""
        os.close(self.pidfd)


def has_ended(pidfd: int) -> bool:
    """A pidfd becomes readable when its process ends (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def identify(connection: PeerSocket, *, by_kernel_pidfd: bool = True) -> Peer:
    """Pin the process that connected. Raises PeerError when it cannot be done beyond doubt.

    `by_kernel_pidfd` false goes the way of kernels before 6.5: pidfd_open, then proof that the process which
    connected still holds its end.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    pidfd = _kernel_pidfd(connection, pid) if by_kernel_pidfd else None
    if pidfd is None:
        pidfd = _opened_pidfd(connection, pid)
    try:
        return _describe(pid, uid, gid, pidfd)
    except BaseException:  # cancelled or failed, the descriptor is ours to close; the error goes on
        os.close(pidfd)
        raise


def _kernel_pidfd(connection: PeerSocket, pid: int) -> int | None:
    """The kernel's own pidfd of the peer; None where the kernel has no such option."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, struct.calcsize("i"))
    except ProcessLookupError as gone:
        raise PeerError(f"process {pid}: it ended before it could be identified") from gone
    except OSError:
        return None
    (pidfd,) = struct.unpack("i", raw)
    return int(pidfd)


def _opened_pidfd(connection: PeerSocket, pid: int) -> int:
    if pid == 0:
        raise PeerError(
            "the client lives in another PID namespace and this kernel cannot pin it (Linux 6.5 can); "
            "let both share a PID namespace"
        )
    started = _start_time(pid)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as gone:
        raise PeerError(f"process {pid}: it cannot be opened ({gone.strerror})") from gone
    # The id may have been reused in between; but a client that ended has hung up.
    if _hung_up(connection) or started is None or _start_time(pid) != started:
        os.close(pidfd)
        raise PeerError(f"process {pid}: it ended while it was being identified")
    return pidfd


def _hung_up(connection: PeerSocket) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def _describe(pid: int, uid: int, gid: int, pidfd: int) -> Peer:
    start_time = _start_time(pid)
    executable = _executable(pid)
    # What was read by pid belongs to the pinned process only if that has not ended meanwhile.
    if has_ended(pidfd):
        raise PeerError(f"process {pid}: it ended while it was being identified")
    return Peer(pid, uid, gid, pidfd, start_time, executable, _identity(pid, pidfd, start_time))


def _identity(pid: int, pidfd: int, start_time: int | None) -> tuple[int, ...]:
    """A value equal only for the same process: pidfs numbers processes uniquely (Linux 6.9), else pid and start."""
    status = os.fstat(pidfd)
    if (status.st_dev, status.st_ino) != _shared_inode():
        return (status.st_dev, status.st_ino)
    if start_time is None:
        raise PeerError(
            "the client lives in another PID namespace and this kernel cannot tell it from others (Linux 6.9 can); "
            "let both share a PID namespace"
        )
    return (pid, start_time)


def _shared_inode() -> tuple[int, int]:
    """The inode that all anonymous files share, before Linux 6.9 pidfds among them."""
    anonymous = os.eventfd(0)
    try:
        status = os.fstat(anonymous)
    finally:
        os.close(anonymous)
    return (status.st_dev, status.st_ino)


def _start_time(pid: int) -> int | None:
    if pid == 0:
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[_START_TIME_FIELD])


def _executable(pid: int) -> str | None:
    if pid == 0:
        return None
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return None
