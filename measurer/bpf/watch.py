"""Our programs in the kernel: whom they watch, what is allowed to whom, and what they tell.

The programs are watch.bpf.c's. What is written there as a comment about who writes which field holds here.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from measurer.bpf import calls
from measurer.bpf.loading import Loaded, verified
from measurer.bpf.ring import Ring

OBJECT = Path(__file__).parent / "programs" / "watch.bpf.o"
DIGEST = OBJECT.with_suffix(".o.sha256")
"""What sha256sum prints of it."""
CALLS, CPUS = 512, 8
NO_OPERATION = 0xFFFFFFFF
OURS = 1 << 12
"""The number of our own processes, and of those that we guard: whoever touches them is told."""
HOME = 0xFFFFFFFF
"""In place of a hierarchy's number: a door that is a mount namespace."""
_WORDS = CALLS // 64
_EVENT, _LIFE = struct.Struct("=QIIIIII16s16s16s"), struct.Struct("=QIIIIII")
_BITS, _WORD, _NUMBER = struct.Struct(f"={_WORDS}Q"), struct.Struct("=Q"), struct.Struct("=I")
_DOOR = struct.Struct("=QII")
_COUNT = struct.Struct(f"={CALLS}I")
_ALLOWED, _SEEN, _TOLD = 0, 8 * _WORDS, 8 * 3 * _WORDS
_OPERATIONS = 8 * 5 * _WORDS
_SEEN_OPERATIONS, _TOLD_OPERATIONS, _LOST = _OPERATIONS + 8, _OPERATIONS + 16, _OPERATIONS + 24
_HALF, _KILL, _PLACE_NUMBER, _ASKED = (_OPERATIONS + each for each in (32, 36, 40, 44))
_CAPABILITIES = _OPERATIONS + 48
_USED, _ADMINISTERING = _CAPABILITIES + 8, _CAPABILITIES + 16
_COUNTS = _ADMINISTERING + 8 * _WORDS
SIZE = _COUNTS + CPUS * _COUNT.size + 2 * _WORD.size
"""Bytes of one workload's place in the map."""
_RING_BYTES = 1 << 20
_PLACE_BITS = 12
_PLACES = (1 << _PLACE_BITS) - 1
ALL_OPERATIONS = ALL_CAPABILITIES = (1 << 64) - 1

MEMBERSHIP = ("task_newtask", "sched_prepare_exec", "sched_process_exec", "sched_process_exit", "cgroup_attach_task")
"""Without these it is not known who belongs to a workload, and nothing else is worth anything."""
TOUCHED = ("signal_generate", "sched_wait_task")
LEAN = ("io_uring_create", "io_uring_submit_req", "inet_sock_set_state", "mmap_lock_start_locking")
"""There while somebody asks for calls."""
STRICT, CAPABLE = "sys_enter", "cap_capable"
"""Only there while somebody wants them: whoever is on the machine pays for them."""


class Kind(IntEnum):
    """What an event is of.

    CALL: number; value: as it was made. TRACED: other is touched by pid; number 1 where it waited for it, which is told
    ten times a second at most while nobody else is touched. RING: number is the operation, NO_OPERATION for a ring that
    is made. CONNECT: number is the family, other the port, value the socket's cookie. MOVED: other is put into another
    cgroup, or into this one. WRITTEN: other's memory. UNKNOWN: other is not marked. CAPABLE: number is a capability
    that was used, other the call that it was used in, numbered as a CALL's. FORK: other is made; number 1 for a thread
    of ours. EXEC: number is how many names the file has. EXIT: of the whole process. Of TRACED, MOVED, UNKNOWN and the
    last three, value is when: CLOCK_BOOTTIME in ns.
    """

    CALL = 1
    TRACED = 2
    RING = 3
    CONNECT = 4
    MOVED = 5
    WRITTEN = 6
    UNKNOWN = 7
    CAPABLE = 8
    FORK = 9
    EXEC = 10
    EXIT = 11


@dataclass(frozen=True, slots=True)
class Event:
    """workload: its number. pid, thread, other: as our pid namespace numbers them.

    address, local: of CONNECT, where to and from; of version 4 the first four bytes.
    """

    kind: Kind
    workload: int
    pid: int
    thread: int
    other: int
    number: int
    value: int
    name: str = ""
    address: bytes = b""
    local: bytes = b""


