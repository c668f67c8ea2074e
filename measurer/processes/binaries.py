"""Executable files: digest, loader, and the path by which the workload knows them, read once a content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from attestation import elf
from attestation.digests import Digest
from measurer import kernel
from measurer.processes.grounds import Grounds

_CHUNK = 1 << 20
INLINE = 16 << 20
"""Bytes up to which a file is read at once, some ten milliseconds; a larger one is read in slices."""
_DELETED = " (deleted)"
_MOST_CACHED = 2048

Stamp = tuple[int, int, int, int]
"""Device, inode, size, change time in ns: what the kernel says about a content that has not been touched."""


@dataclass(frozen=True, slots=True)
class Content:
    """An executable file's bytes. interpreter: the ELF loader it asks for (PT_INTERP), empty when static.

    capabilities: those of the file (`security.capability` in hexadecimal digits), which change with its change time.
    """

    digest: Digest
    interpreter: str
    elf: bool
    capabilities: str = ""


@dataclass(frozen=True, slots=True)
class Binary:
    """What a process runs. Empty texts where the kernel did not let us look.

    gains: what its execution may give. ground: the kind of its file system, where nothing there was built (grounds.py).
    """

    path: str
    digest: Digest
    loader: str = ""
    loader_digest: Digest = ""
    deleted: bool = False
    stamp: Stamp = (0, 0, 0, 0)
    elf: bool = True
    gains: str = ""
    ground: str = ""


_UNREAD = Content("", "", elf=True)
"""A large file that does not stay as it is for as long as reading it takes."""

UNKNOWN = Binary("", "", deleted=True)
"""An execution whose process was gone before we could look, and of which no event told the file."""


class Binaries:
    """Digests of executables, cached by stamp. `root`: the workload's root, where loaders are looked up."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._contents: dict[Stamp, Content] = {}
        self._prefix = _own_view(root)
        self.grounds = Grounds(root)

    def forget(self) -> None:
        """Read everything again from now on."""
        self._contents.clear()
        self.grounds.forget()

    def known(self, stamp: Stamp) -> Digest:
        """Of the content that has this stamp, where it was read before; empty where it was not."""
        content = self._contents.get(stamp)
        return content.digest if content is not None else ""

    def of_process(self, folder: int) -> Binary:
        """What the process behind a /proc/PID descriptor runs. Raises OSError when it is gone."""
        try:
            descriptor = os.open("exe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        except PermissionError:
            return Binary("", "")
        try:
            return self.of_open(descriptor, os.readlink("exe", dir_fd=folder))
        finally:
            os.close(descriptor)

    def of_open(self, descriptor: int, link: str) -> Binary:
        """The executable behind an open file. link: what the kernel calls it (readlink of a /proc link)."""
        status = os.fstat(descriptor)
        content = self._content(descriptor, status)
        loader = self._loader(content.interpreter)
        return Binary(
            path=self.path_of(link),
            digest=content.digest,
            loader=content.interpreter,
            loader_digest=loader.digest if loader else "",
            deleted=status.st_nlink == 0,
            stamp=stamp_of(status),
            elf=content.elf,
            gains=_gains(status, content),
            ground=self.grounds.of(descriptor, status.st_dev),
        )

    def reads_at_once(self, descriptor: int) -> bool:
        """Is the digest of this open file known, or soon found?"""
        status = os.fstat(descriptor)
        return status.st_size <= INLINE or stamp_of(status) in self._contents

    def read_slowly(self, descriptor: int) -> Iterator[None]:
        """Have the digest of a large file, and of its loader, known by the time that they are asked for."""
        yield from self._read_slowly(descriptor)
        known = self._contents.get(stamp_of(os.fstat(descriptor)))
        if known is not None and known.interpreter:
            loader = self._open_loader(known.interpreter)
            if loader is not None:
                try:
                    yield from self._read_slowly(loader)
                finally:
                    os.close(loader)

    def _read_slowly(self, descriptor: int) -> Iterator[None]:
        if self.reads_at_once(descriptor):
            return
        before, state, position = os.fstat(descriptor), hashlib.sha256(), 0
        while chunk := os.pread(descriptor, _CHUNK, position):
            state.update(chunk)
            position += len(chunk)
            yield
        self._keep(descriptor, stamp_of(before), state.hexdigest())

    def path_of(self, link: str) -> str:
        """The path below the workload's root for a path below ours."""
        path = link.removesuffix(_DELETED)
        return path[len(self._prefix) :] if self._prefix and path.startswith(self._prefix + "/") else path

    def loader_stamp(self, interpreter: str) -> Stamp | None:
        """The stamp of the file that this PT_INTERP leads to now."""
        try:
            descriptor = kernel.open_below(self._root, os.fsencode(interpreter), os.O_PATH)
        except (OSError, ValueError):
            return None
        try:
            return stamp_of(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _loader(self, interpreter: str) -> Content | None:
        if not interpreter:
            return None
        descriptor = self._open_loader(interpreter)
        if descriptor is None:
            return None
        try:
            return self._content(descriptor, os.fstat(descriptor))
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _content(self, descriptor: int, status: os.stat_result) -> Content:
        stamp = stamp_of(status)
        known = self._contents.get(stamp)
        if known is not None:
            return known
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        if status.st_size > INLINE:
            return _UNREAD  # it was to be read slowly, and changed meanwhile
        return self._keep(descriptor, stamp, _digest(descriptor))

    def _keep(self, descriptor: int, stamp: Stamp, digest: Digest) -> Content:
        """Remember it, unless it was changed while it was read."""
        is_elf = os.pread(descriptor, 4, 0) == elf.MAGIC
        content = Content(digest, interpreter_of(descriptor), is_elf, _capabilities(descriptor))
        if stamp_of(os.fstat(descriptor)) == stamp:
            if len(self._contents) >= _MOST_CACHED:
                self._contents.clear()
            self._contents[stamp] = content
        return content

    def _open_loader(self, interpreter: str) -> int | None:
        try:
            return kernel.open_below(self._root, os.fsencode(interpreter), os.O_RDONLY | os.O_NONBLOCK)
        except (OSError, ValueError):
            return None


def stamp_of(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)


def interpreter_of(descriptor: int) -> str:
    """PT_INTERP of an ELF file, empty for anything else, static, malformed or unreadable."""
    try:
        return elf.interpreter(lambda size, offset: os.pread(descriptor, size, offset))
    except (OSError, OverflowError):
        return ""


def _gains(status: os.stat_result, content: Content) -> str:
    """What execve(2) gives to its caller, unless no_new_privs or the mount forbid that; a script gives nothing."""
    if not content.elf:
        return ""
    mode, gained = status.st_mode, []
    if mode & stat.S_ISUID:
        gained.append(f"user {status.st_uid}")
    if mode & stat.S_ISGID and mode & stat.S_IXGRP:
        gained.append(f"group {status.st_gid}")
    if content.capabilities:
        gained.append(f"capabilities {content.capabilities}")
    return ", ".join(gained)


def _capabilities(descriptor: int) -> str:
    try:
        return os.getxattr(descriptor, "security.capability").hex()
    except OSError:
        return ""


def _digest(descriptor: int) -> Digest:
    state, position = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, _CHUNK, position):
        state.update(chunk)
        position += len(chunk)
    return state.hexdigest()


def _own_view(root: int) -> str:
    """How our own root sees the workload's root folder; empty when they are the same."""
    path = os.readlink(f"/proc/self/fd/{root}")  # noqa: PTH115 - a path object would say nothing more
    return "" if path == "/" else path
