"""The files that an image consists of, by name: in a folder, or in an archive."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from attestation.errors import InvalidInput
from policies.author.references import tar
from policies.author.references.bounds import Budget
from policies.author.references.streams import Stream, Told, chunks, exactly, opened

MOST_SMALL = 4 * 1024 * 1024
_MOST_SMALL_IN_ALL = 64 * 1024 * 1024
_MOST_NAMES = 100_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Blobs(Protocol):
    """Files by name. What is not there raises InvalidInput."""

    def small(self, name: str) -> bytes:
        """A whole document of at most 4 MiB."""
        ...

    def real(self, name: str) -> str:
        """The name that `each` knows it by: in an archive two names can be one file."""
        ...

    def each(self, names: Collection[str]) -> Iterator[tuple[str, Stream]]:
        """Each of these real names once, in any sequence; each stream is to be read before the next one."""
        ...


class FolderBlobs:
    """An image layout that is unpacked. No link in it is followed."""

    def __init__(self, path: Path, budget: Budget) -> None:
        self._path, self._budget = path, budget

    def small(self, name: str) -> bytes:
        with ExitStack() as stack:
            content = exactly(self._open(name, stack), MOST_SMALL + 1)
        if len(content) > MOST_SMALL:
            raise _unreadable(name, str(self._path), f"more than {MOST_SMALL} bytes")
        return content

    def real(self, name: str) -> str:
        return name

    def each(self, names: Collection[str]) -> Iterator[tuple[str, Stream]]:
        for name in names:
            with ExitStack() as stack:
                yield name, self._open(name, stack)

    def _open(self, name: str, stack: ExitStack) -> Stream:
        *around, last = tar.placed(name, str(self._path))
        try:
            folder = os.open(self._path, _FOLDER)
            stack.callback(os.close, folder)
            for each in around:
                folder = os.open(each, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                stack.callback(os.close, folder)
            file = stack.enter_context(os.fdopen(os.open(last, _FILE, dir_fd=folder), "rb"))
        except OSError as error:
            raise _unreadable(name, str(self._path), error.strerror or "it cannot be opened") from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _unreadable(name, str(self._path), "it is no file")
        return Told(file, self._budget)


class ArchiveBlobs:
    """An image in an archive, packed or not. It is read twice: what is found in it says what is looked for."""

    def __init__(self, path: Path, budget: Budget) -> None:
        self._path, self._budget = path, budget
        self._files: set[str] = set()
        self._links: dict[str, str] = {}
        self._small: dict[str, bytes] = {}
        self._small_in_all = 0
        for name, entry, content in self._entries():
            self._note(name, entry, content)

    def small(self, name: str) -> bytes:
        known = self._small.get(self.real(name))
        if known is None:
            raise _unreadable(name, str(self._path), f"no document of at most {MOST_SMALL} bytes is there")
        return known

    def real(self, name: str) -> str:
        """Older versions of `docker save` link what two images share. One step: a link to a link is none of theirs."""
        return self._links.get(name, name)

    def each(self, names: Collection[str]) -> Iterator[tuple[str, Stream]]:
        absent = next((name for name in names if name not in self._files), None)
        if absent is not None:
            raise _unreadable(absent, str(self._path), "it is not in the archive")
        for name, _, content in self._entries():
            if name in names:
                yield name, content

    def _note(self, name: str, entry: tar.Entry, content: Stream) -> None:
        if name in self._files or name in self._links or len(self._files) + len(self._links) >= _MOST_NAMES:
            raise _unreadable(name, str(self._path), "it stands twice there, or is one of too many")
        if entry.kind is tar.Kind.FILE:
            self._files.add(name)
            self._keep(name, entry.size, content)
        elif entry.kind is tar.Kind.LINK:
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.target))
        elif entry.kind is tar.Kind.HARD_LINK:
            self._links[name] = "/".join(tar.placed(entry.target, str(self._path)))

    def _keep(self, name: str, size: int, content: Stream) -> None:
        """What may be a document, so that it can be asked for."""
        if size > MOST_SMALL:
            return
        whole = b"".join(chunks(content))
        if whole.lstrip()[:1] not in (b"{", b"["):
            return
        self._small[name] = whole
        self._small_in_all += len(whole)
        if self._small_in_all > _MOST_SMALL_IN_ALL:
            raise _unreadable(name, str(self._path), f"there are more than {_MOST_SMALL_IN_ALL} bytes of documents")

    def _entries(self) -> Iterator[tuple[str, tar.Entry, Stream]]:
        with self._path.open("rb") as file:
            stream = opened(file, self._budget, str(self._path))
            for entry, content in tar.entries(stream, self._budget, str(self._path)):
                if entry.kind is not tar.Kind.FOLDER:
                    yield "/".join(entry.path), entry, content


def _unreadable(name: str, where: str, why: str) -> InvalidInput:
    return InvalidInput(f"{name} cannot be read: {why}", where=where, mend="Save the image again, as a whole.")
