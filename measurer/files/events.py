"""What a kernel mechanism tells about folders, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from attestation.coverage import Mechanism
from measurer.files.manifest import Folder


@dataclass(frozen=True, slots=True)
class FileEvent:
    """Something happened to `name` in `folder`. name is empty when it was the folder itself that went away or moved.

    pid: who did it, 0 where the kernel does not say. lost: the queue ran over, nothing else here counts. wrote: the
    content was written, but not through a mapping.
    """

    folder: bytes
    name: bytes
    pid: int = 0
    lost: bool = False
    wrote: bool = False


MOST_FILES = 20_000
"""Files of several names that are watched each by itself: the kernel keeps such a one in memory."""
LOST = FileEvent(b"", b"", lost=True)


class Watch(Protocol):
    """A source of FileEvents."""

    mechanism: Mechanism

    @property
    def detail(self) -> str:
        """What of the folders and files is watched how, for coverage."""

    @property
    def descriptor(self) -> int:
        """Readable when there are events."""

    def add(self, descriptor: int, folder: Folder) -> None:
        """Watch an open folder from now on. Again for the same folder is harmless. Raises OSError."""

    def add_file(self, descriptor: int, folder: Folder, name: bytes) -> None:
        """Watch a file of an open folder by itself, since it can be written under another name. Raises OSError."""

    def drop(self, folder: Folder) -> None:
        """It is gone, or not part of the tree any more."""

    def read(self) -> Iterator[FileEvent]:
        """The events there are, without waiting."""

    def close(self) -> None:
        """End all watching."""
