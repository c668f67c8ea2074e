"""Life signs: beats for the guardian and for Envoy, as long as time passes as it should."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from sidecar import clock

BEATS = 5
"""Heartbeats to the guardian and to Envoy in one dead-man period: four may be lost to a busy machine."""

_SLEPT = 0.1
"""Seconds of suspend that count as one: below it, it is the two clocks being read one after the other."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A moment. boot: CLOCK_BOOTTIME seconds. suspended: seconds the machine has slept since it booted."""

    boot: float
    suspended: float

    @classmethod
    def now(cls) -> Pulse:
        suspended = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
        return cls(clock.now().boot, suspended)


def gap(before: Pulse, after: Pulse, deadman: float) -> str | None:
    """Why the time between two beats is nobody's to vouch for; None when it passed as it should."""
    if after.suspended - before.suspended > _SLEPT:
        return "the-machine-slept"
    if after.boot - before.boot > deadman:
        return "the-sidecar-stood-still"
    return None


class Heartbeat:
    """deadman: seconds, read at each beat. beat: sends the sign with its number. stalled: told of a gap, before it.
    unanswered: told when the measurer has not answered for longer than the dead-man time.
    """

    def __init__(
        self,
        deadman: Callable[[], float],
        beat: Callable[[int], None],
        stalled: Callable[[str], None],
        unanswered: Callable[[str], None],
    ) -> None:
        self._deadman = deadman
        self._beat = beat
        self._stalled = stalled
        self._unanswered = unanswered
        self._answered = 0.0
        self._number = 0
        self._hastened = asyncio.Event()

    def answered(self) -> None:
        """The measurer sent a beat back: its loop turns as well."""
        self._answered = clock.now().boot

    def hasten(self) -> None:
        """A beat now, before the dead-man time changes: a shorter one must not find the last beat too long ago."""
        self._send()
        self._hastened.set()

    async def run(self) -> None:
        """Until cancelled."""
        last, allowed = Pulse.now(), self._deadman()
        self._answered = last.boot
        while True:
            deadman, pulse = self._deadman(), Pulse.now()
            # A pause that began under a longer dead-man time is judged by that one.
            reason = gap(last, pulse, max(allowed, deadman))
            if reason is not None:
                self._stalled(reason)
                self._answered = pulse.boot
            if pulse.boot - self._answered > max(allowed, deadman):
                self._unanswered(f"it has answered no heartbeat for {pulse.boot - self._answered:.1f} s")
            last, allowed = pulse, deadman
            self._send()
            await self._pause(deadman / BEATS)

    async def _pause(self, seconds: float) -> None:
        self._hastened.clear()
        over = asyncio.get_running_loop().call_later(seconds, self._hastened.set)
        try:
            await self._hastened.wait()
        finally:
            over.cancel()

    def _send(self) -> None:
        self._number += 1
        self._beat(self._number)
