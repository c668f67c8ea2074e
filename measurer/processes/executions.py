"""The collector of executions: every program that a process of the workload starts, scripts and memfds included.

What the kernel tells comes by way of sources.py. An exec whose file fanotify did not show (a memfd, a file system that
takes no mark) is looked up in /proc, and when the process is gone by then reported without a name and a digest. Large
files are read in slices, and what comes after one of the same workload waits for it, in order.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from errno import EIO
from pathlib import Path

from attestation.coverage import EXECUTIONS, CollectorCoverage, Mechanism
from attestation.facts import Actor, CollectorFact, CollectorState, ExecutionFact, Sighting
from attestation.layers import Layer
from attestation.means import Means
from measurer import mounts
from measurer.channel import Channel
from measurer.clock import boottime, monotonic
from measurer.gate.gate import Gate
from measurer.loop import Loop
from measurer.mounts import Mounts
from measurer.processes import scripts
from measurer.processes.binaries import UNKNOWN, Binaries, Binary, Stamp
from measurer.processes.drift import Drift
from measurer.processes.held import Held
from measurer.processes.membership import Member, Workload
from measurer.processes.names import Names
from measurer.processes.openexec import ExecFiles
from measurer.processes.polling import Polling
from measurer.processes.sources import Sources
from measurer.processes.starts import Starts
from measurer.processes.stdio import Stdio
from measurer.processes.wards import Wards

NAME = EXECUTIONS
EVENT_LATENCY_MS = 5.0
_SETTLED = 2.0
"""Seconds in which a container engine that came into a container executes what it was asked for."""
_MOST_STAMPS, _MOST_WAITING = 32, 512


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file that a process has opened to execute it, and that is to be closed."""

    member: Member[Held]
    descriptor: int


@dataclass(frozen=True, slots=True)
class _Confirmed:
    """The kernel says that a process has executed something. nameless: to which no name leads, as the kernel knows."""

    member: Member[Held]
    nameless: bool


@dataclass(frozen=True, slots=True)
class _Ended:
    """A process has ended."""

    member: Member[Held]


class _Chain:
    """What one process has opened to execute since it was first heard of.

    last: the file whose interpreter or loader may be opened next. seen: stamps reported. due: executions of which
    the file is known but the kernel's confirmation is not. nameless: one of those files has no name.
    """

    __slots__ = ("due", "last", "nameless", "seen")

    def __init__(self) -> None:
        self.last: Binary | None = None
        self.seen: dict[Stamp, None] = {}
        self.due = 0
        self.nameless = False


