"""A manifest of files in parts, so that who has seen one like it need only be sent what differs.

A part ends before an entry whose path says so by itself: what is added, removed or changed leaves all other parts as
they are, whatever it moves. The parts' digests are the leaves of a Merkle tree of two levels. Its root is not what is
signed: evidence has the digest of the whole manifest, by which whatever was put together is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from attestation import digests
from attestation.digests import Digest
from attestation.errors import MalformedEvidence
from attestation.manifest import HEAD, MAGIC

LEAST_ENTRIES = 1024
"""Smaller ones are sent as a whole: an outline would take an exchange more."""
MOST_PARTS = 4096
DIGEST_BYTES = 32
_ONE_IN = 256
"""Entries to a part on average: with 100,000 files that makes the outline and one part together the smallest."""
_DOMAIN = "layer/files/part"


def cut(body: bytes) -> list[bytes]:
    """The parts of a manifest that `manifest.unpack` takes, in sequence; joined they are the manifest."""
    return list(_cut(body))


def digest(part: bytes) -> Digest:
    return digests.tagged(_DOMAIN, part)


def outline(parts: list[bytes]) -> bytes:
    """Their digests, one after the other. Empty for more than MOST_PARTS, which are not worth it."""
    return b"".join(bytes.fromhex(digest(each)) for each in parts) if len(parts) <= MOST_PARTS else b""


def read_outline(text: bytes) -> list[Digest]:
    """`outline` reversed. Raises MalformedEvidence."""
    if not text or len(text) % DIGEST_BYTES or len(text) > MOST_PARTS * DIGEST_BYTES:
        raise MalformedEvidence("an outline that is no row of digests", where="outline")
    return [text[at : at + DIGEST_BYTES].hex() for at in range(0, len(text), DIGEST_BYTES)]


def _cut(body: bytes) -> Iterator[bytes]:
    start, position, end, head = 0, len(MAGIC), len(body), HEAD.size
    while position < end:
        path = position + head
        beyond = path + (body[position] << 8 | body[position + 1])
        if not crc32(body[path:beyond]) % _ONE_IN and position > start:
            yield body[start:position]
            start = position
        position = beyond
    yield body[start:]
