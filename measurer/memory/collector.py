"""The collector of the memory layer: looks into every process again and again, and at once into one that is suspected.

The moment of a look is drawn by chance, so that nobody can put something back before it. All looks together take at
most one part in `_SHARE` of the thread's time: where there is more to look at, the looks come less often, and coverage
says how often.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from random import SystemRandom

from attestation import memory as layer
from attestation.channel import Observed
from attestation.coverage import CollectorCoverage, Mechanism
from attestation.digests import Digest
from attestation.facts import Actor, MemoryFact
from attestation.layers import Layer, Method
from attestation.memory import Code, CodeKind
from attestation.observation import Observation
from measurer.channel import Channel, sealed
from measurer.clock import boottime
from measurer.loop import Loop
from measurer.memory.found import Told, together
from measurer.memory.look import Seen, looked
from measurer.memory.mapped import Mapped
from measurer.memory.pages import How
from measurer.processes.collector import Processes
from measurer.processes.held import Held
from measurer.processes.proc import executable_of

NAME = "memory"
_SHARE = 200
_SUSPICIOUS = (0.0, 0.02, 0.1, 0.4, 1.0, 3.0)
"""Seconds after a suspicion at which the process is looked into: whoever attaches does something next."""
_LOADED = 0.003
"""Seconds after an execution at which a loader has mapped what it was asked for."""
_YOUNG_SHARE = 50
"""Looks at what was just executed take one part in so many of the thread's time; of more, the latest are looked at."""
_MOST_YOUNG = 64
_DENIED_FOR = 1.0
"""Seconds for which a process may be closed to us, as one is that is just executing something."""


