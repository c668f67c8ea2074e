"""Strict CBOR: one value, one encoding, and nothing that could hurt a decoder."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import cbor
from attestation.errors import InvalidInput, MalformedEvidence

SCALARS = st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
KEYS = st.integers(-(2**64), 2**64 - 1) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


@given(VALUES)
def test_what_was_written_reads_back_and_writes_the_same_bytes(value: object) -> None:
    encoded = cbor.dumps(value)
    assert cbor.loads(encoded) == value
    assert cbor.dumps(cbor.loads(encoded)) == encoded


@given(st.binary(max_size=64))
def test_whatever_bytes_are_read_either_are_canonical_or_are_refused(data: bytes) -> None:
    try:
        value = cbor.loads(data)
    except MalformedEvidence:
        return
    assert cbor.dumps(value) == data


def test_keys_are_ordered_by_their_encodings_not_by_their_lengths() -> None:
    # RFC 8949 section 4.2.1.
    assert cbor.dumps({"aa": 1, "z": 2, -1: 3, 100: 4, 10: 5}).hex() == "a50a051864042003617a0262616101"


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("a key given twice", "a2 01 01 01 02"),
        ("keys out of order", "a2 02 01 01 01"),
        ("a number longer than it need be", "18 01"),
        ("an argument of eight bytes for a small number", "1b 0000000000000001"),
        ("an indefinite array", "9f 01 ff"),
        ("an indefinite text", "7f 61 61 ff"),
        ("a reserved additional value", "1c"),
        ("half-precision NaN", "f9 7e00"),
        ("a float", "fb 3ff0000000000000"),
        ("undefined", "f7"),
        ("an unknown simple value", "f8 20"),
        ("a tag", "c1 01"),
        ("a shared reference", "d8 1d 00"),
        ("a big number", "c2 49 010000000000000000"),
        ("a set", "d9 0102 81 01"),
        ("bytes after the end", "01 01"),
        ("nothing", ""),
        ("an array cut short", "82 01"),
        ("a text cut short", "62 61"),
        ("a length cut short", "19 01"),
        ("a length without end", "5b ffffffffffffffff"),
        ("an array without end", "9b ffffffffffffffff"),
        ("text that is not UTF-8", "61 ff"),
        ("a list as a key", "a1 80 01"),
        ("a break", "ff"),
    ],
)
def test_anything_but_the_one_plain_form_is_refused(what: str, data: str) -> None:
    with pytest.raises(MalformedEvidence):
        cbor.loads(bytes.fromhex(data.replace(" ", "")))


@pytest.mark.parametrize("head", [b"\x81", b"\xa1\x01"])
def test_nesting_without_end_is_refused_before_anything_recurses(head: bytes) -> None:
    with pytest.raises(MalformedEvidence, match="nested deeper"):
        cbor.loads(head * 20_000 + b"\x01")


def test_the_deepest_nesting_allowed_is_read_and_one_more_is_not() -> None:
    deepest = b"\x81" * cbor.MOST_DEPTH + b"\x01"
    assert cbor.dumps(cbor.loads(deepest)) == deepest
    with pytest.raises(MalformedEvidence):
        cbor.loads(b"\x81" + deepest)


def test_more_bytes_or_items_than_allowed_are_refused() -> None:
    with pytest.raises(MalformedEvidence, match="of 3 allowed"):
        cbor.loads(b"\x43abc", most_bytes=3)
    with pytest.raises(MalformedEvidence, match="items"):
        cbor.loads(cbor2.dumps([0] * (cbor.MOST_ITEMS + 1)))


@pytest.mark.parametrize("value", [1.5, {1, 2}, object(), {1.5: 1}, 2**64, -(2**64) - 1, [b"", {"a": float("nan")}]])
def test_what_has_no_place_is_not_written(value: object) -> None:
    with pytest.raises(InvalidInput):
        cbor.dumps(value)
