"""Which processes belong to the workload: those in its cgroup, or the first one and all that descend from it."""

from __future__ import annotations

import os

from attestation.errors import InvalidInput
from measurer.processes.proc import Stat, listing, open_process, parse_stat, stat_of
from measurer.scope import Pinned, read_at


class Members:
    """Pids of the workload's processes, kept by fork and exit events and corrected by looking.

    A descendant stays a member when its parent ends; a reused pid is dropped when its fork is seen, or by `refresh`.
    """

    def __init__(self, pinned: Pinned) -> None:
        self._pinned = pinned
        self._pids: dict[int, int] = {}

    def __contains__(self, pid: int) -> bool:
        return pid in self._pids

    @property
    def by_cgroup(self) -> bool:
        return self._pinned.cgroup is not None

    def all(self) -> list[int]:
        """Their pids now."""
        return list(self._pids)

    def starts(self) -> dict[int, int]:
        """Looked for anew: pid -> start time, in clock ticks since boot, of those that run."""
        self.refresh()
        found = {}
        for pid, known in self._pids.items():
            start = self._start_of(pid)
            if start is not None and known in (0, start):
                found[pid] = start
        return found

    def _start_of(self, pid: int) -> int | None:
        """None for a zombie too, and for one that is not in the cgroup: it has the pid of one that was."""
        try:
            folder = open_process(pid)
        except OSError:
            return None
        try:
            stat, cgroup = parse_stat(read_at(folder, "stat")), self._pinned.cgroup
            inside = cgroup is None or cgroup.holds(read_at(folder, "cgroup"))
            return stat.start_ticks if inside and stat.state not in "ZXx" else None
        except (OSError, InvalidInput):
            return None
        finally:
            os.close(folder)

    def forked(self, parent: int, child: int) -> bool:
        """A fork was reported. Is the child one of ours? One made with CLONE_PARENT is our first process's sibling."""
        if parent in self._pids or (parent == self._pinned.parent and self._made_sideways(child)):
            self._pids[child] = 0
            return True
        self._pids.pop(child, None)
        return False

    def executed(self, pid: int) -> bool:
        """An execution was reported. Is it one of ours? A process can also have entered the cgroup from outside."""
        if pid in self._pids:
            return True
        if self._pinned.cgroup is not None and self._in_cgroup(pid):
            self._pids[pid] = 0
            return True
        return False

    def ended(self, pid: int) -> None:
        """The first thread of a process ended. The process lives on while it has others, or after their exec.

        Threads are counted before the state is read: an exec in another thread replaces the first one in between,
        and in the other order that would look like a single dead thread.
        """
        threads, stat = _threads(pid), stat_of(pid)
        if threads <= 1 and (stat is None or stat.state in "ZX"):
            self._pids.pop(pid, None)

    def descends(self, pid: int) -> bool:
        """Without fork events: does this pid lie in the cgroup, or below a member by its chain of parents?"""
        if self._pinned.cgroup is not None:
            return self._in_cgroup(pid)
        seen = 0
        while pid > 1 and seen < 64:
            if pid in self._pids:
                return True
            stat = stat_of(pid)
            if stat is None:
                return False
            pid, seen = stat.parent, seen + 1
        return False

    def refresh(self) -> list[int]:
        """Look at the whole process table. Returns pids that live on but have left the cgroup."""
        if self._pinned.cgroup is not None:
            before, self._pids = self._pids, dict.fromkeys(self._pinned.cgroup.pids(), 0)
            return [pid for pid in before if pid not in self._pids and stat_of(pid) and not self._in_cgroup(pid)]
        table = {int(name): stat for name in listing("/proc") if name.isdigit() and (stat := stat_of(int(name)))}
        alive = {pid for pid in {self._pinned.pid, *self._pids} if self._still(pid, table.get(pid))}
        children: dict[int, list[int]] = {}
        for pid, stat in table.items():
            children.setdefault(stat.parent, []).append(pid)
        waiting = list(alive)
        while waiting:
            new = [child for child in children.get(waiting.pop(), []) if child not in alive]
            alive.update(new)
            waiting += new
        self._pids = {pid: table[pid].start_ticks for pid in alive}
        return []

    def refresh_quickly(self) -> None:
        """Add the children of members, which is all that polling can afford."""
        if self._pinned.cgroup is not None:
            self.refresh()
            return
        waiting = list(self._pids) or [self._pinned.pid]
        while waiting:
            pid = waiting.pop()
            children = _children(pid)
            if children is None:
                self._pids.pop(pid, None)
                continue
            self._pids.setdefault(pid, 0)
            waiting += [child for child in children if child not in self._pids]

    def _still(self, pid: int, stat: Stat | None) -> bool:
        if stat is None:
            return False
        known = self._pinned.start_ticks if pid == self._pinned.pid else self._pids.get(pid, 0)
        return known in (0, stat.start_ticks)

    def _made_sideways(self, child: int) -> bool:
        stat = stat_of(child)
        return stat is not None and self._pinned.session == self._pinned.pid and stat.session == self._pinned.session

    def _in_cgroup(self, pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/cgroup", "rb") as file:
                return self._pinned.cgroup is not None and self._pinned.cgroup.holds(file.read())
        except OSError:
            return False


def _threads(pid: int) -> int:
    try:
        return len(listing(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _children(pid: int) -> list[int] | None:
    """/proc/PID/task/TID/children of all threads (CONFIG_PROC_CHILDREN); None when the process is gone."""
    found: list[int] = []
    try:
        threads = listing(f"/proc/{pid}/task")
    except OSError:
        return None
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                found += [int(each) for each in (file.read() or b"").split()]
        except OSError:
            continue
    return found
