"""What an ELF file asks for: of files that were made so, of real ones, and of broken ones."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.elf import MAGIC, Needed, interpreter, needed

STRINGS = b"\0libone.so\0libtwo.so.1\0$ORIGIN/../lib:/opt/lib\0"
BASE = 0x400000
"""Where the file is mapped: its addresses are none of its offsets."""


def made(*entries: tuple[int, int], wide: bool = True, order: str = "<") -> bytes:
    """An ELF file with these entries in its dynamic section, which its strings follow."""
    word = struct.Struct(order + ("qQ" if wide else "iI"))
    head, header = (64, 56) if wide else (52, 32)
    at = head + 2 * header
    strings = at + (len(entries) + 2) * word.size
    dynamic = b"".join(word.pack(*each) for each in (*entries, (5, BASE + strings), (0, 0)))
    size = strings + len(STRINGS)

    def segment(kind: int, offset: int, length: int) -> bytes:
        if wide:
            return struct.pack(order + "IIQQQQQQ", kind, 0, offset, BASE + offset, 0, length, length, 0)
        return struct.pack(order + "IIIIIIII", kind, offset, BASE + offset, 0, length, length, 0, 0)

    first = MAGIC + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    if wide:
        rest = struct.pack(order + "HHIQQQIHHHHHH", 3, 62, 1, 0, head, 0, 0, head, header, 2, 0, 0, 0)
    else:
        rest = struct.pack(order + "HHIIIIIHHHHHH", 3, 3, 1, 0, head, 0, 0, head, header, 2, 0, 0, 0)
    return first + rest + segment(1, 0, size) + segment(2, at, len(dynamic)) + dynamic + STRINGS


def reading(body: bytes) -> Callable[[int, int], bytes]:
    return lambda size, offset: body[offset : offset + size]


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_libraries_and_the_folders_in_which_they_are_looked_for_first_are_told(wide: bool, order: str) -> None:
    one, two, folders = (STRINGS.index(each) for each in (b"libone", b"libtwo", b"$ORIGIN"))
    body = made((1, one), (1, two), (29, folders), wide=wide, order=order)
    assert needed(reading(body)) == Needed(("libone.so", "libtwo.so.1"), ("$ORIGIN/../lib", "/opt/lib"))


def test_the_interpreter_of_these_tests_asks_for_the_c_library_and_a_loader() -> None:
    descriptor = os.open(Path(sys.executable).resolve(), os.O_RDONLY)
    try:
        found = needed(lambda size, offset: os.pread(descriptor, size, offset))
        assert any(each.startswith("libc.") for each in found.libraries)
        assert interpreter(lambda size, offset: os.pread(descriptor, size, offset)).startswith("/lib")
    finally:
        os.close(descriptor)


@given(st.binary(max_size=200))
def test_what_is_no_elf_file_asks_for_nothing(body: bytes) -> None:
    assert needed(reading(body)) == Needed()


@given(st.data())
def test_a_broken_one_is_read_to_an_end(data: st.DataObject) -> None:
    body = bytearray(made((1, 1), (29, 1)))
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    needed(reading(bytes(body[:cut])))
    interpreter(reading(bytes(body[:cut])))


def test_an_address_that_no_segment_holds_leads_nowhere() -> None:
    body = made((1, 1))
    assert needed(reading(body)).libraries == ("libone.so",)
    assert needed(reading(body.replace(struct.pack("<Q", BASE), struct.pack("<Q", 1 << 40), 1))) == Needed()
