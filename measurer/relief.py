"""A thread that turns the loop, and another one in its place when it hangs in what a workload has it read.

Nothing ends a read of a file system that does not answer (FUSE, NFS) but the answer or the end of the process: no
timeout, no O_NONBLOCK, no signal. So the thread is left where it is, with the one session whose act it is in. That
session is over, closed by its guardian, and the others go on in a new thread a second or so later. When the old one
comes back an exception takes it out of the act at its next step; what is to be given back then is in `finally` clauses
whose first call gives it back.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from attestation.errors import InvalidInput, Unavailable
from measurer.driver import Driver, Superseded
from measurer.loop import Act, Loop, Reactor
from measurer.processes.proc import parse_stat

LOOK = 0.5
"""Seconds between two looks at the thread."""
LOOKS = 2
"""Looks at which it has to be found waiting in the same act, after the first. Far above what a disk makes of a read."""
_WAITING = "SD"
_MEND = "Look after the file system that does not answer, or exempt what is on it (`spec.files`)."


class Relief:
    """own: the part of the loop that belongs to no session; an act of its own is not taken away. resume: called in the
    new thread, before all else: what that part had begun and not done. look: seconds."""

    def __init__(self, reactor: Reactor, own: Loop, resume: Callable[[], None], look: float = LOOK) -> None:
        self._reactor, self._resume, self._every = reactor, resume, look
        self._driver: Driver[Loop] = Driver()
        self._thread = threading.Thread()
        self._seen: list[Loop] | None = None
        self._looks = 0
        self._error: BaseException | None = None
        self._handed_in: deque[Act] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        own.watch(self._wake, self._take_in)

    def run(self) -> None:
        """Until the loop is told to stop. Raises what an act of no session has raised."""
        self._start([])
        while self._thread.is_alive():
            self._thread.join(self._every)
            self._look()
        if self._error is not None:
            raise self._error

    def stop(self, within: float) -> bool:
        """True once nothing of the loop is run any more; False where a thread still hangs after so many seconds."""
        self._reactor.stopped = True
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join(within)
        return not self._thread.is_alive()

    def _start(self, first: list[Act]) -> None:
        self._reactor.driver = self._driver = Driver()
        self._thread = threading.Thread(target=self._drive, args=(first,), name="loop", daemon=True)
        self._thread.start()

    def _drive(self, first: list[Act]) -> None:
        try:
            for act in first:
                act()
            self._reactor.run()
        except Superseded:
            pass
        except BaseException as error:  # noqa: BLE001 - a thread's edge: whatever it is, `run` raises it
            self._error = error

    def _look(self) -> None:
        token = self._driver.within
        if token is None or token is not self._seen or not _waits(self._thread):
            self._seen, self._looks = token, 0
            return
        self._looks += 1
        if self._looks >= LOOKS and all(each.fails_alone for each in tuple(token)):
            self._relieve(token)

    def _relieve(self, token: list[Loop]) -> None:
        taken, hanging = self._driver.take(token), self._thread
        if not taken:
            return
        _raise_in(hanging)
        self._seen, self._looks = None, 0
        parts = [each for each in taken if each.fails_alone]
        for each in parts:
            each.hangs = True
        self._start([self._resume, *(partial(each.fail, _hung()) for each in parts)])
        threading.Thread(target=self._await_end, args=(hanging, parts), name="hanging", daemon=True).start()

    def _await_end(self, hanging: threading.Thread, parts: list[Loop]) -> None:
        hanging.join()
        self._handed_in.extend(each.comes_back for each in parts)
        os.eventfd_write(self._wake, 1)

    def _take_in(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._handed_in:
            self._handed_in.popleft()()


def _hung() -> Unavailable:
    return Unavailable("a file system of the workload does not answer", where="measurer", mend=_MEND)


def _raise_in(thread: threading.Thread) -> None:
    """Once it runs again."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Superseded))


def _waits(thread: threading.Thread) -> bool:
    """Does the kernel have it wait? One that has too little of a processor does not."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/stat", "rb", buffering=0) as file:
            return parse_stat(file.read(4096) or b"").state in _WAITING
    except (OSError, InvalidInput):
        return False
