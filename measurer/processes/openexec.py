"""fanotify(7) in descriptor mode for FAN_OPEN_EXEC: the file of every execution, held open, even if it is gone by now.

Never the permission variant: a measurer that stops must not stop the host. The marks are on whole file systems,
since a foreign program can lie anywhere; what they deliver is executions only, and a pid outside the workload is
dropped after one look-up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from measurer import fanotify
from measurer import kernel as k
from measurer.loop import drain

_BUFFER = 4096
_NEVER_EXECUTABLE = frozenset(
    b"proc sysfs cgroup cgroup2 devpts mqueue securityfs debugfs tracefs bpf pstore configfs autofs nsfs".split()
)


@dataclass(frozen=True, slots=True)
class OpenExec:
    """A file opened to be executed. descriptor: to be closed by the receiver; -1 when the queue ran over."""

    pid: int
    descriptor: int

    @property
    def lost(self) -> bool:
        return self.descriptor < 0


class ExecEvents:
    """A notification group, which several workloads may share. Raises OSError (EPERM) where the kernel refuses."""

    def __init__(self) -> None:
        self.descriptor = k.fanotify_init(k.FAN_CLOEXEC | k.FAN_NONBLOCK | k.FAN_UNLIMITED_MARKS)

    def hear(self, folder: int) -> None:
        """Tell when this folder is opened too. Raises OSError."""
        k.fanotify_mark(self.descriptor, k.FAN_MARK_ADD, k.FAN_OPEN | k.FAN_ONDIR, folder, None)

    def read(self) -> Iterator[OpenExec]:
        """The executions there are, without waiting."""
        for buffer in drain(self.descriptor, _BUFFER):
            for event in fanotify.events(buffer):
                yield OpenExec(event.pid, -1 if event.mask & k.FAN_Q_OVERFLOW else event.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)


class ExecFiles:
    """Marks every file system that the workload has mounted. Raises OSError (EPERM) where the kernel refuses."""

    def __init__(self, events: ExecEvents, root: int, mountinfo: int) -> None:
        self._group, self._root, self._mountinfo = events.descriptor, root, mountinfo
        self.unmarked: tuple[str, ...] = ()
        k.fanotify_mark(self._group, k.FAN_MARK_ADD | k.FAN_MARK_FILESYSTEM, k.FAN_OPEN_EXEC, root, b".")
        self.mark_mounts()

    def mark_mounts(self) -> None:
        """Mark what is mounted now; what cannot be marked is named in `unmarked`."""
        refused = []
        for point in mount_points(_whole(self._mountinfo)):
            try:
                descriptor = k.open_below(self._root, point, os.O_PATH | os.O_NOFOLLOW)
            except OSError:
                continue  # hidden below another mount, or not below the workload's root: nothing executes there
            try:
                k.fanotify_mark(
                    self._group,
                    k.FAN_MARK_ADD | k.FAN_MARK_FILESYSTEM,
                    k.FAN_OPEN_EXEC,
                    k.AT_FDCWD,
                    b"/proc/self/fd/%d" % descriptor,
                )
            except OSError:
                refused.append(os.fsdecode(point))
            finally:
                os.close(descriptor)
        self.unmarked = tuple(sorted(set(refused)))


def mount_points(mountinfo: bytes) -> list[bytes]:
    """Where programs could lie: the mount points in a mountinfo text (proc(5)) but those of kernel interfaces."""
    points = []
    for line in mountinfo.split(b"\n"):
        before, _, after = line.partition(b" - ")
        fields, kinds = before.split(b" "), after.split(b" ")
        if len(fields) > 5 and kinds[0] not in _NEVER_EXECUTABLE and b"noexec" not in fields[5].split(b","):
            points.append(_unescaped(fields[4]))
    return points


def _unescaped(field: bytes) -> bytes:
    for escape, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(escape, character)
    return field


def _whole(descriptor: int) -> bytes:
    parts, position = [], 0
    while part := os.pread(descriptor, 1 << 16, position):
        parts.append(part)
        position += len(part)
    return b"".join(parts)
