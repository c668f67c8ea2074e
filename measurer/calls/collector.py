"""The collector of calls: events of the kernel's programs in, facts and observations of the layer out.

Who belongs to the workload the kernel inherits from parent to child by itself; we mark whom we find otherwise, first of
all those that were there before us.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace

from attestation import calls
from attestation.calls import CallsMade, Watching
from attestation.channel import Calls, Observed
from attestation.coverage import CALLS, CollectorCoverage, Mechanism
from attestation.digests import Digest
from attestation.facts import Actor, CallFact, CollectorFact, CollectorState, ProcessAspect, ProcessFact
from attestation.layers import Layer, Method
from attestation.observation import Observation
from measurer.bpf.watch import ALL_OPERATIONS, NO_OPERATION, STRICT, Event, Kind
from measurer.calls.programs import Joined, Programs
from measurer.channel import Channel, sealed
from measurer.clock import boottime
from measurer.connections import Connection, beginning
from measurer.loop import Loop
from measurer.processes.held import Held
from measurer.processes.proc import listing

NAME = CALLS
LATENCY_MS = 5.0
_INTERVAL = 1.0
"""Seconds between two looks for who is not marked yet."""
_LOOK, _WINDOW, _MEASUREMENT = "calls members", "calls window", "calls measurement"
GONE = (errno.ESRCH, errno.ENOENT)
"""What marking a task comes to that has ended since it was opened."""
_PIDFD_THREAD = os.O_EXCL
"""pidfd_open(2), from Linux 6.9 on. Before that a thread goes by its process's first one."""


