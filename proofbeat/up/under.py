"""A process puts itself under a filter that asks, and leaves its listener with whoever will answer.

Whatever it calls from then on may be asked for, and nobody answers yet. So another thread, which the filter does not
bind, hands over the listener: they share their descriptors until one of them executes something.
"""

from __future__ import annotations

import queue
import socket
import threading
from dataclasses import dataclass

from proofbeat.up import filter as filters

LISTENER = b"listener"


@dataclass(frozen=True, slots=True)
class Under:
    """code: the filter's (filter.py). leave_at: an inherited socket, for its listener, or why there is none."""

    code: bytes
    leave_at: int

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
