"""What an intruder does to code in memory: acts as acts.py has them, which are sent to the workload alike."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

CODE, DATA = mmap.PROT_READ | mmap.PROT_EXEC, mmap.PROT_WRITE
PAGE = mmap.PAGESIZE
BREAKPOINT = b"\x00\x00\x20\xd4" if os.uname().machine == "aarch64" else b"\xcc"


class Where(SimpleNamespace):
    """As acts.py has it, as far as it is asked for."""

    app: str
    loot: str
    tool: str


Act = Iterator[float]


def now() -> float:
    """CLOCK_BOOTTIME seconds, the same in every process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def a_function() -> int:
    """The address of a function of the C library that nobody calls here."""
    address = ctypes.cast(ctypes.CDLL(None).lfind, ctypes.c_void_p).value
    if address is None:
        raise OSError("the C library has no such function")
    return address


def write_into_code(pid: int, address: int, code: bytes) -> None:
    """By /proc/PID/mem, which asks for no right to write there."""
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        memory.write(code)


def protect(address: int, protection: int) -> None:
    """mprotect(2) of the page that this is in."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address // PAGE * PAGE), ctypes.c_size_t(PAGE), protection) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")


def mapped(descriptor: int, flags: int, protection: int) -> float:
    """When a page was mapped so, which stays until the process ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    nowhere, nothing = ctypes.c_void_p(None), ctypes.c_long(0)
    at = now()
    found = libc.mmap(nowhere, ctypes.c_size_t(PAGE), protection, flags, descriptor, nothing)
    if found == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return at


def a_library() -> str:
    """One that this process has loaded: of the C library, which depends on nothing else."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[5] for line in lines if "/libm.so" in line or "/libm-" in line)


def patch_its_own_code(where: Where) -> Act:
    """A process makes a page of its code writable, changes it, and makes it code again."""
    address = a_function()
    protect(address, CODE | DATA)
    ctypes.memset(address, 0xC3, 1)
    at = now()
    protect(address, CODE)
    yield at


def patch_the_code_of_another(where: Where) -> Act:
    """A process writes into another's code by /proc/PID/mem, without attaching to it."""
    child = os.fork()
    if child == 0:
        time.sleep(3600)
    at = now()
    write_into_code(child, a_function(), b"\xc3")
    yield at
    os.kill(child, 9)
    os.waitpid(child, 0)


def set_a_breakpoint(where: Where) -> Act:
    """A breakpoint is put into code, as a debugger does."""
    at = now()
    write_into_code(os.getpid(), a_function(), BREAKPOINT)
    yield at


def load_a_dropped_library(where: Where) -> Act:
    """A library is loaded from where the intruder had put it."""
    dropped = Path(where.loot) / "libdropped.so"
    shutil.copy(a_library(), dropped)
    at = now()
    ctypes.CDLL(str(dropped))
    yield at
    dropped.unlink()


def load_from_memory(where: Where) -> Act:
    """A library is loaded out of a memfd."""
    held = os.memfd_create("x", 0)
    os.write(held, Path(a_library()).read_bytes())
    at = now()
    ctypes.CDLL(f"/proc/self/fd/{held}")
    yield at


def load_and_delete(where: Where) -> Act:
    """A library is loaded, and its last name removed."""
    dropped = Path(where.loot) / "libdeleted.so"
    shutil.copy(a_library(), dropped)
    at = now()
    ctypes.CDLL(str(dropped))
    dropped.unlink()
    yield at


def map_what_was_exchanged(where: Where) -> Act:
    """What a referenced program was exchanged for is mapped as code, under its name."""
    tool, kept = Path(where.tool), Path(f"{where.tool}.kept")
    shutil.copy2(tool, kept)
    other = Path(f"{where.tool}.new")
    other.write_bytes(tool.read_bytes() + b"other")
    other.chmod(0o755)
    other.rename(tool)
    yield mapped(os.open(tool, os.O_RDONLY), mmap.MAP_PRIVATE, CODE)
    kept.rename(tool)


def make_code(where: Where) -> Act:
    """Code is put into memory that is of no file, and made executable."""
    yield mapped(-1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, CODE)


def map_code_writable(where: Where) -> Act:
    """A referenced program is mapped as code that can be written to."""
    yield mapped(os.open(where.tool, os.O_RDONLY), mmap.MAP_PRIVATE, CODE | DATA)
