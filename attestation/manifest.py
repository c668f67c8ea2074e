"""The files layer as bytes: every path in scope with what it is, sorted, packed, the same for the same files.

About 50 bytes and the path an entry, so that 100,000 files stay below 15 MB. Everything volatile (times, inodes)
is left out: an unchanged tree packs to the same bytes for ever. A file that has capabilities is followed by an entry of
its own for them; no name of a file can be like that one's.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from attestation import digests
from attestation.digests import Digest
from attestation.errors import MalformedEvidence

MAGIC = b"pbf1"
HEAD = struct.Struct(">HcHIIQ32s")
"""Before each path: its length in bytes, kind, mode, uid, gid, size, digest."""
_SIZE = HEAD.size
_BEGINNING = struct.Struct(">H3s")
_DOMAIN = "layer/files"
_MOST_ENTRIES = 1_000_000

FILE, LINK, DIRECTORY, OTHER, CAPABILITIES = b"f", b"l", b"d", b"o", b"x"
KINDS = (FILE, LINK, DIRECTORY, OTHER, CAPABILITIES)
SUFFIX = b"\0capabilities"
"""What the path of a file is followed by in the entry for its capabilities."""
_MOST_CAPABILITIES = 32


class Entry(NamedTuple):
    """One path, as the workload sees it.

    kind: FILE, LINK, DIRECTORY, OTHER (device, fifo, socket) or CAPABILITIES. mode: permission bits with setuid,
    setgid, sticky. digest: of the content, of a link's target text; zeros for directories and others, and for what is
    unreadable. Of CAPABILITIES it is the value itself, filled up with zeros.
    """

    path: str
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    digest: Digest

    @property
    def owner(self) -> str:
        """The path of the file that capabilities belong to."""
        return self.path.partition("\0")[0]

    @property
    def capabilities(self) -> str:
        """The extended attribute `security.capability` in hexadecimal digits; of CAPABILITIES only."""
        return self.digest[: self.size * 2]


NO_DIGEST: Digest = "0" * 64


def capabilities_of(path: str, value: str) -> Entry:
    """The entry for a file's capabilities. value: `security.capability` in hexadecimal digits, 64 at most."""
    return Entry(path + SUFFIX.decode(), CAPABILITIES, 0, 0, 0, len(value) // 2, value.ljust(64, "0"))


def pack(entries: Iterable[Entry]) -> bytes:
    """The canonical bytes. The same set of entries packs to the same bytes, whatever its order."""
    parts = [MAGIC]
    for entry in sorted(entries, key=lambda each: each.path.encode("utf-8", "surrogateescape")):
        path = entry.path.encode("utf-8", "surrogateescape")
        parts.append(
            HEAD.pack(
                len(path),
                entry.kind,
                entry.mode,
                entry.uid,
                entry.gid,
                entry.size,
                bytes.fromhex(entry.digest),
            )
        )
        parts.append(path)
    return b"".join(parts)


def unpack(body: bytes) -> Iterator[Entry]:
    """Raises MalformedEvidence for bytes that `pack` cannot have made: wrong magic, order, length or kind."""
    _begins(body)
    position, previous, count = len(MAGIC), None, 0
    while position < len(body):
        entry, previous = _entry(body, position, previous)
        position += _SIZE + len(previous)
        count += 1
        if count > _MOST_ENTRIES:
            raise MalformedEvidence(_NOT_CANONICAL, where=_WHERE)
        yield entry


@dataclass(frozen=True, slots=True)
class Changes:
    """was: entries that are gone, or other now. there: entries that are new, or other than before."""

    was: tuple[Entry, ...]
    there: tuple[Entry, ...]


def changes(before: bytes, after: bytes) -> Changes:
    """From one manifest to another. What is alike is compared as bytes, and not unpacked.

    before: `unpack` takes it. Raises MalformedEvidence for an `after` that it does not take.
    """
    _begins(after)
    old, new, previous = len(MAGIC), len(MAGIC), None
    was, there = list[Entry](), list[Entry]()
    while True:
        alike, last = _whole_entries(before, old, _alike(before, old, after, new))
        old, new, previous = old + alike, new + alike, previous if last is None else last
        gone = _entry(before, old, None) if old < len(before) else None
        come = _entry(after, new, previous) if new < len(after) else None
        if gone is None and come is None:
            return Changes(tuple(was), tuple(there))
        if come is not None and (gone is None or come[1] <= gone[1]):
            there.append(come[0])
            new, previous = new + _SIZE + len(come[1]), come[1]
        if gone is not None and (come is None or gone[1] <= come[1]):
            was.append(gone[0])
            old += _SIZE + len(gone[1])


def _alike(one: bytes, at: int, other: bytes, there: int) -> int:
    """How many bytes from there on are the same: in strides that double, then by halves of the last."""
    most = min(len(one) - at, len(other) - there)
    low, stride = 0, 256
    while low < most and one[at + low : at + low + stride] == other[there + low : there + low + stride]:
        low, stride = low + stride, stride * 2
    low, high = min(low, most), min(low + stride, most)
    while low < high:
        half = (low + high + 1) // 2
        if one[at + low : at + half] == other[there + low : there + half]:
            low = half
        else:
            high = half - 1
    return low


def _whole_entries(body: bytes, at: int, size: int) -> tuple[int, bytes | None]:
    """How many of these bytes are whole entries, and the path of the last; None for no entry."""
    end, position, last = at + size, at, -1
    while position + _SIZE <= end:
        beyond = position + _SIZE + (body[position] << 8 | body[position + 1])
        if beyond > end:
            break
        position, last = beyond, position
    return position - at, None if last < 0 else _path(body, last)


def _path(body: bytes, position: int) -> bytes:
    start = position + _SIZE
    return body[start : start + (body[position] << 8 | body[position + 1])]


def _entry(body: bytes, position: int, previous: bytes | None) -> tuple[Entry, bytes]:
    """The entry that begins there, and its path. previous: the path before it."""
    try:
        length, kind, mode, uid, gid, size, digest = HEAD.unpack_from(body, position)
    except struct.error as error:
        raise MalformedEvidence("the file manifest is cut short", where=_WHERE) from error
    path = body[position + _SIZE : position + _SIZE + length]
    if len(path) != length or (previous is not None and path <= previous):
        raise MalformedEvidence(_NOT_CANONICAL, where=_WHERE)
    if kind not in KINDS:
        raise MalformedEvidence(f"unknown kind {kind!r} in the file manifest", where=_WHERE)
    if (kind == CAPABILITIES) != (b"\0" in path) or (kind == CAPABILITIES and not _attributed(path, size, digest)):
        raise MalformedEvidence(_NOT_CANONICAL, where=_WHERE)
    return Entry(_text(path), kind, mode, uid, gid, size, digest.hex()), path


def _attributed(path: bytes, size: int, digest: bytes) -> bool:
    """Is it what `capabilities_of` makes?"""
    owner, suffix = path[: -len(SUFFIX)], path[-len(SUFFIX) :]
    named = suffix == SUFFIX and b"\0" not in owner and bool(owner)
    return named and 0 < size <= _MOST_CAPABILITIES and not any(digest[size:])


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _begins(body: bytes) -> None:
    if body[: len(MAGIC)] != MAGIC:
        raise MalformedEvidence("the file manifest has no valid beginning", where=_WHERE)


_WHERE, _NOT_CANONICAL = "files layer", "the file manifest is not in its canonical form"


Tally = Mapping[tuple[bytes, int], int]
"""Kind and mode -> how many entries have them."""


def tally(body: bytes) -> Tally:
    """body: `unpack` takes it."""
    position, end, found = len(MAGIC), len(body), []
    while position < end:
        length, kind_and_mode = _BEGINNING.unpack_from(body, position)
        found.append(kind_and_mode)
        position += _SIZE + length
    return {(each[:1], each[1] << 8 | each[2]): count for each, count in Counter(found).items()}


def tally_after(before: Tally, changes: Changes) -> Tally:
    """Of a manifest that came about by these changes."""
    found = Counter(before)
    found.subtract((each.kind, each.mode) for each in changes.was)
    found.update((each.kind, each.mode) for each in changes.there)
    return +found


def digest(body: bytes) -> Digest:
    """The layer digest of a packed manifest."""
    return digests.tagged(_DOMAIN, body)


def passing(size: int) -> digests.Passing:
    """The same of a manifest of so many bytes that nobody holds as a whole."""
    return digests.Passing(_DOMAIN, size)
