"""The kernel's programs, shared by all workloads of this measurer: there at most once, and only while somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from measurer.bpf.watch import Event, Watch, Watched
from measurer.loop import Loop

_MOST_OF_ONE, _MOST_OF_MANY = 1, 512


@dataclass(eq=False, slots=True)
class Joined:
    """One workload's part. wants: those of the programs that are there only while somebody wants them."""

    watched: Watched
    loop: Loop
    told: Callable[[Event], None]
    wants: set[str] = field(default_factory=set)


class Programs:
    """many: of several workloads. Raises nothing until somebody joins."""

    def __init__(self, loop: Loop, *, many: bool) -> None:
        self._loop, self._most = loop, _MOST_OF_MANY if many else _MOST_OF_ONE
        self._watch: Watch | None = None
        self._joined: dict[int, Joined] = {}

    @property
    def refused(self) -> dict[str, OSError]:
        """Why a program is not there, by its tracepoint."""
        return self._watch.refused if self._watch is not None else {}

    def join(self, loop: Loop, told: Callable[[Event], None]) -> Joined:
        """Raises OSError where the kernel takes no programs of ours, or there are too many workloads."""
        if self._watch is None:
            self._watch = Watch(self._most)
            self._loop.watch(self._watch.descriptor, self.read)
        watched = self._watch.begin()
        if watched is None:
            raise OSError(0, f"more than {self._most} workloads")
        joined = Joined(watched, loop, told)
        self._joined[watched.number] = joined
        return joined

    def leave(self, joined: Joined) -> None:
        """The last one takes the programs along."""
        for name in tuple(joined.wants):
            self.want(joined, name, False)
        joined.watched.end()
        del self._joined[joined.watched.number]
        if self._watch is not None and not self._joined:
            self._loop.forget(self._watch.descriptor)
            self._watch.close()
            self._watch = None

    def want(self, joined: Joined, name: str, wanted: bool) -> None:
        """For this one; there is one program for all. Raises OSError where it cannot be had."""
        if wanted:
            joined.wants.add(name)
        else:
            joined.wants.discard(name)
        if self._watch is not None:
            self._watch.want(name, any(name in each.wants for each in self._joined.values()))

    def read(self) -> None:
        """What there is, to whom it is about."""
        for event in self._watch.read() if self._watch is not None else ():
            joined = self._joined.get(event.workload)
            if joined is not None:
                joined.loop.within(joined.told, event)
