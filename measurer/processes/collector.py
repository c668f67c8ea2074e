"""The collector of the processes layer: which kinds of process run, and whether what they may do drifts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from attestation import processes as layer
from attestation.channel import Observed
from attestation.coverage import CollectorCoverage, Mechanism
from attestation.digests import Digest
from attestation.errors import InvalidConfiguration
from attestation.facts import Actor, ProcessAspect, ProcessFact, Sighting, StdioFact
from attestation.layers import Layer, Method
from attestation.observation import Observation
from attestation.processes import ProcessKind
from measurer.channel import Channel, sealed
from measurer.clock import boottime, spent
from measurer.connections import Connections
from measurer.gate.gate import Gate
from measurer.loop import Loop
from measurer.mounts import Mounts
from measurer.processes.binaries import Binaries
from measurer.processes.drift import Drift
from measurer.processes.executions import Executions
from measurer.processes.held import Held
from measurer.processes.membership import Workload
from measurer.processes.proc import Look
from measurer.processes.sources import Sources
from measurer.processes.stdio import Stdio
from measurer.processes.wards import Wards
from measurer.programs import Joined
from measurer.scope import Pinned

NAME = "processes.rights"
_INTERVAL = 1.0
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_SLACK = 0.05
"""Seconds by which two clocks of one machine may be apart."""
_SHARE, _AROUND_SHARE = 200, 500
"""Looking for drift, and at who came in, takes at most one part in so many of the thread's time."""


