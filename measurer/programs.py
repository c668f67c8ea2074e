"""The kernel's programs, shared by all workloads of this measurer: who belongs to them, and what they call."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from measurer.bpf.watch import Event, Kind, Watch, Watched
from measurer.loop import Loop

_MOST_OF_ONE, _MOST_OF_MANY = 1, 512
_OF_PROCESSES = frozenset((Kind.FORK, Kind.EXEC, Kind.EXIT, Kind.TRACED, Kind.MOVED, Kind.UNKNOWN))


def _nobody(_: Event) -> None:
    """Told of nothing."""


@dataclass(eq=False, slots=True)
class Joined:
    """One workload's part. told: called with what it asked for beside its processes, as a part of `loop`. wants: those
    of the programs that are there only while somebody wants them.
    """

    watched: Watched
    loop: Loop
    told: Callable[[Event], None] = _nobody
    wants: set[str] = field(default_factory=set)


class Programs:
    """many: of several workloads. refusal: why the kernel takes no programs of ours, None where it has some."""

    def __init__(self, *, many: bool) -> None:
        self._most = _MOST_OF_MANY if many else _MOST_OF_ONE
        self._joined: dict[int, Joined] = {}
        self.watch: Watch | None = None
        self.refusal: OSError | None = None

    @property
    def refused(self) -> dict[str, OSError]:
        """Why a single program is not there, by its tracepoint."""
        return self.watch.refused if self.watch is not None else {}

    def begin(self) -> None:
        """Load them. Raises OSError where they cannot be had, which `refusal` keeps."""
        self.refusal = None
        try:
            self.watch = Watch(self._most)
        except OSError as error:
            self.refusal = error
            raise

    def end(self) -> None:
        """Take them away again."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None

    def join(self, loop: Loop) -> Joined:
        """One workload more. Raises OSError where there are no programs, or too many workloads."""
        if self.watch is None:
            raise self.refusal or OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        watched = self.watch.begin()
        if watched is None:
            raise OSError(errno.ENOSPC, f"more than {self._most} workloads")
        joined = Joined(watched, loop)
        self._joined[watched.number] = joined
        return joined

    def leave(self, joined: Joined) -> None:
        """Whoever is marked as this one's is nobody's from now on."""
        self.ask(joined, None)
        joined.watched.end()
        del self._joined[joined.watched.number]

    def ask(self, joined: Joined, told: Callable[[Event], None] | None) -> None:
        """For what else there is to be told of this one; None for nothing any more. Raises OSError."""
        joined.told = told or _nobody
        joined.watched.ask(told is not None)
        if told is None:
            for name in tuple(joined.wants):
                self.want(joined, name, False)
        if self.watch is not None:
            self.watch.look_closer(any(each.told is not _nobody for each in self._joined.values()))

    def want(self, joined: Joined, name: str, wanted: bool) -> None:
        """For this one; there is one program for all. Raises OSError where it cannot be had."""
        if wanted:
            joined.wants.add(name)
        else:
            joined.wants.discard(name)
        if self.watch is not None:
            self.watch.want(name, any(name in each.wants for each in self._joined.values()))

    def read(self, *, whole: bool) -> Iterator[Event]:
        """What there is of processes. All else is handed to whom it is about, on the way. whole: as of a ring."""
        for event in self.watch.read(whole=whole) if self.watch is not None else ():
            if event.kind in _OF_PROCESSES:
                yield event
                continue
            joined = self._joined.get(event.workload)
            if joined is not None:
                joined.loop.within(joined.told, event)
