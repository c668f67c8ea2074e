"""Tar archives (POSIX ustar and pax, GNU), read once from the beginning to the end.

Our own reader, because what it takes an archive for must be what everybody takes it for. Where readers differ in what
they would unpack (two names for one entry, sizes where there is no content, a sparse file, an end that is none) the
archive is refused, and the mend is to pack it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from attestation.errors import InvalidInput
from policies.author.references.bounds import MOST_NAME, MOST_PATH, Budget
from policies.author.references.streams import Slice, Stream, chunks, exactly

BLOCK = 512
_MOST_EXTENDED = 1 << 20
"""Bytes of one extended header: names, and attributes of others that we pass over."""
_AGAIN = "Pack it again, with GNU tar or another common one."


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    HARD_LINK = "hard link"
    DEVICE = "device"
    FIFO = "fifo"


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.LINK,
    b"3": Kind.DEVICE,
    b"4": Kind.DEVICE,
    b"5": Kind.FOLDER,
    b"6": Kind.FIFO,
}
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_TARGET = b"x", b"g", b"L", b"K"
_USED = ("path", "linkpath", "size", "uid", "gid")
"""The pax keywords that we follow (pax(1)); every other one is about what is not measured."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of an archive. target: of a link as it is written; of a hard link a path in the archive."""

    path: tuple[str, ...]
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    target: str


def entries(stream: Stream, budget: Budget, where: str) -> Iterator[tuple[Entry, Stream]]:
    """Each entry with its content, which is passed over where nobody reads it. Raises InvalidInput."""
    return _Reader(stream, budget, where).entries()


def looks_like(beginning: bytes) -> bool:
    """Is this the first block of an archive?"""
    return len(beginning) >= BLOCK and any(beginning[:BLOCK]) and _checksum_holds(beginning[:BLOCK])


def placed(name: str, where: str) -> tuple[str, ...]:
    """A name in an archive as the path below its root. Raises InvalidInput for what the kernel would not take.

    And for `..`: nobody who packs a folder writes it.
    """
    names = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in names:
        raise InvalidInput(f"{name!r} leads out of the archive", where=where, mend=_AGAIN)
    encoded = os.fsencode(name)
    if len(encoded) > MOST_PATH or max(map(len, encoded.split(b"/"))) > MOST_NAME:
        raise InvalidInput(f"a name of {len(encoded)} bytes that no file can have", where=where, mend=_AGAIN)
    return names


