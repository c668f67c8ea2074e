"""fanotify(7) in descriptor mode for FAN_OPEN_EXEC: the file of every execution, held open, even if it is gone by now.

Not the permission variant, which is the gate's (measurer/gate): a measurer that stops must stop nobody. What is marked,
for both of them, are the workload's mounts,
as its mount namespace has them, and whole file systems only where they are its own: a mark on one that a node shares
would hand us, open, what other pods execute. A process that takes a mount namespace of its own has other mounts: they
are marked when its first execution there is confirmed, which is looked up in /proc.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from measurer import fanotify, mounts
from measurer import kernel as k
from measurer.gate.gate import Gate
from measurer.loop import drain
from measurer.mounts import Mount, Mounts
from measurer.processes.held import Held

_BUFFER = 4096
_MOST_NAMESPACES = 64


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
    """Marks every mount of the workload. Raises OSError (EPERM) where the kernel refuses.

    ours: the mounts of the measurer's own namespace.
    """

    def __init__(self, events: ExecEvents, root: int, table: Mounts, ours: tuple[Mount, ...]) -> None:
        self._group, self._root, self._table, self._ours = events.descriptor, root, table, ours
        self._gate: Gate | None = None
        self._namespaces: set[str] = set()
        self._followed: dict[int, tuple[int, Mounts, str]] = {}
        self.unmarked: tuple[str, ...] = ()
        self.whole: tuple[str, ...] = ()
        k.fanotify_mark(self._group, k.FAN_MARK_ADD | k.FAN_MARK_MOUNT, k.FAN_OPEN_EXEC, root, b".")
        self.mark_mounts(root)

    @property
    def followed(self) -> list[int]:
        """The mountinfo of each other namespace that is followed."""
        return [*self._followed]

    def mark_mounts(self, root: int) -> None:
        """Mark what is mounted now. `unmarked` names what cannot be, `whole` what is marked as a file system."""
        self._root = root
        if self._gate is not None:
            self._gate.mark("/", root, whole=False)
        self.unmarked, self.whole = self._mark(root, self._table.all())

    def gate(self, gate: Gate | None) -> None:
        """Have this one asked as well, wherever anything is or will be marked."""
        self._gate = gate
        if gate is not None:
            self.mark_mounts(self._root)
            for each in self.followed:
                self.mark_again(each)

    def follow(self, process: Held) -> int:
        """Mark the mounts of the namespace that this process of the workload is in, where that is another one.

        Its mountinfo, open: readable with EPOLLPRI when there are others, and then to be given to `mark_again`. -1
        where it is followed already, or gone.
        """
        namespace = process.read(_namespace)
        if namespace is None or namespace in self._namespaces or len(self._namespaces) >= _MOST_NAMESPACES:
            return -1
        root = process.read(_root)
        if root is None:
            return -1
        mountinfo = process.read(_mountinfo)
        if mountinfo is None:
            os.close(root)
            return -1
        self._namespaces.add(namespace)
        self._followed[mountinfo] = (root, Mounts(mountinfo), namespace)
        self.mark_again(mountinfo)
        return mountinfo

    def mark_again(self, mountinfo: int) -> bool:
        """Mark what is mounted in a followed namespace by now. False, and it is closed, where that is over."""
        root, table, namespace = self._followed[mountinfo]
        there = table.all()
        self._mark(root, there)
        if there:
            return True
        del self._followed[mountinfo]
        self._namespaces.discard(namespace)
        os.close(root)
        return False

    def _mark(self, root: int, table: list[Mount]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        refused, whole = set(), set()
        for mount in table:
            if not mount.executable:
                continue
            try:
                descriptor = k.open_below(root, mount.point, os.O_PATH | os.O_NOFOLLOW)
            except OSError:
                continue  # hidden below another mount, or not below the workload's root: nothing executes there
            owned = mounts.own(mount, self._ours)
            if self._gate is not None:
                self._gate.mark(os.fsdecode(mount.point), descriptor, owned)
            try:
                kind = k.FAN_MARK_FILESYSTEM if owned else k.FAN_MARK_MOUNT
                path = b"/proc/self/fd/%d" % descriptor
                k.fanotify_mark(self._group, k.FAN_MARK_ADD | kind, k.FAN_OPEN_EXEC, k.AT_FDCWD, path)
                if owned:
                    whole.add(os.fsdecode(mount.point))
            except OSError:
                refused.add(os.fsdecode(mount.point))
            finally:
                os.close(descriptor)
        if self._gate is not None:
            self._gate.flush()
        return tuple(sorted(refused)), tuple(sorted(whole))

    def close(self) -> None:
        """Let go of the namespaces. The marks are the group's, and go with the mounts."""
        for root, table, _ in self._followed.values():
            os.close(root)
            table.close()


def _namespace(folder: int) -> str:
    return os.readlink("ns/mnt", dir_fd=folder)


def _root(folder: int) -> int:
    return os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)


def _mountinfo(folder: int) -> int:
    return os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
