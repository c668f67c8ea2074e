"""Executions by looking at the process table, for whom the kernel tells no events."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from measurer.processes.binaries import Binaries, Binary
from measurer.processes.held import Held
from measurer.processes.membership import Member, Workload
from measurer.processes.sources import Sources

_INTERVAL = 0.02
_SHARE = 50
"""Looking through the whole process table takes at most one part in so many of the time."""
Image = tuple[int, int]


class Polling:
    """Remembers which file each process ran at the last look. interval: seconds between two looks.

    entered: told of each that no member made.
    """

    def __init__(
        self,
        sources: Sources,
        workload: Workload[Held],
        binaries: Binaries,
        entered: Callable[[Member[Held]], None],
    ) -> None:
        self._entered = entered
        self._sources, self._workload, self._binaries = sources, workload, binaries
        self._running: dict[Held, Image] = {}
        self.interval = _INTERVAL

    def first_look(self) -> None:
        """What runs already is no execution."""
        for _ in self.look():
            pass

    def look(self) -> Iterator[tuple[Member[Held], Binary]]:
        """Processes that run another file than before, or than their parent when they are new."""
        parents = {new.process: self._parent(new) for new in self._sources.membership.look_below(self._workload)}
        self._sources.look_around(_SHARE)
        before, self._running = self._running, {}
        for member in list(self._workload.members.values()):
            process = member.process
            image = process.image()
            if image is None:
                continue
            self._running[process] = image
            if process not in before and process not in parents:
                self._entered(member)
            elif image != before.get(process, before.get(parents.get(process, process))):
                binary = process.binary(self._binaries)
                if binary is not None:
                    yield member, binary

    def _parent(self, member: Member[Held]) -> Held:
        stat = member.process.stat()
        parent = self._workload.members.get(stat.parent) if stat is not None else None
        return parent.process if parent is not None else member.process
