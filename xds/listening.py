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
from contextlib import ExitStack, suppress
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

    def close(self) -> None:
        """Close all, and remove the socket file if it is still this one."""
        self.socket.close()
        with suppress(FileNotFoundError):
            if _file_identity(self.path) == self.file:
                self.path.unlink()
        os.close(self.lock)


def listen(endpoint: Endpoint) -> Listening:
    """Listen at the endpoint. A dead server's socket file is replaced.

    Raises SocketInUse when a living server holds the path, SocketUnusable when it cannot hold a socket.
    """
    path = endpoint.path
    temporary = path.with_name(f".{secrets.token_hex(4)}")
    for name in (path, temporary):
        if len(os.fsencode(name)) > _MAX_PATH_BYTES:
            raise SocketUnusable(path, f"longer than {_MAX_PATH_BYTES} bytes", "choose a shorter socket path")
    with ExitStack() as undo:
        try:
            lock = _lock(path)
            undo.callback(os.close, lock)
            _check_vacant(path)
            server = undo.enter_context(socket.socket(socket.AF_UNIX, _SOCKET_TYPE))
            undo.callback(temporary.unlink, missing_ok=True)
            _bind(server, temporary, endpoint)
            temporary.rename(path)
            listening = Listening(server, path, lock, _file_identity(path))
        except OSError as failed:
            raise SocketUnusable(
                path, failed.strerror or str(failed), f"check that {path.parent} exists and is writable by us"
            ) from failed
        undo.pop_all()
        return listening


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
