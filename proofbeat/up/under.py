"""A process puts itself under a filter that asks, and leaves its listener with whoever will answer.

`python -m proofbeat.up.under UNDER CMD...` does it, and executes CMD then.

Whatever it calls from then on may be asked for, and nobody answers yet. So another thread, which the filter does not
bind, hands over the listener: they share their descriptors until one of them executes something.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from proofbeat.up import filter as filters

LISTENER = b"listener"


@dataclass(frozen=True, slots=True)
class Under:
    """code: the filter's (filter.py). leave_at: an inherited socket, for its listener, or why there is none."""

    code: bytes
    leave_at: int

    def command(self, program: Sequence[str]) -> list[str]:
        """What starts a program under it, where `leave_at` is inherited."""
        return [sys.executable, "-P", "-m", "proofbeat.up.under", str(self), *program]

    def __str__(self) -> str:
        return f"{self.leave_at}:{self.code.hex()}"

    @classmethod
    def parse(cls, text: str) -> Under:
        """Of one that was said so."""
        where, _, code = text.partition(":")
        return cls(bytes.fromhex(code), int(where))

    def stand(self) -> threading.Thread:
        """This thread, and whatever it executes. Returns the one that hands over the listener."""
        listener: queue.SimpleQueue[int | OSError] = queue.SimpleQueue()
        leaving = threading.Thread(target=lambda: self._leave(listener.get()), daemon=True)
        leaving.start()
        try:
            listener.put(filters.stand_under(self.code))
        except OSError as error:
            listener.put(error)
        return leaving

    def _leave(self, listener: int | OSError) -> None:
        with socket.socket(fileno=self.leave_at) as there:
            if isinstance(listener, OSError):
                there.send(f"{listener.strerror}".encode())
            else:
                socket.send_fds(there, [LISTENER], [listener])


def left(there: socket.socket) -> int:
    """The listener that was left at the other end of `leave_at`. Raises OSError: what is said instead, or nothing."""
    said, descriptors, _, _ = socket.recv_fds(there, 256, 1, socket.MSG_CMSG_CLOEXEC)
    if said != LISTENER or len(descriptors) != 1:
        raise OSError(said.decode() or "it ended")
    return descriptors[0]


if __name__ == "__main__":
    Under.parse(sys.argv[1]).stand().join()
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - an argument list, and no shell is wanted
