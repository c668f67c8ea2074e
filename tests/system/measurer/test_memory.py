"""What processes execute, looked into on the real kernel: each act by a real program, and what is not seen of it."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestation import memory
from attestation.channel import Covered, Measure, Observed, Scope
from attestation.facts import MemoryFact
from attestation.layers import Layer
from attestation.memory import Code, CodeKind
from measurer.memory.mappings import Mapping, executable
from measurer.memory.pages import PAGE, How, Pages
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, User, Workload

SELDOM, OFTEN = 60.0, 0.5
KNOWS = """
import ctypes, mmap, os, shutil, signal, time
libc = ctypes.CDLL(None, use_errno=True)
lfind = ctypes.cast(libc.lfind, ctypes.c_void_p).value
def poke(pid, at, code):
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(at); memory.write(code)
def peek(pid, at, size):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(at); return memory.read(size)
def trace(request, pid, at=0, word=0):
    libc.ptrace.restype = ctypes.c_long
    return libc.ptrace(request, pid, ctypes.c_void_p(at), ctypes.c_void_p(word))
"""
"""What every program here can do to code."""


@pytest.fixture
def able(workload: Workload) -> Workload:
    workload.do(f"exec({KNOWS!r}, globals())")
    return workload


@contextmanager
def watched(workload: Workload, period: float, user: User | None = None) -> Iterator[Sidecar]:
    """Once its code has been looked at for the first time."""
    with (user or User()).sidecar(Scope(workload.pid, (), deadman=60.0, memory=period)) as sidecar:
        observed(sidecar, full=True)
        yield sidecar


def observed(sidecar: Sidecar, *, full: bool = False) -> tuple[Observed, tuple[Code, ...]]:
    """Its memory, measured from now on."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    sidecar.send(Measure((Layer.MEMORY,), now, full))
    told, _ = sidecar.expect_with_body(
        Observed, lambda each: each.observation.layer is Layer.MEMORY and each.observation.began >= now
    )
    bodies = [body for each, body in sidecar.inbox if isinstance(each, Observed) and each.observation.layer == "memory"]
    return told, memory.unpack(next(body for body in reversed(bodies) if body is not None))


def told(sidecar: Sidecar, kind: CodeKind, seconds: float = 5.0) -> MemoryFact:
    return sidecar.expect(MemoryFact, lambda each: each.code.kind is kind, seconds)


def silent(sidecar: Sidecar, *kinds: CodeKind) -> bool:
    return not [each for each in sidecar.seen(MemoryFact) if each.code.kind in kinds]


# Code that is not what its file holds.


def test_whoever_attaches_is_looked_at_at_once_and_named_by_what_was_written(able: Workload) -> None:
    with watched(able, SELDOM) as sidecar:
        able.do("child = os.fork() or time.sleep(3600)")
        able.do("trace(16, child); os.waitpid(child, 0); trace(4, child, lfind, -1)")  # ATTACH, POKETEXT
        fact = told(sidecar, CodeKind.PATCHED)
        assert fact.code.path.endswith("libc.so.6")
        assert fact.tracer.startswith(str(able.pid))
        able.do("os.kill(child, 9)")


def test_a_patch_is_told_once_by_its_place_in_the_file_and_again_when_it_comes_back(able: Workload) -> None:
    with watched(able, OFTEN) as sidecar:
        able.do("was = peek('self', lfind, 1); poke('self', lfind, b'\\xc3')")
        code = told(sidecar, CodeKind.PATCHED).code
        assert Path(code.path).read_bytes()[code.offset :][:PAGE] != b""
        assert code in observed(sidecar)[1]
        assert len([each for each in sidecar.seen(MemoryFact) if each.code == code]) == 1
        able.do("poke('self', lfind, was)")
        assert code not in observed(sidecar)[1]
        able.do("poke('self', lfind, b'\\xc3')")
        assert told(sidecar, CodeKind.PATCHED).code == code


def test_a_breakpoint_is_told_as_one(able: Workload) -> None:
    with watched(able, OFTEN) as sidecar:
        able.do(f"poke('self', lfind, {bytes.fromhex('000020d4' if os.uname().machine == 'aarch64' else 'cc')!r})")
        fact = told(sidecar, CodeKind.PROBED)
        assert fact.why == "no uprobe has run in it"
        assert silent(sidecar, CodeKind.PATCHED)


