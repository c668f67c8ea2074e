"""Which processes belong to which workload, by the kernel's events in their order and by looking. No I/O of its own.

A workload is its first process and all that descends from it. Where it has a cgroup, all that lives in that belongs to
it as well. Where it has a mount namespace of its own, a container's, so does all that came into that: a container
engine's `exec` makes children of the engine's, and the cgroup is not to be seen from everywhere. Whoever belongs to it
once does so until it ends: whatever becomes of its parents, its session, its namespaces and its cgroup. A process is
known by what holds it (held.py); a pid only leads from an event to that, and the kernel tells the end of a process
before it tells the fork of another one with its pid. Where the kernel itself says whose a process is (marks.py), that
holds, and nothing has to be found out.

CLONE_PARENT is what leads out of a tree: the kernel names its maker's parent as the new process's, and where that is
none of ours (the maker is a first process, or an orphan), the new process counts as ours when it is in the workload's
cgroup; and where there is none, or the maker had left it, when it is in a session that a member began. What it runs
says nothing: a shell that started a service of some interpreter starts other programs of that too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Generic, Protocol, TypeVar

from attestation import cgroups
from measurer.processes.proc import Stat

_MOST_ABOVE, _INIT = 64, 1

Place = tuple[int, str]
"""A cgroup: the number of its hierarchy, and its path there."""
Home = tuple[int, int]
"""A mount namespace: device and inode of its link (namespaces(7))."""


class Process(Protocol):
    """What is asked of a held process; None, or empty, once it is gone."""

    pid: int

    def stat(self) -> Stat | None: ...
    def cgroups(self) -> bytes: ...
    def home(self) -> Home | None: ...
    def children(self) -> list[int] | None: ...
    def over(self) -> bool: ...
    def close(self) -> None: ...


P = TypeVar("P", bound=Process)


@dataclass(eq=False, slots=True)
class Member(Generic[P]):
    """A process of a workload. outside: it has left the workload's cgroup, and is followed."""

    process: P
    workload: Workload[P]
    outside: bool = False
    children: set[int] = field(default_factory=set)
    adopter: int = 0
    """The parent that is none of ours; 0 where its parent is a member, or was when it was last looked at."""


@dataclass(eq=False, slots=True)
class Workload(Generic[P]):
    """What its processes have in common. place: its cgroup. home: its mount namespace, where that is its own. group:
    the inode of the cgroup's folder, 0 where we see none.
    """

    place: Place | None = None
    home: Home | None = None
    group: int = 0
    members: dict[int, Member[P]] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)
    """Those that a member began, by number, which nobody else can have while anybody lives in one."""


@dataclass(frozen=True, slots=True)
class Moved(Generic[P]):
    """What a look into a cgroup found. strangers: pids in it that are another workload's."""

    entered: tuple[Member[P], ...] = ()
    left: tuple[Member[P], ...] = ()
    strangers: tuple[int, ...] = ()


