"""Our fence in the kernel: whom it stands around, what its rules let pass, and what it refused (fence.bpf.c).

Held by descriptors: with the process that has them a fence is gone, but for one that lasts.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from attestation.destinations import TCP, UDP, Destination, parse
from measurer import kernel as k
from measurer.bpf import calls
from measurer.bpf.loading import NAMED, Loaded, attached_as, verified
from measurer.bpf.ring import Ring

OBJECT = Path(__file__).parent / "programs" / "fence.bpf.o"
MOST_RULES = 256
MEMBERSHIP = ("tp_btf/task_newtask",)
AROUND = ("cgroup/connect4", "cgroup/connect6", "cgroup/sendmsg4", "cgroup/sendmsg6", "cgroup/sock_create")
"""At a group above all workloads."""
AT_ITS_OWN = ("own/connect4", "own/connect6", "own/sendmsg4", "own/sendmsg6", "own/sock_create")
"""At a workload's own group."""
_RULE, _HEAD, _NUMBER, _LOST = (
    struct.Struct("=16s16s4I"),
    struct.Struct("=Q4I"),
    struct.Struct("=I"),
    struct.Struct("=Q"),
)
_REFUSAL = struct.Struct("=8I16s16s")
_RING_BYTES = 1 << 18
_ONLY = 1
"""The number of the only one."""
_MAPPED = 0xFFFF << 32
_WHOLE = (1 << 128) - 1
_ANY_PORT = (0, 65_535)
_PROTOCOLS = {"": 0, TCP: 6, UDP: 17}


class Kind(IntEnum):
    """What was refused: to connect, to send a datagram that says where to, a socket. UNKNOWN: nothing was, and `pid`
    could not be marked."""

    CONNECT = 1
    DATAGRAM = 2
    SOCKET = 3
    UNKNOWN = 4


