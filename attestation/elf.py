"""ELF files (elf(5)): the loader that one asks for, and the libraries. They are executed as well, and so referenced."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29
_MOST_HEADERS, _MOST_PATH, _MOST_DYNAMIC = 1 << 16, 4096, 1 << 16
_MALFORMED = (struct.error, OverflowError, ValueError)
Read = Callable[[int, int], bytes]
"""So many bytes from so far into the file; fewer where it ends. What it raises is raised."""


@dataclass(frozen=True, slots=True)
class Needed:
    """libraries: as they are asked for, by name mostly. folders: where they are looked for first."""

    libraries: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def interpreter(read: Read) -> str:
    """PT_INTERP, empty for anything that is no ELF file, static or malformed."""
    try:
        for each in _segments(read)[1]:
            if each.kind == _PT_INTERP:
                return _text(read, each.offset, min(each.size, _MOST_PATH))
    except _MALFORMED:
        return ""
    return ""


def needed(read: Read) -> Needed:
    """What its dynamic section asks for; nothing of what is no ELF file, static or malformed."""
    try:
        order, segments = _segments(read)
        entries = [entry for each in segments if each.kind == _PT_DYNAMIC for entry in _entries(read, each, order)]
        strings = _offset(segments, next((value for tag, value in entries if tag == _DT_STRTAB), 0))
        libraries = [_text(read, strings + value) for tag, value in entries if tag == _DT_NEEDED]
        folders = [_text(read, strings + value) for tag, value in entries if tag in (_DT_RUNPATH, _DT_RPATH)]
    except _MALFORMED:
        return Needed()
    return Needed(tuple(libraries), tuple(each for some in folders for each in some.split(":") if each))


def _segments(read: Read) -> tuple[str, list[_Segment]]:
    """The layout of two words of its own size, and what its program headers say. Raises one of _MALFORMED."""
    head = read(64, 0)
    if len(head) < 52 or head[:4] != MAGIC or head[5] not in (1, 2):
        return "", []
    order, wide = "<" if head[5] == 1 else ">", head[4] == 2
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    layout = struct.Struct(order + ("IIQQQQ" if wide else "IIIII"))
    headers = read(min(size * count, _MOST_HEADERS), table)
    found = []
    for position in range(0, len(headers) - layout.size + 1, max(size, layout.size)):
        fields = layout.unpack_from(headers, position)
        rest = fields[2:] if wide else fields[1:]
        found.append(_Segment(fields[0], rest[0], rest[1], rest[3]))
    return order + ("qQ" if wide else "iI"), found


def _entries(read: Read, dynamic: _Segment, order: str) -> Iterator[tuple[int, int]]:
    """Tag and value, up to the last one."""
    layout = struct.Struct(order)
    body = read(min(dynamic.size, _MOST_DYNAMIC), dynamic.offset)
    for tag, value in layout.iter_unpack(body[: len(body) - len(body) % layout.size]):
        if tag == 0:
            return
        yield tag, value


def _offset(segments: list[_Segment], address: int) -> int:
    """In the file. Raises ValueError where no segment holds it."""
    for each in segments:
        if each.kind == _PT_LOAD and each.address <= address < each.address + each.size:
            return address - each.address + each.offset
    raise ValueError("an address in no segment")


def _text(read: Read, offset: int, most: int = _MOST_PATH) -> str:
    return os.fsdecode(read(most, offset).partition(b"\0")[0])
