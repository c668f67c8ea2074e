"""fanotify(7) events as the kernel writes them, whatever they report."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_METADATA = struct.Struct("=IBBHQii")


@dataclass(frozen=True, slots=True)
class Event:
    """One event. descriptor: the file, open; -1 in a group that reports names. records: what follows the metadata."""

    mask: int
    descriptor: int
    pid: int
    records: bytes


def events(buffer: bytes) -> Iterator[Event]:
    """The events of a buffer. What is cut short is left out."""
    position = 0
    while position + _METADATA.size <= len(buffer):
        length, _, _, head, mask, descriptor, pid = _METADATA.unpack_from(buffer, position)
        if length < _METADATA.size or position + length > len(buffer):
            return
        yield Event(mask, descriptor, pid, buffer[position + head : position + length])
        position += length
