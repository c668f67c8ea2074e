"""Packed bytes: unpacked as every tool does it, up to a bound, and refused where they are damaged."""

from __future__ import annotations

import gzip
import io
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import InvalidInput
from policies.author.references.bounds import Budget
from policies.author.references.streams import Hashed, Slice, chunks, exactly, opened, unpacked
from tests.unit.policies.references.packing import digest
from tests.unit.policies.references.shipped import PACKINGS, ZSTD, zstd

every = pytest.mark.parametrize("packing", PACKINGS)
packed_somehow = pytest.mark.parametrize("packing", [name for name in PACKINGS if name != "plain"])


def unpack(packed: bytes, most: int = 1 << 24, step: int = 1 << 16) -> bytes:
    stream, parts = unpacked(io.BytesIO(packed), Budget(most), "x"), []
    while part := stream.read(step):
        parts.append(part)
    return b"".join(parts)


def fault(packed: bytes, most: int = 1 << 24) -> str:
    with pytest.raises(InvalidInput) as raised:
        unpack(packed, most)
    return raised.value.sentence


@every
@pytest.mark.parametrize("content", [b"", b"a", b"abc" * 500_000])
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_what_is_packed_comes_out_again(packing: str, content: bytes, step: int) -> None:
    few = content if step > 100 else content[:2000]
    assert unpack(PACKINGS[packing](few), step=step) == few


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), st.sampled_from(["gzip", "xz", "bzip2"]), st.integers(0, 3))
def test_members_behind_each_other_are_one_content(parts: list[bytes], packing: str, padding: int) -> None:
    packed = b"".join(map(PACKINGS[packing], parts)) + bytes(padding * 4 * bool(parts))
    assert unpack(packed) == b"".join(parts)


def test_members_without_end_do_not_end_the_stack() -> None:
    assert unpack(gzip.compress(b"a") * 5000) == b"a" * 5000


def test_frames_of_zstd_that_hold_nothing_are_passed_over() -> None:
    skipped = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"index"
    assert unpack(zstd(b"a") + skipped + zstd(b"b") + skipped) == b"ab"


@packed_somehow
def test_what_is_cut_short_is_refused_wherever_it_is_cut(packing: str) -> None:
    packed = PACKINGS[packing](bytes(range(256)) * 20)
    for length in range(len(packed) // 2, len(packed)):
        assert "cut short" in fault(packed[:length])


@packed_somehow
def test_what_follows_and_is_no_member_is_refused(packing: str) -> None:
    assert "something else follows" in fault(PACKINGS[packing](b"a") + b"\0\0\0b")
    assert "something else follows" in fault(PACKINGS[packing](b"a") + bytes(1 << 19) + b"b")


@packed_somehow
def test_a_damaged_byte_is_noticed(packing: str) -> None:
    packed = bytearray(PACKINGS[packing](bytes(range(256)) * 40))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(InvalidInput):
        unpack(bytes(packed))


@every
def test_a_bomb_is_given_up_at_the_bound(packing: str) -> None:
    bomb = PACKINGS[packing](bytes(1 << 22))
    assert "more than 1048576 bytes when it is unpacked" in fault(bomb, 1 << 20)
    assert "--most-bytes" in fault(bomb, 1 << 20)


def test_a_bomb_in_a_bomb_is_given_up_at_the_same_bound() -> None:
    inner = gzip.compress(bytes(1 << 22))
    budget = Budget(1 << 20)
    outer = unpacked(io.BytesIO(gzip.compress(inner)), budget, "x")
    with pytest.raises(InvalidInput, match="when it is unpacked"):
        list(chunks(unpacked(outer, budget, "x")))


def test_an_archive_that_asks_for_gigabytes_to_be_unpacked_is_refused() -> None:
    greedy = lzma.compress(b"a", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}])
    assert "cannot be unpacked" in fault(greedy)
    wide = ZSTD.ZstdCompressor(options={ZSTD.CompressionParameter.window_log: 30})
    assert "cannot be unpacked" in fault(wide.compress(b"a", ZSTD.ZstdCompressor.FLUSH_BLOCK) + wide.flush())


def test_a_slice_ends_where_it_is_said_and_says_when_there_is_less() -> None:
    stream = io.BytesIO(b"abcdef")
    assert exactly(Slice(stream, 4, "x"), 100) == b"abcd"
    with pytest.raises(InvalidInput, match="cut short by 3 bytes"):
        list(chunks(Slice(stream, 5, "x")))


def test_a_stream_knows_the_digest_of_what_was_read() -> None:
    stream = Hashed(io.BytesIO(b"abc"), "sha256")
    assert b"".join(chunks(stream)) == b"abc"
    assert (stream.digest, stream.size) == (f"sha256:{digest(b'abc')}", 3)


def test_input_is_told_as_it_is_read() -> None:
    told: list[int] = []
    packed = gzip.compress(b"abc")
    assert b"".join(chunks(opened(io.BytesIO(packed), Budget(100, told.append), "x"))) == b"abc"
    assert sum(told) == len(packed)
