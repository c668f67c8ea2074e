"""ELF files (elf(5)): the loader that one asks for. It is executed as well, and so it is measured and referenced."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

MAGIC = b"\x7fELF"
_PT_INTERP = 3
_MOST_HEADERS, _MOST_PATH = 1 << 16, 4096


def interpreter(read: Callable[[int, int], bytes]) -> str:
    """PT_INTERP, empty for anything that is no ELF file, static or malformed.

    read: so many bytes from so far into the file; fewer where it ends. What it raises is raised.
    """
    head = read(64, 0)
    if len(head) < 52 or head[:4] != MAGIC or head[5] not in (1, 2):
        return ""
    order = "<" if head[5] == 1 else ">"
    try:
        if head[4] == 2:
            (table,), (size, count) = (
                struct.unpack_from(order + "Q", head, 32),
                struct.unpack_from(order + "HH", head, 54),
            )
        else:
            (table,), (size, count) = (
                struct.unpack_from(order + "I", head, 28),
                struct.unpack_from(order + "HH", head, 42),
            )
        layout = struct.Struct(order + ("IIQQQQ" if head[4] == 2 else "IIIII"))
        headers = read(min(size * count, _MOST_HEADERS), table)
        for position in range(0, len(headers) - layout.size + 1, max(size, layout.size)):
            fields = layout.unpack_from(headers, position)
            if fields[0] == _PT_INTERP:
                offset, length = (fields[2], fields[5]) if head[4] == 2 else (fields[1], fields[4])
                return os.fsdecode(read(min(length, _MOST_PATH), offset).rstrip(b"\0"))
    except (struct.error, OverflowError, ValueError):
        return ""
    return ""
