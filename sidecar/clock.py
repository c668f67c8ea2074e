"""Clocks and the lease's end.

`loop.call_later` counts CLOCK_MONOTONIC, which stands still while a machine sleeps: a lease would outlive its end
by the length of the sleep. Two timerfds watch instead: CLOCK_BOOTTIME, and CLOCK_REALTIME with
TFD_TIMER_CANCEL_ON_SET, which also wakes when somebody sets the clock (timerfd_create(2)).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import time
from collections.abc import Callable

from sidecar.states import Lease, Now

_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_TFD_TIMER_CANCEL_ON_SET = 2


class _TimeSpec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


def now() -> Now:
    """Both clocks, read together."""
    return Now(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


class LeaseTimer:
    """Wakes at the lease's end on either clock, and when the wall clock is set.

    on_end: called at an end. on_set: called after a step of CLOCK_REALTIME; the lease's wall end is watched on.
    """

    def __init__(self, on_end: Callable[[], None], on_set: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._on_end = on_end
        self._on_set = on_set
        self._boot = self._create(time.CLOCK_BOOTTIME)
        self._wall = self._create(time.CLOCK_REALTIME)
        self._wall_end = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to watch; steps of the wall clock are seen from now on, lease or no lease."""
        loop.add_reader(self._boot, self._boot_woke)
        loop.add_reader(self._wall, self._wall_woke)
        self._watch_wall(time.time() + 365 * 86400)

    def arm(self, lease: Lease) -> None:
        """Watch for this lease's end instead of an earlier one's."""
        self._set(self._boot, lease.boot_end, _TFD_TIMER_ABSTIME)
        self._watch_wall(lease.wall_end)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        for descriptor in (self._boot, self._wall):
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def _watch_wall(self, end: float) -> None:
        self._wall_end = end
        self._set(self._wall, end, _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET)

    def _boot_woke(self) -> None:
        os.read(self._boot, 8)
        self._on_end()

    def _wall_woke(self) -> None:
        try:
            os.read(self._wall, 8)
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
            self._watch_wall(self._wall_end)
            self._on_set()
            return
        self._on_end()

    def _create(self, clock: int) -> int:
        return self._checked(self._libc.timerfd_create(clock, _TFD_NONBLOCK | _TFD_CLOEXEC))

    def _set(self, descriptor: int, at: float, flags: int) -> None:
        whole = int(at)
        # A zero value would disarm the timer: an end in the past still has to wake.
        spec = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(max(whole, 0), max(int((at - whole) * 1e9), 1)))
        self._checked(self._libc.timerfd_settime(descriptor, flags, ctypes.byref(spec), None))

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
