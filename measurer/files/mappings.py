"""Files that a process has mapped shared and writable: what it stores there changes them without any event, and after
the first store into a page without another change time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from measurer.processes.held import Held

_WRITABLE = re.compile(rb"^\S+ .w.s \S+ \S+ ([1-9]\d*) +(/.*)$", re.MULTILINE)


def mapped(process: Held) -> Iterator[tuple[int, bytes]]:
    """Inode and path of each file that this process can store into. Nothing where it is gone or hidden from us."""
    yield from parse(process.read(_maps) or b"")


def _maps(folder: int) -> bytes:
    with open("maps", "rb", opener=lambda name, flags: os.open(name, flags, dir_fd=folder)) as file:
        return file.read()


def parse(maps: bytes) -> Iterator[tuple[int, bytes]]:
    """The same of a text of /proc/PID/maps (proc(5))."""
    for found in _WRITABLE.finditer(maps):
        yield int(found[1]), found[2].replace(b"\\012", b"\n")
