"""Our programs in the kernel: whom they watch, what is allowed to whom, and what they tell.

The programs are watch.bpf.c's. What is written there as a comment about who writes which field holds here.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
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
_WORDS = CALLS // 64
_EVENT = struct.Struct("=QIIIIII16s16s16s")
_BITS, _WORD, _NUMBER = struct.Struct(f"={_WORDS}Q"), struct.Struct("=Q"), struct.Struct("=I")
_COUNT = struct.Struct(f"={CALLS}I")
_ALLOWED, _SEEN, _TOLD = 0, 8 * _WORDS, 8 * 3 * _WORDS
_OPERATIONS = 8 * 5 * _WORDS
_SEEN_OPERATIONS, _TOLD_OPERATIONS, _LOST = _OPERATIONS + 8, _OPERATIONS + 16, _OPERATIONS + 24
_HALF, _KILL, _PLACE_NUMBER = _OPERATIONS + 32, _OPERATIONS + 36, _OPERATIONS + 40
_CAPABILITIES = _OPERATIONS + 48
_USED, _ADMINISTERING = _CAPABILITIES + 8, _CAPABILITIES + 16
_COUNTS = _ADMINISTERING + 8 * _WORDS
SIZE = _COUNTS + CPUS * _COUNT.size
"""Bytes of one workload's place in the map."""
_RING_BYTES = 1 << 20
_PLACE_BITS = 12
_PLACES = (1 << _PLACE_BITS) - 1
ALL_OPERATIONS = ALL_CAPABILITIES = (1 << 64) - 1

MEMBERSHIP = ("task_newtask", "sched_prepare_exec")
"""Without these nobody's children and threads are known, and nothing else is worth anything."""
LEAN = (
    "signal_generate",
    "sched_wait_task",
    "io_uring_create",
    "io_uring_submit_req",
    "inet_sock_set_state",
    "cgroup_attach_task",
    "mmap_lock_start_locking",
)
STRICT, CAPABLE = "sys_enter", "cap_capable"
"""Only there while somebody wants them: whoever is on the machine pays for them."""


class Kind(IntEnum):
    """What an event is of.

    CALL: number; value: as it was made. TRACED: other is touched by pid; number 1 where it waited for it. RING: number
    is the operation, NO_OPERATION for a ring that is made. CONNECT: number is the family, other the port, value the
    socket's cookie. MOVED: other is put into another cgroup. WRITTEN: other's memory. UNKNOWN: other is not marked.
    CAPABLE: number is a capability that was used, other the call that it was used in, numbered as a CALL's.
    """

    CALL = 1
    TRACED = 2
    RING = 3
    CONNECT = 4
    MOVED = 5
    WRITTEN = 6
    UNKNOWN = 7
    CAPABLE = 8


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
    name: str
    address: bytes
    local: bytes


class Watch:
    """Loaded and attached from construction on, but for STRICT and CAPABLE. Raises OSError where nobody can be watched.

    most: workloads at once. refused: why a program is not there, by its tracepoint.
    """

    def __init__(self, most: int) -> None:
        wanted = (*MEMBERSHIP, *LEAN, STRICT)
        self.refused: dict[str, OSError] = {}
        self._attached: dict[str, int] = {}
        with ExitStack() as held:
            self._loaded = Loaded(verified(OBJECT), tuple(map(_section, wanted)), {"workloads": most + 1})
            held.callback(self._loaded.close)
            self._loaded.run("syscall/stand")
            held.callback(self._detach_all)
            for name in (*MEMBERSHIP, *LEAN):
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

    @property
    def descriptor(self) -> int:
        """Readable when there is something to be told."""
        return self._ring.descriptor

    def close(self) -> None:
        self._held.close()

    def want(self, name: str, wanted: bool) -> None:
        """name: STRICT or CAPABLE. Raises OSError where it cannot be had."""
        if not wanted:
            link = self._attached.pop(name, None)
            if link is not None:
                os.close(link)
        elif name not in self._attached:
            self._loaded.load(_section(name))
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

    def read(self) -> Iterator[Event]:
        for record in self._ring.read():
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
        """This task belongs to it: a process's first thread, or by PIDFD_THREAD another one. Raises OSError."""
        calls.update(self._members, struct.pack("=i", pidfd), _NUMBER.pack(self.number))

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

    def turn(self) -> None:
        """From now on nothing was seen and nothing told. The kernel writes while we read: into the other half."""
        other = 1 - self._half
        for start in (_SEEN, _TOLD):
            _BITS.pack_into(self._workloads, self._at + start + other * _BITS.size, *(0,) * _WORDS)
        for start in (_SEEN_OPERATIONS, _TOLD_OPERATIONS, _USED):
            _WORD.pack_into(self._workloads, self._at + start, 0)
        _NUMBER.pack_into(self._workloads, self._at + _HALF, other)

    @property
    def _half(self) -> int:
        return int(_NUMBER.unpack_from(self._workloads, self._at + _HALF)[0])


def _section(name: str) -> str:
    return f"tp_btf/{name}"


def _packed(numbers: frozenset[int] | None) -> list[int]:
    if numbers is None:
        return [(1 << 64) - 1] * _WORDS
    return [sum(1 << each % 64 for each in numbers if each // 64 == word) for word in range(_WORDS)]


def _unpacked(words: tuple[int, ...]) -> frozenset[int]:
    return frozenset(64 * word + bit for word, bits in enumerate(words) for bit in range(64) if bits >> bit & 1)
