"""Membership in the kernel: each process of a workload has a mark there, and what marked ones do is told, and no more.

A mark is inherited before a child runs a single instruction (watch.bpf.c), so that nobody is lost once somebody above
is marked. Whom we find by looking is marked then. What such a process had made until that moment has no mark: while we
look, forks of everybody are told, and we look until a whole look has found nobody who was not marked before.
"""

from __future__ import annotations

import _thread
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from measurer import kernel as k
from measurer.bpf.watch import HOME, OURS, Event, Kind
from measurer.loop import Loop
from measurer.marking import GONE
from measurer.processes.connector import BEAT, MOVED, Lost, ProcessEvent
from measurer.processes.held import Held
from measurer.processes.membership import Member, Membership, Workload
from measurer.programs import Joined, Programs
from measurer.scope import alive

_MOST_LOOKS = 8


def until_all_are_marked(look: Callable[[], object], take_in: Callable[[], object], marked: Callable[[], int]) -> bool:
    """look: at all processes there are, and mark whoever belongs. take_in: what was told. marked: how many were given a
    mark that had none, ever.

    A look that gives no mark proves that there is nobody left: whoever belongs and has no mark was made by one who had
    none then, which was told, or was there when that look began. False where that does not come about.
    """
    for _ in range(_MOST_LOOKS):
        before = marked()
        look()
        take_in()
        if marked() == before:
            return True
    return False


