"""The control groups that take a whole workload at once: version 2 (cgroups(7)), or the freezer of version 1."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from attestation import cgroups
from attestation.containment import Means
from measurer.scope import Pinned, read_at

_V2 = 0


class Group:
    """A group that is the workload's, by its open folder: another group of its name is not taken for it."""

    def __init__(self, means: Means, hierarchy: int, path: str, folder: int) -> None:
        self.means, self._hierarchy, self._path, self._folder = means, hierarchy, path, folder

    def holds(self, membership: bytes) -> bool:
        """Does a process with this /proc/PID/cgroup text live in it or below it?"""
        where = cgroups.memberships(membership).get(self._hierarchy, "")
        return where == self._path or where.startswith(self._path + "/")

    def freeze(self) -> None:
        """Order it; `frozen` says when it is done. Raises OSError."""
        self._set(frozen=True)

    def thaw(self) -> None:
        """Raises OSError."""
        self._set(frozen=False)

    @property
    def frozen(self) -> bool:
        """Nothing in it runs. Raises OSError."""
        if self.means is Means.CGROUP:
            return b"\nfrozen 1\n" in b"\n" + read_at(self._folder, "cgroup.events")
        return read_at(self._folder, "freezer.state").strip() == b"FROZEN"

    def kill(self) -> bool:
        """All of it at once. False where this kernel has no way to do that. Raises OSError."""
        if self.means is not Means.CGROUP:
            return False
        try:
            self._write("cgroup.kill", b"1")
        except FileNotFoundError:  # before Linux 5.14
            return False
        return True

    def close(self) -> None:
        os.close(self._folder)

    def _set(self, *, frozen: bool) -> None:
        if self.means is Means.CGROUP:
            self._write("cgroup.freeze", b"1" if frozen else b"0")
        else:
            self._write("freezer.state", b"FROZEN" if frozen else b"THAWED")

    def _write(self, name: str, what: bytes) -> None:
        descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            os.write(descriptor, what)
        finally:
            os.close(descriptor)


def group_of(pinned: Pinned) -> Group | None:
    """The best group that can freeze what was pinned by a cgroup; None where there is none, or nobody named a cgroup.

    Of the hierarchies of version 1 each has its own groups. Container runtimes give a workload the same path in all:
    only where the freezer has it at the path that was pinned it is the same set of processes.
    """
    if pinned.cgroup is None or pinned.cgroup.path == "/":
        return None
    try:
        where = cgroups.memberships(read_at(pinned.proc, "cgroup"))
    except OSError:
        return None
    for means, hierarchy, mount in _mounts():
        if where.get(hierarchy) != pinned.cgroup.path:
            continue
        group = _opened(means, hierarchy, pinned.cgroup.path, mount)
        if group is not None:
            return group
    return None


def _opened(means: Means, hierarchy: int, path: str, mount: Path) -> Group | None:
    try:
        folder = os.open(mount / path.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    group = Group(means, hierarchy, path, folder)
    try:
        _ = group.frozen
    except OSError:
        group.close()
        return None
    return group


def _mounts() -> Iterator[tuple[Means, int, Path]]:
    freezer = next((number for number, controllers in _hierarchies() if "freezer" in controllers), None)
    for line in sorted(_mountinfo(), key=lambda line: b" - cgroup2 " not in line):
        before, _, after = os.fsdecode(line).partition(" - ")
        point, (kind, _, options) = Path(before.split()[4]), after.split()[:3]
        if kind == "cgroup2":
            yield Means.CGROUP, _V2, point
        elif kind == "cgroup" and freezer is not None and "freezer" in options.split(","):
            yield Means.FREEZER, freezer, point


def _mountinfo() -> Iterable[bytes]:
    return [line for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n") if b" - cgroup" in line]


def _hierarchies() -> Iterator[tuple[int, list[str]]]:
    for line in Path("/proc/self/cgroup").read_bytes().split(b"\n"):
        number, _, rest = line.partition(b":")
        if number.isdigit():
            yield int(number), os.fsdecode(rest.partition(b":")[0]).split(",")
