"""Whom the kernel's programs have to be told of: processes that it did not see being made by one that it knows."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

from measurer.processes.held import Held
from measurer.processes.proc import listing

_PIDFD_THREAD = os.O_EXCL
"""pidfd_open(2), from Linux 6.9 on. Before that a thread goes by its process's first one."""


class Marking:
    """mark: takes a pidfd of a thread; raises OSError."""

    def __init__(self, mark: Callable[[int], None]) -> None:
        self._mark_one = mark
        self._marked: set[Held] = set()

    def mark(self, held: Iterable[Held]) -> None:
        """Those that are new among these, which are all there are. Raises OSError where the kernel takes no mark."""
        there_are = set(held)
        for process in there_are - self._marked:
            self._mark(process)
        self._marked = there_are

    def _mark(self, process: Held) -> None:
        """With all its threads: one that is made meanwhile has the mark of who made it."""
        threads = process.read(lambda folder: [int(each) for each in listing(f"/proc/self/fd/{folder}/task")]) or []
        for thread in (process.pid, *threads):
            try:
                descriptor = os.pidfd_open(thread, _PIDFD_THREAD if thread != process.pid else 0)
            except OSError:
                continue  # it has ended, or this kernel opens none of a thread
            try:
                if process.stat() is not None:  # so that nobody else can have had its pid
                    self._mark_one(descriptor)
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise
            finally:
                os.close(descriptor)
