"""Bytes from a file, packed or not, read once from the beginning to the end, and never more of them than may be."""

from __future__ import annotations

import bz2
import hashlib
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Protocol

from attestation.errors import InvalidInput
from policies.author.references.bounds import Budget

CHUNK = 1 << 18
_XZ_MEMORY = 256 * 1024 * 1024
"""Bytes that unpacking may take: `xz -9` takes 65 MB, and a header may ask for 4 GB."""
_ZSTD_WINDOW = 27
"""As a power of two: 128 MB, what the zstd command accepts without being told."""

GZIP, XZ, BZIP2, ZSTD = b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPED = b"\x2a\x4d\x18"
"""Behind a first byte from 0x50 to 0x5f: a frame without content (RFC 8878 section 3.1.2), as indexes are made of."""


class Stream(Protocol):
    """Bytes that are read once. read: at most so many, none only at the end."""

    def read(self, most: int, /) -> bytes: ...


class Told:
    """A stream whose bytes are counted as input, for progress."""

    def __init__(self, stream: Stream, budget: Budget) -> None:
        self._stream, self._budget = stream, budget

    def read(self, most: int, /) -> bytes:
        chunk = self._stream.read(most)
        self._budget.told(len(chunk))
        return chunk


class Hashed:
    """A stream that knows the digest of what was read from it, `sha256:...`. algorithm: as hashlib names it."""

    def __init__(self, stream: Stream, algorithm: str) -> None:
        self._stream, self._state, self._algorithm = stream, hashlib.new(algorithm), algorithm
        self.size = 0

    def read(self, most: int, /) -> bytes:
        chunk = self._stream.read(most)
        self._state.update(chunk)
        self.size += len(chunk)
        return chunk

    @property
    def digest(self) -> str:
        return f"{self._algorithm}:{self._state.hexdigest()}"


class Slice:
    """The next so many bytes of a stream. Raises InvalidInput where it ends before."""

    def __init__(self, stream: Stream, size: int, where: str) -> None:
        self._stream, self.left, self._where = stream, size, where

    def read(self, most: int, /) -> bytes:
        chunk = self._stream.read(min(most, self.left))
        if not chunk and self.left and most:
            raise InvalidInput(f"it is cut short by {self.left} bytes", where=self._where, mend="Copy it again.")
        self.left -= len(chunk)
        return chunk


def chunks(stream: Stream) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk


def exactly(stream: Stream, size: int) -> bytes:
    """So many bytes, fewer only where it ends before."""
    parts, left = [], size
    while left and (part := stream.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class _Unpacking(Protocol):
    """One member of a packed file. hungry: it needs more to go on. What is damaged raises one of _DAMAGED."""

    @property
    def eof(self) -> bool: ...
    @property
    def hungry(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def unpack(self, data: bytes, most: int) -> bytes: ...


_DAMAGED = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)


class _Gzip:
    """zlib gives back what it did not get to, where the others keep it."""

    def __init__(self) -> None:
        self._state = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._state.eof

    @property
    def hungry(self) -> bool:
        return not self._state.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._state.unused_data

    def unpack(self, data: bytes, most: int) -> bytes:
        return self._state.decompress(self._state.unconsumed_tail + data, most)


class _Other:
    """bz2, lzma and zstd, which are alike. failure: what the module raises for what is damaged."""

    def __init__(self, state: Any, failure: type[Exception] = ValueError) -> None:
        self._state, self._failure = state, failure

    @property
    def eof(self) -> bool:
        return bool(self._state.eof)

    @property
    def hungry(self) -> bool:
        return bool(self._state.needs_input)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._state.unused_data)

    def unpack(self, data: bytes, most: int) -> bytes:
        try:
            return bytes(self._state.decompress(data, most))
        except self._failure as error:
            raise ValueError(error) from error


