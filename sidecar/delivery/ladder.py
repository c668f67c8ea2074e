"""How a closing is carried through: rung by rung, until it is verified. Pure: events in, commands out.

At once         poison and denial are in Envoy's sockets (done by the caller), open connections are swept
Acknowledged    after a moment for Envoy's workers to take the new context up, swept again
Swept, none left   closed
Late, rejected, or connections that stay   where its admin socket is ours Envoy is asked to quit, else it is killed
Not gone in QUIT_GRACE, or it cannot be asked   killed
Ended           whatever it held is swept once more; where Envoy is restarted, it comes back closed
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

SETTLE = 0.02
"""Seconds from Envoy's acknowledgement to the next sweep. The main thread acknowledges; workers follow within
milliseconds, and a handshake begun in between would live on under the old certificate."""

VERIFY_WITHIN = 0.25
"""Seconds that the sweeps after it may take together; a dump of thousands of connections takes tens of milliseconds."""

QUIT_GRACE = 0.25
"""Seconds between asking Envoy to quit and killing it: it is gone within 10 ms, with a thousand connections in 120, and
a busy machine takes its time."""

DEATH_WITHIN = 0.5
"""Seconds after which a killed process that is still there counts as one that cannot be killed."""

MOST_SWEEPS = 4


class Way(StrEnum):
    """What it took."""

    VERIFIED = "verified"
    ENDED = "Envoy ended"
    """By itself, before anybody asked it to."""
    QUIT = "Envoy quit"
    KILLED = "Envoy was killed"


@dataclass(frozen=True, slots=True)
class Closing:
    """One closing under way. first_sweep: the number of its first sweep. quits: Envoy can be asked to quit.

    left: what the latest sweep that counts had seen open. finished: nothing changes any more.
    """

    reason: str
    first_sweep: int
    quits: bool = False
    sweeps: int = 1
    acknowledged: bool = False
    asked: bool = False
    killed: bool = False
    ended: bool = False
    destroyed: int = 0
    left: int = 0
    finished: bool = False

    @property
    def way(self) -> Way:
        if self.killed:
            return Way.KILLED
        if self.ended:
            return Way.QUIT if self.asked else Way.ENDED
        return Way.VERIFIED


# Events.


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Every stream took the poison."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Envoy refused the poison: the old certificate still serves."""

    reason: str


@dataclass(frozen=True, slots=True)
class Settled:
    """SETTLE has passed, since the acknowledgement or the last sweep of what has ended."""


@dataclass(frozen=True, slots=True)
class Unacknowledged:
    """The time that policy gives Envoy to acknowledge (`escalateAfter`) is over."""


@dataclass(frozen=True, slots=True)
class Unverified:
    """VERIFY_WITHIN is over."""


@dataclass(frozen=True, slots=True)
class SweepDone:
    """left: connections of earlier dumps that are still open."""

    number: int
    destroyed: int
    left: int


@dataclass(frozen=True, slots=True)
class QuitFailed:
    """Envoy cannot be asked, or has not gone in QUIT_GRACE."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Envoy's process has ended, and the kernel has closed what it held."""


@dataclass(frozen=True, slots=True)
class Undying:
    """DEATH_WITHIN is over."""


Event = Acknowledged | Rejected | Settled | Unacknowledged | Unverified | SweepDone | QuitFailed | Ended | Undying


# Commands.


@dataclass(frozen=True, slots=True)
class Sweep:
    number: int


@dataclass(frozen=True, slots=True)
class Quit:
    """Ask Envoy to quit, which ends its connections in an orderly way (`POST /quitquitquit`)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL for Envoy, through the pidfds that the measurer and we hold."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Send this event after so many seconds."""

    seconds: float
    event: Event


@dataclass(frozen=True, slots=True)
class Closed:
    """Verified: nothing new is accepted and nothing old is open."""

    destroyed: int
    way: Way


@dataclass(frozen=True, slots=True)
class Bounded:
    """New connections are refused, but nothing here can end open ones before their duration cap."""

    left: int


Command = Sweep | Quit | Kill | Wait | Closed | Bounded


@dataclass(frozen=True, slots=True)
class Outcome:
    closing: Closing
    commands: tuple[Command, ...] = ()


def climb(closing: Closing, event: Event) -> Outcome:
    """The next rung. Total: events after the end, or of an earlier closing's sweeps, change nothing."""
    if closing.finished:
        return Outcome(closing)
    match event:
        case SweepDone():
            return _swept(closing, event)
        case Ended():
            return Outcome(closing) if closing.ended else _sweep_again(replace(closing, ended=True))
        case Undying():
            return Outcome(closing) if closing.ended else _bounded(closing, max(closing.left, 1))
        case QuitFailed(reason):
            return Outcome(closing) if closing.killed or closing.ended else _kill(closing, reason)
        case Settled() if closing.ended:
            return _sweep_again(closing)
        case _ if closing.asked or closing.killed or closing.ended:
            # Envoy is on its way out: what it still says of the poison changes nothing.
            return Outcome(closing)
        case Acknowledged():
            return Outcome(replace(closing, acknowledged=True), (Wait(SETTLE, Settled()),))
        case Settled():
            swept = _sweep_again(closing)
            return Outcome(swept.closing, (*swept.commands, Wait(VERIFY_WITHIN, Unverified())))
        case Unacknowledged():
            return Outcome(closing) if closing.acknowledged else _escalate(closing, "not acknowledged in time")
        case Unverified():
            return _escalate(closing, "not verified in time")
        case Rejected(reason):
            return _escalate(closing, f"rejected: {reason}")


def _swept(closing: Closing, done: SweepDone) -> Outcome:
    if done.number < closing.first_sweep:
        return Outcome(closing)
    counted = replace(closing, destroyed=closing.destroyed + done.destroyed)
    last = done.number == closing.first_sweep + closing.sweeps - 1
    if not last or closing.sweeps == 1:
        # The first sweep cannot be the proof: Envoy may not have taken the poison yet.
        return Outcome(counted)
    counted = replace(counted, left=done.left)
    if closing.killed and not closing.ended:
        # That a signal was sent is no proof either.
        return Outcome(counted)
    if done.left == 0:
        return Outcome(replace(counted, finished=True), (Closed(counted.destroyed, counted.way),))
    if closing.ended:
        # What it had not yet sent when it ended, the kernel may still be sending.
        again = closing.sweeps < 2 * MOST_SWEEPS
        return Outcome(counted, (Wait(SETTLE, Settled()),)) if again else _bounded(counted, done.left)
    if closing.asked:
        return Outcome(counted)
    return _sweep_again(counted) if closing.sweeps < MOST_SWEEPS else _escalate(counted, f"{done.left} stay open")


def _sweep_again(closing: Closing) -> Outcome:
    number = closing.first_sweep + closing.sweeps
    return Outcome(replace(closing, sweeps=closing.sweeps + 1), (Sweep(number),))


def _escalate(closing: Closing, reason: str) -> Outcome:
    if not closing.quits:
        return _kill(closing, reason)
    late = Wait(QUIT_GRACE, QuitFailed(f"{reason}; asked to quit, it stayed"))
    return Outcome(replace(closing, asked=True), (Quit(reason), late))


def _kill(closing: Closing, reason: str) -> Outcome:
    number = closing.first_sweep + closing.sweeps
    dying = replace(closing, sweeps=closing.sweeps + 1, killed=True)
    return Outcome(dying, (Kill(number, reason), Wait(DEATH_WITHIN, Undying())))


def _bounded(closing: Closing, left: int) -> Outcome:
    return Outcome(replace(closing, finished=True), (Bounded(left),))