@needs_root
def test_a_uprobe_is_told_as_breakpoints_by_whoever_they_are(able: Workload, tmp_path: Path) -> None:
    able.do(f"open('{tmp_path}/at', 'w').write(str(lfind))")
    address = int((tmp_path / "at").read_text())
    folder = os.open(f"/proc/{able.pid}", os.O_RDONLY)
    where = next(each for each in executable(folder) if each.start <= address < each.end)
    os.close(folder)
    with watched(able, OFTEN) as sidecar:
        probe = uprobe(where.path, where.offset + address - where.start, able.pid)
        fact = told(sidecar, CodeKind.PROBED)
        assert fact.code.path == os.fsdecode(where.path)
        able.do("libc.lfind(b'', b'', ctypes.byref(ctypes.c_size_t(0)), 1, None)")
        os.close(probe)
        assert CodeKind.PROBED not in {each.kind for each in observed(sidecar)[1]}, "the kernel put the code back"


def uprobe(path: bytes, offset: int, pid: int) -> int:
    """perf_event_open(2) of the kernel's own kind of event for it."""
    kind = int(Path("/sys/bus/event_source/devices/uprobe/type").read_text())
    name = ctypes.create_string_buffer(path)
    attributes = struct.pack("=IIQQQQQIIQQ56x", kind, 128, 0, 0, 0, 0, 0, 0, 0, ctypes.addressof(name), offset)
    call = 241 if os.uname().machine == "aarch64" else 298
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.syscall(ctypes.c_long(call), ctypes.create_string_buffer(attributes), pid, -1, -1, ctypes.c_long(0))
    assert made >= 0, os.strerror(ctypes.get_errno())
    return int(made)


def test_the_kernels_own_code_in_a_process_is_looked_at_too(able: Workload) -> None:
    with watched(able, OFTEN) as sidecar:
        able.do("vdso = next(int(line.split('-')[0], 16) for line in open('/proc/self/maps') if '[vdso]' in line)")
        able.do("poke('self', vdso + 64, b'\\xc3')")
        assert told(sidecar, CodeKind.PATCHED).code.path == "[vdso]"


def test_what_is_put_back_between_two_looks_is_not_seen_unless_somebody_attached(able: Workload) -> None:
    with watched(able, SELDOM) as sidecar:
        able.do("was = peek('self', lfind, 1); poke('self', lfind, b'\\xc3'); poke('self', lfind, was)")
        observed(sidecar)
        assert silent(sidecar, CodeKind.PATCHED, CodeKind.PROBED)


def test_what_is_mapped_in_the_place_of_a_file_while_that_is_looked_at_is_not_taken_for_its_code(
    able: Workload,
) -> None:
    with watched(able, SELDOM) as sidecar:
        able.do(f"exec({TURNS!r}, globals())")
        for _ in range(150):
            observed(sidecar)
        able.do("over.set()")
        assert {each.code.kind for each in sidecar.seen(MemoryFact)} == {CodeKind.FILE, CodeKind.ANONYMOUS}


TURNS = """
import threading
libc.mmap.restype, over = ctypes.c_void_p, threading.Event()
held, size = os.open(next(line.split()[5] for line in open('/proc/self/maps') if '/libm' in line), os.O_RDONLY), 1 << 16
place = libc.mmap(None, ctypes.c_size_t(size), 5, 2, held, ctypes.c_long(0))
def turn():
    while not over.wait(0.001):
        libc.mmap(ctypes.c_void_p(place), ctypes.c_size_t(size), 7, 0x32, -1, ctypes.c_long(0))
        ctypes.memset(place, 0x90, size)
        over.wait(0.001)
        libc.mmap(ctypes.c_void_p(place), ctypes.c_size_t(size), 5, 0x12, held, ctypes.c_long(0))
threading.Thread(target=turn).start()
"""
"""A file and code of no file, mapped in turns at one place."""


# Files that are mapped.


def test_a_library_that_was_replaced_under_its_name_is_the_one_that_is_mapped(able: Workload, tmp_path: Path) -> None:
    library = tmp_path / "libown.so"
    shutil.copy(next(Path("/").glob("usr/lib/*/libm.so.6")), library)
    with watched(able, OFTEN) as sidecar:
        able.do(f"ctypes.CDLL('{library}')")
        before = sidecar.expect(MemoryFact, lambda each: each.code.path == str(library)).code
        able.do(f"shutil.copy('{library}', '{library}.new'); open('{library}.new', 'ab').write(b'other')")
        able.do(f"os.rename('{library}.new', '{library}')")
        deleted = sidecar.expect(MemoryFact, lambda each: each.code.path == str(library)).code
        assert (deleted.deleted, deleted.digest) == (True, before.digest)
        able.do(f"ctypes.CDLL('{tmp_path}/./libown.so')")  # under the same spelling it is loaded already
        new = sidecar.expect(MemoryFact, lambda each: each.code.path == str(library)).code
        assert (new.deleted, new.digest != before.digest) == (False, True)


