"""The guardian's own thread: it waits for the sidecar's death or silence, and acts even if all else here hangs.

The main thread opens files that the workload may have put on a slow or hanging file system. While it is stuck it
hears no beats, so this thread takes the silence for the sidecar's and closes traffic: the right side to err on.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from measurer.clock import monotonic
from measurer.cutting import Cut
from measurer.envoy import Envoy
from measurer.guardian import Duty, Guardian
from measurer.scope import pid_of

_KERNEL_AFTER = 0.5
"""Seconds after the dead-man time at which the kernel itself lets nothing pass any more (deadline.py)."""


@dataclass(frozen=True, slots=True)
class Fired:
    """The guardian cut Envoy off because of the sidecar's silence. error: what failed of it, empty when nothing."""

    cut: Cut
    error: str = ""


class Deadman:
    """sidecar: its pidfd. over: called in the thread, last of all, with the exit status."""

    def __init__(self, guardian: Guardian, sidecar: int, over: Callable[[int], None]) -> None:
        self._guardian, self._sidecar, self._over = guardian, sidecar, over
        self._envoy: Envoy | None = None
        self._hung_up = False
        self._status = 0
        self._lock = threading.Lock()
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.reports: deque[Fired] = deque()
        self.reported = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="guardian", daemon=True)

    @property
    def sidecar(self) -> tuple[int, int]:
        """Pid and pidfd."""
        return pid_of(self._sidecar), self._sidecar

    @property
    def duty(self) -> Duty:
        return self._guardian.duty

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def close(self) -> None:
        """Let go of all that it held, once its thread is over."""
        with self._lock:
            self._closed = True
            if self._envoy is not None:
                self._envoy.close()
            for descriptor in (self._sidecar, self._wake, self.reported):
                os.close(descriptor)

    def beat(self) -> None:
        with self._lock:
            self._guardian.beat(monotonic())
            self._put_off()

    def allow(self, deadman: float) -> None:
        """Another dead-man time, in seconds, from now on."""
        with self._lock:
            self._guardian.allow(deadman)
            self._put_off()
        os.eventfd_write(self._wake, 1)

    def guard(self, envoy: Envoy) -> None:
        """This Envoy from now on, instead of an earlier one."""
        with self._lock:
            before, self._envoy = self._envoy, envoy
            self._guardian.guard(monotonic())
            self._put_off()
        if before is not None:
            before.close()
        os.eventfd_write(self._wake, 1)

    def hang_up(self, status: int = 0) -> None:
        """The channel is closed, or the measurer itself gives up: as good as dead. status: passed on to `over`."""
        self._status = status
        self._hung_up = True
        with self._lock:  # where a node ends, its first thread gives up what another one may be letting go of
            if not self._closed:
                os.eventfd_write(self._wake, 1)

    def _put_off(self) -> None:
        """The kernel's own deadline: a moment after ours, which ends Envoy and does not only silence it."""
        if self._guardian.duty is Duty.GUARDING and self._envoy is not None:
            self._envoy.put_off(self._guardian.deadman + _KERNEL_AFTER)

    def _run(self) -> None:
        """Whatever fails in here, nobody would be left to notice: it counts as the sidecar's end."""
        try:
            self._watch()
        except BaseException:  # a thread's edge
            envoy = self._envoy
            if envoy is not None:
                envoy.end()
            self._over(1)
            raise

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._sidecar, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            with self._lock:
                patience = self._guardian.patience(monotonic())
            ready = {descriptor for descriptor, _ in poll.poll(None if patience is None else patience * 1000 + 1)}
            if self._wake in ready:
                os.eventfd_read(self._wake)
            if self._sidecar in ready or self._hung_up:
                self._last_act()
                return
            with self._lock:
                fires, envoy = self._guardian.tick(monotonic()), self._envoy
            if fires and envoy is not None:
                self.reports.append(_cut_off(envoy))
                os.eventfd_write(self.reported, 1)

    def _last_act(self) -> None:
        with self._lock:
            acts, envoy = self._guardian.died(), self._envoy
        if acts and envoy is not None:
            _cut_off(envoy)
        self._over(self._status)


def _cut_off(envoy: Envoy) -> Fired:
    try:
        return Fired(envoy.cut_off())
    except OSError as error:
        envoy.end()
        return Fired(Cut(0, 0, 0), error.strerror or "")
    finally:
        envoy.settle()
