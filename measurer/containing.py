"""What policy asks to be done to the workload: its egress denied, frozen, let go, killed. It is told by the sidecar and
decides nothing.

Only processes of the workload are touched, each through a pidfd and only while its start time is the one that it was
found with. Where the sidecar, this measurer or Envoy is among them nothing is done at all: nobody could
say where the workload ends.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from attestation.channel import Contain, Contained
from attestation.containment import Containment, Means
from attestation.errors import InvalidInput
from measurer.channel import Channel
from measurer.clock import boottime, monotonic
from measurer.fence import Fence
from measurer.forensics import Forensics
from measurer.freezer import group_of
from measurer.loop import Loop
from measurer.processes.proc import Stat, parse_stat
from measurer.scope import Pinned, read_at

_HOLDING = "containment"
_LOOKS_EVERY = 1.0
"""Seconds between two looks whether what was frozen stands still."""
_MOST_SECONDS = 2.0
"""Of rounds: a workload that forks faster than it can be stopped is told as such."""
_SETTLES_WITHIN = 0.5
_ENDED = "ZXx"
_STANDS = "Tt" + _ENDED

Found = Callable[[], dict[int, int]]
"""Looks for the workload's processes anew: pid -> start time, in clock ticks since boot."""

Counting = Generator[None, None, int]
"""Long work that comes to a number of processes."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A process. inside: its group can be frozen, and is what holds it. stood: somebody else had stopped it before."""

    start: int
    inside: bool
    stood: bool


