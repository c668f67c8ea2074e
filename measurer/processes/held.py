"""One process, held: whatever is read of it is read of it, or nothing is.

A descriptor of its /proc folder answers for one process and for no other, whoever has its pid by now (proc(5)). Where
no more descriptors are to be had for that, its start time is compared each time the folder is opened again.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from typing import TypeVar

from attestation.errors import InvalidInput, Unavailable
from measurer.processes.binaries import Binaries, Binary
from measurer.processes.proc import Look, Read, Rights, Stat, listing, open_process, parse_stat, read_small, rights_at

T = TypeVar("T")
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_SHARE = 3
"""One descriptor in so many may hold a process; the others are for files, sockets and what comes beside messages."""
_MOST = 16_384
_CGROUP_BYTES, _CHILDREN_BYTES = 1 << 16, 1 << 20
_OUR_OWN_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Allowance:
    """How many processes may be held at once, whoever they belong to. most: by default a share of the limit."""

    def __init__(self, most: int | None = None) -> None:
        self.most = min(_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE) if most is None else most
        self.taken = 0
        self.refused = False
        """Some process was not held: its start time vouches for it."""

    def take(self) -> bool:
        """True where one more may be held; it has to be given back."""
        if self.taken >= self.most:
            self.refused = True
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        self.taken -= 1


class Held:
    """The process that had this pid by a certain time. Every answer is None, or empty, once it is gone.

    born_by: CLOCK_BOOTTIME seconds at which it was there already, so that a successor is not taken for it.
    """

    __slots__ = ("_allowance", "_born_by", "_folder", "_read", "_start", "hidden", "pid", "untold")

    def __init__(self, pid: int, allowance: Allowance, born_by: float = inf) -> None:
        self.pid = pid
        self.hidden = False
        """The kernel does not show it to us (`hidepid` of proc(5)): whether it is gone, only events tell."""
        self.untold = True
        """Nobody has been told yet that it cannot be measured."""
        self._allowance, self._born_by = allowance, born_by
        self._start: int | None = None
        self._read: Read | None = None
        self._folder = -1
        if not allowance.take():
            self._start = self._first_start()
            return
        try:
            self._folder = open_process(pid)
        except OSError as error:
            allowance.give_back()
            self._gone(error)

    @property
    def start_ticks(self) -> int:
        """Clock ticks since boot; -1 where it was gone before it could be looked at."""
        if self._start is None:
            self._start = self._born(_stat(self._folder))
        return self._start

    def close(self) -> None:
        """Let go of it. Nothing can be read of it any more."""
        self._start = -1
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1
            self._allowance.give_back()

    def stat(self) -> Stat | None:
        return self._through(lambda folder: parse_stat(read_small(folder, "stat")))

    def lives(self) -> bool:
        """It runs; a zombie does not."""
        stat = self.stat()
        return stat is not None and stat.state not in "ZXx"

    def over(self) -> bool:
        """It has ended with all its threads.

        Threads are counted before the state is read: an exec in another thread replaces the first one in between,
        and in the other order that would look like a single dead thread.
        """
        threads = self._through(lambda folder: len(listing(f"/proc/self/fd/{folder}/task")))
        return (threads or 0) <= 1 and not self.lives()

    def rights(self) -> Rights | None:
        """None for a zombie too."""
        read = self._through(lambda folder: rights_at(folder, self._read))
        if read is None:
            return None
        self._read = read
        return read.rights

    def binary(self, binaries: Binaries) -> Binary | None:
        return self._through(binaries.of_process)

    def runs_what_reads_at_once(self, binaries: Binaries) -> bool:
        descriptor = self._through(_open_image)
        if descriptor is None:
            return True
        try:
            return binaries.reads_at_once(descriptor)
        finally:
            os.close(descriptor)

    def read_slowly(self, binaries: Binaries) -> Iterator[None]:
        """Have what it runs read by the time that it is asked for."""
        descriptor = self._through(_open_image)
        if descriptor is not None:
            try:
                yield from binaries.read_slowly(descriptor)
            finally:
                os.close(descriptor)

    def look(self, binaries: Binaries) -> Look | None:
        """Everything about it; None for a zombie too."""
        return self._through(lambda folder: _look(self.pid, folder, binaries))

    def executable(self) -> str:
        """The path of what it runs, as it sees it."""
        link = self._through(lambda folder: os.readlink("exe", dir_fd=folder))
        return (link or "").removesuffix(" (deleted)")

    def image(self) -> tuple[int, int] | None:
        """Device and inode of what it runs."""
        return self._through(_image)

    def cgroups(self) -> bytes:
        """Its /proc/PID/cgroup text."""
        return self._through(lambda folder: read_small(folder, "cgroup", _CGROUP_BYTES)) or b""

    def home(self) -> tuple[int, int] | None:
        """Device and inode of its mount namespace."""
        return self._through(_home)

    def pid_inside(self) -> int:
        """Its pid as its own pid namespace numbers it (NSpid in proc(5)); 0 where that is ours, or unknown."""
        return self._through(_pid_inside) or 0

    def children(self) -> list[int] | None:
        """Pids of its children, whichever of its threads made them (CONFIG_PROC_CHILDREN)."""
        return self._through(_children)

    def read(self, read: Callable[[int], T]) -> T | None:
        """Whatever else is to be read through its folder."""
        return self._through(read)

    def unreadable(self) -> str:
        """Why it cannot be measured although it runs; empty where it can."""
        return "it is hidden from us" if self.hidden else (self._through(_unreadable) or "")

    def _through(self, read: Callable[[int], T]) -> T | None:
        start = self.start_ticks
        if start < 0:
            return None
        try:
            if self._folder >= 0:
                return read(self._folder)
            folder = open_process(self.pid)
        except (OSError, InvalidInput):
            return None
        try:
            return read(folder) if parse_stat(read_small(folder, "stat")).start_ticks == start else None
        except (OSError, InvalidInput):
            return None
        finally:
            os.close(folder)

    def _gone(self, error: OSError) -> None:
        if error.errno in _OUR_OWN_LACK:
            raise Unavailable(
                f"no more descriptors: {error.strerror}", where="measurer", mend="Raise its limit (RLIMIT_NOFILE)."
            ) from error
        self._start, self.hidden = -1, isinstance(error, PermissionError)

    def _first_start(self) -> int:
        try:
            folder = open_process(self.pid)
        except OSError as error:
            self._gone(error)
            return -1
        try:
            return self._born(_stat(folder))
        finally:
            os.close(folder)

    def _born(self, stat: Stat | None) -> int:
        if stat is None or (stat.start_ticks - 1) * _TICK > self._born_by:
            return -1
        return stat.start_ticks


def allow_descriptors() -> None:
    """As many descriptors as we may have without asking anybody (setrlimit(2))."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stat(folder: int) -> Stat | None:
    try:
        return parse_stat(read_small(folder, "stat"))
    except (OSError, InvalidInput):
        return None


