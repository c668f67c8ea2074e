"""What a process has open, as far as it leads out of it: read through a descriptor of its /proc folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

_OUR_OWN_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_STDIO = (0, 1, 2)
_PROTOCOL = "system.sockprotoname"
"""Names the protocol of a socket (net/socket.c), without a descriptor of it, which would have us close it for good."""
_WITHIN = "UNIX"
"""How those of AF_UNIX begin: they lead to another process of this machine."""


@dataclass(frozen=True, slots=True)
class Stdio:
    """A socket that is standard input, output or error. protocol: empty where the kernel does not say."""

    inode: int
    descriptors: tuple[int, ...]
    protocol: str


def stdio_sockets(proc: int) -> tuple[Stdio, ...]:
    """Those that lead out of the machine. Raises PermissionError where we may not look."""
    found: dict[int, list[int]] = {}
    for number in _STDIO:
        try:
            status = os.stat(f"fd/{number}", dir_fd=proc)
        except PermissionError:
            raise
        except OSError:  # closed
            continue
        if stat.S_ISSOCK(status.st_mode):
            found.setdefault(status.st_ino, []).append(number)
    named = ((inode, numbers, _protocol(proc, numbers[0])) for inode, numbers in found.items())
    return tuple(
        Stdio(inode, tuple(numbers), name)
        for inode, numbers, name in named
        if name is not None and not name.startswith(_WITHIN)
    )


def _protocol(proc: int, number: int) -> str | None:
    """None for what is no socket, but the name of one, or is closed by now."""
    try:
        name = os.getxattr(f"/proc/self/fd/{proc}/fd/{number}", _PROTOCOL)
    except PermissionError:
        return ""
    except OSError:
        return None
    return name.rstrip(b"\0").decode("ascii", "replace")


def socket_inodes(proc: int) -> set[int]:
    """Inodes of the sockets that a process has open; none once it is gone.

    Raises OSError where we could not look, PermissionError where the kernel does not let us (a non-dumpable process,
    for whom has no CAP_SYS_PTRACE): neither is the same as finding nothing.
    """
    found: set[int] = set()
    try:
        folder = open_descriptors(proc)
    except OSError as error:
        return _nothing_if_gone(error)
    try:
        found.update(sockets_in(folder))
    except OSError as error:
        return found | _nothing_if_gone(error)
    finally:
        os.close(folder)
    return found - {0}


def open_descriptors(proc: int) -> int:
    """The folder of a process's descriptors. Raises OSError, PermissionError where the kernel does not let us."""
    return os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)


def sockets_in(folder: int) -> Iterator[int]:
    """For each descriptor in such a folder: the inode of its socket, or 0. Raises OSError."""
    for name in os.listdir(folder):
        try:
            link = os.readlink(name, dir_fd=folder)
        except PermissionError:
            raise
        except OSError:  # closed since it was listed
            continue
        yield int(link[8:-1]) if link.startswith("socket:[") else 0


def _nothing_if_gone(error: OSError) -> set[int]:
    if error.errno in _OUR_OWN_LACK or isinstance(error, PermissionError):
        raise error
    return set()
