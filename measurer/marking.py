"""Whom the kernel's programs have to be told of: processes that they did not see being made by one that they know.

Each thread of such a process, by a descriptor that is proved to be that one's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from measurer.processes.held import Held
from measurer.processes.proc import listing

PIDFD_THREAD = os.O_EXCL
"""pidfd_open(2), from Linux 6.9 on. Before that a thread goes by its process's first one."""
GONE = (ProcessLookupError, FileNotFoundError)
"""What marking a task comes to that has ended since its descriptor was opened."""


class Marking:
    """mark: takes a pidfd of a thread, as `mark_all` has it."""

    def __init__(self, mark: Callable[[int], None]) -> None:
        self._mark_one = mark
        self._marked: set[Held] = set()

    def mark(self, held: Iterable[Held]) -> None:
        """Those that are new among these, which are all there are. Raises OSError where the kernel takes no mark."""
        there_are = set(held)
        for process in there_are - self._marked:
            mark_all(process, self._mark_one)
        self._marked = there_are


def mark_all(process: Held, mark: Callable[[int], None]) -> None:
    """mark: takes a pidfd, which is open for as long as it is called. Raises what it raises, unless the task has ended.

    Whoever is made meanwhile has the mark of who made it.
    """
    threads = process.read(lambda folder: [int(each) for each in listing(f"/proc/self/fd/{folder}/task")]) or []
    for thread in dict.fromkeys((process.pid, *threads)):
        mark_one(process, thread, mark)


def mark_one(process: Held, thread: int, mark: Callable[[int], None]) -> None:
    """Marks nobody where the number is no thread's of the process any more.

    It may be another task's by now. A task that is among the process's threads after the descriptor was opened is the
    one that the descriptor is of, or that one has ended, and marking it does nothing.
    """
    try:
        descriptor = os.pidfd_open(thread, PIDFD_THREAD if thread != process.pid else 0)
    except OSError:
        return  # it has ended, or this kernel opens none of a thread
    try:
        if process.read(lambda folder: os.stat(f"task/{thread}", dir_fd=folder)) is not None:
            with suppress(*GONE):
                mark(descriptor)
    finally:
        os.close(descriptor)