class Watch:
    """Loaded and attached from construction on, but for what is asked of calls. Raises OSError where nobody can be
    watched.

    most: workloads at once. refused: why a program is not there, by its tracepoint.
    """

    def __init__(self, most: int) -> None:
        wanted = (*MEMBERSHIP, *TOUCHED)
        self.refused: dict[str, OSError] = {}
        self._attached: dict[str, int] = {}
        self._looked_closer = False
        with ExitStack() as held:
            sizes = {"workloads": most + 1, "doors": 2 * most}
            self._loaded = Loaded(verified(OBJECT), tuple(map(_section, wanted)), sizes)
            held.callback(self._loaded.close)
            self._loaded.run("syscall/stand")
            held.callback(self._detach_all)
            for name in wanted:
                self._attach(name)
            missing = [name for name in MEMBERSHIP if name not in self._attached]
            if missing:
                raise self.refused[missing[0]]
            self._ring = Ring(self._loaded.maps["events"], _RING_BYTES)
            held.callback(self._ring.close)
            self._workloads = mmap.mmap(self._loaded.maps["workloads"], (most + 1) * SIZE)
            held.callback(self._workloads.close)
            self._held = held.pop_all()
        self._free = list(range(1, most + 1))
        self._turns = 0
        _NUMBER.pack_into(self._workloads, _PLACE_NUMBER, OURS)

    @property
    def descriptor(self) -> int:
        """Readable when there is something to be told."""
        return self._ring.descriptor

    def close(self) -> None:
        self._held.close()

    @property
    def lost(self) -> int:
        """Events that there was no room for, whose ever."""
        return int(_WORD.unpack_from(self._workloads, _LOST)[0])

    def seek(self, wanted: bool) -> None:
        """While this is so, forks are told of those too that belong to nobody, as of OURS."""
        _NUMBER.pack_into(self._workloads, _ASKED, wanted)

    def guard(self, pidfd: int) -> None:
        """This process is one of OURS, unless it belongs to a workload. Raises OSError."""
        with suppress(FileExistsError):
            calls.update(self._loaded.maps["members"], _key(pidfd), _NUMBER.pack(OURS), calls.NEW)

    def number_of(self, pidfd: int) -> int:
        """Whose this process is; 0 for nobody's, or one that has ended."""
        try:
            return int(_NUMBER.unpack(calls.lookup(self._loaded.maps["members"], _key(pidfd), _NUMBER.size))[0])
        except OSError:
            return 0

    def open_door(self, kind: int, inode: int, number: int) -> bool:
        """Whoever comes into this cgroup (kind: its hierarchy's number) or mount namespace (HOME) is of this number
        from then on: at once, by a namespace as soon as something is executed. False where it is another's.

        Raises OSError.
        """
        try:
            calls.update(self._loaded.maps["doors"], _DOOR.pack(inode, kind, 0), _NUMBER.pack(number), calls.NEW)
        except FileExistsError:
            return False
        return True

    def shut_door(self, kind: int, inode: int) -> None:
        with suppress(FileNotFoundError):
            calls.remove(self._loaded.maps["doors"], _DOOR.pack(inode, kind, 0))

    def look_closer(self, wanted: bool) -> None:
        """At what only those workloads are told of that ask for it."""
        if wanted and not self._looked_closer:
            self._loaded.load(tuple(map(_section, LEAN)))
            self._looked_closer = True
        for name in LEAN:
            if wanted and name not in self._attached:
                self._attach(name)
            elif not wanted and name in self._attached:
                os.close(self._attached.pop(name))

    def want(self, name: str, wanted: bool) -> None:
        """name: STRICT or CAPABLE. Raises OSError where it cannot be had."""
        if not wanted:
            link = self._attached.pop(name, None)
            if link is not None:
                os.close(link)
        elif name not in self._attached:
            self._loaded.load((_section(name),))
            self._attach(name)
            if name in self.refused:
                raise self.refused[name]

    def begin(self) -> Watched | None:
        """A number for one more workload; None where there are too many."""
        if not self._free:
            return None
        place, self._turns = self._free.pop(0), self._turns + 1
        return Watched(
            place | self._turns << _PLACE_BITS & 0xFFFFFFFF, self._workloads, self._loaded.maps["members"], self._free
        )

    def read(self, *, whole: bool) -> Iterator[Event]:
        """As of a ring: whole or not, and what it raises."""
        for record in self._ring.read(whole=whole):
            if len(record) == _LIFE.size:
                value, kind, workload, pid, thread, other, number = _LIFE.unpack(record)
                yield Event(Kind(kind), workload, pid, thread, other, number, value)
                continue
            value, kind, workload, pid, thread, other, number, name, to, local = _EVENT.unpack(record)
            text = name.partition(b"\0")[0].decode("utf-8", "replace")
            yield Event(Kind(kind), workload, pid, thread, other, number, value, text, to, local)

    def _attach(self, name: str) -> None:
        refused = self._loaded.refused.get(_section(name))
        try:
            if refused is not None:
                raise refused
            self._attached[name] = self._loaded.attach(_section(name))
        except OSError as error:
            self.refused[name] = error

    def _detach_all(self) -> None:
        for link in self._attached.values():
            os.close(link)
        self._attached.clear()


