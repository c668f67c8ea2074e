"""The files layer as bytes: every path in scope with what it is, sorted, packed, the same for the same files.

About 50 bytes and the path an entry, so that 100,000 files stay below 15 MB. Everything volatile (times, inodes)
is left out: an unchanged tree packs to the same bytes for ever.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from attestation import digests
from attestation.digests import Digest
from attestation.errors import MalformedEvidence

MAGIC = b"pbf1"
HEAD = struct.Struct(">HcHIIQ32s")
"""Before each path: its length in bytes, kind, mode, uid, gid, size, digest."""
_BEGINNING = struct.Struct(">H3s")
_DOMAIN = "layer/files"
_MOST_ENTRIES = 1_000_000

FILE, LINK, DIRECTORY, OTHER = b"f", b"l", b"d", b"o"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path, as the workload sees it.

    kind: FILE, LINK, DIRECTORY or OTHER (device, fifo, socket). mode: permission bits with setuid, setgid, sticky.
    digest: of the content, of a link's target text; zeros for directories and others, and for what is unreadable.
    """

    path: str
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    digest: Digest


NO_DIGEST: Digest = "0" * 64


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
    if body[: len(MAGIC)] != MAGIC:
        raise MalformedEvidence("the file manifest has no valid beginning", where="files layer")
    position, previous, count = len(MAGIC), b"", 0
    while position < len(body):
        try:
            length, kind, mode, uid, gid, size, digest = HEAD.unpack_from(body, position)
        except struct.error as error:
            raise MalformedEvidence("the file manifest is cut short", where="files layer") from error
        start = position + HEAD.size
        position = start + length
        path = body[start:position]
        count += 1
        if len(path) != length or (count > 1 and path <= previous) or count > _MOST_ENTRIES:
            raise MalformedEvidence("the file manifest is not in its canonical form", where="files layer")
        if kind not in (FILE, LINK, DIRECTORY, OTHER):
            raise MalformedEvidence(f"unknown kind {kind!r} in the file manifest", where="files layer")
        previous = path
        yield Entry(path.decode("utf-8", "surrogateescape"), kind, mode, uid, gid, size, digest.hex())


def tally(body: bytes) -> Mapping[tuple[bytes, int], int]:
    """Kind and mode -> how many entries have them. body: `unpack` takes it."""
    position, end, found = len(MAGIC), len(body), []
    while position < end:
        length, kind_and_mode = _BEGINNING.unpack_from(body, position)
        found.append(kind_and_mode)
        position += HEAD.size + length
    return {(each[:1], each[1] << 8 | each[2]): count for each, count in Counter(found).items()}


def digest(body: bytes) -> Digest:
    """The layer digest of a packed manifest."""
    return digests.tagged(_DOMAIN, body)


def passing(size: int) -> digests.Passing:
    """The same of a manifest of so many bytes that nobody holds as a whole."""
    return digests.Passing(_DOMAIN, size)
