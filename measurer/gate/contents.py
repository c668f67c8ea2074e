"""Digests of what is about to be executed: remembered by stamp, else read by threads that may hang.

A file may lie on a file system that answers late or never. Whoever reads it is a thread that does nothing else, so that
all other executions are answered meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from queue import SimpleQueue

from measurer.processes.binaries import Stamp

_CHUNK = 1 << 20
_READERS = 2
_MOST_KNOWN = 4096
_SETTLED_NS = 50_000_000
"""Before Linux 6.13 two changes within one tick have the same change time: what was changed so lately may change again
under the same stamp."""


class Contents:
    """Stamp -> digest, as 32 bytes."""

    def __init__(self) -> None:
        self._known: dict[Stamp, bytes] = {}

    def known(self, stamp: Stamp) -> bytes | None:
        return self._known.get(stamp)

    def keep(self, stamp: Stamp, digest: bytes) -> None:
        """Unless its stamp may be that of another content yet."""
        if time.time_ns() - stamp[3] < _SETTLED_NS:
            return
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[stamp] = digest


class Readers:
    """Threads that read. done: descriptor and digest of each that was read, None where it could not be."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[int] = SimpleQueue()
        self.done: deque[tuple[int, bytes | None]] = deque()
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when something is done."""
        for _ in range(_READERS):
            threading.Thread(target=self._run, name="reader", daemon=True).start()

    def begin(self, descriptor: int) -> None:
        """Read what this is open on. It has to stay open until that is done."""
        self._waiting.put(descriptor)

    def _run(self) -> None:
        while True:
            descriptor = self._waiting.get()
            try:
                digest = _digest(descriptor)
            except OSError:
                digest = None
            self.done.append((descriptor, digest))
            os.eventfd_write(self.descriptor, 1)


def _digest(descriptor: int) -> bytes:
    state, position = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, _CHUNK, position):
        state.update(chunk)
        position += len(chunk)
    return state.digest()