class Watched:
    """One workload, by its number. A call is allowed, or it is told once in a half."""

    def __init__(self, number: int, workloads: mmap.mmap, members: int, free: list[int]) -> None:
        self.number = number
        self._workloads, self._members, self._free = workloads, members, free
        self._place = number & _PLACES
        self._at = self._place * SIZE
        workloads[self._at : self._at + SIZE] = bytes(SIZE)
        self.allow(None, ALL_OPERATIONS)
        self.allow_uses(ALL_CAPABILITIES, frozenset())
        _NUMBER.pack_into(workloads, self._at + _PLACE_NUMBER, number)

    def end(self) -> None:
        """Whoever is still marked belongs to nobody from now on."""
        _NUMBER.pack_into(self._workloads, self._at + _PLACE_NUMBER, 0)
        self._free.append(self._place)

    def mark(self, pidfd: int) -> None:
        """This process belongs to it, with all that it makes from now on. Raises OSError."""
        calls.update(self._members, _key(pidfd), _NUMBER.pack(self.number))

    def ask(self, wanted: bool) -> None:
        """For more than who there is and what becomes of them."""
        _NUMBER.pack_into(self._workloads, self._at + _ASKED, wanted)

    def allow(self, numbers: frozenset[int] | None, operations: int, *, kill: bool = False) -> None:
        """None: every call. operations: bits of io_uring's. kill: whoever makes another one is ended by the kernel."""
        _BITS.pack_into(self._workloads, self._at + _ALLOWED, *_packed(numbers))
        _WORD.pack_into(self._workloads, self._at + _OPERATIONS, operations)
        _NUMBER.pack_into(self._workloads, self._at + _KILL, kill)

    @property
    def seen(self) -> frozenset[int]:
        """The calls since the last turn."""
        return _unpacked(_BITS.unpack_from(self._workloads, self._at + _SEEN + self._half * _BITS.size))

    @property
    def seen_operations(self) -> int:
        """Bits of io_uring's operations since the last turn."""
        return int(_WORD.unpack_from(self._workloads, self._at + _SEEN_OPERATIONS)[0])

    def allow_uses(self, capabilities: int, administering: frozenset[int]) -> None:
        """capabilities: bits of those whose use is not told. administering: in which calls that of CAP_SYS_ADMIN is."""
        _BITS.pack_into(self._workloads, self._at + _ADMINISTERING, *_packed(administering))
        _WORD.pack_into(self._workloads, self._at + _CAPABILITIES, capabilities)

    @property
    def used(self) -> int:
        """Bits of capabilities, of those that are told, since the last turn."""
        return int(_WORD.unpack_from(self._workloads, self._at + _USED)[0])

    @property
    def lost(self) -> int:
        """Events that there was no room for."""
        return int(_WORD.unpack_from(self._workloads, self._at + _LOST)[0])

    @property
    def counts(self) -> tuple[int, ...]:
        """How often each call was made since it began, by number. Each of those that are added up here goes round at
        2**32, so that only differences modulo that are to be believed.
        """
        return tuple(map(sum, zip(*self._counts(), strict=True)))

    @property
    def made(self) -> int:
        """The same of all calls together."""
        return sum(map(sum, self._counts()))

    def _counts(self) -> list[tuple[int, ...]]:
        """By processor."""
        start = self._at + _COUNTS
        return [_COUNT.unpack_from(self._workloads, start + cpu * _COUNT.size) for cpu in range(CPUS)]

    def turn(self) -> frozenset[int]:
        """From now on nothing was seen and nothing told. The kernel writes while we read: into the other half.

        Returns the calls that were seen until then.
        """
        left = self._half
        other = 1 - left
        for start in (_SEEN, _TOLD):
            _BITS.pack_into(self._workloads, self._at + start + other * _BITS.size, *(0,) * _WORDS)
        for start in (_SEEN_OPERATIONS, _TOLD_OPERATIONS, _USED):
            _WORD.pack_into(self._workloads, self._at + start, 0)
        _NUMBER.pack_into(self._workloads, self._at + _HALF, other)
        return _unpacked(_BITS.unpack_from(self._workloads, self._at + _SEEN + left * _BITS.size))

    @property
    def _half(self) -> int:
        return int(_NUMBER.unpack_from(self._workloads, self._at + _HALF)[0])


def _key(pidfd: int) -> bytes:
    return struct.pack("=i", pidfd)


def _section(name: str) -> str:
    return f"tp_btf/{name}"


def _packed(numbers: frozenset[int] | None) -> list[int]:
    if numbers is None:
        return [(1 << 64) - 1] * _WORDS
    return [sum(1 << each % 64 for each in numbers if each // 64 == word) for word in range(_WORDS)]


def _unpacked(words: tuple[int, ...]) -> frozenset[int]:
    return frozenset(64 * word + bit for word, bits in enumerate(words) for bit in range(64) if bits >> bit & 1)
