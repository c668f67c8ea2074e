"""The end of one Envoy: asked for over its admin socket, forced by a signal, and seen by its pidfd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from xds.peer import Peer

_QUIT = b"POST /quitquitquit HTTP/1.1\r\nhost: envoy\r\ncontent-length: 0\r\n\r\n"
"""Envoy's administration interface: ends the server, and its connections with it."""


class Ending:
    """One process, until `close`. admin: its admin socket, where that is ours to use. ended: called once, when it has.

    Made inside a running loop. Where there is no process, it has ended as soon as somebody wants it to.
    """

    def __init__(self, envoy: Peer | None, admin: Path | None, ended: Callable[[], None]) -> None:
        self._admin = admin
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._asking: socket.socket | None = None
        # A copy: its owner closes the other one as soon as it notices the end.
        self._pidfd = os.dup(envoy.pidfd) if envoy is not None else None
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd, self._over)

    @property
    def can_be_asked(self) -> bool:
        return self._admin is not None and self._pidfd is not None

    def ask(self) -> str:
        """Asks it to quit, without waiting for an answer: that it ends is the answer. Returns why it cannot be asked.

        A socket whose backlog is full refuses as well (EAGAIN), so that nothing here can block.
        """
        if self._admin is None:
            return "no admin socket of its is ours"
        self._asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._asking.connect(os.fspath(self._admin))
            self._asking.send(_QUIT)
        except OSError as error:
            return f"{self._admin}: {error.strerror}"
        return ""

    def kill(self) -> str:
        """SIGKILL. Returns why we may not, empty when it is sent or the process has ended."""
        if self._pidfd is None:
            self._loop.call_soon(self._over)
            return ""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return ""
        except PermissionError as error:
            return error.strerror or "not permitted"
        return ""

    def close(self) -> None:
        self._ended = _nothing
        if self._asking is not None:
            self._asking.close()
            self._asking = None
        self._unwatch()

    def _over(self) -> None:
        self._unwatch()
        ended, self._ended = self._ended, _nothing
        ended()

    def _unwatch(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


def _nothing() -> None:
    return None
