"""The libraries that programs ask for, found as a loader would: of one that lives for milliseconds nobody sees them.

What is opened while it runs (plugins, name services) no file says, and is not among them.
"""

from __future__ import annotations

import os
import platform
import posixpath
from collections.abc import Iterator
from contextlib import suppress

from attestation import elf
from attestation.digests import Digest
from measurer import kernel
from measurer.processes.binaries import Binaries

_MULTIARCH = f"{platform.machine()}-linux-gnu"
_FOLDERS = (
    *(f"{root}/{_MULTIARCH}" for root in ("/usr/local/lib", "/lib", "/usr/lib")),
    *("/usr/local/lib", "/lib64", "/usr/lib64", "/lib", "/usr/lib"),
)
_ORIGIN = ("$ORIGIN", "${ORIGIN}")
_MOST = 512
"""Of one program."""


class Libraries:
    """As the process of this pid sees files. Raises OSError where its root cannot be opened."""

    def __init__(self, pid: int) -> None:
        self._root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._binaries = Binaries(self._root)

    def close(self) -> None:
        os.close(self._root)

    def of(self, program: str) -> Iterator[tuple[str, Digest]]:
        """Path and content of each, and of those that they ask for in turn. None of what cannot be found or read."""
        waiting, met = [program], {program}
        while waiting and len(met) < _MOST:
            asking = waiting.pop()
            for path, digest in self._asked(asking):
                if path not in met:
                    met.add(path)
                    waiting.append(path)
                    yield path, digest

    def _asked(self, path: str) -> Iterator[tuple[str, Digest]]:
        with suppress(OSError, ValueError):
            descriptor = self._open(path)
            try:
                asks = elf.needed(lambda size, offset: os.pread(descriptor, size, offset))
            finally:
                os.close(descriptor)
            for library in asks.libraries:
                found = self._found(library, [*_placed(asks.folders, path), *_FOLDERS])
                if found is not None:
                    yield found

    def _found(self, library: str, folders: list[str]) -> tuple[str, Digest] | None:
        """The first that is there."""
        for path in [library] if "/" in library else [f"{folder}/{library}" for folder in folders]:
            with suppress(OSError, ValueError):
                descriptor = self._open(path)
                try:
                    link = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - the path without its links
                    binary = self._binaries.of_open(descriptor, link)
                finally:
                    os.close(descriptor)
                return (binary.path, binary.digest) if binary.digest else None
        return None

    def _open(self, path: str) -> int:
        return kernel.open_below(self._root, os.fsencode(path), os.O_RDONLY | os.O_NONBLOCK)


def _placed(folders: tuple[str, ...], path: str) -> list[str]:
    """Where these are, beside the file that names them; those that begin with other words of a loader's are none."""
    beside = posixpath.dirname(path)
    for word in _ORIGIN:
        folders = tuple(each.replace(word, beside) for each in folders)
    return [each for each in folders if each.startswith("/") and "$" not in each]
