"""The filter that a program is started under, run as the kernel runs it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.calls import TABLES
from attestation.errors import Unavailable
from proofbeat.up.filter import compiled
from proofbeat.up.under import Under

ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386, X32 = 0x40000003, 0x40000000


def answer(code: bytes, number: int, architecture: int) -> int:
    """What classic BPF comes to (Documentation/networking/filter.rst), of a seccomp_data that begins with these."""
    data, at, accumulator = struct.pack("=II", number, architecture), 0, 0
    instructions = list(struct.iter_unpack("=HBBI", code))
    while True:
        operation, true, false, operand = instructions[at]
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                at += true if accumulator == operand else false
            case 0x35:
                at += true if accumulator >= operand else false
            case 0x25:
                at += true if accumulator > operand else false
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(f"{operation:#x}")
        at += 1


@pytest.mark.parametrize("machine", sorted(TABLES))
@given(st.data())
def test_what_is_listed_passes_and_all_else_is_asked_for(machine: str, data: st.DataObject) -> None:
    table = TABLES[machine]
    allowed = data.draw(st.sets(st.sampled_from(sorted(table))))
    code, numbers = compiled(allowed, machine), {table[name] for name in allowed}
    for number in [*range(600), *(each | X32 for each in numbers), 2**32 - 1]:
        assert answer(code, number, ARCHITECTURES[machine]) == (ALLOW if number in numbers else NOTIFY), number


def test_a_call_by_an_older_interface_is_asked_for_whatever_its_number() -> None:
    code = compiled(TABLES["x86_64"], "x86_64")
    assert {answer(code, number, I386) for number in range(512)} == {NOTIFY}


def test_the_longest_filter_is_one_that_the_kernel_takes() -> None:
    every_other = sorted(TABLES["x86_64"], key=TABLES["x86_64"].__getitem__)[::2]
    assert len(compiled(every_other, "x86_64")) // 8 <= 4096


def test_a_machine_that_we_have_no_names_for_is_told() -> None:
    with pytest.raises(Unavailable, match="no filter can be made for sparc"):
        compiled(("read",), "sparc")


def test_what_is_said_to_a_starter_is_what_it_reads() -> None:
    said = Under(compiled(("read",), "x86_64"), 7)
    assert Under.parse(str(said)) == said
