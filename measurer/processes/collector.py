"""The collector of the processes layer: which kinds of process run, and whether what they may do drifts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attestation import processes as layer
from attestation.channel import Observed
from attestation.coverage import CollectorCoverage, Mechanism
from attestation.digests import Digest
from attestation.facts import ProcessFact
from attestation.layers import Layer, Method
from attestation.observation import Observation
from measurer.channel import Channel, sealed
from measurer.clock import boottime, monotonic
from measurer.loop import Loop
from measurer.processes.binaries import Binaries
from measurer.processes.drift import Drift
from measurer.processes.executions import Executions
from measurer.processes.proc import Look, look
from measurer.processes.tree import Members
from measurer.processes.wards import Wards
from measurer.scope import Pinned

NAME = "processes.rights"
_INTERVAL = 1.0
_SHARE = 500
"""Looking for drift takes at most one part in so many of the thread's time."""


class Processes:
    """Owns the membership, the executions and the drift of one workload. covered: our coverage changed."""

    def __init__(self, loop: Loop, channel: Channel, pinned: Pinned, covered: Callable[[], None]) -> None:
        self._loop, self._channel = loop, channel
        self._members, self._binaries = Members(pinned), Binaries(pinned.root)
        self._drift, self.wards = Drift(self._tell), Wards(self._tell)
        self.executions = Executions(loop, channel, self._members, self._binaries, self._drift, self.wards, covered)
        self._events = 0
        self._sent: Digest = ""
        self._full_began = 0.0
        self._requests: list[tuple[float, bool]] = []
        self._measuring = False
        self._interval = _INTERVAL

    def start(self, root: int, mountinfo: int) -> None:
        """Begin to watch, and keep looking for drift."""
        self.executions.start(root, mountinfo)
        self._loop.after(NAME, self._interval, self._look_for_drift)

    @property
    def coverage(self) -> tuple[CollectorCoverage, ...]:
        own = CollectorCoverage(
            NAME,
            Layer.PROCESSES,
            Mechanism.PROC_CONNECTOR if self.executions.by_events else Mechanism.POLL,
            self._interval * 1000,
            running=True,
            detail="users and tracers by event, the rest by looking" if self.executions.by_events else "",
        )
        return self.executions.coverage, own

    @property
    def pids(self) -> list[int]:
        return self._members.all()

    def found(self) -> dict[int, int]:
        """Looked for anew: pid -> start time, in clock ticks since boot."""
        return self._members.starts()

    def owns(self, pid: int) -> bool:
        """Is this a process of the workload? By every fork that was heard of, wherever its parent has gone since."""
        known = pid in self._members  # before its end is read: it may have asked and gone
        self.executions.read_events()
        return known or pid in self._members or self._members.descends(pid)

    def measure(self, not_before: float, full: bool) -> None:
        """Send an observation that begins at or after `not_before`. full: hash every executable again."""
        self._requests.append((not_before, full))
        self._next()

    def _next(self) -> None:
        if self._measuring or not self._requests:
            return
        wait = max(each for each, _ in self._requests) - boottime()
        if wait > 0:
            self._loop.after("processes measurement", wait, self._next)
            return
        full = any(each for _, each in self._requests) or not self._sent
        self._requests.clear()
        self._measuring = True
        self._loop.begin(self._measure(full))

    def _measure(self, full: bool) -> Iterator[None]:
        began = boottime()
        if full:
            self._binaries.forget()
        self._refresh()
        kinds = set()
        for pid in self._members.all():
            found = look(pid, self._binaries)
            if found is not None:
                kinds.add(found.kind)
                self._seen(found)
            yield
        body = layer.pack(kinds)
        digest = layer.digest(body)
        has_body, self._sent = digest != self._sent, digest
        if full:
            self._full_began = began
        observation = Observation(
            Layer.PROCESSES,
            digest,
            Method.FULL if full else Method.INCREMENTAL,
            began,
            self._full_began,
            len(kinds),
            self._events + self.executions.events,
        )
        self._channel.send(Observed(observation, has_body), sealed("processes layer", [body]) if has_body else None)
        self._measuring = False
        self._next()

    def _seen(self, found: Look) -> None:
        self._drift.seen(found)
        self.executions.remember(found.pid, found.binary.path)
        if found.binary.loader_digest:
            self.executions.loaders.add(found.binary.loader_digest)

    def _refresh(self) -> None:
        for pid in self._members.refresh():
            self._drift.left(pid)
        self._drift.keep_only(set(self._members.all()))

    def _look_for_drift(self) -> None:
        self._loop.begin(self._drift_round())

    def _drift_round(self) -> Iterator[None]:
        spent = 0.0
        self.wards.look()
        for pid in self._members.all():
            begun = monotonic()
            self._drift.look(pid)
            spent += monotonic() - begun
            yield
        self._interval = max(_INTERVAL, spent * _SHARE)
        self._loop.after(NAME, self._interval, self._look_for_drift)

    def _tell(self, fact: ProcessFact) -> None:
        self._events += 1
        self._channel.send(fact)
