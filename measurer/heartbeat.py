"""Whether a collector keeps up: something of our own goes the way of all events, and has to come out in time.

A measurer that was stopped, starved of its processor or flooded tells everything late; a subscription that the kernel
has dropped tells nothing for ever. Neither has an event of its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attestation.facts import CollectorState
from measurer.clock import monotonic
from measurer.loop import Loop

INTERVAL = 2.0
LIMIT = 3.0
"""Seconds that an event may be under way, or a turn may come late. Far above what a busy machine makes of it, and below
the dead-man time, after which the sidecar gives its measurer up."""


class Pulse:
    """What is under way, and since when. Pure: times are CLOCK_MONOTONIC seconds."""

    def __init__(self, now: float) -> None:
        self._due = now + INTERVAL
        self._sent: float | None = None
        self._delay = 0.0

    def beats(self, now: float) -> bool:
        """It is time for a beat. True where one is to be sent: none is under way."""
        late = now - self._due
        self._due = now + INTERVAL
        if self._sent is not None:
            self._delay = max(self._delay, now - self._sent)
            return False
        self._delay = max(self._delay, late)
        self._sent = now
        return True

    def heard(self, now: float) -> None:
        """The beat has come out."""
        if self._sent is not None:
            self._delay, self._sent = max(self._delay, now - self._sent), None

    def settle(self) -> float:
        """Seconds behind at worst, since this was asked last, or now."""
        delay, self._delay = self._delay, 0.0
        return delay


class Heartbeat:
    """send: sends a beat on its way; raises OSError where it cannot, and is called again. tell: called when the
    collector begins to lag, and when it has caught up.
    """

    def __init__(
        self, loop: Loop, name: str, send: Callable[[], None], tell: Callable[[CollectorState, str], None]
    ) -> None:
        self._loop, self._name, self._send, self._tell = loop, f"heartbeat of {name}", send, tell
        self._pulse = Pulse(monotonic())
        self._lags = self._unsent = False
        loop.look_after(self._name, INTERVAL, self._beat)

    def heard(self) -> None:
        """Taken out of where it was sent; or it may be lost with others."""
        self._pulse.heard(monotonic())
        self._judge()

    def close(self) -> None:
        self._loop.cancel(self._name)

    def _beat(self) -> None:
        if self._pulse.beats(monotonic()) or self._unsent:
            self._unsent = True
            with suppress(OSError):  # then it does not come out either
                self._send()
                self._unsent = False
        self._judge()
        self._loop.look_after(self._name, INTERVAL, self._beat)

    def _judge(self) -> None:
        behind = self._pulse.settle()
        if behind > LIMIT:
            if not self._lags:
                self._tell(CollectorState.LAGGING, f"{behind:.1f} s behind what happens; {LIMIT:g} s are allowed")
            self._lags = True
        elif self._lags:
            self._lags = False
            self._tell(CollectorState.RUNNING, "it has caught up")


class Nameless:
    """A folder of our own that no name leads to: to be marked, and touched. Raises OSError where none can be made."""

    def __init__(self) -> None:
        path = _made()
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            Path(path).rmdir()

    def change(self) -> None:
        """An event of its attributes."""
        os.fchmod(self.descriptor, 0o700)

    def open(self) -> None:
        """An event of its opening."""
        os.close(os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def close(self) -> None:
        os.close(self.descriptor)


def _made() -> str:
    try:
        return tempfile.mkdtemp(dir="/dev/shm")
    except OSError:
        return tempfile.mkdtemp()
