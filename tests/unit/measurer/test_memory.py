"""What is read of mappings and pages, and what of it is new."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import memory
from attestation.errors import InvalidInput, MalformedEvidence
from attestation.memory import MOST_CODE, Code, CodeKind, rounded
from measurer.memory.found import Told, together
from measurer.memory.mappings import EXECUTABLE, asked, executable, parse
from measurer.memory.pages import only_breakpoints

NODE, MIB = "/usr/bin/node", 1 << 20
MAPS = b"""\
55d0c0a00000-55d0c0a28000 r--p 00000000 fe:00 247766 /usr/bin/sleep
55d0c0a28000-55d0c0a30000 r-xp 00028000 fe:00 247766 /usr/bin/sleep
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
7f0000001000-7f0000002000 r-xs 00000000 00:01 1025 /memfd:x (deleted)
7f0000002000-7f0000003000 --xp 00001000 fe:00 99 /srv/a\\012b (deleted)
7f0000003000-7f0000005000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
"""  # noqa: W291 - as the kernel writes it


def test_of_a_text_of_maps_what_can_be_executed_is_taken() -> None:
    sleep, anonymous, memfd, deleted, vdso, vsyscall = parse(MAPS)
    assert (sleep.path, sleep.offset, sleep.device, sleep.inode) == (b"/usr/bin/sleep", 0x28000, (0xFE, 0), 247766)
    assert (anonymous.of_a_file, anonymous.writable, anonymous.of_the_kernel) == (False, True, False)
    assert (memfd.pathless, memfd.of_a_file, deleted.pathless) == (True, True, False)
    assert (deleted.path, deleted.link) == (b"/srv/a\nb", "map_files/7f0000002000-7f0000003000")
    assert vdso.of_the_kernel and vsyscall.of_the_kernel


def test_a_name_that_a_process_gives_its_own_memory_is_not_the_kernels() -> None:
    (named,) = parse(b"7f0000000000-7f0000001000 r-xp 00000000 00:00 0 [anon:[vdso]]\n")
    assert not named.of_the_kernel


def test_the_kernel_answers_what_its_text_says() -> None:
    maps = os.open("/proc/self/maps", os.O_RDONLY)
    try:
        answered = list(asked(maps, EXECUTABLE))
    finally:
        os.close(maps)
    read = [each for each in parse(Path("/proc/self/maps").read_bytes()) if each.name != b"[vsyscall]"]
    assert answered == read
    folder = os.open("/proc/self", os.O_RDONLY)
    assert executable(folder) == read
    os.close(folder)


@given(st.binary(max_size=400))
def test_no_text_is_too_odd_to_be_read(text: bytes) -> None:
    assert all(each.end >= 0 for each in parse(text))


@given(st.lists(st.sampled_from(MAPS.split(b"\n")), max_size=8), st.randoms(use_true_random=False))
def test_a_line_is_read_alike_whatever_is_around_it(lines: list[bytes], chance: random.Random) -> None:
    chance.shuffle(lines)
    alone = [each for line in lines for each in parse(line)]
    assert list(parse(b"\n".join(lines))) == alone


@pytest.mark.parametrize(
    ("there", "file", "machine", "alone"),
    [
        (b"\x55\xcc\x89", b"\x55\x48\x89", "x86_64", True),
        (b"\x55\xcc\xc3", b"\x55\x48\x89", "x86_64", False),
        (b"\x55\x90\x89", b"\x55\x48\x89", "x86_64", False),
        (bytes.fromhex("000020d4"), bytes.fromhex("fd7bbfa9"), "aarch64", True),
        (bytes.fromhex("a00020d4"), bytes.fromhex("fd7bbfa9"), "aarch64", True),
        (bytes.fromhex("c0035fd6"), bytes.fromhex("fd7bbfa9"), "aarch64", False),
        (b"\x73\x00\x10\x00", b"\x13\x00\x00\x00", "riscv64", False),
    ],
)
def test_breakpoints_are_told_from_other_code(there: bytes, file: bytes, machine: str, alone: bool) -> None:
    assert only_breakpoints(there, file, machine) is alone


def test_pages_of_two_sizes_are_not_compared() -> None:
    with pytest.raises(InvalidInput, match="two sizes"):
        only_breakpoints(b"\xcc", b"\xcc\xcc", "x86_64")


# What is known of all processes together.

LIBC = Code(CodeKind.FILE, path="/lib/libc.so.6", digest="a" * 64)
MADE = Code(CodeKind.ANONYMOUS, NODE, amount=MIB)


def test_of_amounts_the_greatest_counts_and_every_thing_counts_once() -> None:
    found = together([LIBC, LIBC, MADE, replace(MADE, amount=4 * MIB), replace(MADE, amount=4096, writable=True)])
    assert found == {LIBC, replace(MADE, amount=4 * MIB, writable=True)}


def test_more_than_can_be_told_is_told_and_hides_no_patched_page() -> None:
    patched = Code(CodeKind.PATCHED, NODE, "/z", offset=4096)
    found = together([*(replace(LIBC, path=f"/{number}") for number in range(MOST_CODE)), patched])
    assert len(found) == MOST_CODE
    assert {patched, Code(CodeKind.UNTOLD)} <= found


def test_what_was_told_is_news_again_only_once_it_was_gone() -> None:
    told = Told()
    assert told.news([LIBC, MADE]) == [MADE, LIBC]
    assert told.news([LIBC, MADE]) == []
    told.settle([MADE])
    assert told.news([LIBC]) == [LIBC]


def test_an_amount_is_news_where_it_grew_or_became_writable() -> None:
    told = Told()
    told.news([MADE])
    assert told.news([replace(MADE, amount=4096)]) == []
    assert told.news([replace(MADE, writable=True)]) == [replace(MADE, writable=True)]
    assert told.news([replace(MADE, amount=2 * MIB)]) == [replace(MADE, amount=2 * MIB)]
    assert told.news([replace(MADE, executable="/usr/bin/java")]) != []


# As bytes.

CODES = st.lists(
    st.builds(
        Code,
        kind=st.sampled_from(CodeKind),
        executable=st.text(max_size=8),
        path=st.text(max_size=8),
        digest=st.sampled_from(["", "b" * 64]),
        writable=st.booleans(),
        deleted=st.booleans(),
        amount=st.integers(0, 1 << 40).map(rounded),
        offset=st.integers(0, 1 << 40),
    ),
    max_size=6,
)


@given(CODES)
def test_packed_code_reads_back_and_has_one_spelling(code: list[Code]) -> None:
    body = memory.pack(code)
    assert set(memory.unpack(body)) == set(code)
    assert memory.pack(reversed(memory.unpack(body))) == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        memory.pack([LIBC]).replace(b'"offset":0', b'"offset":0 '),
        memory.pack([LIBC]).replace(b"a" * 64, b"A" * 64),
        memory.pack([MADE]).replace(b"1048576", b"1048577"),
        memory.pack([MADE]).replace(b"anonymous", b"else"),
        memory.pack([LIBC]).replace(b'"offset":0', b'"offset":-1'),
    ],
)
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        memory.unpack(body)


@given(st.integers(1, 1 << 50))
def test_an_amount_is_rounded_up_to_a_power_of_two_and_to_a_page(amount: int) -> None:
    up = rounded(amount)
    assert amount <= up
    assert up == 4096 or up < 2 * amount
    assert up & (up - 1) == 0
    assert rounded(up) == up