def _open_image(folder: int) -> int:
    return os.open("exe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)


def _unreadable(folder: int) -> str:
    try:
        os.close(_open_image(folder))
    except PermissionError as error:
        ended = parse_stat(read_small(folder, "stat")).state in "ZXx"
        return "" if ended else f"what it runs cannot be read: {error.strerror}"
    return ""


def _look(pid: int, folder: int, binaries: Binaries) -> Look | None:
    stat = parse_stat(read_small(folder, "stat"))
    if stat.state in "ZXx":
        return None
    return Look(pid, stat.start_ticks, rights_at(folder).rights, binaries.of_process(folder))


def _image(folder: int) -> tuple[int, int]:
    status = os.stat("exe", dir_fd=folder)
    return status.st_dev, status.st_ino


def _home(folder: int) -> tuple[int, int]:
    status = os.stat("ns/mnt", dir_fd=folder)
    return status.st_dev, status.st_ino


def _pid_inside(folder: int) -> int:
    for line in read_small(folder, "status").split(b"\n"):
        if line.startswith(b"NSpid:"):
            numbers = line.split()[1:]
            return int(numbers[-1]) if len(numbers) > 1 else 0
    return 0


def _children(folder: int) -> list[int]:
    found: list[int] = []
    for thread in listing(f"/proc/self/fd/{folder}/task"):
        try:
            found += [int(each) for each in read_small(folder, f"task/{thread}/children", _CHILDREN_BYTES).split()]
        except OSError:  # the thread has ended
            continue
    return found