class Unpacked:
    """What is packed in a stream. Several members behind each other are one; zeros at the end are padding."""

    def __init__(self, stream: Stream, packing: _Packing, where: str) -> None:
        self._stream, self._packing, self._where = stream, packing, where
        self._member = packing.member(where)
        self._ahead = b""

    def read(self, most: int, /) -> bytes:
        while most > 0:
            if self._member.eof and not self._next():
                return b""
            data = b""
            if self._member.hungry:
                data, self._ahead = self._ahead or self._stream.read(CHUNK), b""
                if not data:
                    raise InvalidInput("it is cut short", where=self._where, mend="Copy it again.")
            if chunk := self._unpack(data, most):
                return chunk
        return b""

    def _unpack(self, data: bytes, most: int) -> bytes:
        try:
            return self._member.unpack(data, most)
        except _DAMAGED as error:
            raise InvalidInput(f"it cannot be unpacked ({error})", where=self._where, mend="Copy it again.") from error

    def _next(self) -> bool:
        """Begins another member. False where there is none."""
        rest = self._member.unused_data or self._ahead
        while len(rest) < len(XZ) and (more := self._stream.read(CHUNK)):
            rest += more
        self._ahead = b""
        if not self._packing.begins(rest):
            self._only_padding(rest)
            return False
        self._member, self._ahead = self._packing.member(self._where), rest
        return True

    def _only_padding(self, rest: bytes) -> None:
        while rest:
            if rest.strip(b"\0"):
                raise InvalidInput("something else follows what is packed", where=self._where, mend="Pack it again.")
            rest = self._stream.read(CHUNK)


class _Before:
    """Bytes, and behind them a stream."""

    def __init__(self, first: bytes, stream: Stream) -> None:
        self._first, self._stream = first, stream

    def read(self, most: int, /) -> bytes:
        if not self._first:
            return self._stream.read(most)
        chunk, self._first = self._first[:most], self._first[most:]
        return chunk


class Bounded:
    """What comes out of unpacking counts against the budget."""

    def __init__(self, stream: Stream, budget: Budget, where: str) -> None:
        self._stream, self._budget, self._where = stream, budget, where

    def read(self, most: int, /) -> bytes:
        chunk = self._stream.read(most)
        self._budget.unpacked(len(chunk), self._where)
        return chunk


def unpacked(stream: Stream, budget: Budget, where: str) -> Stream:
    """The stream itself, or what is packed in it, as its first bytes say; counted either way.

    Raises InvalidInput, also later on while it is read: for what is damaged, cut short, or packed in a way that this
    Python cannot read.
    """
    magic = exactly(stream, len(XZ))
    whole = _Before(magic, stream)
    packing = next((each for each in _PACKINGS if each.begins(magic)), None)
    return Bounded(whole if packing is None else Unpacked(whole, packing, where), budget, where)


def opened(file: IO[bytes], budget: Budget, where: str) -> Stream:
    """A file's content, unpacked."""
    return unpacked(Told(file, budget), budget, where)


def _zstd(where: str) -> _Unpacking:
    """The standard library's from Python 3.14 on, else its backport. Raises InvalidInput where neither is there."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        options = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
        return _Other(module.ZstdDecompressor(options=options), module.ZstdError)
    raise InvalidInput(
        "it is packed with zstd, which this Python cannot read",
        where=where,
        mend="Install Proofbeat with its extra `zstd`, use Python 3.14, or pack it with gzip.",
    )


@dataclass(frozen=True, slots=True)
class _Packing:
    """magics: what a member begins with, any of these."""

    magics: tuple[bytes, ...]
    member: Callable[[str], _Unpacking]

    def begins(self, data: bytes) -> bool:
        return data.startswith(self.magics)


_PACKINGS = (
    _Packing((GZIP,), lambda where: _Gzip()),
    _Packing((XZ,), lambda where: _Other(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))),
    _Packing((BZIP2,), lambda where: _Other(bz2.BZ2Decompressor())),
    _Packing((ZSTD, *(bytes((low,)) + ZSTD_SKIPPED for low in range(0x50, 0x60))), _zstd),
)
