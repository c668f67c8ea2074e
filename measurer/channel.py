"""The socketpair to the sidecar: whole datagrams, descriptors beside them, and never a blocking send."""

from __future__ import annotations

import fcntl
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable

from attestation import channel as words
from attestation.channel import Fault, Message
from attestation.errors import InvalidInput, Unavailable
from attestation.facts import FileFact

_MOST_DESCRIPTORS = 4
_MOST_WAITING = 20_000
MOST_FILE_FACTS_WAITING = 2_048
"""Above this many unread datagrams, file facts are left to the observation that follows them."""


class Hangup(Exception):
    """The sidecar's end is closed."""


class Channel:
    """One end of the SOCK_SEQPACKET pair.

    What the kernel does not take at once waits in order; `on_backlog` is told when the first one waits, so that
    the loop can watch for room. Raises Unavailable when the sidecar reads nothing for far too long.
    """

    def __init__(self, descriptor: int, on_backlog: Callable[[], None]) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._waiting: deque[tuple[bytes, int | None]] = deque()
        self._on_backlog = on_backlog
        self.refused_file_facts = 0

    @property
    def descriptor(self) -> int:
        return self._socket.fileno()

    @property
    def waits(self) -> bool:
        """Something is queued behind a full socket."""
        return bool(self._waiting)

    @property
    def socket(self) -> socket.socket:
        return self._socket

    def send(self, message: Message, body: int | None = None) -> None:
        """Send now, or queue behind what waits. `body` is a descriptor that this channel closes afterwards.

        Raises Unavailable too where no descriptor is left: a process or a file that could not be opened for that
        looks like one that is gone or unreadable, and what was read so is not to be told.
        """
        if not isinstance(message, Fault):
            self._check_descriptors()
        if isinstance(message, FileFact) and len(self._waiting) > MOST_FILE_FACTS_WAITING:
            self.refused_file_facts += 1
            return
        datagram = words.encode(message)
        if self._waiting or not self._try(datagram, body):
            self._waiting.append((datagram, body))
            if len(self._waiting) > _MOST_WAITING:
                raise Unavailable("the sidecar reads nothing any more", where="measurer channel")
            self._on_backlog()

    def _check_descriptors(self) -> None:
        try:
            os.close(os.dup(self.descriptor))
        except OSError as error:
            raise Unavailable(
                f"no more descriptors: {error.strerror}", where="measurer", mend="Raise its limit (RLIMIT_NOFILE)."
            ) from error

    def close(self) -> None:
        """What waits is not sent any more."""
        for _, body in self._waiting:
            if body is not None:
                os.close(body)
        self._waiting.clear()
        self._socket.close()

    def flush(self) -> bool:
        """Send what waits. True when nothing waits any more."""
        while self._waiting and self._try(*self._waiting[0]):
            self._waiting.popleft()
        return not self._waiting

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message and the descriptors beside it, None when there is none. Raises Hangup, InvalidInput."""
        try:
            datagram, descriptors, _, _ = socket.recv_fds(
                self._socket, words.MOST_BYTES, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except ConnectionResetError as error:
            raise Hangup from error
        try:
            if not datagram:
                raise Hangup
            return words.decode(datagram), list(descriptors)
        except (Hangup, InvalidInput):
            for each in descriptors:
                os.close(each)
            raise

    def _try(self, datagram: bytes, body: int | None) -> bool:
        try:
            if body is None:
                self._socket.send(datagram)
            else:
                socket.send_fds(self._socket, [datagram], [body])
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Hangup from error
        if body is not None:
            os.close(body)
        return True


def sealed(name: str, chunks: Iterable[bytes]) -> int:
    """A memfd with these bytes that nobody can change any more (memfd_create(2), F_ADD_SEALS in fcntl(2))."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", buffering=1 << 18, closefd=False) as file:
        for chunk in chunks:
            file.write(chunk)
    fcntl.fcntl(
        descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    )
    return descriptor