class Executions:
    """root: the workload's first one. covered: our coverage changed."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        sources: Sources,
        workload: Workload[Held],
        binaries: Binaries,
        drift: Drift,
        stdio: Stdio,
        wards: Wards,
        root: int,
        covered: Callable[[], None],
    ) -> None:
        self.loop, self.workload = loop, workload
        self.executed: Callable[[Held], None] = lambda _: None
        """Called once it was told that this process has executed something."""
        self.regrouped: Callable[[], None] = lambda: None
        """Called when some process was put into another cgroup."""
        self._channel, self._sources, self._covered = channel, sources, covered
        self._binaries, self._drift, self._stdio, self._wards = binaries, drift, stdio, wards
        self._files: ExecFiles | None = None
        self._polling: Polling | None = None
        self._refusals: list[str] = []
        self.tried: dict[Means, int] = {}
        """The errno of each source that there could be, 0 for one that there is."""
        self._running, self._lost = True, 0
        self._newcomers: dict[Held, tuple[float, Member[Held], tuple[int, int] | None]] = {}
        self._waiting: deque[_Opened | _Confirmed | _Ended] = deque()
        self._chains: dict[int, _Chain] = {}
        self.names = Names(workload)
        self.starts = Starts(loop, channel, root, drift.unmeasured, self.overflowed, self.died)
        self.loaders: set[str] = set()
        self.events = 0

    def start(self, first: Held, root: int, table: Mounts) -> bool:
        """Watch, then look at the table once; poll it where watching is not enough.

        False where the workload is measured already, by this measurer.
        """
        self._sources.join(self)
        self._refusals += self._sources.refusals
        self.tried = dict(self._sources.tried)
        try:
            if self._sources.files is not None:
                self._files = ExecFiles(self._sources.files, root, table, tuple(mounts.here()))
        except OSError as error:
            self._refusals.append(f"fanotify: {error.strerror}")
            self.tried[Means.EXECUTED_FILES] = error.errno or EIO
        membership = self._sources.membership
        if membership.begin(self.workload, first) is None:
            return False
        self._sources.look_at_all()
        if membership.overlaps(self.workload):
            return False
        if not self.by_events:
            self._polling = Polling(self._sources, self.workload, self._binaries, self.entered)
            self._polling.first_look()
            self.loop.after(NAME, self._polling.interval, self._poll)
        return True

    def close(self) -> None:
        """Watch no more, and let go of all processes."""
        self._sources.leave(self)
        self.starts.close()
        if self._files is not None:
            for mountinfo in self._files.followed:
                self.loop.forget(mountinfo)
            self._files.close()
        for each in self._waiting:
            if isinstance(each, _Opened):
                os.close(each.descriptor)
        self._waiting.clear()

    @property
    def by_events(self) -> bool:
        return self._sources.hears

    @property
    def coverage(self) -> CollectorCoverage:
        mechanism, latency = Mechanism.BPF if self._sources.marks.there else Mechanism.PROC_CONNECTOR, EVENT_LATENCY_MS
        details = list(self._refusals)
        if self._polling is not None:
            mechanism = Mechanism.FANOTIFY if self._files else Mechanism.POLL
            latency = EVENT_LATENCY_MS if self._files else self._polling.interval * 1000
            details.append("a process that ends between two looks is not seen, nor what it leaves behind orphaned")
        if self.workload.place is not None and not (self._sources.marks.there and self.workload.group):
            details.append("a process that enters the cgroup from outside and ends within a second may be missed")
        if self.workload.home is not None:
            details.append("who enters the container and executes nothing is told after 3 s")
        if self._sources.allowance.refused:
            details.append(f"beyond {self._sources.allowance.most} processes held, start times tell them apart")
        if _hides_processes():
            details.append("processes of other users are hidden (hidepid)")
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
            self._binaries.grounds.forget()
            if (self._files.unmarked, self._files.whole) != before:
                self._covered()

    def gate(self, gate: Gate | None) -> bool:
        """Have it asked wherever an execution is seen. False where none is seen by its file."""
        if self._files is not None:
            self._files.gate(gate)
        return self._files is not None

    # What the kernel tells.

    def forked(self, parent: int, member: Member[Held]) -> None:
        self.names.forked(parent, member.process.pid)
        maker = self.workload.members.get(parent)
        if maker is not None:
            self._drift.forked(maker.process, member.process)

    def opened(self, member: Member[Held], descriptor: int) -> None:
        self._take(_Opened(member, descriptor))

    def confirmed(self, member: Member[Held], *, nameless: bool) -> None:
        self._take(_Confirmed(member, nameless))

    def ended(self, member: Member[Held]) -> None:
        self.names.ended(member.process.pid)
        self._take(_Ended(member))

    def changed(self, member: Member[Held], tracer: int, thread: int) -> None:
        if tracer:
            self._drift.traced(member.process, tracer)
        elif thread == member.process.pid:
            self._drift.look(member.process)
        else:
            self._drift.look_at_thread(member.process, thread)

    def moved(self) -> None:
        self.regrouped()

    def attached(self, pid: int, tracer: int) -> None:
        self._wards.attached(pid, tracer)

    def overflowed(self, detail: str) -> None:
        self._lost += 1
        self._channel.send(CollectorFact(boottime(), NAME, CollectorState.OVERFLOWED, detail))
        self._covered()

    def paced(self, state: CollectorState, detail: str) -> None:
        self._channel.send(CollectorFact(boottime(), NAME, state, detail))

    def died(self, error: OSError) -> None:
        if self._running:
            self._running = False
            self._refusals.append(f"stopped: {error.strerror}")
            self._channel.send(CollectorFact(boottime(), NAME, CollectorState.DEAD, self._refusals[-1]))
            self._covered()

    def _take(self, each: _Opened | _Confirmed | _Ended) -> None:
        """At once, unless something before it is still being read."""
        if self._waiting or not self._is_soon_done(each):
            self._wait(each)
        else:
            self._act(each)

    def _is_soon_done(self, each: _Opened | _Confirmed | _Ended) -> bool:
        if isinstance(each, _Opened):
            return self._binaries.reads_at_once(each.descriptor)
        return isinstance(each, _Ended) or each.member.process.runs_what_reads_at_once(self._binaries)

    def _wait(self, each: _Opened | _Confirmed | _Ended) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            if isinstance(each, _Opened):
                os.close(each.descriptor)
            self.overflowed("more executions than can be read in time")
            return
        self._waiting.append(each)
        if len(self._waiting) == 1:
            self.loop.begin(self._catch_up())

    def _catch_up(self) -> Iterator[None]:
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, _Opened):
                yield from self._binaries.read_slowly(first.descriptor)
            elif isinstance(first, _Confirmed):
                yield from first.member.process.read_slowly(self._binaries)
            self._waiting.popleft()
            self._act(first)
            yield

    def _act(self, each: _Opened | _Confirmed | _Ended) -> None:
        if isinstance(each, _Confirmed):
            self._confirm(each.member, each.nameless)
        elif isinstance(each, _Ended):
            self._chains.pop(each.member.process.pid, None)
            self._drift.forget(each.member.process)
        else:
            try:
                link = os.readlink(f"/proc/self/fd/{each.descriptor}")  # noqa: PTH115 - on the way of a fact
                self._open(each.member, self._binaries.of_open(each.descriptor, link))
            finally:
                os.close(each.descriptor)

    def _open(self, member: Member[Held], binary: Binary) -> None:
        chain = self._chains.setdefault(member.process.pid, _Chain())
        last, chain.last = chain.last, binary
        chain.nameless = chain.nameless or binary.deleted
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
        self._tell(member, binary, Sighting.EVENT)

    def _confirm(self, member: Member[Held], nameless: bool) -> None:
        """The kernel says that an execution took place: was its file among those opened?"""
        chain = self._chains.setdefault(member.process.pid, _Chain())
        due, chain.due = chain.due, 0
        opened, chain.nameless = chain.nameless, False
        running = member.process.binary(self._binaries)
        if running is None:
            chain.due = max(0, due - 1)
            if due == 0 or (nameless and not opened):  # a file that was opened and not run explains none that was
                self._tell(member, UNKNOWN, Sighting.EVENT)
            return
        self.names.ran(member.process.pid, running.path)
        if running.stamp not in chain.seen:
            self._follow(member.process)
            self._tell(member, running, Sighting.EVENT)
        self._drift.look(member.process)
        self._stdio.executed(member.process)
        self._began(member, running, chain)

    def _began(self, member: Member[Held], running: Binary, chain: _Chain) -> None:
        dynamic = bool(running.loader)
        if dynamic or scripts.asks(running.path):
            parent = self.names.parent(member)
            self.starts.began(member, parent, Sighting.EVENT, dynamic=dynamic, known=chain.seen)

    def _follow(self, process: Held) -> None:
        """It ran a file that was not marked: perhaps it has other mounts than its first process."""
        mountinfo = self._files.follow(process) if self._files is not None else -1
        if mountinfo >= 0:
            self.loop.watch(mountinfo, lambda: self._remark(mountinfo), select.EPOLLPRI)

    def _remark(self, mountinfo: int) -> None:
        if self._files is not None and not self._files.mark_again(mountinfo):
            self.loop.forget(mountinfo)
            os.close(mountinfo)

    def _poll(self) -> None:
        if self._polling is None:
            return
        for member, binary in self._polling.look():
            chain = self._chains.get(member.process.pid)
            if chain is None or binary.stamp not in chain.seen:  # else fanotify has told it
                self._tell(member, binary, Sighting.POLL)
            self._stdio.executed(member.process)
            self.starts.began(member, self.names.parent(member), Sighting.POLL, known=chain.seen if chain else ())
        self._chains = {pid: chain for pid, chain in self._chains.items() if pid in self.workload.members}
        self.loop.after(NAME, self._polling.interval, self._poll)

    def entered(self, member: Member[Held]) -> None:
        """It came into the cgroup or the container from outside, by no event.

        A container engine does so, and executes what it was asked for right after: told is who still runs then what
        it came with.
        """
        if member.process not in self._newcomers:
            self._newcomers[member.process] = (monotonic() + _SETTLED, member, member.process.image())
            self.loop.after("newcomers", _SETTLED, self._look_at_newcomers)

    def _look_at_newcomers(self) -> None:
        for process, (due, member, image) in list(self._newcomers.items()):
            if due > monotonic():
                self.loop.after("newcomers", due - monotonic(), self._look_at_newcomers)
                continue
            del self._newcomers[process]
            running = process.binary(self._binaries) if process.image() == image else None
            if running is not None:
                self._tell(member, running, Sighting.POLL)
                self.starts.began(member, self.names.parent(member), Sighting.POLL)

    def _tell(self, member: Member[Held], binary: Binary, sighting: Sighting) -> None:
        self.events += 1
        pid = member.process.pid
        actor = Actor(pid, self.names.before(member), self.names.parent(member))
        inside = member.process.pid_inside()
        temporary = binary.ground or ("" if binary.deleted else self._binaries.grounds.open_to_everybody(binary.path))
        told = (binary.path, binary.digest, actor, sighting, binary.deleted, inside, temporary, binary.gains)
        self._channel.send(ExecutionFact(boottime(), *told))
        if binary.path:
            self.names.ran(pid, binary.path)
        self.executed(member.process)


def _hides_processes() -> bool:
    """Is there no first process to be seen? (`hidepid` of proc(5))"""
    return not Path("/proc/1/stat").exists()
