"""fanotify(7) with one inode mark a folder, reporting folder handle, name and the writer's pid.

Why inode marks and not one mark on the file system: that delivers every write of a file system which a workload
usually shares with its whole node; marks on the folders deliver ours alone. Why handles and names
(FAN_REPORT_DFID_NAME) and not open files: only they report creation, deletion, renaming and attributes, and with
inode marks they also work on overlay file systems. A file of several names has a mark of its own (FAN_REPORT_FID),
because an event under another name speaks of another folder. Needs CAP_SYS_ADMIN: without it the kernel hides the pid.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress

from attestation.coverage import Mechanism
from measurer import fanotify
from measurer import kernel as k
from measurer.files.events import LOST, MOST_FILES, FileEvent
from measurer.files.manifest import Folder
from measurer.loop import drain

_INFO = struct.Struct("=BBH")
_FSID_BYTES = 8
_BUFFER = 1 << 16

_NAMES = k.FAN_CREATE | k.FAN_DELETE | k.FAN_MOVED_FROM | k.FAN_MOVED_TO | k.FAN_ATTRIB
_CONTENT = k.FAN_MODIFY | k.FAN_CLOSE_WRITE
_ITSELF = k.FAN_DELETE_SELF | k.FAN_MOVE_SELF
_CHILDREN = k.FAN_EVENT_ON_CHILD | k.FAN_ONDIR


class Fanotify:
    """A notification group. Raises OSError (EPERM) for whom the kernel does not let use it."""

    mechanism = Mechanism.FANOTIFY

    def __init__(self) -> None:
        reporting = k.FAN_REPORT_DFID_NAME | k.FAN_REPORT_FID
        self._group = k.fanotify_init(k.FAN_CLOEXEC | k.FAN_NONBLOCK | k.FAN_UNLIMITED_MARKS | reporting)
        self._files: dict[bytes, frozenset[tuple[bytes, bytes]]] = {}
        self._paths: dict[bytes, bytes] = {}
        self._keys: dict[bytes, bytes] = {}

    @property
    def descriptor(self) -> int:
        return self._group

    @property
    def detail(self) -> str:
        full = "; not all files of several names" if len(self._files) >= MOST_FILES else ""
        return f"folders marked, no file system{full}"

    def add_file(self, descriptor: int, folder: Folder, name: bytes) -> None:
        file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            key = _key(file)
        finally:
            os.close(file)
        if key not in self._files and len(self._files) >= MOST_FILES:
            return
        k.fanotify_mark(self._group, k.FAN_MARK_ADD | k.FAN_MARK_DONT_FOLLOW, _CONTENT | k.FAN_ATTRIB, descriptor, name)
        self._files[key] = self._files.get(key, frozenset()) | {(folder.path, name)}

    def add(self, descriptor: int, folder: Folder) -> None:
        key, path = _key(descriptor), folder.path
        known = self._keys.get(path) == key and self._paths.get(key) == path
        if known and folder.only is None:
            return
        k.fanotify_mark(self._group, k.FAN_MARK_ADD, _mask(descriptor, folder), descriptor, None)
        self._paths[key] = path
        self._keys[path] = key

    def drop(self, folder: Folder) -> None:
        key = self._keys.pop(folder.path, b"")
        if self._paths.get(key) == folder.path:
            del self._paths[key]

    def read(self) -> Iterator[FileEvent]:
        for buffer in drain(self._group, _BUFFER):
            for mask, pid, key, name, file in parse(buffer):
                if mask & k.FAN_Q_OVERFLOW:
                    yield LOST
                    continue
                wrote = bool(mask & k.FAN_MODIFY)
                path = self._paths.get(key)
                if path is not None:
                    itself = mask & _ITSELF or name in (b"", b".")
                    yield FileEvent(path, b"" if itself else name, pid, wrote=wrote)
                for folder, other in self._files.get(file, ()):
                    if (folder, other) != (path, name):
                        yield FileEvent(folder, other, pid, wrote=wrote)

    def close(self) -> None:
        os.close(self._group)


def parse(buffer: bytes) -> Iterator[tuple[int, int, bytes, bytes, bytes]]:
    """Mask, pid, folder key (fsid and handle), name and the object's own key of each event in a buffer. What is cut
    short is left out.
    """
    for event in fanotify.events(buffer):
        yield event.mask, event.pid, *_keys(event.records)


def _keys(records: bytes) -> tuple[bytes, bytes, bytes]:
    folder = name = file = b""
    position = 0
    while position + _INFO.size <= len(records):
        kind, _, length = _INFO.unpack_from(records, position)
        if length < _INFO.size:
            break
        if kind in (k.FAN_EVENT_INFO_TYPE_DFID_NAME, k.FAN_EVENT_INFO_TYPE_DFID, k.FAN_EVENT_INFO_TYPE_FID):
            body = records[position + _INFO.size : position + length]
            if len(body) < _FSID_BYTES + k.FILE_HANDLE.size:
                break
            size, _ = k.FILE_HANDLE.unpack_from(body, _FSID_BYTES)
            end = _FSID_BYTES + k.FILE_HANDLE.size + size
            if kind == k.FAN_EVENT_INFO_TYPE_FID:
                file = body[:end]
            elif not folder:
                folder = body[:end]
                name = body[end:].split(b"\0", 1)[0] if kind == k.FAN_EVENT_INFO_TYPE_DFID_NAME else b""
        position += length
    return folder, name, file


def _key(descriptor: int) -> bytes:
    return struct.pack("=Q", os.fstatvfs(descriptor).f_fsid & 0xFFFFFFFFFFFFFFFF) + k.file_handle(descriptor)


def _mask(descriptor: int, folder: Folder) -> int:
    if folder.only is None:
        return _NAMES | _CONTENT | _ITSELF | _CHILDREN
    if not folder.only:
        return _ITSELF | k.FAN_ONDIR
    return _NAMES | _ITSELF | _CHILDREN | (_CONTENT if holds_files(descriptor, folder.only) else 0)


def holds_files(descriptor: int, names: frozenset[bytes]) -> bool:
    """Is one of these names in an open folder something else than a folder?"""
    for name in names:
        with suppress(OSError):
            if not stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                return True
    return False
