"""inotify(7), for whom the kernel does not let use fanotify: the same events, without the writer's pid."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attestation.coverage import Mechanism
from measurer import kernel as k
from measurer.files.events import LOST, MOST_FILES, FileEvent
from measurer.files.fanotify import holds_files
from measurer.files.manifest import Folder
from measurer.loop import drain

_EVENT = struct.Struct("=iIII")
_BUFFER = 1 << 16
_NAMES = k.IN_CREATE | k.IN_DELETE | k.IN_MOVED_FROM | k.IN_MOVED_TO | k.IN_ATTRIB
_CONTENT = k.IN_MODIFY | k.IN_CLOSE_WRITE
_ITSELF = k.IN_DELETE_SELF | k.IN_MOVE_SELF


class Inotify:
    """One inotify instance. Raises OSError (EMFILE) when the user has too many already."""

    mechanism = Mechanism.INOTIFY

    def __init__(self) -> None:
        self._group = k.inotify_init()
        self._paths: dict[int, bytes] = {}
        self._watches: dict[bytes, int] = {}
        self._files: dict[int, frozenset[tuple[bytes, bytes]]] = {}

    @property
    def detail(self) -> str:
        return f"{_most_watches()} folders at most (fs.inotify.max_user_watches)"

    @property
    def descriptor(self) -> int:
        return self._group

    def add(self, descriptor: int, folder: Folder) -> None:
        # The path leads through our own descriptor, so it names exactly the folder that is open.
        watch = k.inotify_add_watch(self._group, b"/proc/self/fd/%d" % descriptor, _mask(descriptor, folder))
        self._paths[watch] = folder.path
        self._watches[folder.path] = watch

    def add_file(self, descriptor: int, folder: Folder, name: bytes) -> None:
        if len(self._files) >= MOST_FILES:
            return
        file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            watch = k.inotify_add_watch(self._group, b"/proc/self/fd/%d" % file, _CONTENT | k.IN_ATTRIB)
        finally:
            os.close(file)
        self._files[watch] = self._files.get(watch, frozenset()) | {(folder.path, name)}

    def drop(self, folder: Folder) -> None:
        watch = self._watches.pop(folder.path, -1)
        if self._paths.get(watch) == folder.path:
            del self._paths[watch]
            with suppress(OSError):  # the kernel removed it together with the folder
                k.inotify_rm_watch(self._group, watch)

    def read(self) -> Iterator[FileEvent]:
        for buffer in drain(self._group, _BUFFER):
            for watch, mask, name in parse(buffer):
                if mask & k.IN_Q_OVERFLOW:
                    yield LOST
                    continue
                wrote = bool(mask & k.IN_MODIFY)
                if mask & k.IN_IGNORED:
                    self._files.pop(watch, None)
                elif watch in self._paths:
                    yield FileEvent(self._paths[watch], b"" if mask & _ITSELF else name, wrote=wrote)
                for folder, other in self._files.get(watch, ()):
                    yield FileEvent(folder, other, wrote=wrote)

    def close(self) -> None:
        os.close(self._group)


def parse(buffer: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Watch descriptor, mask and name of each event in a buffer. What is cut short is left out."""
    position = 0
    while position + _EVENT.size <= len(buffer):
        watch, mask, _, length = _EVENT.unpack_from(buffer, position)
        position += _EVENT.size
        if position + length > len(buffer):
            return
        yield watch, mask, buffer[position : position + length].split(b"\0", 1)[0]
        position += length


def _most_watches() -> int:
    """What all of the user's instances may watch together (inotify(7)); 0 where nobody says so."""
    try:
        return int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    except (OSError, ValueError):
        return 0


def _mask(descriptor: int, folder: Folder) -> int:
    if folder.only is None:
        return _NAMES | _CONTENT | _ITSELF
    if not folder.only:
        return _ITSELF
    return _NAMES | _ITSELF | (_CONTENT if holds_files(descriptor, folder.only) else 0)
