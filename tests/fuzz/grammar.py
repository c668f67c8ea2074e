"""Values out of arbitrary bytes, so that a mutation of an encoding is most often another encoding.

A strict parser refuses nearly every mutated byte string at its first gate. Behind the gates one gets by reading the
bytes leniently and encoding what was read; a valid encoding reads as exactly its own value.
"""

from __future__ import annotations

from typing import Any

from attestation import cbor

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP = range(6)
_PLAIN = {0xF4: False, 0xF5: True}
_MOST_DEPTH = 14
_MOST_VALUES = 400


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._position, self._values = data, 0, 0

    def value(self, depth: int = 0) -> Any:
        self._values += 1
        if self._position >= len(self._data) or self._values > _MOST_VALUES:
            return None
        head = self._data[self._position]
        self._position += 1
        major, argument = head >> 5, self._argument(head & 0x1F)
        if major == _UNSIGNED:
            return argument
        if major == _NEGATIVE:
            return -1 - argument
        if major in (_BYTES, _TEXT):
            content = self._data[self._position : self._position + argument]
            self._position += len(content)
            return content if major == _BYTES else content.decode("utf-8", "replace")
        if major in (_ARRAY, _MAP) and depth < _MOST_DEPTH:
            count = range(min(argument, len(self._data) - self._position))
            if major == _ARRAY:
                return [self.value(depth + 1) for _ in count]
            return {_key(self.value(depth + 1)): self.value(depth + 1) for _ in count}
        return _PLAIN.get(head)

    def _argument(self, short: int) -> int:
        if short < 24 or short > 27:
            return short
        size = 1 << (short - 24)
        content = self._data[self._position : self._position + size]
        self._position += len(content)
        return int.from_bytes(content, "big")


def value_of(data: bytes) -> Any:
    """A value that `cbor.dumps` takes, whatever the bytes are."""
    return _Reader(data).value()


def repaired(data: bytes) -> bytes:
    """The deterministic encoding of `value_of`."""
    return cbor.dumps(value_of(data))


def _key(value: Any) -> Any:
    return value if type(value) in (int, str, bytes) else repr(value)
