"""What one process has mapped executable: asked of the kernel mapping by mapping, or read from /proc/PID/maps.

PROCMAP_QUERY (linux/fs.h, since Linux 6.11) passes over all that is not asked for. A data base with ten thousand
mappings is asked about its fifty that can be executed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_QUERY = struct.Struct("=9Q4I2Q")
_PROCMAP_QUERY = 3 << 30 | _QUERY.size << 16 | ord("f") << 8 | 17
WRITABLE, EXECUTABLE, SHARED, OF_A_FILE = 0x02, 0x04, 0x08, 0x20
_COVERING_OR_NEXT = 0x10
_NAME_BYTES = 4096
_UNKNOWN_REQUEST = frozenset({errno.ENOTTY, errno.EINVAL, errno.ENOSYS})
_LINE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) .(.)x. ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)$", re.MULTILINE)
_DELETED = b" (deleted)"
_PATHLESS = (b"/memfd:", b"/dev/zero", b"/SYSV", b"/anon_hugepage")
_OF_THE_KERNEL = frozenset(
    {b"[vdso]", b"[vsyscall]", b"[uprobes]", b"[uprobes-trampoline]", b"[vectors]", b"[sigpage]"}
)
"""Names that no process can give its own memory: prctl(2) puts `anon:` before those (PR_SET_VMA_ANON_NAME)."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """start, end: addresses. offset: of its beginning in the file. name: as the kernel tells it, a path, a word in
    brackets or nothing.
    """

    start: int
    end: int
    writable: bool
    offset: int
    device: tuple[int, int]
    inode: int
    name: bytes

    @property
    def of_a_file(self) -> bool:
        return self.inode != 0

    @property
    def of_the_kernel(self) -> bool:
        """The kernel put it there, for itself."""
        return self.inode == 0 and self.name in _OF_THE_KERNEL

    @property
    def pathless(self) -> bool:
        """A memfd, or memory that is shared: a file to the kernel, with no path."""
        return self.of_a_file and self.name.endswith(_DELETED) and self.name.startswith(_PATHLESS)

    @property
    def path(self) -> bytes:
        """Of the file, as far as its name says; where the name says that it was deleted, that it had."""
        return self.name.removesuffix(_DELETED)

    @property
    def link(self) -> str:
        """Below a /proc/PID folder: what leads to the very file that is mapped."""
        return f"map_files/{self.start:x}-{self.end:x}"


def executable(folder: int) -> list[Mapping]:
    """Of the process behind a /proc/PID descriptor. Raises OSError, PermissionError where we may not look."""
    maps = os.open("maps", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return list(asked(maps, EXECUTABLE))
    except OSError as error:
        if error.errno not in _UNKNOWN_REQUEST:
            raise
        return list(parse(_read(maps)))
    finally:
        os.close(maps)


def asked(maps: int, what: int) -> Iterator[Mapping]:
    """By PROCMAP_QUERY. maps: /proc/PID/maps, open. what: all that each of them is.

    Raises OSError, ENOTTY where this kernel does not know it.
    """
    name = ctypes.create_string_buffer(_NAME_BYTES)
    address, flags = 0, what | _COVERING_OR_NEXT
    while True:
        size, where = _QUERY.size, ctypes.addressof(name)
        answer = bytearray(_QUERY.pack(size, flags, address, 0, 0, 0, 0, 0, 0, 0, 0, _NAME_BYTES, 0, where, 0))
        try:
            fcntl.ioctl(maps, _PROCMAP_QUERY, answer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):  # that was the last one, or the process has ended
                return
            raise
        _, _, _, start, end, has, _, offset, inode, major, minor, length, _, _, _ = _QUERY.unpack(answer)
        text = name.raw[: max(0, length - 1)]  # its closing zero counts
        yield Mapping(start, end, bool(has & WRITABLE), offset, (major, minor), inode, text)
        address = end


def parse(text: bytes) -> Iterator[Mapping]:
    """Out of a text of /proc/PID/maps (proc(5))."""
    for start, end, write, offset, major, minor, inode, name in _LINE.findall(text):
        yield Mapping(
            int(start, 16),
            int(end, 16),
            write == b"w",
            int(offset, 16),
            (int(major, 16), int(minor, 16)),
            int(inode),
            name.replace(b"\\012", b"\n"),
        )


def _read(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)