class CallsCollector:
    """Says nothing until it is ruled. members: the workload's processes. who: names the executable of a pid that may be
    gone already. touched: called with a process's pid and whose that is attached to it. moved: called when a process
    was put into another cgroup. connects: called with each TCP connection that begins. written: called with whose
    memory somebody wrote into. covered: our coverage changed.
    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        programs: Programs,
        members: Callable[[], list[Held]],
        who: Callable[[int], str],
        touched: Callable[[int, int], None],
        moved: Callable[[], None],
        connects: Callable[[Connection, float, Actor, int], None],
        written: Callable[[int], None],
        covered: Callable[[], None],
    ) -> None:
        self._loop, self._channel, self._programs = loop, channel, programs
        self._members, self._who = members, who
        self._touched, self._moved, self._connects, self._written = touched, moved, connects, written
        self._covered = covered
        self._wanted: Calls | None = None
        self._joined: Joined | None = None
        self._refusal = ""
        self._marked: set[Held] = set()
        self._numbers: frozenset[int] | None = None
        self._seen: set[int] = set()
        self._operations = 0
        self._lost = self._events = 0
        self._sent: Digest = ""
        self._full_began = 0.0
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
        joins = self._joined is None
        if joins and not self._begin():
            return
        self._allow(wanted)
        if joins or before is None or _looking(before) != _looking(wanted):
            self._loop.cancel(_WINDOW)
            self._look_at_calls(wanted.watching is not Watching.LEAN)
        if joins:
            self.measure(0.0, full=True)

    def close(self) -> None:
        """Watch no more. What belongs to the workload is nobody's for the kernel's programs then."""
        for name in (_LOOK, _WINDOW, _MEASUREMENT):
            self._loop.cancel(name)
        if self._joined is not None:
            self._programs.leave(self._joined)
        self._joined, self._sent = None, ""
        self._marked.clear()
        self._seen.clear()
        self._requests.clear()

    def came(self, process: Held) -> None:
        """It came in from outside, and runs what it came for: not to be looked for a second later."""
        if process not in self._marked:
            self._mark(process)

    def measure(self, not_before: float, full: bool) -> None:
        """Send an observation that begins at or after `not_before`.

        full: what was made outside of the baseline is forgotten first, for it has been told, and what of it is made
        again is told again.
        """
        if self._wanted is not None and self._joined is not None:
            self._requests.append((not_before, full))
            self._next()

    def _begin(self) -> bool:
        """False where the kernel takes none of our programs: the coverage says so."""
        try:
            self._joined = self._programs.join(self._loop, self._take)
        except OSError as error:
            self._refusal = f"the kernel takes no programs of ours: {error.strerror}"
            return False
        self._refusal = ""
        self._look_for_members()
        return True

    def _allow(self, wanted: Calls) -> None:
        """A call is told against the new list as if none had been told before."""
        if self._joined is None:
            return
        numbers, operations = (None, ALL_OPERATIONS) if wanted.allowed is None else calls.numbers(wanted.allowed)
        if numbers != self._numbers:
            self._numbers = numbers
            self._turn()
        self._joined.watched.allow(numbers, operations, kill=wanted.kill)

    def _look_at_calls(self, now: bool) -> None:
        """Begin, or for SAMPLED take turns."""
        if self._joined is None or self._wanted is None:
            return
        try:
            self._programs.look_at_calls(self._joined, now)
        except OSError as error:
            self._die(f"{STRICT}: {error.strerror}")
            return
        if self._wanted.watching is Watching.SAMPLED:
            seconds = self._wanted.window if now else self._wanted.period - self._wanted.window
            self._loop.after(_WINDOW, seconds, lambda: self._look_at_calls(not now))

    # Who belongs to it.

    def _look_for_members(self) -> None:
        """Those that the kernel cannot know by itself: it marks the children of whom it knows."""
        if self._joined is None:
            return
        held = self._members()
        for process in held:
            if process not in self._marked:
                self._mark(process)
        self._marked &= set(held)
        lost = self._joined.watched.lost
        if lost != self._lost:
            self._lost = lost
            self._tell_state(CollectorState.OVERFLOWED, "the kernel had no room for events")
        self._loop.after(_LOOK, _INTERVAL, self._look_for_members)

    def _mark(self, process: Held) -> None:
        """With all its threads: one that is made meanwhile has the mark of who made it."""
        if self._joined is None:
            return
        threads = process.read(lambda folder: [int(each) for each in listing(f"/proc/self/fd/{folder}/task")]) or []
        for thread in (process.pid, *threads):
            try:
                descriptor = os.pidfd_open(thread, _PIDFD_THREAD if thread != process.pid else 0)
            except OSError:
                continue  # it has ended, or this kernel opens none of a thread
            try:
                if process.stat() is not None:  # so that nobody else can have had its pid
                    self._joined.watched.mark(descriptor)
            except OSError as error:
                if error.errno not in GONE:
                    self._die(f"a process cannot be marked: {error.strerror}")
            finally:
                os.close(descriptor)
        self._marked.add(process)

    # What the kernel tells.

    def _take(self, event: Event) -> None:
        match event.kind:
            case Kind.CALL:
                self._tell_call(event, *calls.names([event.number], 0))
            case Kind.RING if event.number != NO_OPERATION:
                self._tell_call(event, calls.operation(event.number))
            case Kind.RING:
                self._tell_ring(event)
            case Kind.TRACED:
                self._touched(event.other, event.pid)
            case Kind.WRITTEN:
                self._tell_written(event)
            case Kind.CONNECT:
                to = beginning(event.number, event.local, event.address, event.other, event.value)
                self._connects(to, boottime(), self._actor(event), 0)
            case Kind.MOVED:
                self._moved()
            case Kind.UNKNOWN:
                self._tell_state(CollectorState.OVERFLOWED, "a process was made that the kernel could not mark")

    def _tell_ring(self, event: Event) -> None:
        """A ring is made by a call. Where calls are looked at, they are what is judged."""
        if self._wanted is not None and self._wanted.allowed is not None and _SETUP not in self._wanted.allowed:
            self._tell_call(event, _SETUP)

    def _tell_call(self, event: Event, name: str) -> None:
        self._events += 1
        self._channel.send(CallFact(boottime(), name, self._actor(event)))

    def _actor(self, event: Event) -> Actor:
        return Actor(event.pid, self._who(event.pid) or event.name)

    def _tell_written(self, event: Event) -> None:
        self._events += 1
        writer = f"{event.pid} {self._who(event.pid) or event.name}"
        target = Actor(event.other, self._who(event.other))
        self._channel.send(ProcessFact(boottime(), target, ProcessAspect.WRITTEN, "", writer))
        self._written(event.other)

    def _tell_state(self, state: CollectorState, detail: str) -> None:
        self._channel.send(CollectorFact(boottime(), NAME, state, detail))
        self._covered()

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
        if self._joined is None or self._wanted is None:
            return
        began = boottime()
        if full:
            self._turn()
            self._full_began = began
        else:
            self._take_in()
        body = calls.pack(CallsMade(self._wanted.watching, calls.names(self._seen, self._operations)))
        digest = calls.digest(body)
        has_body, self._sent = digest != self._sent, digest
        method = Method.FULL if full else Method.INCREMENTAL
        observation = Observation(
            Layer.SYSCALLS, digest, method, began, self._full_began, len(self._seen), self._events
        )
        self._channel.send(Observed(observation, has_body), sealed("syscalls layer", [body]) if has_body else None)

    def _turn(self) -> None:
        """Forget what is outside of the baseline, here and in the kernel."""
        if self._joined is None:
            return
        self._take_in()
        self._joined.watched.turn()
        if self._numbers is not None and self._wanted is not None:
            _, operations = calls.numbers(self._wanted.allowed or ())
            self._seen &= self._numbers
            self._operations &= operations

    def _take_in(self) -> None:
        if self._joined is not None:
            self._seen |= self._joined.watched.seen
            self._operations |= self._joined.watched.seen_operations


def _looking(wanted: Calls) -> Calls:
    """What of it decides when calls are looked at."""
    return replace(wanted, allowed=None, kill=False)


_SETUP = "io_uring_setup"
