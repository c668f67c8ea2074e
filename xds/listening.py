"""The server's Unix socket: complete when it appears, never stolen from a living server.

It is bound under a temporary name in the same folder, given its mode and owner, set to listening, and only then
renamed to its path (rename(2) is atomic).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xds.errors import SocketInUse, SocketUnusable

_MAX_PATH_BYTES: Final = 107  # sockaddr_un.sun_path, unix(7), less its terminating zero
_SEND_BUFFER: Final = 1024 * 1024  # a rotation of many streams leaves in one piece; the kernel caps it
_BACKLOG: Final = 16
_SOCKET_TYPE: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen. `mode` is the file's permission bits; `uid` and `gid` its owner (None: ours)."""

    path: Path
    mode: int = 0o600
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """A listening socket, the lock that keeps other servers off its path, and the identity of its file."""

    socket: socket.socket
    path: Path
    lock: int
    file: tuple[int, int]

    @property
    def stands(self) -> bool:
        """Is its file still where clients look for it?"""
        try:
            return _file_identity(self.path) == self.file
        except OSError:
            return False

    def again(self, endpoint: Endpoint) -> Listening:
        """A new socket under the same lock, for one whose file is gone; whoever accepts on this one closes it.

        Raises SocketInUse and SocketUnusable; this one stays in use then.
        """
        with ExitStack() as undo:
            renewed = _listen(endpoint, self.lock, undo)
            undo.pop_all()
        return renewed

    def close(self) -> None:
        """Close all, and remove the socket file if it is still this one."""
        self.socket.close()
        if self.stands:
            self.path.unlink(missing_ok=True)
        os.close(self.lock)


def listen(endpoint: Endpoint) -> Listening:
    """Listen at the endpoint. A dead server's socket file is replaced.

    Raises SocketInUse when a living server holds the path, SocketUnusable when it cannot hold a socket.
    """
    _check_length(endpoint.path)
    with ExitStack() as undo:
        try:
            lock = _lock(endpoint.path)
        except OSError as failed:
            raise _unusable(endpoint.path, failed) from failed
        undo.callback(os.close, lock)
        listening = _listen(endpoint, lock, undo)
        undo.pop_all()
        return listening


def _listen(endpoint: Endpoint, lock: int, undo: ExitStack) -> Listening:
    path, temporary = endpoint.path, _temporary(endpoint.path)
    try:
        _check_vacant(path)
        server = undo.enter_context(socket.socket(socket.AF_UNIX, _SOCKET_TYPE))
        undo.callback(temporary.unlink, missing_ok=True)
        _bind(server, temporary, endpoint)
        temporary.rename(path)
        return Listening(server, path, lock, _file_identity(path))
    except OSError as failed:
        raise _unusable(path, failed) from failed


def _temporary(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(4)}")


def _check_length(path: Path) -> None:
    for name in (path, _temporary(path)):
        if len(os.fsencode(name)) > _MAX_PATH_BYTES:
            raise SocketUnusable(path, f"longer than {_MAX_PATH_BYTES} bytes", "choose a shorter socket path")


def _unusable(path: Path, failed: OSError) -> SocketUnusable:
    return SocketUnusable(
        path, failed.strerror or str(failed), f"check that {path.parent} exists and is writable by us"
    )


def _lock(path: Path) -> int:
    """Lock the path for the life of the process. A lock, unlike a trial connection, disturbs no living server."""
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SocketInUse(path) from None
    return lock


def _file_identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _check_vacant(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketUnusable(path, "something that is no socket is there", "remove it or choose another path")
    if _answers(path):
        raise SocketInUse(path)


def _answers(path: Path) -> bool:
    """Whether a server of another kind listens; a full backlog (EAGAIN) is a living server too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
        return True


def _bind(server: socket.socket, temporary: Path, endpoint: Endpoint) -> None:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    server.bind(os.fspath(temporary))
    # Nobody can connect before listen(), so the file is never open to more users than meant.
    temporary.chmod(endpoint.mode)
    if endpoint.uid is not None or endpoint.gid is not None:
        keep = -1
        os.chown(
            temporary,
            keep if endpoint.uid is None else endpoint.uid,
            keep if endpoint.gid is None else endpoint.gid,
        )
    server.listen(_BACKLOG)
