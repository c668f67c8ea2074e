"""One entry of a folder, read so that no change meanwhile goes unseen: what it is, and the kernel's stamp of that.

Files are opened relative to their folder with O_NOFOLLOW. A file counts as read when its stamp is the same before and
after.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Generator
from itertools import islice

from attestation.errors import Unavailable
from attestation.manifest import FILE, HEAD, LINK
from measurer.files.manifest import STAMP, Record, kind_of, split

CHUNK = 1 << 18
"""Bytes up to which a file is read in one piece."""
_LARGE_FOLDER = 1 << 19
"""Bytes of a folder itself, above which there may be very many names in it; listing it step by step is slower."""
_TRIES = 3
_TICK_NS = 20_000_000
_NOTHING = bytes(32)
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def names(descriptor: int, most: int) -> list[str]:
    """What is in a folder. Raises Unavailable for more than so many names, before all of them are in memory."""
    if os.fstat(descriptor).st_size < _LARGE_FOLDER:
        found = os.listdir(descriptor)
    else:
        with os.scandir(descriptor) as entries:
            found = [each.name for each in islice(entries, most + 1)]
    if len(found) > most:
        raise too_many(most)
    return found


def too_many(most: int) -> Unavailable:
    """More entries than can be measured of one workload."""
    return Unavailable(
        f"more than {most} files", where="files", mend="Include less (`spec.files.include`), or exempt what changes."
    )


def read(descriptor: int, path: bytes, status: os.stat_result) -> Generator[None, None, tuple[Record, bytes]]:
    """Record and stamp of one entry, a large file in steps. Raises FileNotFoundError when it is gone by now."""
    if kind_of(status.st_mode) != FILE:
        return read_now(descriptor, path, status)
    name = split(path)[1]
    for _ in range(_TRIES):
        file = _open_file(descriptor, name)
        if file is None:
            break
        try:
            status = os.fstat(file)
            state = hashlib.sha256()
            while chunk := os.read(file, CHUNK):
                state.update(chunk)
                yield
            if stamp_of(os.fstat(file)) == stamp_of(status):
                return _packed(path, status, state.digest())
        except OSError:  # an I/O error, or not a file any more
            break
        finally:
            os.close(file)
    else:
        return _restless(path, status)
    return _packed(path, status, _NOTHING)


def read_now(descriptor: int, path: bytes, status: os.stat_result) -> tuple[Record, bytes]:
    """The same at once, for what is small or no file."""
    kind, name = kind_of(status.st_mode), split(path)[1]
    if kind == LINK:
        return _packed(path, status, hashlib.sha256(os.readlink(name, dir_fd=descriptor)).digest())
    if kind != FILE:
        return _packed(path, status, _NOTHING)
    for _ in range(_TRIES):
        file = _open_file(descriptor, name)
        if file is None:
            break
        try:
            status = os.fstat(file)
            # A buffer just larger than the file: one of full size costs more in page faults than the hash.
            content = os.read(file, min(status.st_size, CHUNK) + 1)
            if len(content) == status.st_size and stamp_of(os.fstat(file)) == stamp_of(status):
                return _packed(path, status, hashlib.sha256(content).digest())
        except OSError:
            break
        finally:
            os.close(file)
    else:
        return _restless(path, status)
    return _packed(path, status, _NOTHING)


def read_to_end(descriptor: int, path: bytes, status: os.stat_result) -> tuple[Record, bytes]:
    """The same without a pause, small or large. Raises FileNotFoundError."""
    if status.st_size <= CHUNK:
        return read_now(descriptor, path, status)
    work = read(descriptor, path, status)
    try:
        while True:
            next(work)
    except StopIteration as end:
        found: tuple[Record, bytes] = end.value
        return found


def states_of(descriptor: int, names: list[bytes]) -> list[os.stat_result]:
    """As they are now; what is gone is left out."""
    try:
        return [os.stat(name, dir_fd=descriptor, follow_symlinks=False) for name in names]
    except FileNotFoundError:
        return still_there(descriptor, names)[1]


def still_there(descriptor: int, names: list[bytes]) -> tuple[list[bytes], list[os.stat_result]]:
    """Those of the names that are not gone, and their states."""
    kept, states = [], []
    for name in names:
        try:
            states.append(os.stat(name, dir_fd=descriptor, follow_symlinks=False))
        except FileNotFoundError:
            continue
        kept.append(name)
    return kept, states


def stamp_of(status: os.stat_result) -> bytes:
    """What an entry is known again by: inode, change time, size."""
    return STAMP.pack(status.st_ino, status.st_ctime_ns, status.st_size)


def _open_file(descriptor: int, name: bytes) -> int | None:
    """None when it may not be read. Raises FileNotFoundError."""
    try:
        return os.open(name, _FILE_FLAGS, dir_fd=descriptor)
    except FileNotFoundError:
        raise
    except OSError:
        return None


def _restless(path: bytes, status: os.stat_result) -> tuple[Record, bytes]:
    """It changed under every reading: no digest, and a stamp that no look can find equal."""
    return _packed(path, status, _NOTHING)[0], STAMP.pack(status.st_ino, 0, 0)


def _stamp_to_keep(status: os.stat_result) -> bytes:
    """The stamp to remember: one that never equals any when the file was changed a moment ago.

    Where timestamps are coarse (before Linux 6.13) it could change again within the same tick and keep its stamp.
    """
    if time.time_ns() - status.st_ctime_ns < _TICK_NS:
        return STAMP.pack(status.st_ino, 0, 0)
    return stamp_of(status)


def _packed(path: bytes, status: os.stat_result, digest: bytes) -> tuple[Record, bytes]:
    mode, kind = status.st_mode, kind_of(status.st_mode)
    size = status.st_size if kind in (FILE, LINK) else 0
    record = HEAD.pack(len(path), kind, mode & 0o7777, status.st_uid, status.st_gid, size, digest)
    return record, _stamp_to_keep(status)