class _Reader:
    def __init__(self, stream: Stream, budget: Budget, where: str) -> None:
        self._stream, self._budget, self._where = stream, budget, where
        self._extended: dict[str, str] = {}

    def entries(self) -> Iterator[tuple[Entry, Stream]]:
        while any(block := self._block()):
            if not _checksum_holds(block):
                self._refuse("a header whose checksum is wrong")
            flag = block[156:157]
            if flag in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_TARGET):
                self._budget.extended(1, self._where)
                self._extend(flag, self._content(_number(block[124:136], self._where)))
                continue
            entry = self._entry(block, flag)
            self._budget.entry(len(entry.path) + entry.target.count("/"), self._where)
            content = Slice(self._stream, entry.size, self._where)
            yield entry, content
            for _ in chunks(content):
                pass
            self._padding(entry.size)
        self._end()

    def _block(self) -> bytes:
        block = exactly(self._stream, BLOCK)
        if len(block) != BLOCK:
            self._refuse("it is cut short", mend="Copy it again.")
        return block

    def _padding(self, size: int) -> None:
        if len(exactly(self._stream, -size % BLOCK)) != -size % BLOCK:
            self._refuse("it is cut short", mend="Copy it again.")

    def _end(self) -> None:
        """Two blocks of zeros, and zeros behind them."""
        if self._extended:
            self._refuse("an extended header that belongs to no entry")
        if any(self._block()):
            self._refuse("one block of zeros and more behind it, which some read and others do not")
        for chunk in chunks(self._stream):
            if chunk.strip(b"\0"):
                self._refuse("something behind its end, which some read and others do not")

    def _entry(self, block: bytes, flag: bytes) -> Entry:
        if flag not in _KINDS:
            sparse = ": a sparse file" if flag == b"S" else ""
            self._refuse(f"an entry of the kind {flag!r}, which not everybody reads{sparse}")
        extended, self._extended = self._extended, {}
        name = extended["path"] if "path" in extended else _name(block, self._where)
        kind = Kind.FOLDER if flag == b"\0" and name.endswith("/") else _KINDS[flag]
        if kind is Kind.FILE and name.endswith("/"):
            self._refuse(f"{name!r}: a file by its kind and a folder by its name")
        size = _decimal(extended, "size", self._where)
        size = _number(block[124:136], self._where) if size is None else size
        if kind is not Kind.FILE and size:
            self._refuse(f"{name!r}: a {kind} with content, which some read and others do not")
        target = extended["linkpath"] if "linkpath" in extended else _text(block[157:257], self._where)
        if kind in (Kind.LINK, Kind.HARD_LINK) and (not target or len(os.fsencode(target)) > MOST_PATH):
            self._refuse(f"{name!r}: a {kind} to nowhere")
        uid, gid = (_decimal(extended, key, self._where) for key in ("uid", "gid"))
        return Entry(
            placed(name, self._where),
            kind,
            _number(block[100:108], self._where) & 0o7777,
            _number(block[108:116], self._where) if uid is None else uid,
            _number(block[116:124], self._where) if gid is None else gid,
            size,
            target if kind in (Kind.LINK, Kind.HARD_LINK) else "",
        )

    def _content(self, size: int) -> bytes:
        if size > _MOST_EXTENDED:
            self._refuse(f"an extended header of {size} bytes")
        content = b"".join(chunks(Slice(self._stream, size, self._where)))
        self._padding(size)
        return content

    def _extend(self, flag: bytes, content: bytes) -> None:
        """For the entry that follows."""
        if flag in (_PAX, _PAX_GLOBAL):
            found = self._records(content)
            if flag == _PAX_GLOBAL and found:
                self._refuse(f"a {next(iter(found))} for all entries, which some read and others do not")
        else:
            found = {"path" if flag == _GNU_NAME else "linkpath": _text(content, self._where)}
        twice = next((key for key in found if key in self._extended), None)
        if twice is not None:
            self._refuse(f"two extended headers with a {twice} for one entry")
        self._extended |= found

    def _records(self, content: bytes) -> dict[str, str]:
        """Those that we follow: `length keyword=value`, a line each (pax(1))."""
        found: dict[str, str] = {}
        at = 0
        while at < len(content):
            self._budget.extended(1, self._where)
            digits, blank, _ = content[at : at + 8].partition(b" ")
            if not blank or not digits.isdigit() or not len(digits) + 3 <= int(digits) <= len(content) - at:
                self._refuse("an extended header that is no list of records")
            record = content[at : at + int(digits)]
            at += len(record)
            keyword, equals, value = record[len(digits) + 1 : -1].partition(b"=")
            if not equals or record[-1:] != b"\n":
                self._refuse("an extended header that is no list of records")
            name = keyword.decode("ascii", "replace")
            if name.startswith("GNU.sparse."):
                self._refuse("a sparse file, which not everybody reads")
            if name in found:
                self._refuse(f"two {name} for one entry")
            if name in _USED:
                found[name] = _text(value, self._where, whole=True)
        return found

    def _refuse(self, what: str, *, mend: str = _AGAIN) -> NoReturn:
        raise InvalidInput(what, where=self._where, mend=mend)


def _checksum_holds(block: bytes) -> bool:
    """The sum of all bytes, with blanks in the sum's own place."""
    stated = block[148:156].strip(b" \0")
    if not stated or len(stated) > 7 or any(digit not in b"01234567" for digit in stated):
        return False
    return int(stated, 8) == sum(block) - sum(block[148:156]) + 8 * 0x20


def _name(block: bytes, where: str) -> str:
    """In two halves where the archive is POSIX's; GNU keeps other things in the first one's place."""
    name = _text(block[:100], where)
    prefix = _text(block[345:500], where) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes, where: str, *, whole: bool = False) -> str:
    """Up to the first NUL. whole: there may be none."""
    text = field if whole else field.partition(b"\0")[0]
    if b"\0" in text:
        raise InvalidInput("a name with a NUL in it", where=where, mend=_AGAIN)
    return os.fsdecode(text)


def _number(field: bytes, where: str) -> int:
    """Octal digits between blanks and NULs, or GNU's binary form of what is too large for them; nothing is 0."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if any(digit not in b"01234567" for digit in digits):
        raise InvalidInput(f"a number that is none ({field!r})", where=where, mend=_AGAIN)
    return int(digits, 8) if digits else 0


def _decimal(extended: dict[str, str], key: str, where: str) -> int | None:
    text = extended.get(key)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise InvalidInput(f"a {key} that is no number ({text[:40]!r})", where=where, mend=_AGAIN)
    return int(text)
