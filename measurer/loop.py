"""One thread, one epoll: descriptors first, then what is due, then one slice of the long work.

Long work (walking and hashing trees) is a generator that yields between small steps. It gets a slice only when no
descriptor is ready, so a fact waits for one slice at most, never for a measurement. Whoever takes part has a Loop of
their own: the slices go round among them, and what fails in one ends that one alone, where it says so.

What is looked at again and again is looked at together: to be woken, with nothing of ours in the processor's caches any
more, takes more than most looks themselves.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable, Generator, Iterator
from math import floor
from random import SystemRandom
from typing import ParamSpec

from measurer.clock import monotonic
from measurer.driver import Driver

SLICE = 0.001
"""Seconds of long work between two looks at the descriptors."""
TURN = 0.005
"""Seconds of reading events after which the other descriptors have their turn."""
TICK = 1.0
"""Seconds from one moment at which all look to the next."""

A = ParamSpec("A")
Work = Iterator[None]
Act = Callable[[], None]


class Reactor:
    """Turns until `stopped` is set."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Act] = {}
        self._due: dict[tuple[Loop, str], tuple[float, Act]] = {}
        self._busy: deque[Loop] = deque()
        self.stopped = False
        self.phase = SystemRandom().uniform(0.0, TICK)
        """Of the moments at which all look, which nobody can tell by a clock alone."""
        self.driver: Driver[Loop] | None = None
        """Of the thread that runs it, where another one may take its place (relief.py)."""

    def run(self) -> None:
        while not self.stopped:
            for descriptor, _ in self._ready():
                ready = self._readers.get(descriptor)
                if ready is not None:
                    ready()
            self._do_due()
            self._do_slice()

    def close(self) -> None:
        self._epoll.close()

    def watch(self, descriptor: int, ready: Act, events: int) -> None:
        self._readers[descriptor] = ready
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        if self._readers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def appoint(self, whose: Loop, name: str, when: float, act: Act) -> None:
        if (whose, name) not in self._due or when < self._due[whose, name][0]:
            self._due[whose, name] = (when, act)

    def cancel(self, whose: Loop, name: str) -> None:
        self._due.pop((whose, name), None)

    def cancel_all(self, whose: Loop) -> None:
        self._due = {key: due for key, due in self._due.items() if key[0] is not whose}
        if whose in self._busy:
            self._busy.remove(whose)

    def has_work(self, whose: Loop) -> None:
        if whose not in self._busy:
            self._busy.append(whose)

    def _ready(self) -> list[tuple[int, int]]:
        if self._busy:
            return self._epoll.poll(0)
        if not self._due:
            return self._epoll.poll()
        wait = min(when for when, _ in self._due.values()) - monotonic()
        return self._epoll.poll(max(0.0, wait))

    def _do_due(self) -> None:
        if not self._due:
            return
        now = monotonic()
        for key in [key for key, (when, _) in self._due.items() if when <= now]:
            appointment = self._due.pop(key, None)
            if appointment is not None:  # an earlier one of this turn may have cancelled it
                appointment[1]()

    def _do_slice(self) -> None:
        if self._busy:
            whose = self._busy.popleft()
            if whose.do_slice():
                self.has_work(whose)


class Loop:
    """A part of the turns. failed: called with what an act of this part raised, after which no more of its acts are
    called; without it, that ends the reactor."""

    def __init__(self, reactor: Reactor, failed: Callable[[Exception], None] | None = None) -> None:
        self._reactor, self._failed = reactor, failed
        self.hangs = False
        """A thread waits in an act of this part, and comes back, if ever, only to leave it."""
        self._when_back: Act | None = None
        self._descriptors: set[int] = set()
        self._work: deque[Work] = deque()
        self.closed = False

    def watch(self, descriptor: int, ready: Act, events: int = select.EPOLLIN) -> None:
        """Call `ready` whenever the descriptor has these events. Level-triggered: what it leaves comes again."""
        self._descriptors.add(descriptor)
        self._reactor.watch(descriptor, lambda: self.within(ready), events)

    def change(self, descriptor: int, events: int) -> None:
        self._reactor.change(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Stop watching; the descriptor stays open."""
        self._descriptors.discard(descriptor)
        self._reactor.forget(descriptor)

    def after(self, name: str, seconds: float, act: Act) -> None:
        """Call `act` once in so many seconds. One appointment a name: the earlier of two stays."""
        if not self.closed:
            self._reactor.appoint(self, name, monotonic() + seconds, lambda: self.within(act))

    def look_after(self, name: str, seconds: float, act: Act) -> None:
        """The same of what looks again and again: no later, and together with others if that can be."""
        if not self.closed:
            when = together(monotonic(), seconds, self._reactor.phase)
            self._reactor.appoint(self, name, when, lambda: self.within(act))

    def cancel(self, name: str) -> None:
        """Forget an appointment."""
        self._reactor.cancel(self, name)

    def begin(self, work: Work) -> None:
        """Take up long work; several works get their slices in turn."""
        if not self.closed:
            self._work.append(work)
            self._reactor.has_work(self)

    def within(self, act: Callable[A, None], *arguments: A.args, **named: A.kwargs) -> None:
        """Do it as a part of this, whoever calls."""
        if self.closed:
            return
        driver = self._reactor.driver
        token = driver.begin(self) if driver else None
        try:
            act(*arguments, **named)
        except Exception as error:
            if driver and token is not None:
                driver.end(token)
            if self._failed is None:
                raise
            self.fail(error)
        else:
            if driver and token is not None:
                driver.end(token)

    @property
    def fails_alone(self) -> bool:
        """What fails in it ends it, and not the reactor."""
        return self._failed is not None

    def fail(self, error: Exception) -> None:
        """It has failed, and is told so unless it is closed by now."""
        if not self.closed and self._failed is not None:
            self.close()
            self._failed(error)

    def once_back(self, act: Act) -> None:
        """Call `act` when no thread hangs in an act of this part: now, or later."""
        if self.hangs:
            self._when_back = act
        else:
            act()

    def comes_back(self) -> None:
        """No thread hangs in it any more."""
        self.hangs = False
        if self._when_back is not None:
            self._when_back()

    def do_slice(self) -> bool:
        """A slice of the work that has waited longest. True where there is more of any."""
        self.within(self._do_slice)
        return bool(self._work)

    def close(self) -> None:
        """No act of this part any more. What work holds open is closed."""
        self.closed = True
        for descriptor in list(self._descriptors):
            self.forget(descriptor)
        self._reactor.cancel_all(self)
        for work in self._work:
            if isinstance(work, Generator):
                work.close()
        self._work.clear()

    def _do_slice(self) -> None:
        end = monotonic() + SLICE
        work = self._work.popleft()
        for _ in work:
            if monotonic() >= end:
                if not self.closed:
                    self._work.append(work)
                return


def together(now: float, seconds: float, phase: float) -> float:
    """In so many seconds, or as much earlier as others look too: those whose periods are parts of a tick, or ticks."""
    step = min(seconds, TICK)
    if step <= 0 or TICK % step or seconds % step:
        return now + seconds
    moment = floor((now + seconds - phase) / step) * step + phase
    return moment if moment > now else moment + step


def drain(descriptor: int, size: int) -> Iterator[bytes]:
    """What a non-blocking descriptor has to read, one buffer after the other."""
    while True:
        try:
            buffer = os.read(descriptor, size)
        except BlockingIOError:
            return
        if not buffer:
            return
        yield buffer