class Processes:
    """Owns the workload's processes, the executions and the drift. covered: our coverage changed.

    shared: by a measurer that measures for others too.
    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        sources: Sources,
        pinned: Pinned,
        covered: Callable[[], None],
        *,
        shared: bool = False,
    ) -> None:
        self.suspected: Callable[[int], None] = lambda _: None
        """Called with the pid of a process that somebody attached to."""
        self._loop, self._channel, self._sources, self._pinned = loop, channel, sources, pinned
        cgroup = pinned.cgroup
        place = (cgroup.hierarchy, cgroup.path) if cgroup is not None else None
        self._workload: Workload[Held] = Workload(place, pinned.home, cgroup.inode if cgroup is not None else 0)
        self.binaries = Binaries(pinned.root)
        self._drift, self.wards = Drift(self._tell), Wards(self._tell, sources.marks.guard)
        self._stdio = Stdio(self.network, self._tell, covered)
        self.executions = Executions(
            loop,
            channel,
            sources,
            self._workload,
            self.binaries,
            self._drift,
            self._stdio,
            self.wards,
            pinned.root,
            covered,
        )
        self.executions.regrouped = self._look_into_cgroup
        self.gate = Gate(
            loop,
            channel,
            self.executions,
            apart=pinned.home is not None,
            path_of=self.binaries.path_of,
            changed=covered,
            settled=self._next,
        )
        self._events, self._began = 0, boottime()
        self._sent: Digest = ""
        self._full_began = 0.0
        self._requests: list[tuple[float, bool]] = []
        self._measuring = False
        self._interval = _INTERVAL
        self._shared = shared

    def start(self, table: Mounts) -> None:
        """Begin to watch, and keep looking for drift. Raises InvalidConfiguration where it is measured already."""
        self._first = first = Held(self._pinned.pid, self._sources.allowance)
        if not self.executions.start(first, self._pinned.root, table):
            first.close()
            raise InvalidConfiguration(
                "this workload is measured already, or is a part of one that is",
                where=f"process {self._pinned.pid}",
                mend="One sidecar a workload, with one connection to its measurer.",
            )
        self._look_into_cgroup()
        for member in list(self._workload.members.values()):
            self.executions.starts.began(member, self.executions.names.parent(member), Sighting.POLL)
        self._loop.look_after(NAME, self._interval, self._look_for_drift)

    def close(self) -> None:
        """Watch no more, and hold nothing up."""
        self.gate.close()
        self.executions.close()

    @property
    def coverage(self) -> tuple[CollectorCoverage, ...]:
        details = [self._sources.tells] if self._sources.tells else []
        details += ["by the measurer of the node"] if self._shared else []
        details += ["whose stdio are sockets may not be seen"] if self._stdio.blind else []
        own = CollectorCoverage(
            NAME,
            Layer.PROCESSES,
            Mechanism.PROC_CONNECTOR if self._sources.tells_users else Mechanism.POLL,
            self._interval * 1000,
            running=True,
            detail="; ".join(details),
        )
        return self.executions.coverage, own, *self.gate.coverage

    def network(self) -> Connections:
        """What is connected in the workload's network namespace; whoever asks closes it. Raises OSError."""
        return Connections(self._pinned.network, self._pinned.proc)

    @property
    def held(self) -> list[Held]:
        """Its processes now."""
        return [member.process for member in self._workload.members.values()]

    def found(self) -> dict[int, int]:
        """Looked for anew: pid -> start time, in clock ticks since boot."""
        self._refresh()
        self._sources.catch_up()
        return {process.pid: process.start_ticks for process in self.held}

    def owns(self, pid: int) -> bool:
        """Is this a process of the workload? By every fork that was heard of, wherever its parent has gone since.

        pid: of a process that a pidfd holds, so that it cannot be another's meanwhile.
        """
        known = pid in self._workload.members  # before its end is read: it may have asked and gone
        self._sources.catch_up()
        membership = self._sources.membership
        found = membership.executed(pid) or membership.descends(pid)
        return known or (found is not None and found.workload is self._workload)

    def whose(self, pid: int, by: float) -> tuple[bool | None, Actor | None]:
        """Was it one of the workload's that had this pid then (CLOCK_BOOTTIME seconds)? None where nobody can tell.

        Those that have ended are known for a while. A pid that was given out anew says nothing of who had it before.
        """
        self._sources.catch_up()
        member, names = self._workload.members.get(pid), self.executions.names
        if member is not None and 0 <= member.process.start_ticks * _TICK <= by + _SLACK:
            return True, Actor(pid, names.who(pid), names.parent(member))
        if names.lived(pid, by):
            return True, Actor(pid, names.ran_last(pid))
        return (False if self.executions.by_events and by >= self._began else None), None

    def joined(self) -> Joined:
        """Its part in the kernel's programs. Raises OSError where there are none."""
        return self._sources.marks.joined(self._workload)

    def measure(self, not_before: float, full: bool) -> None:
        """Send an observation that begins at or after `not_before`. full: hash every executable again."""
        self._requests.append((not_before, full))
        self._next()

    def _next(self) -> None:
        if self._measuring or not self._requests or self.gate.unsettled:
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
            self.binaries.forget()
            self.executions.starts.forget()
        self._refresh()
        kinds: set[ProcessKind] = set()
        for process in self.held:
            yield from process.read_slowly(self.binaries)
            found = process.look(self.binaries)
            if found is not None:
                kinds.add(found.kind)
                self._seen(process, found)
            self._tell_unreadable(process)
            yield
        self.executions.starts.afterwards(lambda: self._measured(kinds, began, full))

    def _measured(self, kinds: set[ProcessKind], began: float, full: bool) -> None:
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
            self._events + self.executions.events + self.executions.starts.events,
        )
        self._channel.send(Observed(observation, has_body), sealed("processes layer", [body]) if has_body else None)
        self._measuring = False
        self._next()

    def _seen(self, process: Held, found: Look) -> None:
        self._drift.compare(process, found.rights)
        self.executions.names.ran(found.pid, found.binary.path)
        if found.binary.loader_digest:
            self.executions.loaders.add(found.binary.loader_digest)

    def _tell_unreadable(self, process: Held) -> None:
        why = process.unreadable() if process.untold else ""
        if why:
            self._drift.unmeasured(process, why)

    def _refresh(self) -> None:
        """Events keep the membership; where there are none, and in a cgroup, looking does."""
        if not self.executions.by_events:
            self._sources.look_at_all()
        self._look_into_cgroup()
        self._drift.keep_only(set(self.held))
        self._stdio.keep_only(set(self.held))

    def _look_into_cgroup(self) -> None:
        """Whoever came into it by no event, and whoever left it, in which case they are followed."""
        cgroup = self._pinned.cgroup
        if cgroup is None:
            self._sources.look_around(_AROUND_SHARE, _INTERVAL / 2)
            return
        self._sources.catch_up()  # a child that was made in there has come from nowhere
        moved = self._sources.membership.look_into(self._workload, cgroup.pids())
        for member in moved.entered:
            self.executions.entered(member)
        for member in moved.left:
            self._drift.left(member.process)
        for pid in moved.strangers:
            self._tell_stranger(pid)

    def _tell_stranger(self, pid: int) -> None:
        member = self._sources.membership.of(pid)
        if member is not None:
            self._drift.unmeasured(member.process, "it came into the cgroup from another workload that is measured")

    def _look_for_drift(self) -> None:
        self._loop.begin(self._drift_round())

    def _drift_round(self) -> Iterator[None]:
        took = 0.0
        self.wards.look()
        self._look_into_cgroup()
        self.executions.starts.look_at_list(self._first)
        for process in self.held:
            begun = spent()
            self._drift.look(process)
            self._stdio.look(process)
            self._tell_unreadable(process)
            took += spent() - begun
            yield
        self._interval = max(_INTERVAL, took * _SHARE)
        self._loop.look_after(NAME, self._interval, self._look_for_drift)

    def _tell(self, fact: ProcessFact | StdioFact) -> None:
        self._events += 1
        self._channel.send(fact)
        if isinstance(fact, ProcessFact) and fact.aspect is ProcessAspect.TRACER and fact.after != "0":
            self.suspected(fact.process.pid)
