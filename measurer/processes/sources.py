"""What the kernel tells of all processes, read once and handed to whoever measures the workload in question.

Two sources together. The connector says who was made by whom, and that an exec took place; fanotify holds the file of
every execution open, so that a program which has run and ended is still hashed. The connector is read before the
files and once more after them: a fork is queued before its child can open anything, and an exit is applied after all
else, so membership is right for every file.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from errno import EIO
from functools import partial
from math import inf
from typing import Protocol

from attestation.facts import CollectorState
from attestation.means import Means
from measurer import kernel as k
from measurer.calls.programs import Programs
from measurer.clock import boottime, monotonic
from measurer.fencing import Fencing
from measurer.heartbeat import Heartbeat, Nameless
from measurer.loop import TURN, Loop
from measurer.processes.connector import Connector, Lost, ProcessEvent
from measurer.processes.held import Allowance, Held
from measurer.processes.membership import Member, Membership, Workload
from measurer.processes.openexec import ExecEvents, OpenExec
from measurer.processes.proc import stat_of
from measurer.scope import all_pids

_CATCH_UP = 0.25
_NAMES, _FILES = "process events", "executed files"


class Watcher(Protocol):
    """Who measures one workload. loop: whatever is called here is a part of."""

    loop: Loop
    workload: Workload[Held]

    def forked(self, parent: int, member: Member[Held]) -> None: ...

    def opened(self, member: Member[Held], descriptor: int) -> None:
        """The file of an execution, whose descriptor is the watcher's from now on."""

    def confirmed(self, member: Member[Held]) -> None:
        """An execution took place."""

    def entered(self, member: Member[Held]) -> None:
        """It came in from outside, by no event."""

    def changed(self, member: Member[Held], tracer: int, thread: int) -> None:
        """tracer: who attached to it; 0 where something else of it changed. thread: whose."""

    def ended(self, member: Member[Held]) -> None: ...

    def attached(self, pid: int, tracer: int) -> None:
        """To a process that belongs to no workload."""

    def overflowed(self, detail: str) -> None: ...

    def paced(self, state: CollectorState, detail: str) -> None:
        """It lags, or has caught up."""

    def died(self, error: OSError) -> None: ...


