"""How much of what a stranger hands us is read. Whatever is larger is refused, and the bound is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from attestation.errors import InvalidInput

MOST_ENTRIES = 1_000_000
"""Paths; as many as a measurement can hold (attestation/manifest.py)."""

MOST_PARTS = 16 * MOST_ENTRIES
"""Names that all paths together consist of: a path of the kernel's length alone can have two thousand."""

MOST_EXTENDED = 4 * MOST_ENTRIES
"""Extended headers of archives, and records in them: GNU tar writes at most four for a path, others fewer."""

MOST_PATH = 4096
MOST_NAME = 255
"""Bytes, as the kernel has it (PATH_MAX, NAME_MAX)."""

MOST_LINKS = 40
"""Symbolic links followed on the way to one file, as the kernel has it (path_resolution(7))."""

MOST_DOCUMENT = 128 * 1024 * 1024
"""Bytes of one JSON document: an SBOM of a whole distribution has some tens of megabytes."""

DEFAULT_BYTES = 16 * 1024**3


@dataclass
class Budget:
    """What may still be read, of everything that one build looks at.

    most_bytes: of content, unpacked. told: is given the number of bytes of input that were read, as they are read.
    """

    most_bytes: int = DEFAULT_BYTES
    told: Callable[[int], None] = field(default=lambda count: None)
    _bytes: int = 0
    _entries: int = 0
    _parts: int = 0
    _extended: int = 0

    def unpacked(self, count: int, where: str) -> None:
        """Raises InvalidInput once more was unpacked than may be: a small archive can hold nearly endless zeros."""
        self._bytes += count
        if self._bytes > self.most_bytes:
            raise InvalidInput(
                f"more than {self.most_bytes} bytes when it is unpacked",
                where=where,
                mend="Look whether it is meant; then raise --most-bytes.",
            )

    def entry(self, parts: int, where: str) -> None:
        """parts: names that the path consists of. Raises InvalidInput once there are more than can be measured."""
        self._entries += 1
        self._parts += parts
        if self._entries > MOST_ENTRIES:
            raise InvalidInput(f"more than {MOST_ENTRIES} paths", where=where, mend="Build from a part of it.")
        if self._parts > MOST_PARTS:
            raise InvalidInput(f"paths of more than {MOST_PARTS} names", where=where, mend="Build from a part of it.")

    def extended(self, count: int, where: str) -> None:
        """So many extended headers, or records in one. Raises InvalidInput once there are more than paths need."""
        self._extended += count
        if self._extended > MOST_EXTENDED:
            raise InvalidInput(
                f"more than {MOST_EXTENDED} extended headers and records",
                where=where,
                mend="Pack it again, without what is not measured.",
            )