class Containing:
    """protected: pids of the sidecar, of ourselves and of Envoy. forensics: takes the bundle in between. fence: denies
    egress."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        pinned: Pinned,
        found: Found,
        protected: Callable[[], Iterable[int]],
        forensics: Forensics,
        fence: Fence,
    ) -> None:
        self._loop, self._channel, self._pinned = loop, channel, pinned
        self._found, self._protected, self._forensics, self._fence = found, protected, forensics, fence
        self._group = group_of(pinned)
        self._held: dict[int, _Held] = {}
        self._order = Contain(0, Containment.NONE)
        self._again_told = False
        self._killing = False
        self._racing = False
        """The last rounds ended with somebody new: there may be more."""
        self._afterwards: list[Callable[[], None]] = []

    @property
    def means(self) -> Means:
        return self._group.means if self._group is not None else Means.SIGNALS

    def announce(self) -> None:
        """Which means there are, before they are needed."""
        self._tell(Contain(0, Containment.NONE), 0, 0, self._refusal(self._found()))

    def order(self, order: Contain) -> None:
        """Begin to carry it out."""
        self._order, self._again_told = order, False
        self._loop.cancel(_HOLDING)
        self._loop.begin(self._carry_out(order))

    def afterwards(self, act: Callable[[], None]) -> None:
        """Once no kill is half-way: who hears that the workload ended may end us, and then the rest would live on."""
        if self._killing:
            self._afterwards.append(act)
        else:
            act()

    def close(self) -> None:
        """Let go of all descriptors. What is frozen stays so."""
        self._loop.cancel(_HOLDING)
        self._forensics.close()
        if self._group is not None:
            self._group.close()
            self._group = None

    def _carry_out(self, order: Contain) -> Iterator[None]:
        refusal = self._refusal(self._found()) if order.how is not Containment.NONE else ""
        self._killing = order.how is Containment.KILL and not refusal
        if refusal:
            self._tell(order, 0, 0, refusal)
        elif order.how is Containment.NONE and not order.bundle:
            yield from self._let_go(order)
        elif order.how is Containment.DENY_EGRESS:
            yield from self._deny(order)
        elif order.how is Containment.FREEZE or (order.how is Containment.KILL and order.bundle):
            left = yield from self._freeze(order)
            if order is self._order and order.how is Containment.FREEZE:
                self._tell(order, len(self._held), left)
                self._loop.after(_HOLDING, _LOOKS_EVERY, lambda: self._hold(order))
        if order is not self._order:
            return
        if order.bundle:
            self._forensics.take(order, self._found(), lambda: self._kill_next(order, refusal))
        else:
            self._kill_next(order, refusal)

    def _kill_next(self, order: Contain, refusal: str) -> None:
        if order is self._order and order.how is Containment.KILL and not refusal:
            self._loop.begin(self._kill(order))

    # Freezing.

    def _freeze(self, order: Contain) -> Counting:
        """Gives how many still run."""
        self._freeze_group()
        yield from self._rounds(order, signal.SIGSTOP)
        return (yield from self._settle(order))

    def _settle(self, order: Contain) -> Counting:
        """A stop takes effect when a process is scheduled next, or comes out of the kernel."""
        end = monotonic() + _SETTLES_WITHIN
        while (left := (yield from self._running())) and monotonic() < end and order is self._order:
            yield
        return left + self._racing

    def _freeze_group(self) -> None:
        if self._group is not None:
            with suppress(OSError):  # it went with its last process
                self._group.freeze()

    def _thaw_group(self) -> None:
        if self._group is not None:
            with suppress(OSError):
                self._group.thaw()

    def _rounds(self, order: Contain, number: signal.Signals) -> Iterator[None]:
        """Signal each once, until a look finds nobody new: between two looks a process that still runs may fork.

        Nor anybody who has gone since: then the look was of the past, and who came after it is not known yet.
        """
        end, gone, self._racing = monotonic() + _MOST_SECONDS, set[tuple[int, int]](), True
        while self._racing and monotonic() < end and order is self._order:
            self._racing = False
            for pid, start in self._found().items():
                yield
                known = self._held.get(pid)
                if (pid, start) in gone or (known is not None and known.start == start):
                    continue
                self._racing = True
                held = self._reach(pid, start, number)
                if held is None:
                    gone.add((pid, start))
                else:
                    self._held[pid] = held

    def _reach(self, pid: int, start: int, number: int) -> _Held | None:
        """Signal the process that was found, and no other that has its pid by now; None when it is gone.

        It was there before the pidfd is opened, and still is when its start time is read after that: so is the pidfd's.
        What a group holds is left to the group.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            stat, inside = self._look(pid)
            if stat.start_ticks != start or stat.state in _ENDED:
                return None
            signal.pidfd_send_signal(pidfd, 0 if inside and number != signal.SIGKILL else number)
        except PermissionError:
            return _Held(start, inside=False, stood=False)
        except (ProcessLookupError, FileNotFoundError, InvalidInput):
            return None
        finally:
            os.close(pidfd)
        return _Held(start, inside, stat.state in "Tt" and not self._order.before)

    def _look(self, pid: int) -> tuple[Stat, bool]:
        """And whether the group that can be frozen holds it."""
        folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stat, membership = parse_stat(read_at(folder, "stat")), read_at(folder, "cgroup")
        finally:
            os.close(folder)
        return stat, self._group is not None and self._group.holds(membership)

    def _running(self) -> Counting:
        """How many of those that are held still run."""
        running, all_frozen = 0, True
        with suppress(OSError):
            all_frozen = self._group is None or self._group.frozen
        for pid, each in list(self._held.items()):
            yield
            if each.inside:
                running += not all_frozen
            else:
                running += _state(pid, each.start) not in _STANDS
        return running

    def _hold(self, order: Contain) -> None:
        if order is self._order:
            self._loop.begin(self._hold_on(order))

    def _hold_on(self, order: Contain) -> Iterator[None]:
        """Whoever may signal the workload may let it go on; and one that was elsewhere may have come back."""
        before, ran = len(self._held), (yield from self._running())
        if ran:
            self._freeze_group()
            for pid, each in list(self._held.items()):
                yield
                self._reach(pid, each.start, signal.SIGSTOP)
        yield from self._rounds(order, signal.SIGSTOP)
        if (ran or len(self._held) > before) and not self._again_told:
            self._again_told = True
            left = yield from self._settle(order)
            self._tell(order, len(self._held), left)
        if order is self._order:
            self._loop.after(_HOLDING, _LOOKS_EVERY, lambda: self._hold(order))

    def _let_go(self, order: Contain) -> Iterator[None]:
        denied = self._fence.shuts
        self._fence.open()
        count = yield from self._thaw(order)
        self._tell(order, count or (len(self._found()) if denied else 0), 0)

    def _thaw(self, order: Contain) -> Counting:
        """Gives how many."""
        if order.before and not self._held:
            for pid, start in self._found().items():
                yield
                if (held := self._reach(pid, start, 0)) is not None:
                    self._held[pid] = held
        count = len(self._held)
        self._thaw_group()
        for pid, each in list(self._held.items()):
            yield
            if not each.stood:
                self._reach(pid, each.start, signal.SIGCONT)
        self._held.clear()
        return count

    # Egress.

    def _deny(self, order: Contain) -> Iterator[None]:
        """What was frozen goes on once it is denied, and stays frozen where it cannot be."""
        try:
            left = yield from self._fence.shut()
        except OSError:
            self._tell(order, 0, 0, self._fence.refusal)
            return
        if order is not self._order:
            return
        if self._held or order.before:
            yield from self._thaw(order)
        self._tell(order, len(self._found()), left)

    # Killing.

    def _kill(self, order: Contain) -> Iterator[None]:
        """The first process last: with its end the instance is over, and nobody would be left to kill the others."""
        if self._group is None or not self._killed_at_once():
            self._freeze_group()
        yield from self._rounds(order, signal.SIGSTOP)
        end, left, killed = monotonic() + _MOST_SECONDS, 1, 0
        while left and monotonic() < end:
            killed = max(killed, len(self._held))
            for pid in sorted(self._held, key=lambda pid: pid == self._pinned.pid):
                yield
                self._reach(pid, self._held[pid].start, signal.SIGKILL)
            self._thaw_group()  # what version 1 has frozen dies only then
            yield from self._rounds(order, signal.SIGKILL)
            left = self._racing + (yield from self._living())
        self._killing = False
        self._tell(order, killed, left)
        self._held.clear()
        while self._afterwards:
            self._afterwards.pop()()

    def _living(self) -> Counting:
        left = 0
        for pid, each in list(self._held.items()):
            yield
            left += _state(pid, each.start) not in _ENDED
        return left

    def _killed_at_once(self) -> bool:
        try:
            return self._group is not None and self._group.kill()
        except OSError:
            return False

    def _refusal(self, found: dict[int, int]) -> str:
        """Why the workload must not be touched as a whole; empty where it may."""
        for pid in self._protected():
            if pid in found or (self._group is not None and self._group.holds(_membership(pid))):
                return f"process {pid} (sidecar, measurer or Envoy) is among those of the workload"
        return ""

    def _tell(self, order: Contain, processes: int, left: int, refusal: str = "") -> None:
        means = Means.FENCE if order.how is Containment.DENY_EGRESS else self.means
        self._channel.send(Contained(order.number, order.how, means, processes, left, boottime(), refusal))


def _state(pid: int, start: int) -> str:
    """One letter (proc(5)); X for one that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = parse_stat(file.read(4096) or b"")
    except (OSError, InvalidInput):
        return "X"
    return stat.state if stat.start_ticks == start else "X"


def _membership(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            return file.read()
    except OSError:
        return b""