class Membership(Generic[P]):
    """hold: a process by its pid, as it was by a time (CLOCK_BOOTTIME seconds). found: called with each new member of
    which the kernel has not said itself that it is one.
    """

    def __init__(self, hold: Callable[[int, float], P], found: Callable[[Member[P]], None] = lambda _: None) -> None:
        self._hold, self._found = hold, found
        self._members: dict[int, Member[P]] = {}
        self._places: dict[Place, Workload[P]] = {}
        self._homes: dict[Home, Workload[P]] = {}
        self._workloads: list[Workload[P]] = []
        self._adopted: dict[int, set[Member[P]]] = {}
        self._suspects: dict[int, int] = {}
        """Who was gone before anybody could tell whose they were, and under which adopter."""

    def of(self, pid: int) -> Member[P] | None:
        return self._members.get(pid)

    @property
    def asks_for_cgroups(self) -> bool:
        """Some workload is told by its cgroup: anybody may have entered it."""
        return bool(self._places)

    @property
    def has_homes(self) -> bool:
        """Some workload is told by its mount namespace."""
        return bool(self._homes)

    def begin(self, workload: Workload[P], first: P) -> Member[P] | None:
        """From now on. None where the process belongs to a workload already."""
        if first.pid in self._members or workload.place in self._places:
            return None
        self._workloads.append(workload)
        if workload.place is not None:
            self._places[workload.place] = workload
        if workload.home is not None:
            self._homes.setdefault(workload.home, workload)
        stat = first.stat()
        if stat is not None and stat.session == first.pid:
            workload.sessions.add(first.pid)
        return self._enter(first, workload)

    def overlaps(self, workload: Workload[P]) -> bool:
        """Does a process of another workload descend from this one?"""
        others = [each for each in self._members.values() if each.workload is not workload]
        parents = (stat.parent for each in others if (stat := each.process.stat()) is not None)
        return any(parent in workload.members for parent in parents)

    def end(self, workload: Workload[P]) -> None:
        """Let go of all of it."""
        for pid in list(workload.members):
            self._drop(pid)
        if workload in self._workloads:
            self._workloads.remove(workload)
            if workload.place is not None:
                del self._places[workload.place]
            if workload.home is not None and self._homes.get(workload.home) is workload:
                del self._homes[workload.home]

    # The kernel's events.

    def forked(self, parent: int, child: int, at: float = inf) -> Member[P] | None:
        """A process was made. None where it is none of ours."""
        self._drop(child)  # whoever had that pid has ended
        self._suspects.pop(child, None)
        for each in self._workloads:
            each.sessions.discard(child)  # a number is given out again once no session has it any more
        maker = self._members.get(parent)
        if maker is not None:
            maker.children.add(child)
            return self._admit(self._hold(child, at), maker.workload, maker.outside)
        adopter = parent if parent in self._adopted else self._suspects.get(parent, 0)
        if adopter not in self._adopted:
            return None
        process = self._hold(child, at)
        if process.stat() is None:
            self._suspects[child] = adopter  # what it made before it ended is looked at in its place
        workload = self._made_sideways(process, adopter)
        if workload is None:
            process.close()
            return None
        return self._enter(process, workload)

    def executed(self, pid: int, at: float = inf) -> Member[P] | None:
        """A process executed something. It may have entered a cgroup, or a container, before."""
        member = self._members.get(pid)
        if member is not None or not (self._places or self._homes):
            return member
        process = self._hold(pid, at)
        workload = self._living_in(process.cgroups()) or self._at_home(process)
        if workload is None:
            process.close()
            return None
        return self._enter(process, workload)

    def told(self, workload: Workload[P], pid: int, maker: int = 0, at: float = inf) -> Member[P]:
        """The kernel itself says that this process belongs there. maker: who has just made it; 0 where it was there."""
        known = self._members.get(pid)
        if known is not None and known.workload is workload and not maker:
            return known
        self._drop(pid)
        self._suspects.pop(pid, None)
        above = self._members.get(maker)
        outside = above is not None and above.workload is workload and above.outside
        return self._admit(self._hold(pid, at), workload, outside, told=True)

    def has_ended(self, member: Member[P]) -> bool:
        """The kernel itself says that all of this process has. False where it is a member no longer."""
        if self._members.get(member.process.pid) is not member:
            return False
        self._drop(member.process.pid)
        return True

    def began_session(self, pid: int) -> None:
        member = self._members.get(pid)
        if member is not None:
            member.workload.sessions.add(pid)

    def exits(self, pid: int) -> None:
        """A process is about to end: its children have another parent by now, and may make children of that."""
        for adopted in self._adopted.pop(pid, set()):
            self._look_for_parent(adopted)
        member = self._members.get(pid)
        for child in member.children if member is not None else ():
            orphan = self._members.get(child)
            if orphan is not None and not self._look_for_parent(orphan):
                self._leave_adopter(orphan)
                self._orphan(orphan, _INIT)  # it is gone as well: to whom it was given is a guess

    def ended(self, pid: int) -> Member[P] | None:
        """The first thread of a process ended. None where that is none of ours, or lives on in other threads.

        Told after all that its last acts led to: of these it is still a member.
        """
        self._suspects.pop(pid, None)
        member = self._members.get(pid)
        if member is None or not member.process.over():
            return None
        self._drop(pid)
        return member

    # Looking.

    def look_into(self, workload: Workload[P], pids: Iterable[int]) -> Moved[P]:
        """pids: who is in its cgroup now."""
        inside, entered, strangers = set(pids), [], []
        for pid in inside - workload.members.keys():
            if pid in self._members:
                strangers.append(pid)
                continue
            process = self._hold(pid, inf)
            if self._living_in(process.cgroups()) is workload:
                entered.append(self._enter(process, workload))
            else:
                process.close()
        left = []
        for pid, member in list(workload.members.items()):
            was, member.outside = member.outside, pid not in inside and self._lives_elsewhere(member)
            if member.outside and not was:
                left.append(member)
        return Moved(tuple(entered), tuple(left), tuple(strangers))

    def look_around(self, pids: Iterable[int]) -> list[Member[P]]:
        """Who of these came into a workload's mount namespace by no event. pids: every process there is."""
        entered: list[Member[P]] = []
        for pid in pids:
            if pid in self._members:
                continue
            process = self._hold(pid, inf)
            workload = self._at_home(process)
            if workload is not None:
                entered.append(self._enter(process, workload))
            else:
                process.close()
        return entered

    def look_below(self, workload: Workload[P]) -> list[Member[P]]:
        """Without events: the children that its members have now. Those that have ended are let go."""
        found = []
        waiting = list(workload.members.values())
        while waiting:
            member = waiting.pop()
            children = member.process.children()
            if children is None or member.process.over():
                self._drop(member.process.pid)
                continue
            for pid in children:
                known = self._members.get(pid)
                if known is not None and known.process.stat() is not None:
                    continue
                self._drop(pid)
                process = self._hold(pid, inf)
                stat = process.stat()
                # The pid of a parent is only worth something while that lives.
                if stat is None or stat.parent != member.process.pid or member.process.stat() is None:
                    process.close()
                    continue
                new = self._admit(process, workload, member.outside)
                member.children.add(pid)
                found.append(new)
                waiting.append(new)
        return found

    def descends(self, pid: int) -> Member[P] | None:
        """Without events: a process whose parents, one above the other, lead to a member."""
        process = self._hold(pid, inf)
        member = self._member_above(process)
        stat = process.stat()
        there = self._at_home(process) if member is None else None
        if there is not None:
            return self._enter(process, there)
        if member is None or stat is None:
            process.close()
            return None
        return self._admit(process, member.workload, member.outside)

    def look_at_all(self, table: Mapping[int, Stat]) -> None:
        """Events were lost, or none have come yet. table: every process there is."""
        for pid, member in list(self._members.items()):
            if member.process.over():
                self._drop(pid)
        below: dict[int, list[int]] = {}
        for pid, stat in table.items():
            below.setdefault(stat.parent, []).append(pid)
        waiting = list(self._members.values())
        while waiting:
            member = waiting.pop()
            for pid in below.get(member.process.pid, ()):
                new = self._found_below(member, pid)
                if new is not None:
                    waiting.append(new)
        for member in self._members.values():
            self._look_for_parent(member)

    # What they come to.

    def _member_above(self, process: P, left: int = _MOST_ABOVE) -> Member[P] | None:
        stat = process.stat()
        if stat is None or stat.parent == 0 or left == 0:
            return None
        member = self._members.get(stat.parent)
        above = member.process if member is not None else self._hold(stat.parent, inf)
        try:
            # The pid of a parent is only worth something while that lives.
            again = process.stat()
            if above.stat() is None or again is None or again.parent != stat.parent:
                return None
            return member if member is not None else self._member_above(above, left - 1)
        finally:
            if member is None:
                above.close()

    def _found_below(self, member: Member[P], pid: int) -> Member[P] | None:
        if pid in self._members:
            return None
        process = self._hold(pid, inf)
        stat = process.stat()
        if stat is None or stat.parent != member.process.pid or member.process.stat() is None:
            process.close()
            return None
        member.children.add(pid)
        if stat.session == pid:
            member.workload.sessions.add(pid)
        return self._admit(process, member.workload, member.outside)

    def _admit(self, process: P, workload: Workload[P], outside: bool = False, *, told: bool = False) -> Member[P]:
        member = Member(process, workload, outside)
        self._members[process.pid] = workload.members[process.pid] = member
        if not told:
            self._found(member)
        return member

    def _enter(self, process: P, workload: Workload[P]) -> Member[P]:
        member = self._admit(process, workload)
        self._look_for_parent(member)
        return member

    def _drop(self, pid: int) -> None:
        member = self._members.pop(pid, None)
        if member is None:
            return
        del member.workload.members[pid]
        self._leave_adopter(member)
        member.process.close()

    def _look_for_parent(self, member: Member[P]) -> bool:
        """Whose child is it by now? An adopter may be told to be the parent of what it makes (CLONE_PARENT).

        False where it is gone.
        """
        stat = member.process.stat()
        if stat is None:
            return False
        parent = self._members.get(stat.parent)
        self._leave_adopter(member)
        if parent is not None:
            parent.children.add(member.process.pid)
        else:
            self._orphan(member, stat.parent)
        return True

    def _orphan(self, member: Member[P], adopter: int) -> Member[P]:
        member.adopter = adopter
        self._adopted.setdefault(adopter, set()).add(member)
        return member

    def _leave_adopter(self, member: Member[P]) -> None:
        adopted = self._adopted.get(member.adopter)
        if adopted is not None:
            adopted.discard(member)
            if not adopted:
                del self._adopted[member.adopter]
        member.adopter = 0

    def _made_sideways(self, process: P, adopter: int) -> Workload[P] | None:
        stat, adopted = process.stat(), self._adopted[adopter]
        if stat is None:
            return None
        inside = self._living_in(process.cgroups())
        if inside in {each.workload for each in adopted}:
            return inside
        makers = [each for each in adopted if each.outside or each.workload.place is None]
        found = next((each for each in makers if stat.session in each.workload.sessions), None)
        return found.workload if found is not None else None

    def _lives_elsewhere(self, member: Member[P]) -> bool:
        text = member.process.cgroups()
        return bool(text) and member.workload.place not in set(_around(text))

    def _at_home(self, process: P) -> Workload[P] | None:
        home = process.home() if self._homes else None
        return self._homes.get(home) if home is not None else None

    def _living_in(self, membership: bytes) -> Workload[P] | None:
        """The workload whose cgroup is the nearest around a process with this /proc/PID/cgroup text."""
        return next((self._places[place] for place in _around(membership) if place in self._places), None)


def _around(membership: bytes) -> Iterator[Place]:
    """Every cgroup that a process lives in, the nearest of each hierarchy first."""
    for hierarchy, path in cgroups.memberships(membership).items():
        while True:
            yield hierarchy, path or "/"
            if path in ("", "/"):
                break
            path = path.rpartition("/")[0]
