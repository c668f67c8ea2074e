"""The listeners of one workload: whoever waits there is named, told of where the baseline lacks the call, and answered.

What waits is answered whatever happens: by policy once there is one, and until then as if there were no filter. Nothing
is decided here: the collector of calls knows what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from attestation.coverage import NOTIFIED, CollectorCoverage, Mechanism
from attestation.errors import InvalidInput
from attestation.facts import Actor, CollectorFact, CollectorState
from attestation.layers import Layer
from measurer.channel import Channel
from measurer.clock import boottime
from measurer.loop import Loop
from measurer.seccomp.listener import Asked, Listener

LATENCY_MS = 10.0
MOST = 16
"""Listeners of one workload: one for the container, one for each execution that a runtime adds to it."""
_NONE = "nobody has handed over a listener"


class Judge(Protocol):
    """Who knows what may be called."""

    def waits(self, name: str, by: Callable[[], Actor]) -> bool:
        """May it go on? by: who it is, which takes a look to find out."""


class Notified:
    """who: the executable of a pid, if it is known. given_up: takes the descriptors of listeners that it lets go."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        judge: Judge,
        who: Callable[[int], str],
        changed: Callable[[], None],
        given_up: Callable[[int], None] = os.close,
    ) -> None:
        self._loop, self._channel, self._judge, self._who = loop, channel, judge, who
        self._changed, self._given_up = changed, given_up
        self._listeners: dict[int, Listener] = {}
        self._wanted = False
        self._why = _NONE

    @property
    def coverage(self) -> tuple[CollectorCoverage, ...]:
        """Empty where nobody asks for it."""
        if not self._wanted:
            return ()
        runs = bool(self._listeners)
        detail = "" if runs else self._why
        return (CollectorCoverage(NOTIFIED, Layer.SYSCALLS, Mechanism.SECCOMP, LATENCY_MS, runs, 0, detail),)

    def rule(self, *, wanted: bool) -> None:
        """Is one missed where there is none?"""
        self._wanted = wanted

    def take(self, descriptor: int) -> None:
        """Answer there from now on. The descriptor is ours then. Raises InvalidInput."""
        listener = Listener(descriptor)
        if len(self._listeners) >= MOST:
            listener.close()
            raise InvalidInput(f"more than {MOST} listeners", where="seccomp", mend="One a container is enough.")
        self._listeners[descriptor] = listener
        self._loop.watch(descriptor, lambda: self._answer(listener))
        self._answer(listener)
        self._changed()

    def close(self) -> None:
        """Answer no more. Whoever else holds a listener can go on with it."""
        for descriptor in self._listeners:
            self._loop.forget(descriptor)
            self._given_up(descriptor)
        self._listeners.clear()

    def _answer(self, listener: Listener) -> None:
        for asked in listener.asked():
            if self._judge.waits(asked.call, partial(self._asker, listener, asked)):
                listener.let_through(asked)
            else:
                listener.refuse(asked)
        if listener.over:
            self._lose(listener)

    def _asker(self, listener: Listener, asked: Asked) -> Actor:
        """Named while it stands still, so that the number is its own."""
        process = _process_of(asked.thread)
        executable = self._who(process)
        if not executable:
            with suppress(OSError):
                executable = str(Path(f"/proc/{process}/exe").readlink())
        return Actor(process, executable) if listener.still_waits(asked) else Actor(0)

    def _lose(self, listener: Listener) -> None:
        self._loop.forget(listener.descriptor)
        del self._listeners[listener.descriptor]
        listener.close()
        if not self._listeners:
            self._why = "nobody is left under the filter"
            if self._wanted:
                self._channel.send(CollectorFact(boottime(), NOTIFIED, CollectorState.DEAD, self._why))
        self._changed()


def _process_of(thread: int) -> int:
    """The process of a thread: itself where that is gone."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path(f"/proc/{thread}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Tgid:")).split()[1])
    return thread
