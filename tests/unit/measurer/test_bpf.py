"""What leads to programs in the kernel, without one: the object, its types, the ring of events."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import calls
from attestation.calls import COMPAT, OTHER, TABLES, X32
from attestation.capabilities import CAPABILITIES
from attestation.errors import InvalidInput
from measurer.bpf import watch
from measurer.bpf.btf import Btf
from measurer.bpf.elf import Elf
from measurer.bpf.ring import Ring
from measurer.calls import uses

OBJECT = watch.OBJECT.read_bytes()
SOURCE = (watch.OBJECT.parent / "watch.bpf.c").read_text()
RING = 1 << 12
PAGE = os.sysconf("SC_PAGE_SIZE")


def test_the_object_is_the_one_whose_digest_stands_beside_it() -> None:
    assert watch.DIGEST.read_text() == f"{hashlib.sha256(OBJECT).hexdigest()}  {watch.OBJECT.name}\n"


def test_the_object_has_a_program_for_each_tracepoint_and_says_what_of_the_kernel_each_depends_on() -> None:
    elf = Elf(OBJECT)
    btf = Btf(elf)
    for name in (*watch.MEMBERSHIP, *watch.TOUCHED, *watch.LEAN, watch.STRICT, watch.CAPABLE):
        section = f"tp_btf/{name}"
        assert len(elf.body(section)) % 8 == 0
        assert btf.functions(section).count == 1
        assert btf.relocations(section).count > 0
        assert {each.symbol.name for each in elf.references(elf.number(section))} >= {"members", "workloads"}


def test_maps_are_as_the_source_states_them() -> None:
    found = {each.name: each for each in Btf(Elf(OBJECT)).maps}
    assert found.keys() == {"members", "workloads", "events", "stands", "doors"}
    assert (found["doors"].type, found["doors"].key_size, found["doors"].value_size) == (1, 16, 4)
    assert (found["members"].type, found["members"].key_size, found["members"].value_size) == (29, 4, 4)
    assert (found["workloads"].type, found["workloads"].flags) == (2, 1024)
    assert found["workloads"].value_size == watch.SIZE
    assert (found["events"].type, found["events"].max_entries) == (27, 1 << 20)


@given(st.integers(0, len(OBJECT)), st.binary(min_size=1, max_size=8))
def test_an_object_that_was_damaged_is_refused_or_read_but_breaks_nothing(at: int, put: bytes) -> None:
    damaged = OBJECT[:at] + put + OBJECT[at + len(put) :]
    try:
        btf = Btf(Elf(damaged))
        assert btf.maps is not None
        assert btf.loadable
    except InvalidInput:
        pass


@given(st.integers(0, len(OBJECT) - 1))
def test_an_object_that_is_cut_short_is_refused(size: int) -> None:
    with pytest.raises(InvalidInput):
        Btf(Elf(OBJECT[:size]))


class KernelsRing:
    """What the kernel writes into: the pages of its map, in memory of ours. Data is there twice in a row."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("ring")
        os.ftruncate(self.descriptor, 2 * PAGE + 2 * RING)
        self.at = 0

    def write(self, record: bytes, mark: int = 0) -> None:
        head = struct.pack("=II", len(record) | mark, 0)
        for number, byte in enumerate(head + record):
            offset = (self.at + number) % RING
            for half in (0, RING):
                os.pwrite(self.descriptor, bytes([byte]), 2 * PAGE + half + offset)
        self.at += (8 + len(record) + 7) & ~7
        self.produced(self.at)

    def produced(self, at: int) -> None:
        os.pwrite(self.descriptor, struct.pack("=Q", at), PAGE)

    @property
    def consumed(self) -> int:
        return int(struct.unpack("=Q", os.pread(self.descriptor, 8, 0))[0])


@pytest.fixture
def kernel() -> Iterator[KernelsRing]:
    made = KernelsRing()
    yield made
    os.close(made.descriptor)


@given(batches=st.lists(st.lists(st.binary(min_size=1, max_size=200), max_size=8), max_size=12))
def test_all_records_are_read_once_in_their_sequence_however_often_the_ring_goes_round(
    batches: list[list[bytes]],
) -> None:
    kernel = KernelsRing()
    ring = Ring(kernel.descriptor, RING)
    try:
        for batch in batches:
            for record in batch:
                kernel.write(record)
            assert list(ring.read()) == batch
            assert kernel.consumed == kernel.at
    finally:
        ring.close()
        os.close(kernel.descriptor)


def test_a_record_that_is_being_written_is_waited_for_and_one_that_was_given_up_is_passed_over(
    kernel: KernelsRing,
) -> None:
    ring = Ring(kernel.descriptor, RING)
    kernel.write(b"given up", 1 << 30)
    kernel.write(b"whole")
    busy = kernel.at
    kernel.write(b"half", 1 << 31)
    kernel.write(b"later")
    assert list(ring.read()) == [b"whole"]
    assert kernel.consumed == busy
    kernel.at = busy
    kernel.write(b"half")
    kernel.write(b"later")
    assert list(ring.read()) == [b"half", b"later"]
    ring.close()


