"""What an intruder calls that the workload never does: acts of the form that acts.py states.

Sent as source into the workload, so this file imports the standard library alone.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

Where = SimpleNamespace
"""Nothing of it is asked for."""
IO_URING_SETUP, IO_URING_ENTER, OPENAT = 425, 426, 18
ENTRIES_AT, WAIT = 0x10000000, 1
GETPID_OF_32_BITS = "b814000000cd80c3"  # mov eax, 20; int 0x80; ret
CHILD = "import ctypes, sys; kept = ctypes.create_string_buffer(8); print(ctypes.addressof(kept)); sys.stdin.read()"


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def leave_the_baseline(_: Any) -> Iterator[float]:
    """A call is made that no baseline of a service has: what personality it has is asked for."""
    libc = ctypes.CDLL(None)
    at = _now()
    libc.personality(ctypes.c_ulong(0xFFFFFFFF))
    yield at


def call_what_leaves_no_trace(_: Any) -> Iterator[float]:
    """A call is made that no tracepoint but every call's entry tells of: whether two files are one is asked."""
    libc, pid = ctypes.CDLL(None), os.getpid()
    number = {"x86_64": 312, "aarch64": 272}[os.uname().machine]
    at = _now()
    libc.syscall(number, pid, pid, 0, 0, 0)
    yield at


def use_a_capability(_: Any) -> Iterator[float]:
    """A capability is used that policy does not list: to make `/` the root, which it is."""
    at = _now()
    os.chroot("/")
    yield at


def call_by_the_older_interface(_: Any) -> Iterator[float]:
    """A call is made by the interface of 32 bits, where its number means another one."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex(GETPID_OF_32_BITS))
    code = ctypes.c_char.from_buffer(page)
    at = _now()
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(code))()
    yield at
    del code


def open_by_io_uring(_: Any) -> Iterator[float]:
    """A file is opened by io_uring, which passes no call's entry."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(120)
    ring = libc.syscall(IO_URING_SETUP, 4, params)
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    _, tail, _, _, _, _, array = struct.unpack_from("=7I", params.raw, 40)
    queue = mmap.mmap(ring, array + 32)
    entries = mmap.mmap(ring, 256, offset=ENTRIES_AT)
    path = ctypes.create_string_buffer(b"/etc/hostname")
    struct.pack_into("=BBHiQQII", entries, 0, OPENAT, 0, 0, -100, 0, ctypes.addressof(path), 0, 0)
    struct.pack_into("=I", queue, array, 0)
    struct.pack_into("=I", queue, tail, struct.unpack_from("=I", queue, tail)[0] + 1)
    at = _now()
    libc.syscall(IO_URING_ENTER, ring, 1, 1, WAIT, None, 0)
    yield at
    os.close(ring)


def write_into_a_process(_: Any) -> Iterator[float]:
    """A byte is written into the memory of another process of the workload."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    address = int(child.stdout.readline()) if child.stdout else 0
    memory = os.open(f"/proc/{child.pid}/mem", os.O_WRONLY)
    at = _now()
    os.pwrite(memory, b"x", address)
    yield at
    os.close(memory)
    child.kill()
    child.wait()
