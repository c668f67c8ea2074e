"""What the kernel tells of all processes, read once and handed to whoever measures the workload in question.

Two sources together. One says who was made by whom, and that an exec took place: the kernel's programs (marks.py),
which tell that of workloads alone, else the connector, which tells it of everybody. fanotify holds the file of every
execution open, so that a program which has run and ended is still hashed. Who was made is read before the files and
once more after them: a fork is queued before its child can open anything, and an exit is applied after all else, so
membership is right for every file.

Beside the kernel's programs the connector is heard for what they lack. It is read first and told last: of whom it tells
then, the other one has told. fanotify tells of everybody who executes from the same mounts. Where such alone have come,
it is left to wait for a while: once one of ours has executed something, the programs say so.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from errno import EIO
from functools import partial
from math import inf
from typing import Protocol

from attestation.facts import CollectorState
from attestation.means import Means
from measurer import kernel as k
from measurer.clock import boottime, monotonic
from measurer.fencing import Fencing
from measurer.heartbeat import Heartbeat, Nameless
from measurer.loop import TURN, Loop
from measurer.processes.connector import BEAT, MOVED, Connector, Lost, ProcessEvent
from measurer.processes.held import Allowance, Held
from measurer.processes.marks import Marks
from measurer.processes.membership import Member, Membership, Workload
from measurer.processes.openexec import ExecEvents, OpenExec
from measurer.processes.proc import stat_of
from measurer.programs import Programs
from measurer.scope import all_pids

_CATCH_UP = 0.25
_OTHERS = 0.1
"""Seconds for which executed files wait, once those of others alone have come: so much later is told what one of ours
has opened to execute, and then did not."""
_REGROUPED = 0.02
"""Seconds from one look for who was put into another cgroup to the next, whoever does that how often."""
_NAMES, _MARKS, _FILES = "process events", "kernel programs", "executed files"


class Watcher(Protocol):
    """Who measures one workload. loop: whatever is called here is a part of."""

    loop: Loop
    workload: Workload[Held]

    def forked(self, parent: int, member: Member[Held]) -> None: ...

    def opened(self, member: Member[Held], descriptor: int) -> None:
        """The file of an execution, whose descriptor is the watcher's from now on."""

    def confirmed(self, member: Member[Held], *, nameless: bool) -> None:
        """An execution took place. nameless: to what was executed no name leads, as far as the kernel says."""

    def entered(self, member: Member[Held]) -> None:
        """It came in from outside, by no event."""

    def changed(self, member: Member[Held], tracer: int, thread: int) -> None:
        """tracer: who attached to it; 0 where something else of it changed. thread: whose."""

    def ended(self, member: Member[Held]) -> None: ...

    def moved(self) -> None:
        """A process was put into another cgroup, or into this one."""

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
        self.programs = Programs(many=many)
        self.fencing = Fencing(loop, many=many)
        self.allowance = Allowance() if allowance is None else allowance
        self.membership: Membership[Held] = Membership(
            lambda pid, at: Held(pid, self.allowance, at), lambda member: self.marks.found(member)
        )
        self.marks = Marks(self.programs, self.membership)
        self.tried: dict[Means, int] = {}
        """The errno of each source, 0 for one that there is."""
        self.refusals: tuple[str, ...] = ()
        """Which source there is not, and why."""
        self._own = os.getpid()
        self._connector: Connector | None = None
        self._files: ExecEvents | None = None
        self._watchers: dict[Workload[Held], Watcher] = {}
        self._executed: dict[Member[Held], bool] = {}
        self._ended: list[tuple[int, Member[Held] | None]] = []
        self._regrouped: dict[Workload[Held], None] = {}
        self._regroups_at = 0.0
        self._later: deque[tuple[ProcessEvent, float]] = deque()
        self._ran_over = False
        self._waits_for_files = True
        self._to_do: deque[Callable[[], None]] = deque()
        """What is to be told by now, in order: each is taken out before it is begun, so that one of them that hangs for
        ever (relief.py) takes nobody else's along."""
        self._looked = self._look_took = 0.0
        self._heartbeats: dict[str, Heartbeat] = {}
        self._probe: Nameless | None = None

    @property
    def hears(self) -> bool:
        """Of every fork, execution and end."""
        return self.marks.there or self._connector is not None

    @property
    def tells_users(self) -> bool:
        """Changes of user come by event."""
        return self._connector is not None

    @property
    def tells(self) -> str:
        """What comes by event of what a process may do and who watches it; empty for nothing."""
        if self.tells_users:
            return "users and tracers by event, the rest by looking"
        return "tracers that stop it or look into it by event, the rest by looking" if self.marks.there else ""

    @property
    def files(self) -> ExecEvents | None:
        return self._files

    def join(self, watcher: Watcher) -> None:
        """Tell it of its workload from now on."""
        if not self._watchers:
            self._subscribe()
        self._watchers[watcher.workload] = watcher
        if self.marks.there:
            self.marks.begin(watcher.workload, watcher.loop)

    def leave(self, watcher: Watcher) -> None:
        """Tell it nothing any more. The last one takes the subscriptions along."""
        self.membership.end(watcher.workload)
        self.marks.end(watcher.workload)
        if self._watchers.pop(watcher.workload, None) is not None and not self._watchers:
            self._unsubscribe()

    def look_at_all(self) -> None:
        """Read the whole process table, because events are missing or none have come yet."""
        if not self.marks.seek(self._look_at_all, self._take_in):
            self._ran_over = True

    def _look_at_all(self) -> None:
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
        self._have_the_rest_told()

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
        if self.marks.see_who_enters and opened and not any(map(self._concerns_us, opened)):
            self._let_files_wait()
        self._to_do.extend(partial(self._hand_over, each) for each in opened)
        self._to_do.extend(partial(self._confirm, member, nameless) for member, nameless in executed.items())
        self._to_do.extend(partial(self._end, *each) for each in ended)
        try:
            self._do_all()
        except OSError as error:
            self._die(error)
            self._do_all()
        self._have_the_rest_told()

    def _concerns_us(self, opened: OpenExec) -> bool:
        return opened.pid == self._own or self.membership.of(opened.pid) is not None

    def _let_files_wait(self) -> None:
        if self._files is not None and self._waits_for_files:
            self._waits_for_files = False
            self._loop.forget(self._files.descriptor)
            self._loop.after("executed files", _OTHERS, self._wait_for_files)

    def _wait_for_files(self) -> None:
        """Again."""
        if self._files is not None and not self._waits_for_files:
            self._waits_for_files = True
            self._loop.watch(self._files.descriptor, self.read)

    def _have_the_rest_told(self) -> None:
        """What was taken in and has to wait for its files, which may be no event any more."""
        if self._executed or self._ended:
            self._loop.after("deferred executions", 0.0, self.read)
        if self._regrouped:
            self._loop.after("regrouped", max(0.0, self._regroups_at - monotonic()), self._tell_moved)

    def resume(self) -> None:
        """What was to be told, and was left when one of those who were told did not come back."""
        self._do_all()
        self._loop.after("deferred executions", 0.0, self.read)

    def _do_all(self, more: Iterable[Callable[[], None]] = ()) -> None:
        self._to_do.extend(more)
        while self._to_do:
            self._to_do.popleft()()

    def _confirm(self, member: Member[Held], nameless: bool) -> None:
        self._tell(member, lambda watcher: watcher.confirmed(member, nameless=nameless))

    def _end(self, pid: int, surely: Member[Held] | None) -> None:
        """surely: the kernel itself says that this one has; else it is looked at."""
        if surely is not None:
            gone = surely if self.membership.has_ended(surely) else None
        else:
            gone = self.membership.ended(pid)
        if gone is not None:
            self._tell(gone, lambda watcher: watcher.ended(gone))

    def _tell_moved(self) -> None:
        regrouped, self._regrouped = self._regrouped, {}
        self._regroups_at = monotonic() + _REGROUPED
        told = [self._watchers[each] for each in regrouped if each in self._watchers]
        self._do_all(partial(watcher.loop.within, watcher.moved) for watcher in told)

    def _tell(self, member: Member[Held], what: Callable[[Watcher], None]) -> None:
        watcher = self._watchers.get(member.workload)
        if watcher is not None:
            watcher.loop.within(what, watcher)

    def _tell_all(self, what: Callable[[Watcher], None]) -> None:
        self._do_all(partial(watcher.loop.within, what, watcher) for watcher in self._watchers.values())

    def _subscribe(self) -> None:
        refused = []
        self.tried = dict.fromkeys((Means.KERNEL_PROGRAMS, Means.PROCESS_EVENTS, Means.EXECUTED_FILES), 0)
        try:
            self.programs.begin()
        except OSError as error:
            refused.append(f"programs in the kernel: {error.strerror}")
            self.tried[Means.KERNEL_PROGRAMS] = error.errno or EIO
        if self.programs.watch is not None:
            self._loop.watch(self.programs.watch.descriptor, self.read)
        try:
            self._connector = Connector(rarely=self.marks.there)
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

        if self.programs.watch is not None:
            self._guard_ourselves()
            self._heartbeats[_MARKS] = Heartbeat(self._loop, _MARKS, self.marks.beat, tell)
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

    def _guard_ourselves(self) -> None:
        own = os.pidfd_open(self._own)
        try:
            self.marks.guard(own)
        finally:
            os.close(own)

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
        if self.programs.watch is not None:
            self._loop.forget(self.programs.watch.descriptor)
            self.programs.end()
        self._end_heartbeats()
        self._connector = self._files = None
        self._executed, self._ended, self._regrouped = {}, [], {}
        self._later.clear()
        self._waits_for_files = True
        for name in ("deferred executions", "executed files", "regrouped"):
            self._loop.cancel(name)

    def _drain(self, seconds: float = TURN) -> bool:
        """Take what there is, for so long. False where there may be more."""
        whole = self._take_in(seconds)
        if self._ran_over:
            self._ran_over = False
            self._overflow("events ran over; the process table is read again", tuple(self._watchers))
        lost = self.marks.lost()
        if lost:
            self.marks.recall(all_pids())
            self._overflow("the kernel had no room for events; the process table is read again", lost)
        return whole

    def _take_in(self, seconds: float = inf) -> bool:
        """The same, whatever may be missing."""
        end = monotonic() + seconds
        try:
            for event, at in self._of_everybody():
                if self.marks.there:
                    self._later.append((event, at))
                else:
                    self._take(event, at)
                if monotonic() > end:
                    return False
            for event in self.marks.read(whole=seconds == inf):
                self._take(event, event.at)
                if monotonic() > end:
                    return False
        except Lost:
            self._ran_over = True
        while self._later:
            self._take(*self._later.popleft())
        return True

    def _of_everybody(self) -> Iterator[tuple[ProcessEvent, float]]:
        """The connector's events, each with when it was. Raises Lost."""
        asleep = boottime() - monotonic()  # the kernel stamps them with CLOCK_MONOTONIC
        for event in self._connector.read() if self._connector is not None else ():
            yield event, event.at + asleep

    def _take(self, event: ProcessEvent, at: float) -> None:
        if event.what == k.PROC_EVENT_FORK:
            if event.other == event.other_thread:
                self._forked(event, at)
        elif event.what == k.PROC_EVENT_EXIT:
            self._exits(event)
        elif event.what == k.PROC_EVENT_EXEC:
            self._executes(event, at)
        elif event.what == BEAT:
            self._heard(_MARKS)
        elif event.what == k.PROC_EVENT_COMM:
            if event.pid == self._own:
                self._heard(_NAMES)
        elif event.what == k.PROC_EVENT_SID:
            self.membership.began_session(event.pid)
        elif event.what == MOVED:
            self._moves(event)
        else:
            self._changed(event.pid, event.thread, event.other if event.what == k.PROC_EVENT_PTRACE else 0)

    def _forked(self, event: ProcessEvent, at: float) -> None:
        workload = self.marks.whose(event)
        if workload is not None:
            member: Member[Held] | None = self.membership.told(workload, event.other, event.pid, at)
        else:
            member = self.membership.forked(event.pid, event.other, at)
        if member is not None:
            made = member
            self._tell(made, lambda watcher: watcher.forked(event.pid, made))

    def _executes(self, event: ProcessEvent, at: float) -> None:
        workload = self.marks.whose(event)
        if workload is not None:
            member: Member[Held] | None = self.membership.told(workload, event.pid, at=at)
        else:
            member = self.membership.executed(event.pid, at)
        if member is not None:
            self._executed[member] = self._executed.get(member, False) or event.nameless

    def _moves(self, event: ProcessEvent) -> None:
        workload = self.marks.whose(event)
        if workload is None:
            return
        self._regrouped[workload] = None
        if event.pid and self.membership.of(event.pid) is None:
            member = self.membership.told(workload, event.pid)
            self._to_do.append(partial(self._tell_entered, member))

    def _exits(self, event: ProcessEvent) -> None:
        if event.mark:
            member = self.membership.of(event.pid)
            if member is not None:
                self._ended.append((event.pid, member))
        elif event.pid == event.thread:
            self.membership.exits(event.pid)
            self._ended.append((event.pid, None))

    def _changed(self, pid: int, thread: int, tracer: int) -> None:
        member = self.membership.of(pid)
        if member is not None:
            self._tell(member, lambda watcher: watcher.changed(member, tracer, thread))
        elif tracer:
            self._tell_all(lambda watcher: watcher.attached(pid, tracer))

    def _opened(self) -> Iterator[OpenExec]:
        for each in self._files.read() if self._files is not None else ():
            if each.lost:
                self._overflow("fanotify's queue ran over; the process table is read again", tuple(self._watchers))
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

    def _overflow(self, detail: str, whose: Collection[Workload[Held]]) -> None:
        for which in self._heartbeats:
            self._heard(which)
        self.look_at_all()
        for watcher in [self._watchers[each] for each in whose if each in self._watchers]:
            self._do_all((partial(watcher.loop.within, watcher.overflowed, detail),))

    def _die(self, error: OSError) -> None:
        self._loop.cancel("executed files")
        for source in (self.programs.watch, self._connector, self._files):
            if source is not None:
                self._loop.forget(source.descriptor)
        self._end_heartbeats()
        self._tell_all(lambda watcher: watcher.died(error))
