"""The workload's mount table: what is mounted where, what of it changed, and which file systems are its own.

The kernel says that something changed (mountinfo is readable with EPOLLPRI, proc(5)); what it was is the difference
of two readings. A mount that came and went between them is in neither: since Linux 6.14 fanotify counts those.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from measurer import fanotify
from measurer import kernel as k
from measurer.loop import drain

_BUFFER = 4096
_NEVER_EXECUTABLE = frozenset(
    b"proc sysfs cgroup cgroup2 devpts mqueue securityfs debugfs tracefs bpf pstore configfs autofs nsfs".split()
)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc(5)). number: of the mount, taken again once it is free. root: what of the file
    system it shows. point: where, as the workload sees it. kind: of the file system.
    """

    number: int
    device: bytes
    root: bytes
    point: bytes
    kind: bytes
    executable: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """mounted: it is there now; else it was there."""

    mount: Mount
    mounted: bool


def parse(mountinfo: bytes) -> list[Mount]:
    """Every mount in a mountinfo text. What does not parse is left out."""
    mounts = []
    for line in mountinfo.split(b"\n"):
        before, _, after = line.partition(b" - ")
        fields, kind = before.split(b" "), after.split(b" ")[0]
        if len(fields) > 5 and fields[0].isdigit():
            executable = kind not in _NEVER_EXECUTABLE and b"noexec" not in fields[5].split(b",")
            mounts.append(
                Mount(int(fields[0]), fields[2], _unescaped(fields[3]), _unescaped(fields[4]), kind, executable)
            )
    return mounts


def own(mount: Mount, ours: Iterable[Mount]) -> bool:
    """Is this file system the workload's alone? ours: what the measurer's own mount namespace has.

    Said of overlays only, as each container gets one of its own: any other file system may be mounted for others in
    part. Of one that is mounted where we are as well, nobody can say who else sees it.
    """
    return mount.kind == b"overlay" and mount.root == b"/" and all(each.device != mount.device for each in ours)


def here() -> list[Mount]:
    """Those of the measurer's own mount namespace."""
    return parse(Path("/proc/self/mountinfo").read_bytes())


def namespace_of(process: int) -> int:
    """The mount namespace of an open /proc/PID, open; -1 where it may not be opened."""
    try:
        return os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    except OSError:
        return -1


class Mounts:
    """The table behind an open /proc/PID/mountinfo. namespace: an open ns/mnt link; -1 where it may not be opened.

    Both are this object's from now on. apart: the namespace is not our own, nor the whole node's.
    """

    def __init__(self, mountinfo: int, namespace: int = -1) -> None:
        self._mountinfo, self._namespace = mountinfo, namespace
        self.apart = namespace >= 0 and not Path("/proc/self/ns/mnt").samefile(f"/proc/self/fd/{namespace}")
        self._known = self._read()
        self._group = _watching(namespace)

    @property
    def descriptor(self) -> int:
        """Readable when there are mount events; -1 where the kernel has none."""
        return self._group

    @property
    def mountinfo(self) -> int:
        """Ready with EPOLLPRI when the table is another one."""
        return self._mountinfo

    def renew(self, mountinfo: int) -> None:
        """From now on this one, since it shows what is below the root that the process had when it was opened."""
        os.close(self._mountinfo)
        self._mountinfo = mountinfo
        self._known = self._read()

    def all(self) -> list[Mount]:
        """As they are now."""
        return self._read()

    def changes(self) -> tuple[list[Changed], int]:
        """What is other than at the last look, and how many mounts came and went in between."""
        passed = self._passed()  # before the table: what comes after it is counted by the next look
        before, now = set(self._known), set(self._read())
        self._known = list(now)
        gone = [Changed(each, False) for each in before - now]
        come = [Changed(each, True) for each in now - before]
        return sorted([*gone, *come], key=lambda each: (each.mount.point, each.mounted)), passed

    def close(self) -> None:
        for each in (self._group, self._namespace, self._mountinfo):
            if each >= 0:
                os.close(each)

    def _passed(self) -> int:
        if self._group < 0:
            return 0
        attached: set[bytes] = set()
        passed = 0
        for buffer in drain(self._group, _BUFFER):
            for event in fanotify.events(buffer):
                if event.mask & k.FAN_Q_OVERFLOW:
                    passed += 1
                elif event.mask & k.FAN_MNT_ATTACH and not event.mask & k.FAN_MNT_DETACH:
                    attached.add(event.records)
                elif event.mask & k.FAN_MNT_DETACH and not event.mask & k.FAN_MNT_ATTACH and event.records in attached:
                    passed += 1
        return passed

    def _read(self) -> list[Mount]:
        parts, position = [], 0
        while part := os.pread(self._mountinfo, 1 << 16, position):
            parts.append(part)
            position += len(part)
        return parse(b"".join(parts))


def _watching(namespace: int) -> int:
    """A group for the mount events of a namespace. -1 before Linux 6.14, and for whom the kernel does not let."""
    if namespace < 0:
        return -1
    try:
        group = k.fanotify_init(k.FAN_CLOEXEC | k.FAN_NONBLOCK | k.FAN_REPORT_MNT)
    except OSError:
        return -1
    try:
        mask = k.FAN_MNT_ATTACH | k.FAN_MNT_DETACH
        k.fanotify_mark(group, k.FAN_MARK_ADD | k.FAN_MARK_MNTNS, mask, namespace, None)
    except OSError:
        os.close(group)
        return -1
    return group


def _unescaped(field: bytes) -> bytes:
    for escape, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(escape, character)
    return field