class Sources:
    """One for all workloads that a measurer has. loop: what the reading of events is a part of. many: there may be
    several of them.
    """

    def __init__(self, loop: Loop, allowance: Allowance | None = None, *, many: bool = False) -> None:
        self._loop = loop
        self.programs = Programs(loop, many=many)
        self.fencing = Fencing(loop, many=many)
        self.allowance = Allowance() if allowance is None else allowance
        self.membership: Membership[Held] = Membership(lambda pid, at: Held(pid, self.allowance, at))
        self.tried: dict[Means, int] = {}
        """The errno of each of the two sources, 0 for one that there is."""
        self.refusals: tuple[str, ...] = ()
        """Which of the two sources there is not, and why."""
        self._own = os.getpid()
        self._connector: Connector | None = None
        self._files: ExecEvents | None = None
        self._watchers: dict[Workload[Held], Watcher] = {}
        self._executed: dict[Member[Held], None] = {}
        self._ended: list[int] = []
        self._to_do: deque[Callable[[], None]] = deque()
        """What is to be told by now, in order: each is taken out before it is begun, so that one of them that hangs for
        ever (relief.py) takes nobody else's along."""
        self._looked = self._look_took = 0.0
        self._heartbeats: dict[str, Heartbeat] = {}
        self._probe: Nameless | None = None

    @property
    def hears(self) -> bool:
        """Of every fork, execution and end."""
        return self._connector is not None

    @property
    def files(self) -> ExecEvents | None:
        return self._files

    def join(self, watcher: Watcher) -> None:
        """Tell it of its workload from now on."""
        if not self._watchers:
            self._subscribe()
        self._watchers[watcher.workload] = watcher

    def leave(self, watcher: Watcher) -> None:
        """Tell it nothing any more. The last one takes the subscriptions along."""
        if self._watchers.pop(watcher.workload, None) is not None and not self._watchers:
            self._unsubscribe()
        self.membership.end(watcher.workload)

    def look_at_all(self) -> None:
        """Read the whole process table, because events are missing."""
        self.membership.look_at_all({pid: stat for pid in all_pids() if (stat := stat_of(pid))})

    def look_around(self, share: int, least: float = 0.0) -> None:
        """Who came into a container without executing anything, for all workloads at once.

        Nothing is looked at sooner after the last time than `least` seconds, or `share` times what that took.
        """
        begun = monotonic()
        if not self.membership.has_homes or begun - self._looked < max(least, self._look_took * share):
            return
        self.catch_up()  # a child that was made in there has come from nowhere
        for member in self.membership.look_around(all_pids()):
            self._tell_entered(member)
        self._looked, self._look_took = begun, monotonic() - begun

    def _tell_entered(self, member: Member[Held]) -> None:
        self._tell(member, lambda watcher: watcher.entered(member))

    def catch_up(self) -> None:
        """Take in who was made until now, and what became of them later."""
        self._drain(_CATCH_UP)

    def read(self) -> None:
        """Forks, then files, then confirmations, then ends: see the module's own words."""
        executed, ended = self._executed, self._ended
        opened: list[OpenExec] = []
        try:
            if not self._drain():
                return  # other descriptors have their turn; what is left comes again
            self._executed, self._ended = {}, []
            opened = list(self._opened())
            if opened:  # a process can have forked and opened between the two readings: its fork is there by now
                self._drain(inf)
        except OSError as error:
            self._die(error)
        self._to_do.extend(partial(self._hand_over, each) for each in opened)
        self._to_do.extend(partial(self._confirm, member) for member in executed)
        self._to_do.extend(partial(self._end, pid) for pid in ended)
        try:
            self._do_all()
        except OSError as error:
            self._die(error)
            self._do_all()
        if self._executed or self._ended:
            self._loop.after("deferred executions", 0.0, self.read)

    def resume(self) -> None:
        """What was to be told, and was left when one of those who were told did not come back."""
        self._do_all()
        self._loop.after("deferred executions", 0.0, self.read)

    def _do_all(self, more: Iterable[Callable[[], None]] = ()) -> None:
        self._to_do.extend(more)
        while self._to_do:
            self._to_do.popleft()()

    def _confirm(self, member: Member[Held]) -> None:
        self._tell(member, lambda watcher: watcher.confirmed(member))

    def _end(self, pid: int) -> None:
        gone = self.membership.ended(pid)
        if gone is not None:
            self._tell(gone, lambda watcher: watcher.ended(gone))

    def _tell(self, member: Member[Held], what: Callable[[Watcher], None]) -> None:
        watcher = self._watchers.get(member.workload)
        if watcher is not None:
            watcher.loop.within(what, watcher)

    def _tell_all(self, what: Callable[[Watcher], None]) -> None:
        self._do_all(partial(watcher.loop.within, what, watcher) for watcher in self._watchers.values())

    def _subscribe(self) -> None:
        refused = []
        self.tried = dict.fromkeys((Means.PROCESS_EVENTS, Means.EXECUTED_FILES), 0)
        try:
            self._connector = Connector()
            self._loop.watch(self._connector.descriptor, self.read)
        except OSError as error:
            refused.append(f"process connector: {error.strerror}")
            self.tried[Means.PROCESS_EVENTS] = error.errno or EIO
        try:
            self._files = ExecEvents()
            self._loop.watch(self._files.descriptor, self.read)
        except OSError as error:
            refused.append(f"fanotify: {error.strerror}")
            self.tried[Means.EXECUTED_FILES] = error.errno or EIO
        self.refusals = tuple(refused)
        self._begin_heartbeats()

    def _begin_heartbeats(self) -> None:
        def tell(state: CollectorState, detail: str) -> None:
            self._tell_all(lambda watcher: watcher.paced(state, detail))

        if self._connector is not None:
            self._heartbeats[_NAMES] = Heartbeat(self._loop, _NAMES, k.keep_name, tell)
        if self._files is None:
            return
        try:
            self._probe = Nameless()
            self._files.hear(self._probe.descriptor)
        except OSError:  # nowhere to make a folder, or on a file system that takes no mark
            return
        self._heartbeats[_FILES] = Heartbeat(self._loop, _FILES, self._probe.open, tell)

    def _end_heartbeats(self) -> None:
        for heartbeat in self._heartbeats.values():
            heartbeat.close()
        self._heartbeats.clear()
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _heard(self, which: str) -> None:
        if which in self._heartbeats:
            self._heartbeats[which].heard()

    def _unsubscribe(self) -> None:
        for source in (self._connector, self._files):
            if source is not None:
                self._loop.forget(source.descriptor)
                source.close()
        self._end_heartbeats()
        self._connector = self._files = None
        self._executed, self._ended = {}, []
        self._loop.cancel("deferred executions")

    def _drain(self, seconds: float = TURN) -> bool:
        """Take what the connector has, for so long. False where there may be more."""
        if self._connector is None:
            return True
        now = monotonic()
        asleep = boottime() - now  # the kernel stamps events with CLOCK_MONOTONIC
        try:
            for event in self._connector.read():
                self._take(event, event.at + asleep)
                if monotonic() - now > seconds:
                    return False
        except Lost:
            self._overflow("the connector's buffer ran over; the process table is read again")
        return True

    def _take(self, event: ProcessEvent, at: float) -> None:
        if event.what == k.PROC_EVENT_FORK:
            if event.other == event.other_thread:
                self._forked(event.pid, event.other, at)
        elif event.what == k.PROC_EVENT_EXIT:
            if event.pid == event.thread:
                self.membership.exits(event.pid)
                self._ended.append(event.pid)
        elif event.what == k.PROC_EVENT_EXEC:
            member = self.membership.executed(event.pid, at)
            if member is not None:
                self._executed[member] = None
        elif event.what == k.PROC_EVENT_COMM:
            if event.pid == self._own:
                self._heard(_NAMES)
        elif event.what == k.PROC_EVENT_SID:
            self.membership.began_session(event.pid)
        else:
            self._changed(event.pid, event.thread, event.other if event.what == k.PROC_EVENT_PTRACE else 0)

    def _forked(self, parent: int, child: int, at: float) -> None:
        member = self.membership.forked(parent, child, at)
        if member is not None:
            self._tell(member, lambda watcher: watcher.forked(parent, member))

    def _changed(self, pid: int, thread: int, tracer: int) -> None:
        member = self.membership.of(pid)
        if member is not None:
            self._tell(member, lambda watcher: watcher.changed(member, tracer, thread))
        elif tracer:
            self._tell_all(lambda watcher: watcher.attached(pid, tracer))

    def _opened(self) -> Iterator[OpenExec]:
        for each in self._files.read() if self._files is not None else ():
            if each.lost:
                self._overflow("fanotify's queue ran over; the process table is read again")
            else:
                yield each

    def _hand_over(self, opened: OpenExec) -> None:
        if opened.pid == self._own:  # we execute nothing: it is our folder
            os.close(opened.descriptor)
            self._heard(_FILES)
            return
        member = self.membership.executed(opened.pid)
        if member is None and not self.hears:
            member = self.membership.descends(opened.pid)
        watcher = self._watchers.get(member.workload) if member is not None else None
        if member is None or watcher is None or watcher.loop.closed:
            os.close(opened.descriptor)
        else:
            watcher.loop.within(watcher.opened, member, opened.descriptor)

    def _overflow(self, detail: str) -> None:
        for which in self._heartbeats:
            self._heard(which)
        self.look_at_all()
        self._tell_all(lambda watcher: watcher.overflowed(detail))

    def _die(self, error: OSError) -> None:
        for source in (self._connector, self._files):
            if source is not None:
                self._loop.forget(source.descriptor)
        self._end_heartbeats()
        self._tell_all(lambda watcher: watcher.died(error))
