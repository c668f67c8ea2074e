"""Whom we measure: one run of a workload, pinned once by descriptors, so that no later step resolves a pid again."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from attestation import cgroups
from attestation.channel import Scope
from attestation.errors import InvalidConfiguration, InvalidInput, WorkloadGone
from attestation.instance import InstanceId
from measurer import kernel
from measurer.processes.proc import listing, open_process, parse_stat

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_V2 = 0
_OUTSIDE = "/.."
"""What the path of a group begins with that is not in our cgroup namespace."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A control group. hierarchy: its number in /proc/PID/cgroup, 0 for version 2. path: as that file writes it.

    folder: of the group, open (O_PATH), so that another group of its name is not taken for it; -1 where none of our
    mounts shows it, as in a container beside: then the process table is searched.
    """

    hierarchy: int
    path: str
    folder: int
    inode: int

    def holds(self, membership: bytes) -> bool:
        """Does a process with this /proc/PID/cgroup text live in the group or below it?"""
        return _holds(self.hierarchy, self.path, membership)

    def pids(self) -> Iterator[int]:
        """Every process in the group and below it."""
        if self.folder < 0:
            yield from (pid for pid in all_pids() if self.holds(_membership_of(pid)))
            return
        for _, _, _, folder in os.fwalk(".", dir_fd=self.folder):
            try:
                text = read_at(folder, "cgroup.procs")
            except OSError:  # it was removed
                continue
            yield from (int(each) for each in text.split())


@dataclass(frozen=True, slots=True)
class Pinned:
    """The workload's first process, held.

    pidfd: readable once it has ended. proc: /proc/PID, opened while it lived; it answers for no other process.
    root: its root folder (O_PATH). start_ticks: field 22 of its stat, in clock ticks since boot.
    """

    pid: int
    pidfd: int
    proc: int
    root: int
    start_ticks: int
    cgroups: bytes
    """Its /proc/PID/cgroup text."""
    instance: InstanceId
    boot_id: str
    cgroup: Cgroup | None
    network: int
    """Its network namespace, open, so that it stays this one whatever the process does; -1 where we may not look."""
    home: tuple[int, int] | None = None
    """Its mount namespace, where it is the first process in it: a container's. Else whoever is in it may be anybody."""

    @property
    def started(self) -> float:
        """CLOCK_BOOTTIME seconds."""
        return self.start_ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Let go of it."""
        cgroup = self.cgroup.folder if self.cgroup else -1
        for descriptor in (self.pidfd, self.proc, self.root, self.network, cgroup):
            if descriptor >= 0:
                os.close(descriptor)


def pin(scope: Scope, pidfd: int | None = None) -> Pinned:
    """pidfd: of the workload's first process, where whoever asks holds it; else its pid is resolved, this once.

    Raises WorkloadGone, InvalidConfiguration.
    """
    with ExitStack() as held:
        pinned = _pin(scope, pidfd, held)
        held.pop_all()
    return pinned


def _pin(scope: Scope, pidfd: int | None, held: ExitStack) -> Pinned:
    """held: closes what was opened, unless all goes well."""
    where = f"process {scope.pid}"
    gone = WorkloadGone(
        "the workload ended before it could be pinned", where=where, mend="Start it again, then measure that run."
    )
    try:
        if pidfd is None:
            pidfd = os.pidfd_open(scope.pid)
        held.callback(os.close, pidfd)
        pid = pid_of(pidfd)
        proc = open_process(pid)
        held.callback(os.close, proc)
        stat = parse_stat(read_at(proc, "stat"))
        membership = read_at(proc, "cgroup")
    except (OSError, InvalidInput) as error:
        raise gone from error
    try:
        root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    except OSError as error:
        raise _no_access(error, where) from error
    held.callback(os.close, root)
    network = _network_of(proc)
    if network >= 0:
        held.callback(os.close, network)
    if not alive(pidfd):  # the descriptors above belong to the pidfd's process only if that still lives now
        raise gone
    cgroup = find_cgroup(scope.cgroup, membership) if scope.cgroup else None
    if cgroup is not None and cgroup.folder >= 0:
        held.callback(os.close, cgroup.folder)
    boot_id = _BOOT_ID.read_text().strip()
    instance = InstanceId.of_run(
        boot_id=boot_id, cgroup=cgroup.inode if cgroup else 0, pid=pid, start_ticks=stat.start_ticks
    )
    home = _home_of(proc, stat.parent)
    return Pinned(pid, pidfd, proc, root, stat.start_ticks, membership, instance, boot_id, cgroup, network, home)


def _network_of(proc: int) -> int:
    try:
        return os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:
        return -1


def _home_of(proc: int, parent: int) -> tuple[int, int] | None:
    try:
        home = _mounts_at("ns/mnt", proc)
        around = {_mounts_at("/proc/self/ns/mnt"), *([_mounts_at(f"/proc/{parent}/ns/mnt")] if parent else [])}
    except OSError:
        return None
    return home if home not in around else None


def _mounts_at(link: str, folder: int | None = None) -> tuple[int, int]:
    status = os.stat(link, dir_fd=folder)
    return status.st_dev, status.st_ino


def alive(pidfd: int) -> bool:
    """Is the process behind a pidfd still there? Signal 0 asks nothing of it (pidfd_send_signal(2))."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def pid_of(pidfd: int) -> int:
    """The `Pid:` line of a pidfd's fdinfo (pidfd_open(2)); -1 for a process that is gone or another descriptor."""
    try:
        text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    except OSError:
        return -1
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "Pid":
            return int(value)
    return -1


