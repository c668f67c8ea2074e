"""Reading the tree: whole, again where the kernel's stamps differ, or one path that an event named.

Nothing is opened through a symbolic link: folders by openat2(2) below the workload's root, files relative to their
folder with O_NOFOLLOW. A file counts as read when its stamp is the same before and after. Long work is a generator
that yields every few hundred microseconds.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from attestation.facts import Actor
from measurer import kernel
from measurer.files.manifest import DIRECTORY, FILE, HEAD, LINK, STAMP, Folder, Record, Tree, kind_of, split
from measurer.files.patterns import Volatile

_CHUNK = 1 << 18
_NAMES_A_STEP = 128
_FILES_A_STEP = 8
_TRIES = 3
_TICK_NS = 20_000_000
_NOTHING = bytes(32)
INLINE = 1 << 20
"""Bytes up to which a file that an event names is hashed at once; a larger one is hashed in slices."""

_RESOLVE = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_MAGICLINKS
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Change:
    """A path that is no longer what the tree held: before and after, None where it does not exist."""

    path: bytes
    before: Record | None
    after: Record | None
    actor: Actor | None = None


class _Walk:
    """An errand: these folders and all below them, then `done`."""

    __slots__ = ("done", "full", "waiting")

    def __init__(self, waiting: list[bytes], full: bool, done: Callable[[], None]) -> None:
        self.waiting, self.full, self.done = waiting, full, done


class Scanner:
    """Keeps a Tree equal to what lies below the workload's root.

    watch: called with an open folder before it is listed. unwatch: with one that left the tree. changed: told every
    difference once the first whole reading is done. begin: takes up long work.
    """

    def __init__(
        self,
        root: int,
        tree: Tree,
        volatile: Volatile,
        watch: Callable[[int, Folder], None],
        unwatch: Callable[[Folder], None],
        changed: Callable[[Change], None],
        begin: Callable[[Iterator[None]], None],
    ) -> None:
        self._root, self._tree, self._volatile = root, tree, volatile
        self._watch, self._unwatch = watch, unwatch
        self._changed, self._begin = changed, begin
        self._visiting: bytes | None = None
        self._touched: dict[bytes, Actor | None] = {}
        self._walks: deque[_Walk] = deque()
        self._walking = False
        self._owed = 0
        self.has_baseline = False

    @property
    def settled(self) -> bool:
        """No folder is half read and no event's errand is under way: the tree is as the events so far say."""
        return self._visiting is None and not self._owed

    def read_all(self, full: bool, done: Callable[[], None]) -> None:
        """Read the whole tree and call `done`. full: hash everything; else what has another stamp than before."""

        def finished() -> None:
            self.has_baseline = True
            done()

        self._walks.appendleft(_Walk([b""], full, finished))
        self._start()

    def touch(self, path: bytes, name: bytes, actor: Actor | None) -> None:
        """Something happened to this name in this folder: see what it is now."""
        folder = self._tree.folders.get(path)
        if folder is None or not self._measures(folder, name):
            return
        if self._visiting == path:
            self._touched[name] = actor  # told now, and looked at again once the folder is read: that may be older
        try:
            descriptor = self._open(path)
        except OSError:
            return  # the folder went too: its parent has an event for that
        try:
            self._examine(folder, descriptor, name, actor)
        finally:
            os.close(descriptor)

    def _examine(self, folder: Folder, descriptor: int, name: bytes, actor: Actor | None) -> None:
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            self._remove(folder, name, actor)
            return
        known = folder.get(name)
        if (known is not None and known[1] == _stamp(status)) or self._ignores(folder, name, status):
            return
        if kind_of(status.st_mode) == FILE and status.st_size > INLINE:
            self._owed += 1
            self._begin(self._examine_slowly(folder.path, name, actor))
            return
        try:
            path = folder.path + b"/" + name
            small = status.st_size <= _CHUNK
            read = _record_now(descriptor, path, status) if small else _finish(_record(descriptor, path, status))
        except FileNotFoundError:
            return  # gone again: the next event says so
        self._settle(folder, name, read, actor)

    def _examine_slowly(self, path: bytes, name: bytes, actor: Actor | None) -> Iterator[None]:
        try:
            read = yield from self._read_slowly(path, name)
        finally:
            self._owed -= 1
        folder = self._tree.folders.get(path)
        if self._visiting == path:
            self._touched[name] = actor
        elif folder is not None and read is not None:
            self._settle(folder, name, read, actor)

    def _read_slowly(self, path: bytes, name: bytes) -> Generator[None, None, tuple[Record, bytes] | None]:
        try:
            descriptor = self._open(path)
        except OSError:
            return None
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            return (yield from _record(descriptor, path + b"/" + name, status))
        except FileNotFoundError:
            return None
        finally:
            os.close(descriptor)

    def _settle(self, folder: Folder, name: bytes, read: tuple[Record, bytes], actor: Actor | None) -> None:
        """Put what was read into the tree, tell the difference, and walk into what is a new folder."""
        record, stamp = read
        known = folder.get(name)
        before = known[0] if known else None
        path = folder.path + b"/" + name
        if known is not None and known[1][:8] != stamp[:8]:
            self._remove_below(path, actor)  # another inode of this name: what was below the old one is gone
        folder.put(name, record, stamp)
        self._tell(path, before, record, actor)
        if _kind(record) == DIRECTORY:
            # Even when it is the inode we know: it may have been away while somebody looked, and come back.
            self._tree.add(path)
            self._owed += 1
            self._walks.append(_Walk([path], False, self._paid))
            self._start()

    def _paid(self) -> None:
        self._owed -= 1

    def _start(self) -> None:
        if not self._walking:
            self._walking = True
            self._begin(self._walk())

    def _walk(self) -> Iterator[None]:
        """Folder after folder, the newest errand first, one folder at a time."""
        while self._walks:
            errand = self._walks[-1]
            if not errand.waiting:
                self._walks.remove(errand)
                errand.done()
                continue
            folder = self._tree.folders.get(errand.waiting.pop())
            if folder is not None:
                yield from self._visit(folder, errand.full)
                errand.waiting += [child.path for child in folder.children.values()]
        self._walking = False

    def _visit(self, folder: Folder, full: bool) -> Iterator[None]:
        try:
            descriptor = self._open(folder.path)
        except OSError:
            self._empty(folder)
            return
        self._visiting = folder.path
        try:
            self._watch(descriptor, folder)  # before the listing: what appears later has an event
            yield from self._compare(folder, descriptor, full)
        finally:
            self._visiting = None
            touched, self._touched = self._touched, {}
            if self._tree.folders.get(folder.path) is folder:
                for name, actor in touched.items():
                    self._examine(folder, descriptor, name, actor)
            os.close(descriptor)

    def _compare(self, folder: Folder, descriptor: int, full: bool) -> Iterator[None]:
        status = os.fstat(descriptor)
        identity = (status.st_dev, status.st_ino)
        names, states, stamps = yield from self._list(folder, descriptor)
        if not full and identity == folder.identity and stamps == folder.stamps and b"\0".join(names) == folder.names:
            return
        folder.identity = identity
        gone = set(folder.listing()).difference(names, self._touched)
        for name in sorted(gone):
            self._remove(folder, name, None)
        yield from self._refresh(folder, descriptor, names, states, full)

    def _list(
        self, folder: Folder, descriptor: int
    ) -> Generator[None, None, tuple[list[bytes], list[os.stat_result], bytes]]:
        """Names in byte order, their states and stamps. What vanishes meanwhile is left out."""
        present = os.listdir(descriptor)
        names = sorted(os.fsencode("\0".join(present)).split(b"\0")) if present else []
        if folder.only is not None or self._volatile:
            names = [name for name in names if self._measures(folder, name)]
        states: list[os.stat_result] = []
        for start in range(0, len(names), _NAMES_A_STEP):
            states += _states(descriptor, names[start : start + _NAMES_A_STEP])
            yield
        if len(states) != len(names):
            names, states = _still_there(descriptor, names)
        if self._volatile:
            pairs = zip(names, states, strict=True)
            kept = [(name, status) for name, status in pairs if not self._ignores(folder, name, status)]
            names, states = [name for name, _ in kept], [status for _, status in kept]
        pack = STAMP.pack
        return names, states, b"".join([pack(each.st_ino, each.st_ctime_ns, each.st_size) for each in states])

    def _refresh(
        self, folder: Folder, descriptor: int, names: list[bytes], states: list[os.stat_result], full: bool
    ) -> Iterator[None]:
        known = _parsed(folder)
        kept: list[bytes] = []
        records: list[Record] = []
        stamps: list[bytes] = []
        spent = 0
        for name, status in zip(names, states, strict=True):
            before, earlier = known.get(name, (None, b""))
            record, stamp = before, earlier
            path = folder.path + b"/" + name
            if full or record is None or stamp != _stamp(status):
                try:
                    if status.st_size <= _CHUNK:
                        record, stamp = _record_now(descriptor, path, status)
                    else:
                        record, stamp = yield from _record(descriptor, path, status)
                except FileNotFoundError:
                    if name in self._touched:
                        before = _record_in(folder, name)
                    self._forget(path, before, None)
                    continue
                if earlier[:8] != stamp[:8]:
                    self._remove_below(path, None)
                if name in self._touched:  # an event may have told it already: compare with what that left
                    before = _record_in(folder, name)
                self._tell(path, before, record, None)
                spent += 1
                if not spent % _FILES_A_STEP:
                    yield
            if self._tree.folders.get(folder.path) is not folder:
                return  # it was taken out of the tree meanwhile: what is there now is another errand's
            if _kind(record) == DIRECTORY:
                self._tree.add(path)
            kept.append(name)
            records.append(record)
            stamps.append(stamp)
        folder.fill(kept, records, b"".join(stamps))

    def _remove(self, folder: Folder, name: bytes, actor: Actor | None) -> None:
        known = folder.get(name)
        if known is not None:
            folder.drop(name)
            self._forget(folder.path + b"/" + name, known[0], actor)

    def _empty(self, folder: Folder) -> None:
        """The folder itself cannot be opened any more: nothing measured is left in it."""
        for name in folder.listing():
            self._remove(folder, name, None)

    def _forget(self, path: bytes, before: Record | None, actor: Actor | None) -> None:
        if before is not None:
            self._tell(path, before, None, actor)
        self._remove_below(path, actor)

    def _remove_below(self, path: bytes, actor: Actor | None) -> None:
        for gone in self._tree.remove(path):
            self._unwatch(gone)
            for name, (record, _) in _parsed(gone).items():
                self._tell(gone.path + b"/" + name, record, None, actor)

    def _tell(self, path: bytes, before: Record | None, after: Record | None, actor: Actor | None) -> None:
        if self.has_baseline and before != after:
            self._changed(Change(path, before, after, actor))

    def _measures(self, folder: Folder, name: bytes) -> bool:
        if folder.only is not None and name not in folder.only:
            return False
        return not self._volatile or not self._volatile.covers_all_below(folder.path + b"/" + name)

    def _ignores(self, folder: Folder, name: bytes, status: os.stat_result) -> bool:
        """Volatile, and no folder: those are entered, since what is in them may not be volatile."""
        if not self._volatile or kind_of(status.st_mode) == DIRECTORY:
            return False
        return self._volatile.covers(folder.path + b"/" + name)

    def _open(self, path: bytes) -> int:
        return kernel.open_below(self._root, path or b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, _RESOLVE)


