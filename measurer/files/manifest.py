"""Every measured path, packed the way attestation/manifest.py packs it, folder by folder, ready to be patched.

A folder keeps its entries as one block of canonical bytes beside one block of stamps (inode, change time, size),
both in the order of the names. Finding, replacing and comparing are then searches and copies of bytes: 100,000
files cost about 15 MB, an unchanged folder is recognised by two comparisons, and one changed file is patched in
place instead of building the manifest again.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from attestation.manifest import CAPABILITIES, DIRECTORY, FILE, HEAD, LINK, MAGIC, OTHER, SUFFIX

STAMP = struct.Struct("=QQQ")
"""Inode, change time in ns, size."""

_PIECE = 1 << 17
_KINDS = {0o100000: FILE, 0o120000: LINK, 0o040000: DIRECTORY}

Record = bytes
"""One entry's HEAD, everything about a path but the path; and behind it the file's capabilities, where it has any."""


class Folder:
    """The entries directly in one folder. path: without a '/' at its end, so b'' is the root.

    only: the names measured in it; None for all. A folder on the way to an included path measures few or none.
    identity: device and inode it had when it was read last. capabilities: of those files that have any.
    """

    __slots__ = ("block", "capabilities", "children", "identity", "names", "only", "path", "stamps")

    def __init__(self, path: bytes, only: frozenset[bytes] | None = None) -> None:
        self.path = path
        self.only = only
        self.names = b""
        self.block = b""
        self.stamps = b""
        self.children: dict[bytes, Folder] = {}
        self.capabilities: dict[bytes, bytes] = {}
        self.identity = (0, 0)

    def listing(self) -> list[bytes]:
        return self.names.split(b"\0") if self.names else []

    def fill(self, names: list[bytes], records: list[Record], stamps: bytes) -> None:
        """Replace all entries. names: sorted."""
        prefix = self.path + b"/"
        self.names = b"\0".join(names)
        self.stamps = stamps
        self.capabilities = {
            name: record[HEAD.size :] for name, record in zip(names, records, strict=True) if len(record) > HEAD.size
        }
        heads = [record[: HEAD.size] for record in records] if self.capabilities else records
        self.block = b"".join([part for name, head in zip(names, heads, strict=True) for part in (head, prefix, name)])

    def find(self, name: bytes) -> tuple[int, int] | None:
        """Index of an entry and where it begins in the block."""
        at = (b"\0" + self.names + b"\0").find(b"\0" + name + b"\0") if self.names else -1
        return None if at < 0 else self._place(at)

    def get(self, name: bytes) -> tuple[Record, bytes] | None:
        """Record and stamp of an entry."""
        found = self.find(name)
        if found is None:
            return None
        index, start = found
        record = self.block[start : start + HEAD.size] + self.capabilities.get(name, b"")
        return record, self.stamps[index * STAMP.size : (index + 1) * STAMP.size]

    def record(self, name: bytes) -> Record | None:
        """Record of an entry."""
        found = self.get(name)
        return found[0] if found else None

    def parsed(self) -> dict[bytes, tuple[Record, bytes]]:
        """All entries: name -> record and stamp."""
        entries, start, between = {}, 0, len(self.path) + 1
        for index, name in enumerate(self.listing()):
            stamp = self.stamps[index * STAMP.size : (index + 1) * STAMP.size]
            entries[name] = (self.block[start : start + HEAD.size] + self.capabilities.get(name, b""), stamp)
            start += HEAD.size + between + len(name)
        return entries

    def put(self, name: bytes, record: Record, stamp: bytes) -> None:
        """Add or replace an entry."""
        record, capabilities = record[: HEAD.size], record[HEAD.size :]
        self.capabilities.pop(name, None)
        if capabilities:
            self.capabilities[name] = capabilities
        found = self.find(name)
        if found is not None:
            index, start = found
            self.block = self.block[:start] + record + self.block[start + HEAD.size :]
            self.stamps = self.stamps[: index * STAMP.size] + stamp + self.stamps[(index + 1) * STAMP.size :]
            return
        names = self.listing()
        index = bisect_left(names, name)
        start = self._start(names, index)
        self.block = self.block[:start] + record + self.path + b"/" + name + self.block[start:]
        self.stamps = self.stamps[: index * STAMP.size] + stamp + self.stamps[index * STAMP.size :]
        names.insert(index, name)
        self.names = b"\0".join(names)

    def drop(self, name: bytes) -> None:
        """Remove an entry that is there."""
        self.capabilities.pop(name, None)
        names = self.listing()
        index = bisect_left(names, name)
        start = self._start(names, index)
        self.block = self.block[:start] + self.block[start + HEAD.size + len(self.path) + 1 + len(name) :]
        self.stamps = self.stamps[: index * STAMP.size] + self.stamps[(index + 1) * STAMP.size :]
        del names[index]
        self.names = b"\0".join(names)

    def pieces(self) -> Iterator[bytes]:
        """This folder's and all lower folders' entries in canonical order: by the bytes of the whole path."""
        names, block = self._entries()
        start = 0
        between = HEAD.size + len(self.path) + 1
        starts = list(accumulate([between + len(name) for name in names], initial=0))
        for name in sorted(self.children, key=lambda each: each + b"/"):
            end = starts[bisect_left(names, name + b"/")]
            if end > start:
                yield block[start:end]
            child = self.children[name]
            if child.children or child.capabilities:
                yield from child.pieces()
            else:
                yield child.block
            start = end
        yield block[start:]

    def _entries(self) -> tuple[list[bytes], bytes]:
        """Names and bytes of all entries, those for capabilities among them."""
        if not self.capabilities:
            return self.listing() if self.children else [], self.block
        names, parts = [], []
        for name, (record, _) in self.parsed().items():
            names.append(name)
            parts += [record[: HEAD.size], self.path, b"/", name]
            value = record[HEAD.size :]
            if value:
                names.append(name + SUFFIX)
                length = len(self.path) + 1 + len(names[-1])
                head = HEAD.pack(length, CAPABILITIES, 0, 0, 0, len(value), value)
                parts += [head, self.path, b"/", names[-1]]
        return names, b"".join(parts)

    @property
    def size(self) -> int:
        """Bytes of its own entries."""
        if not self.capabilities:
            return len(self.block)
        beside = sum(HEAD.size + len(self.path) + 1 + len(each) + len(SUFFIX) for each in self.capabilities)
        return len(self.block) + beside

    def _place(self, at: int) -> tuple[int, int]:
        index = self.names.count(b"\0", 0, at)
        return index, index * (HEAD.size + len(self.path) + 1) + at - index

    def _start(self, names: list[bytes], index: int) -> int:
        if index == len(names):
            return len(self.block)
        before = sum(map(len, names[:index]))
        return index * (HEAD.size + len(self.path) + 1) + before


class Tree:
    """All folders by path. Those on the way from the root to an included path are part of it, whatever they hold."""

    def __init__(self, include: Sequence[bytes]) -> None:
        """include: absolute paths of files or folders; one below another adds nothing."""
        self.folders: dict[bytes, Folder] = {b"": Folder(b"", frozenset())}
        for path in sorted(include):
            self._include(b"" if path == b"/" else path)

    def _include(self, path: bytes) -> None:
        folder = self.folders[b""]
        names = path.split(b"/")[1:]
        for depth in range(len(names)):
            if folder.only is None or names[depth] in folder.only:
                return
            if depth == len(names) - 1:
                folder.only |= {names[depth]}
            else:
                folder = self._way(folder, names[depth])
        if not names:
            folder.only = None

    def _way(self, parent: Folder, name: bytes) -> Folder:
        path = parent.path + b"/" + name
        if path not in self.folders:
            parent.children[name] = self.folders[path] = Folder(path, frozenset())
        return self.folders[path]

    def add(self, path: bytes) -> Folder:
        """The folder of this path, made and hung below its parent when it is new."""
        folder = self.folders.get(path)
        if folder is None:
            folder = self.folders[path] = Folder(path)
            parent, name = split(path)
            self.folders[parent].children[name] = folder
        return folder

    def remove(self, path: bytes) -> list[Folder]:
        """Take out a folder and all below it; returns them, the highest first."""
        top = self.folders.get(path)
        if top is None:
            return []
        parent, name = split(path)
        self.folders[parent].children.pop(name, None)
        gone, position = [top], 0
        while position < len(gone):
            gone += gone[position].children.values()
            position += 1
        for folder in gone:
            del self.folders[folder.path]
        return gone

    def pieces(self) -> Iterator[bytes]:
        """The canonical bytes of the whole manifest, in pieces so large that hashing and writing are what costs."""
        waiting, size = [MAGIC], len(MAGIC)
        for piece in self.folders[b""].pieces():
            waiting.append(piece)
            size += len(piece)
            if size >= _PIECE:
                yield b"".join(waiting)
                waiting.clear()
                size = 0
        yield b"".join(waiting)

    @property
    def size(self) -> int:
        """How many bytes those are."""
        return len(MAGIC) + sum(folder.size for folder in self.folders.values())

    @property
    def entries(self) -> int:
        named = sum(len(folder.stamps) for folder in self.folders.values()) // STAMP.size
        return named + sum(len(folder.capabilities) for folder in self.folders.values())


def split(path: bytes) -> tuple[bytes, bytes]:
    """Parent and last name: b'/srv/app' is (b'/srv', b'app'), b'/srv' is (b'', b'srv')."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def kind(record: Record) -> bytes:
    """The kind in an entry's record."""
    return record[2:3]


def kind_of(mode: int) -> bytes:
    """The manifest's kind for a st_mode (inode(7))."""
    return _KINDS.get(mode & 0o170000, OTHER)