class Memory:
    """covered: our coverage changed. root: the workload's."""

    def __init__(
        self, loop: Loop, channel: Channel, processes: Processes, root: int, covered: Callable[[], None]
    ) -> None:
        self._loop, self._channel, self._processes, self._covered = loop, channel, processes, covered
        self._mapped = Mapped(processes.binaries, root)
        self._chance = SystemRandom()
        self._period, self._interval = 0.0, 0.0
        self._how = How.SCAN
        self._told = Told()
        self._events, self._spent, self._spent_before = 0, 0.0, 0.0
        self._denied: dict[Held, float] = {}
        self._suspected: dict[int, int] = {}
        self._sent: Digest = ""
        self._full_began = 0.0
        self._requests: list[tuple[float, bool]] = []
        self._looking = False
        self._young: deque[Held] = deque(maxlen=_MOST_YOUNG)
        self._young_not_before = 0.0
        processes.suspected, processes.executions.executed = self.suspect, self.executed

    @property
    def coverage(self) -> tuple[CollectorCoverage, ...]:
        """Nothing where nobody wants it measured."""
        if not self._period:
            return ()
        latency = self._interval * 1000
        own = CollectorCoverage(NAME, Layer.MEMORY, Mechanism.POLL, latency, running=True, detail=f"by {self._how}")
        return (own,)

    def rule(self, period: float) -> None:
        """The most seconds between two looks; 0 for none."""
        before, self._period = self._period, period
        if period == before:
            return
        self._loop.cancel(NAME)
        self._interval = period
        if period:
            self._loop.after(NAME, 0.0, self._look_again)
        self._covered()

    def of_root(self, root: int) -> None:
        """The workload's root is another one now."""
        self._mapped = Mapped(self._processes.binaries, root)

    def measure(self, not_before: float, full: bool) -> None:
        """Send an observation that begins at or after `not_before`. full: hash every mapped file again."""
        self._requests.append((not_before, full))
        self._next()

    def executed(self, process: Held) -> None:
        """Something new runs in it: look into it as soon as its loader is done, for it may end before the next look."""
        if self._period:
            self._young.append(process)
            wait = max(_LOADED, self._young_not_before - boottime())
            self._loop.after("memory of the young", wait, lambda: self._loop.begin(self._look_at_the_young()))

    def _look_at_the_young(self) -> Iterator[None]:
        began = time.thread_time()
        while self._young:
            yield from self._look_at(self._young.popleft())
            yield
        self._young_not_before = boottime() + (time.thread_time() - began) * _YOUNG_SHARE

    def suspect(self, pid: int) -> None:
        """Something was done to this process of the workload: look into it now, and again soon."""
        if self._period and pid not in self._suspected:
            self._suspected[pid] = 0
            self._look_at_suspect(pid)

    def _look_at_suspect(self, pid: int) -> None:
        process = next((each for each in self._processes.held if each.pid == pid), None)
        done = self._suspected[pid] = self._suspected[pid] + 1
        if process is not None:
            self._loop.begin(self._look_at(process))
        if process is None or done >= len(_SUSPICIOUS):
            del self._suspected[pid]
            return
        wait = _SUSPICIOUS[done] - _SUSPICIOUS[done - 1]
        self._loop.after(f"memory of {pid}", wait, lambda: self._look_at_suspect(pid))

    def _look_at(self, process: Held) -> Iterator[None]:
        began = boottime()
        seen = yield from looked(process, self._mapped)
        if seen is not None:
            self._tell(process, seen, self._code(process, seen, began))

    def _look_again(self) -> None:
        if not self._looking:
            self._begin(self._round())

    def _next(self) -> None:
        if self._looking or not self._requests:
            return
        wait = max(each for each, _ in self._requests) - boottime()
        if wait > 0:
            self._loop.after("memory measurement", wait, self._next)
            return
        full = any(each for _, each in self._requests) or not self._sent
        self._requests.clear()
        self._begin(self._measure(full))

    def _begin(self, work: Iterator[None]) -> None:
        self._looking = True
        self._loop.cancel(NAME)
        self._loop.begin(work)

    def _measure(self, full: bool) -> Iterator[None]:
        began = boottime()
        if full:
            self._processes.binaries.forget()
        code = yield from self._look_at_all()
        body = layer.pack(code)
        digest = layer.digest(body)
        has_body, self._sent = digest != self._sent, digest
        if full:
            self._full_began = began
        method = Method.FULL if full else Method.INCREMENTAL
        observation = Observation(Layer.MEMORY, digest, method, began, self._full_began, len(code), self._events)
        self._channel.send(Observed(observation, has_body), sealed("memory layer", [body]) if has_body else None)
        if not full:
            self._pace()
        self._over()

    def _round(self) -> Iterator[None]:
        yield from self._look_at_all()
        self._pace()
        self._over()

    def _over(self) -> None:
        self._looking = False
        if self._period:
            self._loop.after(NAME, self._interval * self._chance.uniform(0.5, 1.0), self._look_again)
        self._next()

    def _pace(self) -> None:
        """No look takes more than its share; in steps, so that coverage is not another after each.

        The dearer of two looks does not count: to hash what was never seen before takes what it takes, once.
        """
        usual, self._spent_before = min(self._spent, self._spent_before), self._spent
        interval = self._period
        while interval < usual * _SHARE:
            interval *= 2
        if interval != self._interval:
            self._interval = interval
            self._covered()

    def _look_at_all(self) -> Generator[None, None, frozenset[Code]]:
        found: set[Code] = set()
        self._spent = 0.0
        held = self._processes.held
        self._denied = {process: since for process, since in self._denied.items() if process in held}
        for process in held:
            began = boottime()
            seen = yield from self._timed(looked(process, self._mapped))
            if seen is None:
                continue
            code = self._code(process, seen, began)
            found |= code
            self._tell(process, seen, code)
            if seen.how is not self._how and not seen.refusal:
                self._how = seen.how
                self._covered()
            yield
        code = together(found)
        self._told.settle(code)
        return code

    def _timed(self, work: Generator[None, None, Seen | None]) -> Generator[None, None, Seen | None]:
        """What it takes of the thread's time goes into what was spent."""
        while True:
            begun = time.thread_time()
            try:
                next(work)
            except StopIteration as end:
                seen: Seen | None = end.value
                return seen
            finally:
                self._spent += time.thread_time() - begun
            yield

    def _code(self, process: Held, seen: Seen, now: float) -> frozenset[Code]:
        if not seen.refusal:
            self._denied.pop(process, None)
            return seen.code
        since = self._denied.setdefault(process, now)
        if now - since < _DENIED_FOR or not process.lives():
            return frozenset()
        return frozenset({Code(CodeKind.UNREAD, process.executable())})

    def _tell(self, process: Held, seen: Seen, code: frozenset[Code]) -> None:
        """Whoever is attached is asked for once something is to be told."""
        news = self._told.news(code)
        if not news:
            return
        rights = process.rights()
        tracer = f"{rights.tracer} {executable_of(rights.tracer)}".rstrip() if rights and rights.tracer else ""
        actor, inside, at = Actor(process.pid, process.executable()), process.pid_inside(), boottime()
        for each in news:
            self._events += 1
            self._channel.send(MemoryFact(at, actor, each, _why(each, seen), tracer, inside))


def _why(code: Code, seen: Seen) -> str:
    if code.kind is CodeKind.UNREAD:
        return seen.refusal
    if code.kind is CodeKind.PROBED:
        return "uprobes run in it" if seen.uprobes else "no uprobe has run in it"
    return ""