def _record(descriptor: int, path: bytes, status: os.stat_result) -> Generator[None, None, tuple[Record, bytes]]:
    """Record and stamp of one entry, a large file in steps. Raises FileNotFoundError when it is gone by now."""
    if kind_of(status.st_mode) != FILE:
        return _record_now(descriptor, path, status)
    name = split(path)[1]
    for _ in range(_TRIES):
        file = _open_file(descriptor, name)
        if file is None:
            break
        try:
            status = os.fstat(file)
            state = hashlib.sha256()
            while chunk := os.read(file, _CHUNK):
                state.update(chunk)
                yield
            if _stamp(os.fstat(file)) == _stamp(status):
                return _packed(path, status, state.digest())
        except OSError:  # an I/O error, or not a file any more
            break
        finally:
            os.close(file)
    else:
        return _restless(path, status)
    return _packed(path, status, _NOTHING)


def _record_now(descriptor: int, path: bytes, status: os.stat_result) -> tuple[Record, bytes]:
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
            content = os.read(file, min(status.st_size, _CHUNK) + 1)
            if len(content) == status.st_size and _stamp(os.fstat(file)) == _stamp(status):
                return _packed(path, status, hashlib.sha256(content).digest())
        except OSError:
            break
        finally:
            os.close(file)
    else:
        return _restless(path, status)
    return _packed(path, status, _NOTHING)


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
    return _stamp(status)


