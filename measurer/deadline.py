"""A deadline in the kernel: what a control group sends and receives over IP ends when nobody puts it off any more.

The guardian is a thread of the measurer, and the sidecar is its only peer: whoever ends or stops both in one act leaves
nobody who closes anything. So a program of nine instructions (bpf(2), cgroup_skb) is attached to Envoy's control group.
It lets a packet pass while CLOCK_BOOTTIME is before the moment that lies in its map, and no process has to run for that
to be over. An attachment by BPF_PROG_ATTACH stays with the group, not with whoever made it; only who may detach it
(CAP_NET_ADMIN in the machine's own user namespace) gets around it.

It holds for the sockets that were made in the group, and for all of them. So it is used only where nobody but Envoy,
and what Envoy has started, lives there.
"""

from __future__ import annotations

import os
import struct
import threading
from contextlib import suppress

from attestation import cgroups
from attestation.errors import InvalidConfiguration
from measurer import kernel as k
from measurer.clock import boottime
from measurer.processes.proc import stat_of
from measurer.scope import find_cgroup, read_at

NAME = b"proofbeat_lasts"
"""Of our programs, by which those of an earlier measurer are found: at most fifteen bytes."""
_DIRECTIONS = (k.BPF_CGROUP_INET_INGRESS, k.BPF_CGROUP_INET_EGRESS)
_AT_FIRST = 1.0
_CELL = struct.Struct("=Q")
_MOST_GENERATIONS = 4096


class Deadline:
    """Of one control group. folder: that group's, open; it stays the caller's. At first a second away.

    Raises OSError where the kernel refuses, with nothing left behind.
    """

    def __init__(self, folder: int) -> None:
        self._group = os.dup(folder)
        self._lock = threading.Lock()
        self._map = -1
        self._programs: dict[int, int] = {}
        try:
            self._map = k.bpf_map_create(_CELL.size, NAME)
            self.put_off(_AT_FIRST)
            for direction in _DIRECTIONS:
                self._programs[direction] = _program(self._map, direction)
            remove_left_over(self._group)
            for direction, program in self._programs.items():
                k.bpf_attach(self._group, program, direction)
        except OSError:
            self.lift()
            raise

    def put_off(self, seconds: float) -> None:
        """From now on. Raises OSError."""
        with self._lock:
            if self._map >= 0:
                k.bpf_map_write(self._map, _CELL.pack(int((boottime() + seconds) * 1e9)))

    def lift(self) -> None:
        """Nothing is bounded any more."""
        with self._lock:
            for direction, program in self._programs.items():
                with suppress(OSError):  # it was not attached, or the group is gone
                    k.bpf_detach(self._group, program, direction)
        self.leave()

    def leave(self) -> None:
        """Let go of it as it stands: it passes, and holds until the group is gone or another one takes its place."""
        with self._lock:
            for descriptor in (self._group, self._map, *self._programs.values()):
                if descriptor >= 0:
                    os.close(descriptor)
            self._group = self._map = -1
            self._programs = {}


def remove_left_over(folder: int) -> None:
    """What a measurer that ended has left at this group: its deadline has passed. Raises OSError."""
    for direction in _DIRECTIONS:
        for number in k.bpf_attached(folder, direction):
            program = k.bpf_program(number)
            try:
                if k.bpf_name(program) == NAME:
                    k.bpf_detach(folder, program, direction)
            finally:
                os.close(program)


def of_process(pid: int, proc: int) -> tuple[Deadline | None, str]:
    """One for the group of this process, or why there is none. proc: its /proc folder, open."""
    try:
        membership = read_at(proc, "cgroup")
        path = cgroups.memberships(membership).get(0, "/")
        if path == "/":
            return None, "it lives in no control group of its own"
        group = find_cgroup(path, membership)
    except (OSError, InvalidConfiguration):
        return None, "its control group is not to be seen from here"
    if group.folder < 0:
        return None, "its control group is not to be seen from here"
    try:
        if group.hierarchy != 0:
            return None, "it lives in no control group of version 2"
        stranger = next((each for each in group.pids() if not _descends(each, pid)), None)
        if stranger is not None:
            return None, f"process {stranger} lives in its control group too"
        return Deadline(group.folder), ""
    except OSError as error:
        return None, f"the kernel refuses: {error.strerror}"
    finally:
        os.close(group.folder)


def trial() -> None:
    """Whether the kernel would take one. Raises OSError where not."""
    cell = k.bpf_map_create(_CELL.size, NAME)
    try:
        program = _program(cell, k.BPF_CGROUP_INET_EGRESS)
        try:
            k.bpf_try_attaching(program, k.BPF_CGROUP_INET_EGRESS)
        finally:
            os.close(program)
    finally:
        os.close(cell)


def _descends(pid: int, ancestor: int) -> bool:
    for _ in range(_MOST_GENERATIONS):
        if pid == ancestor:
            return True
        stat = stat_of(pid)
        if stat is None:
            return True  # it is gone, and whoever it made is looked at by itself
        pid = stat.parent
        if pid <= 0:
            return False
    return False


def _program(cell: int, direction: int) -> int:
    """Pass (1) while the moment in the cell is not before now, else drop (0): bpf(2), linux/bpf.h."""
    instructions = (
        (0x18, 1, 2, 0, cell),  # r1 = address of the map's first value, in two parts
        (0x00, 0, 0, 0, 0),
        (0x79, 6, 1, 0, 0),  # r6 = *(u64 *) r1
        (0x85, 0, 0, 0, 125),  # r0 = bpf_ktime_get_boot_ns()
        (0xBF, 1, 0, 0, 0),  # r1 = r0
        (0xB7, 0, 0, 0, 1),  # r0 = 1
        (0x3D, 6, 1, 1, 0),  # if r6 >= r1: skip the next one
        (0xB7, 0, 0, 0, 0),  # r0 = 0
        (0x95, 0, 0, 0, 0),  # return r0
    )
    code = b"".join(
        struct.pack("=BBhi", operation, source << 4 | target, offset, immediate)
        for operation, target, source, offset, immediate in instructions
    )
    return k.bpf_load(code, direction, NAME)
