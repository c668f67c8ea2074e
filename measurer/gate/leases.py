"""Nobody writes to a file between the look at it and its execution: a read lease holds it (fcntl(2), F_SETLEASE).

The kernel asks the gate when a file is opened to be executed, and forbids writing to it only after the answer. Whoever
writes in between would have other content run than what was answered for. A read lease is given only while nobody has
the file open for writing, nor mapped; and while there is one, whoever opens it so waits. It is let go once the
execution is known to have come to where the kernel forbids writing itself: the same thread opens the next file of the
chain (an interpreter, a loader), it runs the file, or it is gone. One that has failed looks like one that is still
under way: it is let go after a while.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from enum import Enum
from errno import EAGAIN

KEPT = 1.0
"""Seconds after the answer at most. The kernel itself breaks a lease after /proc/sys/fs/lease-break-time, 45 s."""
_MOST_CHAINS = 256

Image = tuple[int, int]
"""Device and inode."""


class Hold(Enum):
    HELD = "held"
    BUSY = "busy"
    """Somebody has it open for writing: the kernel would not execute it either."""
    UNHELD = "unheld"
    """It takes no lease: of a file system without them, or another user's without CAP_LEASE."""


def take(descriptor: int) -> Hold:
    """Hold what an event's descriptor is open on. It ends when that is closed."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Hold.BUSY if error.errno == EAGAIN else Hold.UNHELD
    return Hold.HELD


class _Chain:
    """What one thread was allowed to execute, since its execution began."""

    __slots__ = ("held", "images", "until")

    def __init__(self) -> None:
        self.held: list[int] = []
        self.images: set[Image] = set()
        self.until = 0.0


class Leases:
    """Descriptors of what was allowed, by thread, until they need not be held any more."""

    def __init__(self) -> None:
        self._chains: dict[int, _Chain] = {}

    def __bool__(self) -> bool:
        return bool(self._chains)

    def passed(self, tid: int) -> None:
        """This thread opens another file to execute it: with what it opened before, the kernel is done, or has it."""
        chain = self._chains.get(tid)
        if chain is not None:
            _close(chain)

    def keep(self, tid: int, descriptor: int, image: Image, now: float) -> None:
        """Until the execution has come further. The descriptor is closed here."""
        chain = self._chains.setdefault(tid, _Chain())
        chain.held.append(descriptor)
        chain.images.add(image)
        chain.until = now + KEPT
        if len(self._chains) > _MOST_CHAINS:
            _close(self._chains.pop(next(iter(self._chains))))

    def settle(self, now: float) -> None:
        """Let go of what need not be held any more."""
        for tid, chain in list(self._chains.items()):
            if now >= chain.until or _runs(tid, chain.images):
                _close(self._chains.pop(tid))


def _runs(tid: int, images: set[Image]) -> bool:
    """It runs one of these, or is gone. What it ran before is not written to while it does, so that may be the same."""
    try:
        status = os.stat(f"/proc/{tid}/exe")  # noqa: PTH116 - for each execution
    except PermissionError:
        return False
    except OSError:
        return True
    return (status.st_dev, status.st_ino) in images


def _close(chain: _Chain) -> None:
    for each in chain.held:
        with suppress(OSError):
            os.close(each)
    chain.held.clear()