def test_a_program_that_lives_for_a_moment_is_looked_into_while_it_does(able: Workload) -> None:
    sleep = os.path.realpath("/bin/sleep")
    with watched(able, SELDOM) as sidecar:
        able.do("import subprocess; subprocess.run(['/bin/sleep', '0.2'])")
        sidecar.expect(MemoryFact, lambda each: each.code.path == sleep, 2.0)


def test_code_of_no_file_is_told_as_it_grows_by_powers_of_two(able: Workload) -> None:
    with watched(able, OFTEN) as sidecar:
        able.do("kept = [mmap.mmap(-1, 3 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=5)]")
        assert told(sidecar, CodeKind.ANONYMOUS).code.amount == 4 * 4096
        able.do("kept.append(mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=5))")
        _, code = observed(sidecar)
        assert [each.amount for each in code if each.kind is CodeKind.ANONYMOUS] == [4 * 4096]
        able.do("kept.append(mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7))")
        grown = told(sidecar, CodeKind.ANONYMOUS).code
        assert (grown.amount, grown.writable) == (8 * 4096, True)


# What is told of it.


def test_the_same_programs_give_the_same_digest_whatever_they_have_forked(able: Workload) -> None:
    with watched(able, SELDOM) as sidecar:
        first, _ = observed(sidecar)
        able.do("children = [os.fork() or time.sleep(3600) for _ in range(3)]")
        second, _ = observed(sidecar, full=True)
        assert second.observation.digest == first.observation.digest
        assert not second.has_body
        able.do("[os.kill(each, 9) for each in children]")


def test_nothing_is_looked_at_before_somebody_wants_it_and_its_latency_is_the_period(able: Workload) -> None:
    with Sidecar(Scope(able.pid, (), deadman=60.0)) as sidecar:
        _, covered = sidecar.settle()
        assert Layer.MEMORY in covered.coverage.absent
        sidecar.send(Scope(able.pid, (), deadman=60.0, memory=7.0))
        told = sidecar.expect(Covered).coverage
        assert [each.latency_ms for each in told.collectors if each.layer is Layer.MEMORY] == [7000.0]
        sidecar.send(Scope(able.pid, (), deadman=60.0))
        assert Layer.MEMORY in sidecar.expect(Covered).coverage.absent


# What it takes.


@pytest.fixture
def patched(able: Workload, tmp_path: Path) -> tuple[Mapping, int, int]:
    """A mapping with one page that is not its file's, the address of that, and a descriptor of the /proc folder."""
    able.do("poke('self', lfind, b'\\xc3')")
    able.do(f"open('{tmp_path}/at', 'w').write(str(lfind))")
    address = int((tmp_path / "at").read_text())
    folder = os.open(f"/proc/{able.pid}", os.O_RDONLY)
    return next(each for each in executable(folder) if each.start <= address < each.end), address, folder


def test_a_kernel_without_the_scan_has_bits_that_say_the_same(patched: tuple[Mapping, int, int]) -> None:
    mapping, address, folder = patched
    pages = Pages(folder)
    by_scan = list(pages.own(mapping))
    pages.how = How.BITS
    assert list(pages.own(mapping)) == by_scan == [address // PAGE * PAGE]
    pages.how = How.COMPARISON
    assert list(pages.own(mapping)) == list(range(mapping.start, mapping.end, PAGE))
    pages.close()
    os.close(folder)


def test_an_ordinary_user_sees_the_same_of_its_own_programs_and_says_what_is_closed_to_it(nobody: User) -> None:
    workload = nobody.workload()
    try:
        workload.do(f"exec({KNOWS!r}, globals())")
        with watched(workload, OFTEN, nobody) as sidecar:
            assert all(each.digest for each in observed(sidecar)[1] if each.kind is CodeKind.FILE)
            workload.do("poke('self', lfind, b'\\xc3')")
            assert told(sidecar, CodeKind.PATCHED).code.digest
            workload.do("libc.prctl(4, 0, 0, 0, 0)")  # PR_SET_DUMPABLE: nothing of it is for its own user any more
            assert told(sidecar, CodeKind.UNREAD).why == "Permission denied"
    finally:
        workload.end()
