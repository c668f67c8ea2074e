"""Pages of mapped code that are a process's own: whoever writes into code, by whatever way, makes a copy of its page.

The kernel tells them apart without anything being read: PAGEMAP_SCAN (linux/fs.h, since Linux 6.7), or the bits of
/proc/PID/pagemap. Where it has neither, what is in memory is compared with the file, page by page.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from enum import StrEnum

from attestation.errors import InvalidInput
from measurer.memory.mappings import Mapping

PAGE = mmap.PAGESIZE
_SCAN, _REGION = struct.Struct("=12Q"), struct.Struct("=3Q")
_PAGEMAP_SCAN = 3 << 30 | _SCAN.size << 16 | ord("f") << 8 | 16
_IS_FILE, _PRESENT, _SWAPPED = 1 << 2, 1 << 3, 1 << 4
_REGIONS = 256
_ENTRY = struct.Struct("=Q")
_ENTRY_FILE, _ENTRY_SWAPPED, _ENTRY_PRESENT = 1 << 61, 1 << 62, 1 << 63
_UNKNOWN_REQUEST = frozenset({errno.ENOTTY, errno.EINVAL, errno.ENOSYS})


class How(StrEnum):
    """By which of its ways this kernel tells them, best first."""

    SCAN = "PAGEMAP_SCAN"
    BITS = "pagemap"
    COMPARISON = "comparison"


class Pages:
    """Of one process. folder: a descriptor of its /proc folder. Raises PermissionError where we may not look."""

    def __init__(self, folder: int) -> None:
        self.how = How.SCAN
        self._held = ExitStack()
        with ExitStack() as held:
            try:
                self._map = _open(folder, "pagemap", held)
            except FileNotFoundError:  # a kernel without CONFIG_PROC_PAGE_MONITOR
                self._map, self.how = -1, How.COMPARISON
            try:
                self._memory = _open(folder, "mem", held)
            except PermissionError:  # reading takes more than looking: PTRACE_MODE_ATTACH
                self._memory = -1
            if self.how is How.COMPARISON and self._memory < 0:
                raise PermissionError(errno.EACCES, "its pages cannot be read")
            self._held = held.pop_all()

    def close(self) -> None:
        self._held.close()

    @property
    def readable(self) -> bool:
        """Whether what is in them can be read, too."""
        return self._memory >= 0

    def own(self, mapping: Mapping) -> Iterator[int]:
        """The address of each page in a file's mapping that is not the file's any more; of all, for COMPARISON."""
        for start, end in self._regions(mapping):
            yield from range(start, end, PAGE)

    def read(self, address: int, size: int = PAGE) -> bytes:
        """What is there; empty where we may not read, or nothing can be. Raises OSError."""
        if self._memory < 0:
            return b""
        try:
            return os.pread(self._memory, size, address)
        except OSError as error:
            if error.errno == errno.EIO:  # beyond the end of its file, or gone
                return b""
            raise

    def _regions(self, mapping: Mapping) -> Iterator[tuple[int, int]]:
        if self.how is How.SCAN:
            try:
                yield from self._scanned(mapping)
                return
            except OSError as error:
                if error.errno not in _UNKNOWN_REQUEST:
                    raise
                self.how = How.BITS
        if self.how is How.BITS:
            yield from self._by_bits(mapping)
            return
        yield mapping.start, mapping.end

    def _scanned(self, mapping: Mapping) -> Iterator[tuple[int, int]]:
        found = ctypes.create_string_buffer(_REGION.size * _REGIONS)
        start = mapping.start
        while start < mapping.end:
            asked = (start, mapping.end, 0, ctypes.addressof(found), _REGIONS, 0)
            which = (_IS_FILE, _IS_FILE, _PRESENT | _SWAPPED, _PRESENT | _SWAPPED)
            answer = bytearray(_SCAN.pack(_SCAN.size, 0, *asked, *which))
            count = fcntl.ioctl(self._map, _PAGEMAP_SCAN, answer)
            for number in range(count):
                first, last, _ = _REGION.unpack_from(found, number * _REGION.size)
                yield first, last
            start = max(start + PAGE, _SCAN.unpack(answer)[4])

    def _by_bits(self, mapping: Mapping) -> Iterator[tuple[int, int]]:
        start, end = mapping.start // PAGE, mapping.end // PAGE
        entries = os.pread(self._map, (end - start) * _ENTRY.size, start * _ENTRY.size)
        for number, (entry,) in enumerate(_ENTRY.iter_unpack(entries[: len(entries) // 8 * 8]), start):
            if entry & (_ENTRY_PRESENT | _ENTRY_SWAPPED) and not entry & _ENTRY_FILE:
                yield number * PAGE, (number + 1) * PAGE


def _open(folder: int, name: str, held: ExitStack) -> int:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    held.callback(os.close, descriptor)
    return descriptor


def only_breakpoints(there: bytes, file: bytes, machine: str) -> bool:
    """Are breakpoints all that differs? Both: of one page. machine: as uname(2) has it.

    Raises InvalidInput for pages of two sizes. A breakpoint is one byte on x86, and a word elsewhere (BRK on arm64).
    """
    if len(there) != len(file):
        raise InvalidInput("pages of two sizes", where="memory")
    if machine in ("x86_64", "i686"):
        return all(one == 0xCC for one, other in zip(there, file, strict=True) if one != other)
    if machine != "aarch64":
        return False
    words = zip(struct.iter_unpack("<I", there), struct.iter_unpack("<I", file), strict=True)
    return all(one & 0xFFE0001F == 0xD4200000 for (one,), (other,) in words if one != other)
