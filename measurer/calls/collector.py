"""The collector of calls: events of the kernel's programs in, facts and observations of the layer out.

Who belongs to the workload those programs know by what the collector of processes has marked (processes/marks.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from attestation import calls
from attestation.calls import CallsMade, Watching
from attestation.channel import Calls, Observed
from attestation.coverage import CALLS, CollectorCoverage, Mechanism
from attestation.digests import Digest
from attestation.facts import (
    Actor,
    CallFact,
    CapabilityFact,
    CollectorFact,
    CollectorState,
    ProcessAspect,
    ProcessFact,
)
from attestation.layers import Layer, Method
from attestation.observation import Observation
from measurer.bpf.watch import ALL_OPERATIONS, CAPABLE, NO_OPERATION, STRICT, Event, Kind
from measurer.calls import uses
from measurer.calls.outside import Outside
from measurer.calls.tallying import Tallying
from measurer.channel import Channel, sealed
from measurer.clock import boottime
from measurer.connections import Connection, beginning
from measurer.loop import Loop
from measurer.programs import Joined, Programs

NAME = CALLS
LATENCY_MS = 5.0
_INTERVAL = 1.0
"""Seconds between two looks at what was counted, and for whether something was lost."""
_APART = 0.1
"""Seconds until what was told is told again, where no measurement forgets it."""
_LOOK, _WINDOW, _MEASUREMENT, _AGAIN = "calls looks", "calls window", "calls measurement", "calls told again"
_SETUP = "io_uring_setup"
_UNKNOWN = Actor(0)


class Watcher(Protocol):
    """Who measures the same workload by other means."""

    def part(self) -> Joined:
        """The workload's in the kernel's programs. Raises OSError where there are none."""

    def who(self, pid: int) -> str:
        """The executable of a pid that may be gone already; empty where nobody knows."""

    def connects(self, to: Connection, at: float, process: Actor) -> None:
        """A TCP connection begins."""

    def written(self, pid: int) -> None:
        """Somebody wrote into its memory."""

    def cover(self) -> None:
        """Our coverage changed."""


class CallsCollector:
    """Says nothing until it is ruled."""

    def __init__(self, loop: Loop, channel: Channel, programs: Programs, watcher: Watcher) -> None:
        self._loop, self._channel, self._programs, self._watcher = loop, channel, programs, watcher
        self._wanted: Calls | None = None
        self._events = 0
        self._full_began = 0.0
        self._early: dict[str, Actor] = {}
        """Calls that were waited for while nobody had said yet what may be called, and who was first."""
        self._forget()

    def _forget(self) -> None:
        """Nothing of this is of whoever is watched next."""
        self._joined: Joined | None = None
        self._tallying: Tallying | None = None
        self._refusal = ""
        self._allowed: tuple[frozenset[int] | None, int] = None, ALL_OPERATIONS
        self._uses: tuple[str, ...] | None = None
        self._seen: set[int] = set()
        self._operations = self._used = self._lost = 0
        self._outside = Outside()
        self._baseline: frozenset[str] | None = None
        self._told_uses: set[str] = set()
        self._sent: Digest = ""
        self._requests: list[tuple[float, bool]] = []

    @property
    def coverage(self) -> tuple[CollectorCoverage, ...]:
        """Empty where nobody asks for it."""
        if self._wanted is None:
            return ()
        details = [self._refusal] if self._refusal else [str(self._wanted.watching)]
        details += [f"{name}: {error.strerror}" for name, error in self._programs.refused.items()]
        running, latency = self._joined is not None and not self._refusal, LATENCY_MS
        if self._wanted.watching is Watching.SAMPLED:
            latency = (self._wanted.period - self._wanted.window) * 1000
            details.append(f"{self._wanted.window:g} s of each {self._wanted.period:g}")
        if self._wanted.watching is Watching.LEAN:
            details.append("no call as such")
        own = CollectorCoverage(NAME, Layer.SYSCALLS, Mechanism.BPF, latency, running, self._lost, "; ".join(details))
        return (own,)

    def rule(self, wanted: Calls | None) -> None:
        """From now on, as Scope has it."""
        before, self._wanted = self._wanted, wanted
        if wanted is None:
            self.close()
            return
        self._baseline = None if wanted.allowed is None else frozenset(wanted.allowed)
        self._judge_the_early()
        joins = self._joined is None
        if joins and not self._begin():
            return
        self._allow(wanted)
        self._allow_uses(wanted.capabilities)
        if joins or before is None or _looking(before) != _looking(wanted):
            self._loop.cancel(_WINDOW)
            self._look_at_calls(wanted.watching is not Watching.LEAN)
        if joins:
            self.measure(0.0, full=True)

    def close(self) -> None:
        """Watch no more."""
        for name in (_LOOK, _WINDOW, _MEASUREMENT, _AGAIN):
            self._loop.cancel(name)
        if self._joined is not None:
            self._joined.watched.allow(None, ALL_OPERATIONS)
            uses.watch(self._joined.watched, None)
            self._programs.ask(self._joined, None)
            self._joined.watched.turn()
        self._forget()

    def measure(self, not_before: float, full: bool) -> None:
        """Send an observation that begins at or after `not_before`.

        full: what was made outside of the baseline is forgotten first, for it has been told, and what of it is made
        again is told again.
        """
        if self._wanted is not None and self._joined is not None:
            self._requests.append((not_before, full))
            self._next()

    def waits(self, name: str, by: Callable[[], Actor]) -> bool:
        """A process is about to make this call, and stands still until it is answered. May it go on?"""
        if self._wanted is None or self._baseline is None:
            if name not in self._early:
                self._early[name] = by()
            return True
        self._seen |= calls.numbers((name,))[0]
        if name in self._baseline:
            return True
        self._tell_call(name, by(), refused=self._wanted.refuse)
        return not self._wanted.refuse

    def _judge_the_early(self) -> None:
        """What went on before anybody could say whether it may is told as soon as somebody can."""
        if self._baseline is None:
            return
        for name, by in self._early.items():
            self._seen |= calls.numbers((name,))[0]
            if name not in self._baseline:
                self._tell_call(name, by)
        self._early.clear()

    def _begin(self) -> bool:
        """False where the kernel takes none of our programs: the coverage says so."""
        try:
            joined = self._watcher.part()
            self._programs.ask(joined, self._take)
        except OSError as error:
            self._refusal = f"the kernel takes no programs of ours: {error.strerror}"
            return False
        self._joined, self._refusal, self._lost = joined, "", joined.watched.lost
        self._tallying = Tallying(joined.watched, boottime())
        self._look()
        return True

    def _allow(self, wanted: Calls) -> None:
        """A call is told against the new list as if none had been told before."""
        if self._joined is None:
            return
        allowed = (None, ALL_OPERATIONS) if wanted.allowed is None else calls.numbers(wanted.allowed)
        if allowed != self._allowed:
            self._allowed = allowed
            self._outside.allow(frozenset(wanted.allowed or ()))
            self._turn()
        self._joined.watched.allow(*allowed, kill=wanted.kill)

    def _allow_uses(self, allowed: tuple[str, ...] | None) -> None:
        if self._joined is None or allowed == self._uses:
            return
        self._uses = allowed
        self._turn()
        uses.watch(self._joined.watched, allowed)
        try:
            self._programs.want(self._joined, CAPABLE, allowed is not None)
        except OSError as error:
            self._die(f"{CAPABLE}: {error.strerror}")

    def _look_at_calls(self, now: bool) -> None:
        """Begin, or for SAMPLED take turns."""
        if self._joined is None or self._wanted is None or self._tallying is None:
            return
        try:
            self._programs.want(self._joined, STRICT, now)
        except OSError as error:
            self._die(f"{STRICT}: {error.strerror}")
            return
        self._tallying.looks(now, boottime())
        if self._wanted.watching is Watching.SAMPLED:
            seconds = self._wanted.window if now else self._wanted.period - self._wanted.window
            self._loop.after(_WINDOW, seconds, lambda: self._look_at_calls(not now))

    def _look(self) -> None:
        if self._joined is None or self._tallying is None:
            return
        self._look_for_losses()
        self._tallying.look(boottime())
        self._loop.look_after(_LOOK, _INTERVAL, self._look)

    # What the kernel tells.

    def _take(self, event: Event) -> None:
        if self._tallying is not None:
            self._tallying.heard()
        match event.kind:
            case Kind.CALL:
                self._tell_call(calls.named()(event.number), self._actor(event))
            case Kind.RING if event.number != NO_OPERATION:
                self._tell_call(calls.operation(event.number), self._actor(event))
            case Kind.RING:
                self._tell_ring(event)
            case Kind.WRITTEN:
                self._tell_written(event)
            case Kind.CONNECT:
                to = beginning(event.number, event.local, event.address, event.other, event.value)
                self._watcher.connects(to, boottime(), self._actor(event))
            case Kind.CAPABLE:
                call = calls.named()(event.other)
                for name in uses.names(1 << event.number):
                    self._tell_use(name, "" if call == calls.OTHER else call, self._actor(event))
            case _:
                pass  # of processes: the collector of those is told
        self._look_for_losses()

    def _tell_ring(self, event: Event) -> None:
        """A ring is made by a call, which is told already where calls are looked at."""
        self._seen.add(calls.here()[_SETUP])
        if self._wanted is not None and self._wanted.allowed is not None and _SETUP not in self._wanted.allowed:
            self._tell_call(_SETUP, self._actor(event))

    def _tell_call(self, name: str, by: Actor, *, refused: bool = False) -> None:
        at = boottime()
        if self._outside.is_news(name, by, at):
            self._events += 1
            self._channel.send(CallFact(at, name, by, refused=refused))
            if self._joined is None:  # nobody measures the layer, in full or otherwise
                self._loop.after(_AGAIN, _APART, self._outside.turn)

    def _tell_use(self, capability: str, call: str, by: Actor) -> None:
        if capability not in self._told_uses:
            self._told_uses.add(capability)
            self._events += 1
            self._channel.send(CapabilityFact(boottime(), capability, call, by))

    def _actor(self, event: Event) -> Actor:
        return Actor(event.pid, self._watcher.who(event.pid) or event.name)

    def _tell_written(self, event: Event) -> None:
        self._events += 1
        writer = f"{event.pid} {self._watcher.who(event.pid) or event.name}"
        target = Actor(event.other, self._watcher.who(event.other))
        self._channel.send(ProcessFact(boottime(), target, ProcessAspect.WRITTEN, "", writer))
        self._watcher.written(event.other)

    def _look_for_losses(self) -> None:
        """Whoever fills the ring, so that what comes next is not told, is told of, and so is what came next."""
        if self._joined is None:
            return
        lost = self._joined.watched.lost
        if lost == self._lost:
            return
        self._lost = lost
        self._take_in()
        numbers, operations = self._allowed
        if numbers is not None:
            for name in calls.names(self._seen - numbers, self._operations & ~operations):
                self._tell_call(name, _UNKNOWN)
        for name in uses.names(self._used):
            self._tell_use(name, "", _UNKNOWN)
        self._tell_state(CollectorState.OVERFLOWED, "the kernel had no room for events")

    def _tell_state(self, state: CollectorState, detail: str) -> None:
        self._channel.send(CollectorFact(boottime(), NAME, state, detail))
        self._watcher.cover()

    def _die(self, why: str) -> None:
        if not self._refusal:
            self._refusal = why
            self._tell_state(CollectorState.DEAD, why)

    # What it comes to.

    def _next(self) -> None:
        if not self._requests:
            return
        wait = max(each for each, _ in self._requests) - boottime()
        if wait > 0:
            self._loop.after(_MEASUREMENT, wait, self._next)
            return
        full = any(each for _, each in self._requests) or not self._sent
        self._requests.clear()
        self._observe(full)

    def _observe(self, full: bool) -> None:
        if self._tallying is None or self._wanted is None:
            return
        began = boottime()
        if full:
            self._turn()
            self._full_began = began
        else:
            self._take_in()
        used = None if self._uses is None else uses.names(self._used)
        made = CallsMade(self._wanted.watching, calls.names(self._seen, self._operations), used)
        body = calls.pack(made)
        digest = calls.digest(body)
        has_body, self._sent = digest != self._sent, digest
        method = Method.FULL if full else Method.INCREMENTAL
        tally = self._tallying.tally(made.calls, self._outside, began)
        observation = Observation(
            Layer.SYSCALLS, digest, method, began, self._full_began, len(self._seen), self._events, tally
        )
        self._channel.send(Observed(observation, has_body), sealed("syscalls layer", [body]) if has_body else None)

    def _turn(self) -> None:
        """Forget what is outside of the baseline, here and in the kernel."""
        if self._joined is None:
            return
        self._look_for_losses()
        self._take_in()
        self._seen |= self._joined.watched.turn()
        self._outside.turn()
        self._told_uses.clear()
        numbers, operations = self._allowed
        if numbers is not None:
            self._seen &= numbers
            self._operations &= operations
        self._used = 0

    def _take_in(self) -> None:
        if self._joined is not None:
            self._seen |= self._joined.watched.seen
            self._operations |= self._joined.watched.seen_operations
            self._used |= self._joined.watched.used


def _looking(wanted: Calls) -> Calls:
    """What of it decides when calls are looked at."""
    return replace(wanted, allowed=None, kill=False, capabilities=None)