def all_pids() -> list[int]:
    """Every process that we may see."""
    return [int(name) for name in listing("/proc") if name.isdigit()]


def read_at(directory: int, name: str) -> bytes:
    """A whole small file below a /proc/PID descriptor. Raises OSError, ESRCH once the process is gone."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def find_cgroup(wanted: str, membership: bytes) -> Cgroup:
    """The group of that path (as in /proc/PID/cgroup, or as a folder) that the workload lives in.

    Looks through version 2 first and then every version 1 hierarchy, because a hybrid system keeps the workload's
    group in one of those. From a cgroup namespace of our own the path of another's group begins with `/..`, and no
    folder of ours leads there. Raises InvalidConfiguration when the workload is in no such group.
    """
    for hierarchy, root, mount in _cgroup_mounts():
        path = "/" + wanted.removeprefix(str(mount)).strip("/")
        folder = mount / path.removeprefix(root.rstrip("/")).lstrip("/")
        inside = path == root or path.startswith(root.rstrip("/") + "/")
        if inside and _holds(hierarchy, path, membership) and (folder / "cgroup.procs").exists():
            held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            return Cgroup(hierarchy, path, held, os.fstat(held).st_ino)
    path = "/" + wanted.strip("/")
    for hierarchy in sorted(cgroups.memberships(membership)):
        if path != "/" and _holds(hierarchy, path, membership):
            return Cgroup(hierarchy, path, -1, 0)
    raise InvalidConfiguration(
        "the workload is not in this cgroup", where=f"cgroup {wanted}", mend="Give one of its /proc/PID/cgroup paths."
    )


def top_group(membership: bytes) -> int:
    """The uppermost group of version 2 that we see, open (O_PATH), where whoever has this /proc/PID/cgroup text lives
    in it or below it. Raises OSError where there is none.
    """
    path = cgroups.memberships(membership).get(_V2, _OUTSIDE)
    for hierarchy, root, mount in _cgroup_mounts():
        inside = path == root or path.startswith(root.rstrip("/") + "/")
        if hierarchy == _V2 and inside and not f"{path}/".startswith(f"{_OUTSIDE}/"):
            return os.open(mount, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    raise FileNotFoundError(errno.ENOENT, "no control group of version 2 that we see holds it")


def _holds(hierarchy: int, path: str, membership: bytes) -> bool:
    where = cgroups.memberships(membership).get(hierarchy)
    return where is not None and (where == path or where.startswith(path.rstrip("/") + "/"))


def _membership_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cgroup").read_bytes()
    except OSError:
        return b""


def _cgroup_mounts() -> list[tuple[int, str, Path]]:
    """Number of the hierarchy, which of its groups is mounted, and where."""
    numbers: dict[str, int] = {}
    for number, controllers in _own_hierarchies():
        for controller in controllers.split(","):
            numbers[controller] = number
    found = []
    for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).rstrip("\n").split("\n"):
        before, _, after = line.partition(" - ")
        root, point = before.split()[3], Path(before.split()[4])
        kind, options = after.split()[0], after.split()[2]
        if kind == "cgroup2":
            found.append((0, root, point))
        elif kind == "cgroup":
            found += [(numbers[option], root, point) for option in options.split(",") if option in numbers]
    return sorted(found)


def _own_hierarchies() -> Iterator[tuple[int, str]]:
    for line in os.fsdecode(Path("/proc/self/cgroup").read_bytes()).rstrip("\n").split("\n"):
        number, controllers, _ = line.split(":", 2)
        if controllers:
            yield int(number), controllers


def _no_access(error: OSError, where: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"the workload's root folder cannot be opened ({os.strerror(error.errno or 0)})",
        where=where,
        mend="Run the measurer as the workload's user, or give it CAP_SYS_PTRACE.",
    )


def check_include(root: int, path: str) -> None:
    """Raises InvalidConfiguration unless `path` is absolute, exists for the workload, and is no symbolic link."""
    where = f"workload.files.include {path}"
    if not path.startswith("/") or "\0" in path or os.path.normpath(path) != path:
        raise InvalidConfiguration(
            "not an absolute path in its shortest form", where=where, mend="Write it like /srv/app."
        )
    try:
        descriptor = kernel.open_below(root, os.fsencode(path), os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot be read as the workload sees it ({os.strerror(error.errno or 0)})",
            where=where,
            mend="Name a file or folder that exists in the workload's root and that the measurer may read.",
        ) from error
    try:
        mode = os.fstat(descriptor).st_mode
        target = os.readlink("", dir_fd=descriptor) if (mode & 0o170000) == 0o120000 else ""
    finally:
        os.close(descriptor)
    if target:
        raise InvalidConfiguration(f"a symbolic link to {target}", where=where, mend="Name what it points to.")
