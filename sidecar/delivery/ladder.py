"""How a closing is carried through: rung by rung, until it is verified. Pure: events in, commands out.

At once         poison and denial are in Envoy's sockets (done by the caller), open connections are swept
Acknowledged    after a moment for Envoy's workers to take the new context up, swept again
Swept, none left   closed
Late, rejected, or connections that stay   Envoy is killed: it comes back closed
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SETTLE = 0.02
"""Seconds from Envoy's acknowledgement to the last sweep. The main thread acknowledges; workers follow within
milliseconds, and a handshake begun in between would live on under the old certificate."""

MOST_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Closing:
    """One closing under way. first_sweep: the number of its first sweep; times in CLOCK_BOOTTIME seconds."""

    reason: str
    first_sweep: int
    sweeps: int = 1
    acknowledged: bool = False
    killed: bool = False
    destroyed: int = 0
    finished: bool = False


# Events.


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Every stream took the poison, or ended."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Envoy refused the poison: the old certificate still serves."""

    reason: str


@dataclass(frozen=True, slots=True)
class Settled:
    """SETTLE has passed since the acknowledgement."""


@dataclass(frozen=True, slots=True)
class Late:
    """The time that policy gives a closing (`escalateAfter`) is over."""


@dataclass(frozen=True, slots=True)
class SweepDone:
    """left: connections of earlier dumps that are still open."""

    number: int
    destroyed: int
    left: int


Event = Acknowledged | Rejected | Settled | Late | SweepDone


# Commands.


@dataclass(frozen=True, slots=True)
class Sweep:
    number: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL for Envoy, through the pidfd that the measurer holds."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Send `Settled` after this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Closed:
    """Verified: nothing new is accepted and nothing old is open. killed: the last rung was needed."""

    destroyed: int
    killed: bool


@dataclass(frozen=True, slots=True)
class Bounded:
    """New connections are refused, but nothing here can end open ones before their duration cap."""

    left: int


Command = Sweep | Kill | Wait | Closed | Bounded


@dataclass(frozen=True, slots=True)
class Outcome:
    closing: Closing
    commands: tuple[Command, ...] = ()


def climb(closing: Closing, event: Event) -> Outcome:
    """The next rung. Total: events after the end, or of an earlier closing's sweeps, change nothing."""
    if closing.finished:
        return Outcome(closing)
    match event:
        case Acknowledged():
            return Outcome(replace(closing, acknowledged=True), (Wait(SETTLE),))
        case Settled():
            return _sweep_again(closing)
        case Rejected(reason):
            return _kill(closing, f"rejected: {reason}")
        case Late():
            return Outcome(closing) if closing.killed else _kill(closing, "not closed in time")
        case SweepDone():
            return _swept(closing, event)


def _swept(closing: Closing, done: SweepDone) -> Outcome:
    if done.number < closing.first_sweep:
        return Outcome(closing)
    counted = replace(closing, destroyed=closing.destroyed + done.destroyed)
    last = done.number == closing.first_sweep + closing.sweeps - 1
    if not last or (closing.sweeps == 1 and not closing.killed):
        # The first sweep cannot be the proof: Envoy may not have taken the poison yet.
        return Outcome(counted)
    if done.left == 0:
        return Outcome(replace(counted, finished=True), (Closed(counted.destroyed, closing.killed),))
    if closing.killed:
        return Outcome(replace(counted, finished=True), (Bounded(done.left),))
    return _sweep_again(counted) if closing.sweeps < MOST_SWEEPS else _kill(counted, f"{done.left} stay open")


def _sweep_again(closing: Closing) -> Outcome:
    number = closing.first_sweep + closing.sweeps
    return Outcome(replace(closing, sweeps=closing.sweeps + 1), (Sweep(number),))


def _kill(closing: Closing, reason: str) -> Outcome:
    number = closing.first_sweep + closing.sweeps
    return Outcome(replace(closing, sweeps=closing.sweeps + 1, killed=True), (Kill(number, reason),))
