"""What processes ran and who forked them, kept for a while: facts name those that are gone by now."""

from __future__ import annotations

from measurer.clock import boottime
from measurer.processes.held import Held
from measurer.processes.membership import Member, Workload
from measurer.processes.proc import executable_of

_MOST = 1024
_LATE = 1.0
"""Seconds that an event may take until it is read."""


class Names:
    """By pid, for those of the last processes."""

    def __init__(self, workload: Workload[Held]) -> None:
        self._workload = workload
        self._paths: dict[int, str] = {}
        self._parents: dict[int, int] = {}
        self._births: dict[int, float] = {}
        self._ends: dict[int, float] = {}

    def forked(self, parent: int, pid: int) -> None:
        self.ran(pid, self._paths.get(parent, ""))
        self._parents[pid] = parent
        self._births[pid] = boottime()
        if len(self._parents) > _MOST:
            oldest = next(iter(self._parents))
            self._parents.pop(oldest)
            self._births.pop(oldest, None)

    def ran(self, pid: int, path: str) -> None:
        """That process runs this file now."""
        self._paths.pop(pid, None)
        self._paths[pid] = path
        if len(self._paths) > _MOST:
            self._paths.pop(next(iter(self._paths)))

    def ended(self, pid: int) -> None:
        """It is one of ours no more."""
        self._ends.pop(pid, None)
        self._ends[pid] = boottime()
        if len(self._ends) > _MOST:
            self._ends.pop(next(iter(self._ends)))

    def lived(self, pid: int, at: float) -> bool:
        """Was it one of ours that had this pid then, and has ended since? (CLOCK_BOOTTIME seconds)"""
        return self._births.get(pid, 0.0) - _LATE <= at <= self._ends.get(pid, 0.0)

    def who(self, pid: int) -> str:
        """The executable of a pid, from memory when it is gone."""
        member = self._workload.members.get(pid)
        path = member.process.executable() if member is not None else executable_of(pid)
        return path or self._paths.get(pid, "")

    def ran_last(self, pid: int) -> str:
        """What a process of ours that has ended ran."""
        return self._paths.get(pid, "")

    def before(self, member: Member[Held]) -> str:
        """What it ran when that was told last."""
        return self._paths.get(member.process.pid) or member.process.executable()

    def parent(self, member: Member[Held]) -> int:
        """Who forked it, from memory when it is gone; 0 where nobody knows."""
        known = self._parents.get(member.process.pid)
        if known is None:
            stat = member.process.stat()
            return stat.parent if stat is not None else 0
        return known
