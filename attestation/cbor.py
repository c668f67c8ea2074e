"""Strict deterministic CBOR: one value has one encoding, and only the plainest values exist.

RFC 8949 section 4.2.1 (core deterministic encoding), narrowed: maps, arrays, text, bytes, 64-bit integers, true,
false and null. No floats, no undefined, no indefinite lengths, no tags.
"""

from __future__ import annotations

from typing import Any, NoReturn

import cbor2

from attestation.errors import InvalidInput, MalformedEvidence

MOST_BYTES = 64 * 1024
MOST_DEPTH = 12
MOST_ITEMS = 16_384

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_SIMPLE_VALUES = (0xF4, 0xF5, 0xF6)  # false, true, null
_WHERE = "CBOR"


def dumps(value: Any) -> bytes:
    """The deterministic encoding. Raises InvalidInput for what has none here (floats, sets, half a surrogate pair)."""
    try:
        return cbor2.dumps(_ordered(value))
    except ValueError as error:
        raise InvalidInput("text that is not Unicode", where=_WHERE) from error


def loads(data: bytes, *, most_bytes: int = MOST_BYTES) -> Any:
    """The value. Raises MalformedEvidence for anything `dumps` cannot have made, duplicate keys included.

    Size, depth, number of items and absence of tags are checked by a loop over the heads, before a decoder that
    recurses, and that gives some tags a costly meaning, sees a byte.
    """
    if len(data) > most_bytes:
        _refuse(f"{len(data)} bytes, of {most_bytes} allowed")
    _scan(data)
    try:
        value = cbor2.loads(data)
        canonical = dumps(value) == data
    except (cbor2.CBORError, InvalidInput, ValueError, TypeError) as error:
        raise MalformedEvidence("bytes that are not CBOR", where=_WHERE) from error
    if not canonical:
        _refuse("not in deterministic form: keys out of order or given twice, or a number longer than it need be")
    return value


def _scan(data: bytes) -> None:
    """One pass over every head, with the open containers in a list instead of on the stack."""
    position, end, items, open_items = 0, len(data), 0, [1]
    while open_items:
        if open_items[-1] == 0:
            open_items.pop()
            continue
        open_items[-1] -= 1
        items += 1
        if items > MOST_ITEMS:
            _refuse(f"more than {MOST_ITEMS} items")
        if position >= end:
            _refuse("cut short")
        head = data[position]
        major = head >> 5
        if major == _SIMPLE:
            if head not in _SIMPLE_VALUES:
                _refuse("a float, an undefined or an unknown simple value")
            position += 1
            continue
        argument, position = _argument(data, position)
        if major in (_BYTES, _TEXT):
            position += argument
            if position > end:
                _refuse("cut short")
        elif major > _TEXT:
            if major == _TAG:
                _refuse(f"the tag {argument}, where no tag belongs")
            open_items.append(argument << (major == _MAP))
            if len(open_items) > MOST_DEPTH + 1:
                _refuse(f"nested deeper than {MOST_DEPTH}")
    if position != end:
        _refuse("bytes after the end")


def _argument(data: bytes, position: int) -> tuple[int, int]:
    """The number in the head at `position`, and where the head ends."""
    short = data[position] & 0x1F
    if short < 24:
        return short, position + 1
    if short > 27:
        _refuse("an indefinite or reserved length")
    after = position + 1 + (1 << (short - 24))
    if after > len(data):
        _refuse("cut short")
    return int.from_bytes(data[position + 1 : after], "big"), after


def _ordered(value: Any) -> Any:
    """The same value with map keys in the order of their encodings (RFC 8949 section 4.2.1)."""
    kind = type(value)
    if kind is dict:
        return dict(sorted(((key, _ordered(each)) for key, each in value.items()), key=_encoded_key))
    if kind is list or kind is tuple:
        return [_ordered(each) for each in value]
    if kind is int and not -(1 << 64) <= value < 1 << 64:
        raise InvalidInput("an integer beyond 64 bits", where=_WHERE)
    if value is None or kind in (int, str, bytes, bool):
        return value
    raise InvalidInput(f"a {kind.__name__} has no place in evidence", where=_WHERE)


def _encoded_key(pair: tuple[Any, Any]) -> bytes:
    if type(pair[0]) not in (int, str, bytes):
        raise InvalidInput(f"a {type(pair[0]).__name__} as a key", where=_WHERE)
    return cbor2.dumps(pair[0])


def _refuse(what: str) -> NoReturn:
    raise MalformedEvidence(what, where=_WHERE)