class Marks:
    """Between the membership and the kernel's programs. Does nothing where there are none."""

    def __init__(self, programs: Programs, membership: Membership[Held]) -> None:
        self._programs, self._membership = programs, membership
        self._joined: dict[Workload[Held], Joined] = {}
        self._workloads: dict[int, Workload[Held]] = {}
        self._doors: dict[Workload[Held], list[tuple[int, int]]] = {}
        self._lost = 0
        self._lost_of: dict[int, int] = {}
        self._unmarked: set[int] = set()
        self._given = 0
        self._own = os.getpid()

    @property
    def there(self) -> bool:
        return self._programs.watch is not None

    @property
    def see_who_enters(self) -> bool:
        """Whoever executes something in a workload's cgroup or mount namespace is told, wherever they come from."""
        return self.there and all(each.place is None or each.group for each in self._joined)

    def begin(self, workload: Workload[Held], loop: Loop) -> None:
        """From now on it has marks. Raises OSError."""
        joined = self._programs.join(loop)
        self._joined[workload], self._workloads[joined.watched.number] = joined, workload
        watch, number = self._programs.watch, joined.watched.number
        self._doors[workload] = [each for each in _doors(workload) if watch and watch.open_door(*each, number)]

    def end(self, workload: Workload[Held]) -> None:
        joined = self._joined.pop(workload, None)
        if joined is None:
            return
        for door in self._doors.pop(workload):
            if self._programs.watch is not None:
                self._programs.watch.shut_door(*door)
        self._programs.leave(joined)
        for known in (self._workloads, self._lost_of):
            known.pop(joined.watched.number, None)

    def joined(self, workload: Workload[Held]) -> Joined:
        """Its part in the programs. Raises OSError where it has none."""
        if workload not in self._joined:
            raise self._programs.refusal or OSError(0, "it is not measured")
        return self._joined[workload]

    def guard(self, pidfd: int) -> None:
        """Whoever traces this process is told."""
        if self._programs.watch is not None:
            with suppress(OSError):  # it has ended, or was measured and is not any more: looks see it once a second
                self._programs.watch.guard(pidfd)

    def found(self, member: Member[Held]) -> None:
        """A process belongs to a workload, and the kernel may not know it. Raises OSError where it cannot be told."""
        joined, watch = self._joined.get(member.workload), self._programs.watch
        if joined is None or watch is None:
            return
        try:
            pidfd = os.pidfd_open(member.process.pid)
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.EINVAL):
                return  # it has ended
            raise
        try:
            # If it is there after its pidfd was opened, that is its own.
            if watch.number_of(pidfd) != joined.watched.number and member.process.stat() is not None:
                joined.watched.mark(pidfd)
                self._given += 1
        except GONE:
            pass
        finally:
            os.close(pidfd)

    def seek(self, look: Callable[[], object], take_in: Callable[[], object]) -> bool:
        """Have everybody marked who belongs, by `until_all_are_marked`."""
        if self._programs.watch is None:
            look()
            return True
        self._programs.watch.seek(True)
        try:
            return until_all_are_marked(look, take_in, lambda: self._given)
        finally:
            self._programs.watch.seek(False)

    def recall(self, pids: Iterable[int]) -> None:
        """Whoever of these has a mark belongs, whatever was told of it and lost."""
        for pid in pids:
            if self._membership.of(pid) is None and (workload := self._marked(pid)) is not None:
                self._membership.told(workload, pid)

    def beat(self) -> None:
        """Make a thread of ours, which is told as all that is made. Raises OSError where we may make none."""
        try:
            _thread.start_new_thread(os.getpid, ())
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def read(self, *, whole: bool = False) -> Iterator[ProcessEvent]:
        """What there is. whole: all that began to be told before this call. Raises Lost where that does not come."""
        try:
            for event in self._programs.read(whole=whole):
                told = self._told(event)
                if told is not None:
                    yield told
        except TimeoutError as error:
            raise Lost from error

    def whose(self, event: ProcessEvent) -> Workload[Held] | None:
        """By its mark."""
        return self._workloads.get(event.mark)

    def lost(self) -> set[Workload[Held]]:
        """Of whom something was not told since this was asked last."""
        watch = self._programs.watch
        if watch is None or (watch.lost == self._lost and not self._unmarked):
            return set()
        now = watch.lost
        anybodys, self._lost = now - self._lost, now
        concerned, self._unmarked = self._unmarked, set()
        for number, workload in self._workloads.items():
            lost = self._joined[workload].watched.lost
            if lost != self._lost_of.get(number, 0):
                anybodys -= lost - self._lost_of.get(number, 0)
                self._lost_of[number] = lost
                concerned.add(number)
        if anybodys > 0:  # forks of nobody's, as far as the kernel knew: they may be anybody's
            return set(self._joined)
        return {self._workloads[number] for number in concerned if number in self._workloads}

    def _told(self, event: Event) -> ProcessEvent | None:
        at, mark = event.value / 1e9, event.workload
        match event.kind:
            case Kind.FORK if event.number:
                beat = mark == OURS and event.pid == self._own
                return ProcessEvent(BEAT, event.pid, event.thread) if beat else None
            case Kind.FORK:
                return ProcessEvent(k.PROC_EVENT_FORK, event.pid, event.thread, event.other, event.other, at, mark)
            case Kind.EXEC:
                nameless = event.number == 0
                return ProcessEvent(k.PROC_EVENT_EXEC, event.pid, event.thread, 0, 0, at, mark, nameless)
            case Kind.EXIT:
                return ProcessEvent(k.PROC_EVENT_EXIT, event.pid, event.pid, 0, 0, at, mark)
            case Kind.TRACED:
                return ProcessEvent(k.PROC_EVENT_PTRACE, event.other, event.other, event.pid, event.thread, at, mark)
            case Kind.MOVED:
                return ProcessEvent(MOVED, event.other, event.other, 0, 0, at, mark)
            case _:
                self._unmarked.add(mark)
                return None

    def _marked(self, pid: int) -> Workload[Held] | None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None
        try:
            number = self._programs.watch.number_of(pidfd) if self._programs.watch is not None else 0
            return self._workloads.get(number) if alive(pidfd) else None
        finally:
            os.close(pidfd)


def _doors(workload: Workload[Held]) -> Iterator[tuple[int, int]]:
    if workload.place is not None and workload.group:
        yield workload.place[0], workload.group
    if workload.home is not None:
        yield HOME, workload.home[1]
