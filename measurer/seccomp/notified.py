"""The listeners of one workload: whoever waits there is named, told of where the baseline lacks the call, and answered.

What waits is answered whatever happens: by policy once there is one, and until then as if there were no filter. Nothing
is decided here: the collector of calls knows what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from attestation.coverage import NOTIFIED, CollectorCoverage, Mechanism
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


@dataclass(frozen=True, slots=True)
class _Taken:
    """As `take` has it."""

    listener: Listener
    first: bool
    given_up: Callable[[int], None]


class Notified:
    """who: the executable of a pid, if it is known. changed: coverage did."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        judge: Judge,
        who: Callable[[int], str],
        changed: Callable[[], None],
    ) -> None:
        self._loop, self._channel, self._judge, self._who = loop, channel, judge, who
        self._changed = changed
        self._taken: list[_Taken] = []
        self._wanted = False
        self._why = _NONE

    @property
    def coverage(self) -> tuple[CollectorCoverage, ...]:
        """Empty where nobody asks for it."""
        if not self._wanted:
            return ()
        runs = self._asks
        detail = "" if runs else self._why
        return (CollectorCoverage(NOTIFIED, Layer.SYSCALLS, Mechanism.SECCOMP, LATENCY_MS, runs, 0, detail),)

    def rule(self, *, wanted: bool) -> None:
        """Is one missed where there is none?"""
        self._wanted = wanted

    def take(self, descriptor: int, *, first: bool = True, given_up: Callable[[int], None] = os.close) -> bool:
        """Answer there from now on. The descriptor is ours then. False where we have too many: it is closed.

        first: the workload's first process is under its filter, and not only what a runtime has added. given_up: takes
        the descriptor once we let it go. Raises InvalidInput.
        """
        listener = Listener(descriptor)
        if len(self._taken) >= MOST:
            listener.close()
            return False
        taken = _Taken(listener, first, given_up)
        self._taken.append(taken)
        self._loop.watch(descriptor, lambda: self._answer(taken))
        self._answer(taken)
        self._changed()
        return True

    def close(self) -> None:
        """Answer no more. Whoever else holds a listener can go on with it."""
        for each in self._taken:
            self._loop.forget(each.listener.descriptor)
            each.given_up(each.listener.descriptor)
        self._taken.clear()

    @property
    def _asks(self) -> bool:
        """The filter that the workload itself is under does."""
        return any(each.first for each in self._taken)

    def _answer(self, taken: _Taken) -> None:
        for asked in taken.listener.asked():
            self._answer_one(taken.listener, asked)
        if taken.listener.over:
            self._lose(taken)

    def _answer_one(self, listener: Listener, asked: Asked) -> None:
        """The kernel offers it to nobody again: whatever becomes of us, it is answered."""
        try:
            goes_on = self._judge.waits(asked.call, partial(self._asker, listener, asked))
        except BaseException:  # it goes on up; the caller, whom nobody else can answer, is not left standing
            listener.refuse(asked)
            raise
        if goes_on:
            listener.let_through(asked)
        else:
            listener.refuse(asked)

    def _asker(self, listener: Listener, asked: Asked) -> Actor:
        """Named while it stands still, so that the number is its own."""
        process = _process_of(asked.thread)
        executable = self._who(process)
        if not executable:
            with suppress(OSError):
                executable = str(Path(f"/proc/{process}/exe").readlink())
        return Actor(process, executable) if listener.still_waits(asked) else Actor(0)

    def _lose(self, taken: _Taken) -> None:
        self._loop.forget(taken.listener.descriptor)
        self._taken.remove(taken)
        taken.listener.close()
        if taken.first and not self._asks:
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
