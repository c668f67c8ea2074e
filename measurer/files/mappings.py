"""Files that a process has mapped shared and writable: what it stores there changes them without any event, and after
the first store into a page without another change time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_WRITABLE = re.compile(rb"^\S+ .w.s \S+ \S+ ([1-9]\d*) +(/.*)$", re.MULTILINE)


def mapped(pid: int) -> Iterator[tuple[int, bytes]]:
    """Inode and path of each file that this process can store into. Nothing where it is gone or hidden from us."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            text = file.read()
    except OSError:
        return
    yield from parse(text)


def parse(maps: bytes) -> Iterator[tuple[int, bytes]]:
    """The same of a text of /proc/PID/maps (proc(5))."""
    for found in _WRITABLE.finditer(maps):
        yield int(found[1]), found[2].replace(b"\\012", b"\n")
