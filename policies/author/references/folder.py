"""A folder of this machine as a file system: read in place, without following a link, and only where somebody looks.

What is mounted somewhere in it is not part of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from attestation.errors import InvalidInput
from policies.author.references import layers
from policies.author.references.bounds import Budget
from policies.author.references.streams import Bounded, Stream, Told
from policies.author.references.tree import File, Folder, Link, Node, Parts, Special, Tree

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SPECIAL = {stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}


def read(path: Path, budget: Budget, mounted: Parts = ()) -> Tree:
    """Everything below the folder. mounted: where the workload has it.

    Whoever looks at the tree may get InvalidInput: for what cannot be read, and for a file that changes while it is.
    """
    tree = Tree(str(path))
    try:
        device = path.stat().st_dev
    except OSError as error:
        raise _unreadable(path, error) from error
    tree.put(mounted, Folder())
    top = tree.at(mounted)
    assert isinstance(top, Folder)  # noqa: S101 - it was just put there
    top.children = _Listing(path, (), device, budget)
    return tree


class _Listing(MutableMapping[str, Node]):
    """What is in one folder: names at once, everything else when it is asked for."""

    def __init__(self, path: Path, parts: Parts, device: int, budget: Budget) -> None:
        self._path, self._parts, self._device, self._budget = path, parts, device, budget
        self._known: dict[str, Node | None] | None = None

    def __getitem__(self, name: str) -> Node:
        names = self._names()
        known = names[name]
        if known is None:
            names[name] = known = self._node(name)
        return known

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._names()))

    def __len__(self) -> int:
        return len(self._names())

    def __setitem__(self, name: str, node: Node) -> None:
        self._names()[name] = node

    def __delitem__(self, name: str) -> None:
        del self._names()[name]

    def _names(self) -> dict[str, Node | None]:
        if self._known is None:
            with ExitStack() as stack:
                try:
                    folder = _opened(self._path, self._parts, stack)
                    with os.scandir(folder) as found:
                        self._known = dict.fromkeys((each.name for each in found), None)
                except OSError as error:
                    raise _unreadable(self._path.joinpath(*self._parts), error) from error
            for _ in self._known:
                self._budget.entry(len(self._parts) + 1, str(self._path))
        return self._known

    def _node(self, name: str) -> Node:
        here = self._path.joinpath(*self._parts)
        with ExitStack() as stack:
            try:
                folder = _opened(self._path, self._parts, stack)
                node = _look(folder, name)
                if isinstance(node, File):
                    return _read(folder, name, here, self._budget)
                if isinstance(node, Folder):
                    if os.stat(name, dir_fd=folder, follow_symlinks=False).st_dev != self._device:
                        return Special("mount")
                    return Folder(_Listing(self._path, (*self._parts, name), self._device, self._budget))
                return node
            except OSError as error:
                raise _unreadable(here / name, error) from error


def look(path: Path, parts: Parts) -> Node | None:
    """What is at a path below the folder, with no content read: a file is an empty one. Raises OSError."""
    with ExitStack() as stack:
        return _look(_opened(path, parts[:-1], stack), parts[-1]) if parts else Folder()


def file(path: Path, parts: Parts) -> IO[bytes]:
    """A file below the folder, no link on the way. Raises OSError, also for what is no regular file."""
    with ExitStack() as stack:
        return _file(_opened(path, parts[:-1], stack), parts[-1])


def _opened(path: Path, parts: Parts, stack: ExitStack) -> int:
    """Name by name: nobody may put a link in the way meanwhile."""
    folder = os.open(path, _FOLDER & ~os.O_NOFOLLOW)
    stack.callback(os.close, folder)
    for name in parts:
        folder = os.open(name, _FOLDER, dir_fd=folder)
        stack.callback(os.close, folder)
    return folder


def _look(folder: int, name: str) -> Node:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    match stat.S_IFMT(status.st_mode):
        case stat.S_IFDIR:
            return Folder()
        case stat.S_IFLNK:
            return Link(os.readlink(name, dir_fd=folder), status.st_uid, status.st_gid)
        case stat.S_IFREG:
            return File("", status.st_size, status.st_mode & 0o7777, status.st_uid, status.st_gid)
        case other:
            return Special(_SPECIAL.get(other, "device"))


def _file(folder: int, name: str) -> IO[bytes]:
    descriptor = os.open(name, _FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ESTALE, "it is no file any more")
    return os.fdopen(descriptor, "rb")


def _read(folder: int, name: str, here: Path, budget: Budget) -> File:
    with _file(folder, name) as file:
        before = os.fstat(file.fileno())
        stream: Stream = Bounded(Told(file, budget), budget, str(here / name))
        read = layers.file_of(stream, mode=before.st_mode & 0o7777, uid=before.st_uid, gid=before.st_gid)
        if _stamp(os.fstat(file.fileno())) != _stamp(before):
            raise _restless(here / name)
        return read


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _unreadable(path: Path, error: OSError) -> InvalidInput:
    return InvalidInput(
        f"it cannot be read: {error.strerror}", where=str(path), mend="Build as a user who may read everything there."
    )


def _restless(path: Path) -> InvalidInput:
    return InvalidInput("it changes while it is read", where=str(path), mend="Build from what is at rest.")
