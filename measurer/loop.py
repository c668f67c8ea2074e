"""One thread, one epoll: descriptors first, then what is due, then one slice of the long work.

Long work (walking and hashing trees) is a generator that yields between small steps. It gets a slice only when no
descriptor is ready, so a fact waits for one slice at most, never for a measurement.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable, Iterator

from measurer.clock import monotonic

SLICE = 0.001
"""Seconds of long work between two looks at the descriptors."""

Work = Iterator[None]


class Loop:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}
        self._work: deque[Work] = deque()
        self.stopped = False

    def watch(self, descriptor: int, ready: Callable[[], None], events: int = select.EPOLLIN) -> None:
        """Call `ready` whenever the descriptor has these events. Level-triggered: it must read what there is."""
        self._readers[descriptor] = ready
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Stop watching; the descriptor stays open."""
        if self._readers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def after(self, name: str, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` once in so many seconds. One appointment a name: the earlier of two stays."""
        when = monotonic() + seconds
        if name not in self._due or when < self._due[name][0]:
            self._due[name] = (when, act)

    def cancel(self, name: str) -> None:
        """Forget an appointment."""
        self._due.pop(name, None)

    def begin(self, work: Work) -> None:
        """Take up long work; several works get their slices in turn."""
        self._work.append(work)

    def run(self) -> None:
        """Turn until `stopped` is set."""
        while not self.stopped:
            for descriptor, _ in self._ready():
                ready = self._readers.get(descriptor)
                if ready is not None:
                    ready()
            self._do_due()
            self._do_slice()

    def close(self) -> None:
        self._epoll.close()

    def _ready(self) -> list[tuple[int, int]]:
        if self._work:
            return self._epoll.poll(0)
        if not self._due:
            return self._epoll.poll()
        wait = min(when for when, _ in self._due.values()) - monotonic()
        return self._epoll.poll(max(0.0, wait))

    def _do_due(self) -> None:
        if not self._due:
            return
        now = monotonic()
        for name in [name for name, (when, _) in self._due.items() if when <= now]:
            _, act = self._due.pop(name)
            act()

    def _do_slice(self) -> None:
        if not self._work:
            return
        end = monotonic() + SLICE
        work = self._work.popleft()
        for _ in work:
            if monotonic() >= end:
                self._work.append(work)
                return


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
