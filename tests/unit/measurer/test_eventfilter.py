"""The kernel's filter of process events, run here by an interpreter of the few instructions that it is made of."""

from __future__ import annotations

import os
import struct

import pytest

from measurer import kernel as k
from measurer import netlink
from measurer.processes import eventfilter

COREDUMP, LATER = 0x40000000, 0x4000
PASSED = 0xFFFFFFFF


def event(what: int, *pids: int) -> bytes:
    body = struct.pack("=IIQ", what, 0, 0) + struct.pack(f"={len(pids)}I", *pids).ljust(24, b"\0")
    connector = struct.pack("=IIIIHH", k.CN_IDX_PROC, k.CN_VAL_PROC, 0, 0, len(body), 0)
    return netlink.message(k.NLMSG_DONE, 0, connector + body)


def run(packet: bytes, *, rarely: bool = False) -> int:
    """What the filter returns (linux/filter.h): how much of the packet passes."""
    program = list(struct.iter_unpack("=HBBI", eventfilter.program(rarely=rarely)))
    accumulator = kept = position = 0
    while True:
        code, so, otherwise, operand = program[position]
        position += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from(">I", packet, operand)
            case 0x07:
                kept = accumulator
            case 0x15:
                position += so if accumulator == operand else otherwise
            case 0x1D:
                position += so if accumulator == kept else otherwise
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(code)


@pytest.mark.parametrize(
    "packet",
    [
        event(k.PROC_EVENT_NONE, 0),
        event(k.PROC_EVENT_FORK, 1, 1, 300, 300),
        event(k.PROC_EVENT_EXEC, 300, 300),
        event(k.PROC_EVENT_EXEC, 301, 300),
        event(k.PROC_EVENT_UID, 301, 300),
        event(k.PROC_EVENT_GID, 300, 300),
        event(k.PROC_EVENT_SID, 300, 300),
        event(k.PROC_EVENT_PTRACE, 300, 300, 7, 7),
        event(k.PROC_EVENT_EXIT, 300, 300, 0, 17),
    ],
)
def test_what_is_asked_for_passes(packet: bytes) -> None:
    assert run(packet) == PASSED


@pytest.mark.parametrize(
    "packet",
    [
        event(k.PROC_EVENT_FORK, 300, 300, 301, 300),
        event(k.PROC_EVENT_EXIT, 301, 300, 0, 17),
        event(k.PROC_EVENT_COMM, 300, 300),
        event(COREDUMP, 300, 300),
        event(LATER, 300, 300),
    ],
)
def test_threads_names_and_what_nobody_knows_wake_nobody(packet: bytes) -> None:
    assert run(packet) == 0


RARE = (
    event(k.PROC_EVENT_NONE, 0),
    event(k.PROC_EVENT_UID, 301, 300),
    event(k.PROC_EVENT_GID, 300, 300),
    event(k.PROC_EVENT_PTRACE, 300, 300, 7, 7),
)


@pytest.mark.parametrize("packet", RARE)
def test_beside_the_kernels_programs_there_remain_users_and_attachments(packet: bytes) -> None:
    assert run(packet, rarely=True) == PASSED


@pytest.mark.parametrize(
    "packet",
    [
        event(k.PROC_EVENT_FORK, 1, 1, 300, 300),
        event(k.PROC_EVENT_EXEC, 300, 300),
        event(k.PROC_EVENT_SID, 300, 300),
        event(k.PROC_EVENT_EXIT, 300, 300, 0, 17),
        event(k.PROC_EVENT_COMM, 300, 300),
        event(COREDUMP, 300, 300),
        event(LATER, 300, 300),
    ],
)
def test_and_nobodys_fork_execution_or_end_wakes_anybody(packet: bytes) -> None:
    assert run(packet, rarely=True) == 0


def test_our_own_name_passes_which_is_our_heartbeat_from_whichever_thread() -> None:
    assert run(event(k.PROC_EVENT_COMM, os.getpid(), os.getpid())) == PASSED
    assert run(event(k.PROC_EVENT_COMM, 300, os.getpid())) == PASSED
    assert run(event(k.PROC_EVENT_COMM, os.getpid(), 300)) == 0
