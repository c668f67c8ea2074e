"""What a measurer and its gate say to each other, and what of a content is remembered."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import InvalidInput
from measurer.gate.contents import Contents, Readers
from measurer.gate.words import Allow, Mark, Marked, Refused, Unheld, Untold, Word, decode, encode

TEXTS = st.text(max_size=40)
WORDS: st.SearchStrategy[Word] = st.one_of(
    st.just(Allow()),
    st.lists(st.tuples(TEXTS, st.booleans()), max_size=5).map(
        lambda each: Mark(tuple(point for point, _ in each), tuple(whole for _, whole in each))
    ),
    st.builds(Marked, st.lists(TEXTS, max_size=3).map(tuple)),
    st.builds(
        Refused,
        st.floats(0, 1e9),
        TEXTS,
        st.sampled_from(["", "a" * 64]),
        st.booleans(),
        st.integers(0, 1 << 22),
        TEXTS,
        st.integers(0, 1 << 22),
        st.integers(0, 1 << 22),
    ),
    st.builds(Untold, st.integers(1, 1 << 20), TEXTS),
    st.builds(Unheld, TEXTS),
)


@given(WORDS)
def test_every_word_reads_back(word: Word) -> None:
    assert decode(encode(word)) == word


@given(st.binary(max_size=60) | st.sampled_from([b"{}", b'{"is":"Gate"}', b'{"is":"Allow","x":1}', b"[]"]))
def test_what_is_no_word_is_refused(datagram: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(datagram)


def test_a_content_is_remembered_by_what_the_kernel_says_of_it() -> None:
    contents, stamp = Contents(), (1, 2, 3, time.time_ns() - 10**9)
    contents.keep(stamp, b"d" * 32)
    assert contents.known(stamp) == b"d" * 32
    device, inode, size, changed = stamp
    for other in ((2, inode, size, changed), (device, 3, size, changed), (device, inode, 4, changed), (1, 2, 3, 4)):
        assert contents.known(other) is None


@pytest.mark.parametrize("age", [0, 10**7, -(10**9)])
def test_one_that_changed_so_lately_that_it_may_again_under_the_same_stamp_is_not(age: int) -> None:
    contents, stamp = Contents(), (1, 2, 3, time.time_ns() - age)
    contents.keep(stamp, b"d" * 32)
    assert contents.known(stamp) is None


def test_what_cannot_be_read_is_told_as_such_and_the_next_is_read(tmp_path: Path) -> None:
    readers = Readers()
    (tmp_path / "file").write_bytes(b"content")
    folder, file = (os.open(each, os.O_RDONLY) for each in (tmp_path, tmp_path / "file"))
    found: dict[int, bytes | None] = {}
    for each in (folder, file):
        readers.begin(each)
    while len(found) < 2:
        assert select.select([readers.descriptor], [], [], 5)[0]
        os.eventfd_read(readers.descriptor)
        found |= dict(readers.done)
    assert found[folder] is None
    assert found[file] is not None
    for each in (folder, file):
        os.close(each)