def _packed(path: bytes, status: os.stat_result, digest: bytes) -> tuple[Record, bytes]:
    mode, kind = status.st_mode, kind_of(status.st_mode)
    size = status.st_size if kind in (FILE, LINK) else 0
    record = HEAD.pack(len(path), kind, mode & 0o7777, status.st_uid, status.st_gid, size, digest)
    return record, _stamp_to_keep(status)


def _record_in(folder: Folder, name: bytes) -> Record | None:
    known = folder.get(name)
    return known[0] if known else None


def _states(descriptor: int, names: list[bytes]) -> list[os.stat_result]:
    try:
        return [os.stat(name, dir_fd=descriptor, follow_symlinks=False) for name in names]
    except FileNotFoundError:
        return _still_there(descriptor, names)[1]


def _still_there(descriptor: int, names: list[bytes]) -> tuple[list[bytes], list[os.stat_result]]:
    kept, states = [], []
    for name in names:
        try:
            states.append(os.stat(name, dir_fd=descriptor, follow_symlinks=False))
        except FileNotFoundError:
            continue
        kept.append(name)
    return kept, states


def _parsed(folder: Folder) -> dict[bytes, tuple[Record, bytes]]:
    """All entries of a folder: name -> record and stamp."""
    entries, start, between = {}, 0, len(folder.path) + 1
    for index, name in enumerate(folder.listing()):
        stamp = folder.stamps[index * STAMP.size : (index + 1) * STAMP.size]
        entries[name] = (folder.block[start : start + HEAD.size], stamp)
        start += HEAD.size + between + len(name)
    return entries


def _finish(work: Generator[None, None, tuple[Record, bytes]]) -> tuple[Record, bytes]:
    """Run a reading to its end at once. Raises FileNotFoundError."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        read: tuple[Record, bytes] = end.value
        return read


def _stamp(status: os.stat_result) -> bytes:
    return STAMP.pack(status.st_ino, status.st_ctime_ns, status.st_size)


def _kind(record: Record) -> bytes:
    return record[2:3]
