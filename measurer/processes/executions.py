"""The collector of executions: every program that a process of the workload starts, scripts and memfds included.

Two kernel sources together. The connector says who belongs to the workload and that an exec took place; fanotify
holds the file of every execution open, so that a program which has run and ended is still hashed. The connector is
read before the files and once more after them: a fork is queued before its child can open anything, and an exit is
applied after all else, so membership is right for every file. An exec whose file fanotify did not show (a memfd, a
file system that takes no mark) is looked up in /proc, and when the process is gone by then reported without a name
and a digest.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from dataclasses import replace

from attestation.coverage import CollectorCoverage, Mechanism
from attestation.facts import Actor, CollectorFact, CollectorState, ExecutionFact, Sighting
from attestation.layers import Layer
from measurer import kernel as k
from measurer import mounts
from measurer.channel import Channel
from measurer.clock import boottime
from measurer.loop import Loop
from measurer.mounts import Mounts
from measurer.processes.binaries import UNKNOWN, Binaries, Binary, Stamp
from measurer.processes.connector import Connector, Lost, ProcessEvent
from measurer.processes.drift import Drift
from measurer.processes.openexec import ExecFiles, OpenExec
from measurer.processes.polling import Polling
from measurer.processes.proc import binary_of, executable_of, stat_of
from measurer.processes.tree import Members
from measurer.processes.wards import Wards

NAME = "processes.executions"
EVENT_LATENCY_MS = 5.0
_MOST_STAMPS, _MOST_NAMES = 32, 1024


class _Chain:
    """What one process has opened to execute since it was first heard of.

    last: the file whose interpreter or loader may be opened next. seen: stamps reported. due: executions of which
    the file is known but the kernel's confirmation is not.
    """

    __slots__ = ("due", "last", "seen")

    def __init__(self) -> None:
        self.last: Binary | None = None
        self.seen: dict[Stamp, None] = {}
        self.due = 0


class Executions:
    """covered: our coverage changed."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        members: Members,
        binaries: Binaries,
        drift: Drift,
        wards: Wards,
        covered: Callable[[], None],
    ) -> None:
        self._loop, self._channel, self._covered = loop, channel, covered
        self._members, self._binaries, self._drift, self._wards = members, binaries, drift, wards
        self._connector: Connector | None = None
        self._files: ExecFiles | None = None
        self._polling: Polling | None = None
        self._refusals: list[str] = []
        self._running, self._lost = True, 0
        self._chains: dict[int, _Chain] = {}
        self._names: dict[int, str] = {}
        self._parents: dict[int, int] = {}
        self._deferred: tuple[dict[int, None], list[int]] = ({}, [])
        self.loaders: set[str] = set()
        self.events = 0

    def start(self, root: int, table: Mounts) -> None:
        """Subscribe to what the kernel lets us, then look at the table once; poll it where that is not enough."""
        try:
            self._connector = Connector()
            self._loop.watch(self._connector.descriptor, self.read_events)
        except OSError as error:
            self._refusals.append(f"process connector: {error.strerror}")
        try:
            self._files = ExecFiles(root, table, tuple(mounts.here()))
            self._loop.watch(self._files.descriptor, self.read_events)
        except OSError as error:
            self._refusals.append(f"fanotify: {error.strerror}")
        self._members.refresh()
        if self._connector is None:
            self._polling = Polling(self._members, self._binaries)
            self._polling.first_look()
            self._loop.after(NAME, self._polling.interval, self._poll)

    @property
    def by_events(self) -> bool:
        return self._connector is not None

    @property
    def coverage(self) -> CollectorCoverage:
        mechanism, latency = Mechanism.PROC_CONNECTOR, EVENT_LATENCY_MS
        details = list(self._refusals)
        if self._polling is not None:
            mechanism = Mechanism.FANOTIFY if self._files else Mechanism.POLL
            latency = EVENT_LATENCY_MS if self._files else self._polling.interval * 1000
            details.append("a process that ends between two looks is not seen, nor what it leaves behind orphaned")
        if self._members.by_cgroup:
            details.append("a process that enters the cgroup from outside and ends within milliseconds may be missed")
        if self._files is not None:
            whole = ", ".join(self._files.whole)
            details.append(f"marked by mount, as a file system: {whole}" if whole else "marked by mount")
            if self._files.unmarked:
                details.append(f"not marked: {', '.join(self._files.unmarked)}")
        return CollectorCoverage(
            NAME, Layer.PROCESSES, mechanism, latency, self._running, self._lost, "; ".join(details)
        )

    def mounts_changed(self, root: int) -> None:
        """The workload has other mounts now: mark them too. root: its root folder."""
        if self._files is not None:
            before = self._files.unmarked, self._files.whole
            self._files.mark_mounts(root)
            if (self._files.unmarked, self._files.whole) != before:
                self._covered()

    def who(self, pid: int) -> str:
        """The executable of a pid, from memory when it is gone."""
        return executable_of(pid) or self._names.get(pid, "")

    def read_events(self) -> None:
        """Forks, then files, then confirmations, then ends: see the module's own words."""
        executed, ended = self._deferred
        self._deferred = ({}, [])
        try:
            self._drain(executed, ended)
            opened = list(self._files.read()) if self._files is not None else []
            if opened:  # a process can have forked and opened between the two readings: its fork is there by now
                self._drain(*self._deferred)
            for each in opened:
                self._open(each)
        except OSError as error:
            self._die(error)
        for pid in executed:
            self._confirm(pid)
        for pid in ended:
            self._members.ended(pid)
            if pid not in self._members:
                self._chains.pop(pid, None)
                self._drift.forget(pid)
        if any(self._deferred):
            self._loop.after("deferred executions", 0.0, self.read_events)

    def _drain(self, executed: dict[int, None], ended: list[int]) -> None:
        if self._connector is None:
            return
        try:
            for event in self._connector.read():
                self._take(event, executed, ended)
        except Lost:
            self._overflow("the connector's buffer ran over; the process table is read again")

    def _take(self, event: ProcessEvent, executed: dict[int, None], ended: list[int]) -> None:
        if event.what == k.PROC_EVENT_FORK:
            if event.other == event.other_thread and self._members.forked(event.pid, event.other):
                self._name(event.other, self._names.get(event.pid, ""))
                self._parents[event.other] = event.pid
                if len(self._parents) > _MOST_NAMES:
                    self._parents.pop(next(iter(self._parents)))
        elif event.what == k.PROC_EVENT_EXIT:
            if event.pid == event.thread and event.pid in self._members:
                ended.append(event.pid)
        elif event.what == k.PROC_EVENT_EXEC:
            if self._members.executed(event.pid):
                executed[event.pid] = None
        elif event.pid in self._members:
            if event.what == k.PROC_EVENT_PTRACE and event.other:
                self._drift.traced(event.pid, event.other)
            else:
                self._drift.look(event.pid)
        elif event.what == k.PROC_EVENT_PTRACE:
            self._wards.attached(event.pid, event.other)

    def _open(self, opened: OpenExec) -> None:
        if opened.lost:
            self._overflow("fanotify's queue ran over; the process table is read again")
            return
        try:
            if self._members.executed(opened.pid) or (self._connector is None and self._members.descends(opened.pid)):
                link = os.readlink(f"/proc/self/fd/{opened.descriptor}")  # noqa: PTH115 - on the way of a fact
                self._opened(opened.pid, self._binaries.of_open(opened.descriptor, link))
        finally:
            os.close(opened.descriptor)

    def _opened(self, pid: int, binary: Binary) -> None:
        chain = self._chains.setdefault(pid, _Chain())
        last, chain.last = chain.last, binary
        if last is not None and last.loader and binary.stamp == self._binaries.loader_stamp(last.loader):
            chain.last, binary = None, replace(binary, path=last.loader)
            if binary.digest in self.loaders:
                return  # the processes layer names it beside its program already
            self.loaders.add(binary.digest)
        elif (last is None or last.elf) and binary.digest not in self.loaders:
            chain.due += 1  # a loader opened by itself may be that of a memfd: it explains no execution
        chain.seen[binary.stamp] = None
        if len(chain.seen) > _MOST_STAMPS:
            chain.seen.pop(next(iter(chain.seen)))
        self._tell(pid, binary, Sighting.EVENT)

    def _confirm(self, pid: int) -> None:
        """The kernel says that an execution took place: was its file among those opened?"""
        chain = self._chains.setdefault(pid, _Chain())
        due, chain.due = chain.due, 0
        running = binary_of(pid, self._binaries)
        if running is None:
            chain.due = max(0, due - 1)
            if due == 0:
                self._tell(pid, UNKNOWN, Sighting.EVENT)
            return
        self._name(pid, running.path)
        if running.stamp not in chain.seen:
            self._follow(pid)
            self._tell(pid, running, Sighting.EVENT)
        self._drift.look(pid)

    def _follow(self, pid: int) -> None:
        """It ran a file that was not marked: perhaps it has other mounts than its first process."""
        mountinfo = self._files.follow(pid) if self._files is not None else -1
        if mountinfo >= 0:
            self._loop.watch(mountinfo, lambda: self._remark(mountinfo), select.EPOLLPRI)

    def _remark(self, mountinfo: int) -> None:
        if self._files is not None and not self._files.mark_again(mountinfo):
            self._loop.forget(mountinfo)
            os.close(mountinfo)

    def _poll(self) -> None:
        if self._polling is None:
            return
        for pid, binary in self._polling.look():
            self._tell(pid, binary, Sighting.POLL)
        self._loop.after(NAME, self._polling.interval, self._poll)

    def _tell(self, pid: int, binary: Binary, sighting: Sighting) -> None:
        self.events += 1
        before = self._names.get(pid) or executable_of(pid)
        actor = Actor(pid, before, self._parent(pid))
        self._channel.send(ExecutionFact(boottime(), binary.path, binary.digest, actor, sighting, binary.deleted))
        if binary.path:
            self._name(pid, binary.path)

    def _parent(self, pid: int) -> int:
        """Who forked it, from memory when it is gone; 0 where nobody knows."""
        known = self._parents.get(pid)
        if known is None:
            stat = stat_of(pid)
            return stat.parent if stat is not None else 0
        return known

    def remember(self, pid: int, path: str) -> None:
        """A look found this process running that file."""
        self._name(pid, path)

    def _name(self, pid: int, path: str) -> None:
        self._names.pop(pid, None)
        self._names[pid] = path
        if len(self._names) > _MOST_NAMES:
            self._names.pop(next(iter(self._names)))

    def _overflow(self, detail: str) -> None:
        self._lost += 1
        self._channel.send(CollectorFact(boottime(), NAME, CollectorState.OVERFLOWED, detail))
        self._members.refresh()
        self._covered()

    def _die(self, error: OSError) -> None:
        if self._running:
            self._running = False
            for source in (self._connector, self._files):
                if source is not None:
                    self._loop.forget(source.descriptor)
            self._refusals.append(f"stopped: {error.strerror}")
            self._channel.send(CollectorFact(boottime(), NAME, CollectorState.DEAD, self._refusals[-1]))
            self._covered()
