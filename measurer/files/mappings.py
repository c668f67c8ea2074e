"""Files that a process has mapped shared and writable: what it stores there changes them without any event, and after
the first store into a page without another change time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from measurer.memory.mappings import OF_A_FILE, SHARED, WRITABLE, asked
from measurer.processes.held import Held

_WRITABLE = re.compile(rb"^\S+ .w.s \S+ \S+ ([1-9]\d*) +(/.*)$", re.MULTILINE)
_MOST_ASKED = 64
"""Answers, one at a time: of whoever has more, the text is read in less time."""


def mapped(process: Held) -> list[tuple[int, bytes]]:
    """Inode and path of each file that this process can store into. Nothing where it is gone or hidden from us."""
    return process.read(writable) or []


def writable(folder: int) -> list[tuple[int, bytes]]:
    """The same of the process behind a /proc/PID descriptor: most have none, which the kernel says in one answer.

    Raises OSError.
    """
    with open("maps", "rb", buffering=0, opener=lambda name, flags: os.open(name, flags, dir_fd=folder)) as maps:
        with suppress(OSError):  # it does not know the question, or the answer is a path that is too long for it
            found = list(islice(asked(maps.fileno(), WRITABLE | SHARED | OF_A_FILE), _MOST_ASKED + 1))
            if len(found) <= _MOST_ASKED:
                return [(each.inode, each.name) for each in found if each.inode and each.name.startswith(b"/")]
        return list(parse(maps.readall()))


def parse(maps: bytes) -> Iterator[tuple[int, bytes]]:
    """The same of a text of /proc/PID/maps (proc(5))."""
    for found in _WRITABLE.finditer(maps):
        yield int(found[1]), found[2].replace(b"\\012", b"\n")