def test_where_all_is_asked_for_a_record_that_is_being_written_is_waited_for(kernel: KernelsRing) -> None:
    """Behind it there may be one that was whole before: the fork of whoever opened a file that was read by now."""
    ring = Ring(kernel.descriptor, RING)
    busy = kernel.at
    kernel.write(b"first", 1 << 31)
    kernel.write(b"behind")

    def finish() -> None:
        kernel.at = busy
        kernel.write(b"first")
        kernel.write(b"later")

    later = threading.Timer(0.02, finish)
    later.start()
    assert list(itertools.islice(ring.read(whole=True), 1)) == [b"first"]
    later.join()
    ring.close()


def test_a_record_that_nobody_finishes_is_not_waited_for_without_end(kernel: KernelsRing) -> None:
    ring = Ring(kernel.descriptor, RING)
    kernel.write(b"half", 1 << 31)
    assert list(ring.read()) == []
    with pytest.raises(TimeoutError):
        list(ring.read(whole=True))
    ring.close()


@given(st.sets(st.sampled_from(sorted(calls.here()) or ["read"])), st.integers(0, (1 << 63) - 1))
def test_calls_go_by_number_to_the_kernel_and_come_back_by_name(names: set[str], operations: int) -> None:
    numbers, bits = calls.numbers((*names, *calls.names([], operations)))
    assert set(calls.names(numbers, bits)) == names | set(calls.names([], operations))
    assert len(numbers) == len(names)


def test_what_has_no_name_and_what_comes_by_an_older_interface_has_a_word() -> None:
    assert calls.names([*calls.AMONG_NUMBERS, 500], 0) == tuple(sorted({OTHER, X32, COMPAT}))


def test_the_source_has_the_same_numbers_for_what_has_none() -> None:
    defined = dict(re.findall(r"^#define (\w+) (\d+)\b", SOURCE, re.MULTILINE))
    assert {int(defined[name]): word for name, word in (("OTHER", OTHER), ("X32", X32), ("COMPAT", COMPAT))} == (
        calls.AMONG_NUMBERS
    )
    assert (int(defined["CALLS"]), int(defined["CPUS"])) == (watch.CALLS, watch.CPUS)
    assert min(calls.AMONG_NUMBERS) > max(number for table in TABLES.values() for number in table.values())
    assert CAPABILITIES[int(defined["CAP_SYS_ADMIN"])] == "CAP_SYS_ADMIN"


def test_kinds_of_event_are_the_sources() -> None:
    found = re.search(r"^enum kind \{ CALL = 1, ([A-Z, ]+) \};$", SOURCE, re.MULTILINE)
    assert found is not None
    assert [each.name for each in watch.Kind] == ["CALL", *found[1].split(", ")]


def test_what_writes_is_known_by_the_numbers_of_each_architecture() -> None:
    """i386's and arm's are arch/x86/entry/syscalls/syscall_32.tbl and arch/arm/tools/syscall.tbl of Linux 6.18."""
    older = {
        "write": (4, 4), "pwrite64": (181, 181), "writev": (146, 146), "pwritev": (334, 362), "pwritev2": (379, 393),
        "process_vm_writev": (348, 377), "ptrace": (26, 26), "io_uring_enter": (426, 426),
    }  # fmt: skip
    expected = {(TABLES["x86_64"][name], i386, TABLES["aarch64"][name], arm) for name, (i386, arm) in older.items()}
    told = {tuple(map(int, each)) for each in re.findall(r"\bis\(call, (\d+), (\d+), (\d+), (\d+)\)", SOURCE)}
    assert told == expected
    x32 = {int(each) for each in re.findall(r"\bis\(call, (\d+), ~0u, ~0u, ~0u\)", SOURCE)}
    assert x32 == {516, 521, 535, 540, 547}, "writev, ptrace, pwritev, process_vm_writev, pwritev2 of x32"


HEADERS = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}
"""Of linux-libc-dev: arm64's numbers are the generic ones."""
OTHERS = {"fstatat": "newfstatat", "sync_file_range2": "", "arch_specific_syscall": "", "syscalls": ""}
"""Of the generic ones: what arm64 calls otherwise, does without, and what is no call."""


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = Path("/usr/include") / HEADERS[machine]
    if not header.exists():
        pytest.skip(f"needs linux-libc-dev: {header}")
    stated = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE))
    named = {OTHERS.get(name, name): int(number) for name, number in stated.items() if not name.endswith("time64")}
    of_32_bits = {"clock_gettime64", "clock_settime64", "clock_adjtime64", "timer_gettime64", "timer_settime64"}
    of_32_bits |= {"timerfd_gettime64", "timerfd_settime64", ""}
    known = {name: number for name, number in named.items() if machine == "x86_64" or name not in of_32_bits}
    assert len(known) > 300
    assert known.items() <= TABLES[machine].items()


def test_the_calls_that_administer_are_calls() -> None:
    assert set(uses.ADMINISTERING) <= calls.NAMES


def test_numbers_are_those_of_each_architecture() -> None:
    assert (TABLES["x86_64"]["execve"], TABLES["x86_64"]["io_uring_setup"], TABLES["x86_64"]["mseal"]) == (59, 425, 462)
    assert (TABLES["aarch64"]["execve"], TABLES["aarch64"]["io_uring_setup"], TABLES["aarch64"]["mseal"]) == (
        221,
        425,
        462,
    )
    assert "open" not in TABLES["aarch64"]
