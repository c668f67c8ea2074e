"""Reading the tree: whole, again where the kernel's stamps differ, or one path that an event named.

Nothing is opened through a symbolic link: folders by openat2(2) below the workload's root, what is in them by
measurer/files/reading.py. Long work is a generator that yields every few hundred microseconds.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from attestation.facts import Actor
from attestation.manifest import DIRECTORY, FILE, HEAD
from measurer import kernel
from measurer.files import reading
from measurer.files.manifest import STAMP, Folder, Record, Tree, kind, kind_of, split
from measurer.files.patterns import Volatile

_NAMES_A_STEP = 128
_FILES_A_STEP = 8
_COUNTINGS = 32
INLINE = 1 << 20
"""Bytes up to which a file that an event names is hashed at once; a larger one is hashed in slices."""

_RESOLVE = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_MAGICLINKS


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

    watch: called with an open folder before it is listed. watch_file: with a file in one that has several names.
    unwatch: with a folder that left the tree. changed: told every difference once the first whole reading is done.
    written: told what an event says is written or new, before it is read. begin: takes up long work. most: entries of
    the tree, above which Unavailable is raised.
    """

    def __init__(
        self,
        root: int,
        tree: Tree,
        volatile: Volatile,
        watch: Callable[[int, Folder], None],
        watch_file: Callable[[int, Folder, bytes], None],
        unwatch: Callable[[Folder], None],
        changed: Callable[[Change], None],
        written: Callable[[bytes, Actor | None], None],
        begin: Callable[[Iterator[None]], None],
        *,
        capabilities: bool = True,
        most: int,
    ) -> None:
        self._root, self._tree, self._volatile = root, tree, volatile
        self._watch, self._watch_file, self._unwatch = watch, watch_file, unwatch
        self._changed, self._written, self._begin = changed, written, begin
        self._slow: dict[tuple[bytes, bytes], tuple[Actor | None, bool]] = {}
        self._capabilities = capabilities
        self._most, self._uncounted = most, 0
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

    def then(self, done: Callable[[], None]) -> None:
        """Call `done` when the folders are read that are to be read by now."""
        self._walks.appendleft(_Walk([], False, done))
        self._start()

    def reread(self, path: bytes, names: Sequence[bytes], actor: Actor | None = None) -> Iterator[None]:
        """Read these files of a folder once more, although nothing says that they changed."""
        for name in names:
            folder = self._tree.folders.get(path)
            known = folder.get(name) if folder is not None else None
            if known is None or kind(known[0]) != FILE:
                continue
            read = yield from self._read_slowly(path, name)
            folder = self._tree.folders.get(path)
            same = folder is not None and self._visiting != path and folder.get(name) == known
            if folder is not None and same and read is not None and read[0] != known[0]:
                self._settle(folder, name, read, actor)

    def touch(self, path: bytes, name: bytes, actor: Actor | None, *, wrote: bool = False) -> None:
        """Something happened to this name in this folder: see what it is now. wrote: as FileEvent has it."""
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
            self._examine(folder, descriptor, name, actor, wrote=wrote)
        finally:
            os.close(descriptor)

    def _examine(
        self,
        folder: Folder,
        descriptor: int,
        name: bytes,
        actor: Actor | None,
        *,
        wrote: bool = False,
    ) -> None:
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            self._remove(folder, name, actor)
            return
        known, stamp = folder.get(name), reading.stamp_of(status)
        if self._ignores(folder, name, status):
            return
        is_file = kind_of(status.st_mode) == FILE
        if is_file and self.has_baseline and (wrote or _replaced(known, stamp)):
            self._written(folder.path + b"/" + name, actor)
        if known is not None and known[1] == stamp:
            return
        if is_file and status.st_nlink > 1:
            self._watch_file(descriptor, folder, name)
        if is_file and status.st_size > INLINE:
            self._begin_slowly(folder.path, name, actor)
            return
        try:
            read = self._asked(reading.read_to_end(descriptor, folder.path + b"/" + name, status))
        except FileNotFoundError:
            return  # gone again: the next event says so
        self._settle(folder, name, read, actor)

    def _begin_slowly(self, path: bytes, name: bytes, actor: Actor | None) -> None:
        """One reading of a file at a time: what happens meanwhile takes one more after it, not one an event."""
        if (path, name) in self._slow:
            self._slow[path, name] = (actor, True)
            return
        self._slow[path, name] = (actor, False)
        self._owed += 1
        self._begin(self._examine_slowly(path, name, actor))

    def _examine_slowly(self, path: bytes, name: bytes, actor: Actor | None) -> Iterator[None]:
        try:
            read = yield from self._read_slowly(path, name)
        finally:
            self._owed -= 1
            later, again = self._slow.pop((path, name))
        if again:
            self._begin_slowly(path, name, later)
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
            return self._asked((yield from reading.read(descriptor, path + b"/" + name, status)))
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
        if self._enters(path, record):
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
        try:
            yield from self._visit_open(folder, descriptor, full)
        finally:
            os.close(descriptor)

    def _visit_open(self, folder: Folder, descriptor: int, full: bool) -> Iterator[None]:
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
        if folder.only is not None:
            names = sorted(folder.only)  # whatever else is there is nobody's to list
        else:
            present = reading.names(descriptor, self._most)
            self._count(len(present))
            names = sorted(os.fsencode("\0".join(present)).split(b"\0")) if present else []
        states: list[os.stat_result] = []
        for start in range(0, len(names), _NAMES_A_STEP):
            states += reading.states_of(descriptor, names[start : start + _NAMES_A_STEP])
            yield
        if len(states) != len(names):
            names, states = reading.still_there(descriptor, names)
        if self._volatile:
            pairs = zip(names, states, strict=True)
            kept = [(name, status) for name, status in pairs if not self._ignores(folder, name, status)]
            names, states = [name for name, _ in kept], [status for _, status in kept]
        pack = STAMP.pack
        return names, states, b"".join([pack(each.st_ino, each.st_ctime_ns, each.st_size) for each in states])

    def _count(self, listed: int) -> None:
        """Adding up all folders takes time: once in so many entries will do. Raises Unavailable."""
        self._uncounted += listed
        if self._uncounted > self._most // _COUNTINGS:
            self._uncounted = 0
            if self._tree.entries > self._most:
                raise reading.too_many(self._most)

    def _refresh(
        self, folder: Folder, descriptor: int, names: list[bytes], states: list[os.stat_result], full: bool
    ) -> Iterator[None]:
        known = folder.parsed()
        kept: list[bytes] = []
        records: list[Record] = []
        stamps: list[bytes] = []
        spent = 0
        for name, status in zip(names, states, strict=True):
            before, earlier = known.get(name, (None, b""))
            record, stamp = before, earlier
            path = folder.path + b"/" + name
            if full or record is None or stamp != reading.stamp_of(status):
                if status.st_nlink > 1 and kind_of(status.st_mode) == FILE:
                    self._watch_file(descriptor, folder, name)
                try:
                    if status.st_size <= reading.CHUNK:
                        record, stamp = self._asked(reading.read_now(descriptor, path, status))
                    else:
                        record, stamp = self._asked((yield from reading.read(descriptor, path, status)))
                except FileNotFoundError:
                    if name in self._touched:
                        before = folder.record(name)
                    self._forget(path, before, None)
                    continue
                if earlier[:8] != stamp[:8]:
                    self._remove_below(path, None)
                if name in self._touched:  # an event may have told it already: compare with what that left
                    before = folder.record(name)
                self._tell(path, before, record, None)
                spent += 1
                if not spent % _FILES_A_STEP:
                    yield
            if self._tree.folders.get(folder.path) is not folder:
                return  # it was taken out of the tree meanwhile: what is there now is another errand's
            if self._enters(path, record):
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
            for name, (record, _) in gone.parsed().items():
                self._tell(gone.path + b"/" + name, record, None, actor)

    def _tell(self, path: bytes, before: Record | None, after: Record | None, actor: Actor | None) -> None:
        if self.has_baseline and before != after:
            self._changed(Change(path, before, after, actor))

    def _asked(self, read: tuple[Record, bytes]) -> tuple[Record, bytes]:
        """Without capabilities, where nobody asks for them."""
        record, stamp = read
        return (record if self._capabilities else record[: HEAD.size]), stamp

    def _measures(self, folder: Folder, name: bytes) -> bool:
        return folder.only is None or name in folder.only

    def _enters(self, path: bytes, record: Record) -> bool:
        return kind(record) == DIRECTORY and not self._volatile.covers_all_below(path)

    def _ignores(self, folder: Folder, name: bytes, status: os.stat_result) -> bool:
        """Volatile, and no folder: what is in those may not be volatile."""
        if not self._volatile or kind_of(status.st_mode) == DIRECTORY:
            return False
        return self._volatile.covers(folder.path + b"/" + name)

    def listing(self) -> Iterator[tuple[bytes, int]]:
        """Every folder and how many entries it has."""
        return ((folder.path, len(folder.stamps) // STAMP.size) for folder in self._tree.folders.values())

    def names(self, path: bytes, start: int, count: int) -> list[bytes]:
        """So many names of a folder, from there on."""
        folder = self._tree.folders.get(path)
        return folder.listing()[start : start + count] if folder is not None else []

    def places(self, inode: int, path: bytes) -> list[tuple[bytes, bytes]]:
        """Folder and name of a measured file, by its path or, where that is another one's name for it, by its inode."""
        folder, name = self._tree.folders.get(split(path)[0]), split(path)[1]
        if folder is not None and folder.find(name) is not None:
            return [(folder.path, name)]
        packed, found = struct.pack("=Q", inode), []
        for folder in self._tree.folders.values():
            at = folder.stamps.find(packed)
            while at >= 0 and at % STAMP.size:
                at = folder.stamps.find(packed, at + 1)
            if at >= 0:
                found.append((folder.path, folder.listing()[at // STAMP.size]))
        return found

    def _open(self, path: bytes) -> int:
        return kernel.open_below(self._root, path or b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, _RESOLVE)


def _replaced(known: tuple[Record, bytes] | None, stamp: bytes) -> bool:
    """Is it another file than the one of this name before?"""
    return known is None or known[1][:8] != stamp[:8]