@dataclass(frozen=True, slots=True)
class Refusal:
    """workload: its number. pid, thread: as our pid namespace numbers them. type, protocol: of the socket, as socket(2)
    has them. version: of IP; 0 for SOCKET. address: as a number."""

    kind: Kind
    workload: int
    pid: int
    thread: int
    type: int
    protocol: int
    version: int
    port: int
    address: int
    name: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What passes. first, mask: of 128 bits, addresses of IPv4 mapped into those of IPv6. version 0: making a socket of
    a protocol of which nothing else can be said. protocol: its number, 0 for any.
    """

    version: int
    first: int = 0
    mask: int = 0
    low: int = _ANY_PORT[0]
    high: int = _ANY_PORT[1]
    protocol: int = 0

    @classmethod
    def of(cls, destination: Destination) -> Rule:
        bits = 128 if destination.version == 6 else 32
        mask = _WHOLE << (bits - destination.length) & _WHOLE
        first = destination.first | (_MAPPED if destination.version == 4 else 0)
        return cls(
            destination.version, first, mask, destination.low, destination.high, _PROTOCOLS[destination.protocol]
        )

    @classmethod
    def of_address(cls, version: int, address: int) -> Rule:
        return cls(version, address | (_MAPPED if version == 4 else 0), _WHOLE)

    @property
    def packed(self) -> bytes:
        ends = self.first.to_bytes(16, "big"), self.mask.to_bytes(16, "big")
        kinds = 0xFFFFFFFF if self.protocol else 0xFFFF0000
        return _RULE.pack(*ends, self.low, self.high, self.version << 16 | self.protocol, kinds)


EVERYTHING = (Rule(4), Rule(6), Rule(0))
LOOPBACK = (
    Rule.of(parse("127.0.0.0/8")),
    Rule.of_address(4, 0),
    Rule.of_address(6, 1),
    Rule.of_address(6, 0),
)
"""With the unspecified addresses: who connects to those reaches this machine. Of any port."""


def packed(rules: Iterable[Rule]) -> bytes:
    """What the kernel holds for one workload: as many of the rules as it has room for, the first ones first."""
    texts = [each.packed for each in rules][:MOST_RULES]
    return (_HEAD.pack(0, 0, 0, len(texts), 0) + b"".join(texts)).ljust(_HEAD.size + MOST_RULES * _RULE.size, b"\0")


class Barrier:
    """Loaded, and attached at a control group of version 2 and all below it. group: that group's folder, open.

    most: workloads at once. 0: the group is the only one's own, and whoever lives in it belongs to that; else who
    belongs to whom is marked (Linux 6.16). Raises OSError where the kernel refuses any part of it.
    """

    def __init__(self, group: int, most: int) -> None:
        membership, around = (MEMBERSHIP, AROUND) if most else ((), AT_ITS_OWN)
        with ExitStack() as held:
            self._loaded = Loaded(verified(OBJECT), (*membership, *around), {"fences": max(most, 1)})
            held.callback(self._loaded.close)
            for error in self._loaded.refused.values():
                raise error
            self._loaded.run("syscall/stand")
            for section in membership:
                held.callback(os.close, self._loaded.attach(section))
            for section in around:
                held.callback(os.close, self._loaded.attach_around(section, group))
            self._ring = Ring(self._loaded.maps["refusals"], _RING_BYTES)
            held.callback(self._ring.close)
            self._losses = mmap.mmap(self._loaded.maps["losses"], mmap.PAGESIZE, prot=mmap.PROT_READ)
            held.callback(self._losses.close)
            self._held = held.pop_all()
        self._latest = 0

    @property
    def descriptor(self) -> int:
        """Readable when there is something to be told."""
        return self._ring.descriptor

    @property
    def lost(self) -> int:
        """What there was no room for, of all workloads."""
        return int(_LOST.unpack_from(self._losses)[0])

    def close(self) -> None:
        self._held.close()

    def begin(self) -> Fenced:
        """One more workload, by a number that was never given. Everything passes. Raises OSError."""
        self._latest += 1
        fenced = Fenced(self._latest, self._loaded.maps["fences"], self._loaded.maps["members"])
        fenced.pass_only(EVERYTHING)
        calls.update(self._loaded.maps["owner"], _NUMBER.pack(0), _NUMBER.pack(self._latest))
        return fenced

    def read(self) -> Iterator[Refusal]:
        for record in self._ring.read():
            *head, address, name = _REFUSAL.unpack(record)
            kind, workload, pid, thread, type_, protocol, version, port = head
            number = int.from_bytes(address, "big") & (0xFFFFFFFF if version == 4 else _WHOLE)
            text = name.partition(b"\0")[0].decode("utf-8", "replace")
            yield Refusal(Kind(kind), workload, pid, thread, type_, protocol, version, port, number, text)


class Lasting:
    """Attached at a workload's own group (its folder, open) for as long as that group is there, whoever ends.

    Raises OSError where the kernel refuses, with nothing left behind.
    """

    def __init__(self, group: int) -> None:
        self._group = group
        self._loaded = Loaded(verified(OBJECT), AT_ITS_OWN, {"fences": 1})
        try:
            for error in self._loaded.refused.values():
                raise error
            maps = self._loaded.maps
            calls.update(maps["owner"], _NUMBER.pack(0), _NUMBER.pack(_ONLY))
            self._fenced = Fenced(_ONLY, maps["fences"], maps["members"])
            self._fenced.pass_only(EVERYTHING)
            self._loaded.run("syscall/stand")
            remove_left_over(group)
            for section in AT_ITS_OWN:
                k.bpf_attach(group, self._loaded.programs[section], attached_as(section))
        except OSError:
            self.lift()
            raise

    def pass_only(self, rules: Iterable[Rule]) -> None:
        """From now on. Raises OSError."""
        self._fenced.pass_only(rules)

    def lift(self) -> None:
        """Take it away."""
        for section, program in self._loaded.programs.items():
            with suppress(OSError):  # it was not attached, or the group is gone
                k.bpf_detach(self._group, program, attached_as(section))
        self.leave()

    def leave(self) -> None:
        """Let go of it as it stands, until the group is gone or another one takes its place."""
        self._loaded.close()


def remove_left_over(group: int) -> None:
    """What a measurer that ended has left at this group. Raises OSError."""
    for section in AT_ITS_OWN:
        for number in k.bpf_attached(group, attached_as(section)):
            program = k.bpf_program(number)
            try:
                if k.bpf_name(program).startswith(NAMED.encode()):
                    with suppress(FileNotFoundError):  # somebody holds it: it is none that was left
                        k.bpf_detach(group, program, attached_as(section))
            finally:
                os.close(program)


class Fenced:
    """One workload, by its number."""

    def __init__(self, number: int, fences: int, members: int) -> None:
        self.number = number
        self._fences, self._members = fences, members

    def pass_only(self, rules: Iterable[Rule]) -> None:
        """From now on, in one step. Raises OSError."""
        calls.update(self._fences, _NUMBER.pack(self.number), packed(rules))

    def mark(self, pidfd: int) -> None:
        """This task belongs to it: a process's first thread, or by PIDFD_THREAD another one. Raises OSError."""
        calls.update(self._members, struct.pack("=i", pidfd), _NUMBER.pack(self.number))

    def end(self) -> None:
        """Whoever is still marked belongs to nobody from now on."""
        with suppress(OSError):
            calls.remove(self._fences, _NUMBER.pack(self.number))
