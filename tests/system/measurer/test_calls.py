"""The kernel's programs of ours: which calls of a real workload are told, by whom, and what is not."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from attestation import calls
from attestation.calls import NAMES, RING, CallsMade, Watching
from attestation.channel import Calls, Covered, Measure, Observed, Pinned, Scope
from attestation.coverage import Mechanism
from attestation.facts import CallFact, ProcessAspect, ProcessFact
from attestation.layers import Layer
from measurer.bpf.watch import Watch
from measurer.calls.collector import GONE
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, User, Workload

pytestmark = needs_root
ALL = tuple(sorted(NAMES))
OUTSIDE = "chroot"
STRICT = Calls(Watching.STRICT, tuple(name for name in ALL if name != OUTSIDE))


@contextmanager
def watched(workload: Workload, tree: Path, wanted: Calls) -> Iterator[Sidecar]:
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0, calls=wanted)) as sidecar:
        sidecar.expect(Pinned)
        sidecar.expect(Observed, lambda each: each.observation.layer is Layer.SYSCALLS)
        yield sidecar


def measured(sidecar: Sidecar, *, full: bool = False) -> CallsMade:
    """A measurement from now on. The body comes where it differs from the last."""
    sidecar.send(Measure((Layer.SYSCALLS,), 0.0, full))
    sidecar.expect(Observed, lambda each: each.observation.layer is Layer.SYSCALLS)
    bodies = [
        body
        for message, body in sidecar.inbox
        if isinstance(message, Observed) and message.observation.layer is Layer.SYSCALLS and body is not None
    ]
    return calls.unpack(bodies[-1])


def told(sidecar: Sidecar) -> CallFact:
    return sidecar.expect(CallFact)


def test_the_first_call_outside_of_the_baseline_is_told_with_who_made_it(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        workload.do("import os; os.chroot('/')")
        fact = told(sidecar)
        assert (fact.call, fact.process.pid) == (OUTSIDE, workload.pid)
        assert fact.process.executable == os.path.realpath(f"/proc/{workload.pid}/exe")
        workload.do("os.chroot('/')")
        assert OUTSIDE in measured(sidecar).calls
        assert len(sidecar.seen(CallFact)) == 1, "the second one is told by nothing new"


def test_what_was_told_is_forgotten_by_a_full_measurement_and_told_anew(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        workload.do("import os; os.chroot('/')")
        told(sidecar)
        assert OUTSIDE in measured(sidecar).calls
        made = measured(sidecar, full=True)
        assert OUTSIDE not in made.calls
        assert "read" in made.calls, "what is allowed stays"
        workload.do("os.chroot('/')")
        assert told(sidecar).call == OUTSIDE


def test_a_steady_workload_is_measured_as_the_same(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        for _ in range(3):
            workload.do("import os; os.getpid(); os.stat('/')")
        before = measured(sidecar)
        workload.do("os.getpid(); os.stat('/')")
        assert measured(sidecar) == before
        assert not sidecar.seen(CallFact)


@pytest.mark.parametrize(
    "act",
    [
        "os.waitpid(os.fork() or (os.chroot('/'), os._exit(0)), 0)",
        "subprocess.run([sys.executable, '-c', 'import os; os.chroot(chr(47))'])",
        "subprocess.run([sys.executable, '-c', 'import os; os.chroot(chr(47))'], start_new_session=True)",
        "t = threading.Thread(target=os.chroot, args=('/',)); t.start(); t.join()",
    ],
    ids=["child", "program", "own-session", "thread"],
)
def test_whoever_descends_from_the_workload_is_watched(act: str, workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        workload.do("import os, subprocess, sys, threading")
        workload.do(act)
        assert told(sidecar).call == OUTSIDE


def test_a_thread_that_was_there_before_stays_watched_when_it_executes_something(
    workload: Workload, tree: Path
) -> None:
    """exec(2) of another thread than the first makes it the first: what is known of that is gone with it."""
    program = "import os; os.chroot(chr(47)); os.write(1, b'done\\n')"
    workload.do("import os, sys, threading; go = threading.Event()")
    line = f"(go.wait(), os.execv(sys.executable, [sys.executable, '-c', {program!r}]))"
    workload.do(f"threading.Thread(target=lambda: {line}).start()")
    with watched(workload, tree, STRICT) as sidecar:
        workload.begin("go.set()")
        assert told(sidecar).call == OUTSIDE


def test_whoever_comes_into_the_cgroup_from_outside_is_watched_from_its_first_execution_on(
    workload: Workload, tree: Path, group: Path
) -> None:
    """As a container's engine does it for a probe: the kernel hands no mark to who was made elsewhere."""
    (group / "cgroup.procs").write_text(str(workload.pid))
    act = f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -c 'import os; os.chroot(chr(47))'"
    try:
        with Sidecar(Scope(workload.pid, (str(tree),), cgroup=f"/{group.name}", deadman=30.0, calls=STRICT)) as sidecar:
            sidecar.expect(Pinned)
            sidecar.expect(Observed, lambda each: each.observation.layer is Layer.SYSCALLS)
            for _ in range(5):  # a look for members, once a second, comes at any moment
                subprocess.run(["sh", "-c", act], check=True)
                assert told(sidecar).call == OUTSIDE
                measured(sidecar, full=True)
    finally:
        workload.end()


def test_who_ends_while_it_is_being_marked_is_no_failure_of_the_collectors() -> None:
    ended = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(ended.pid)
    ended.wait()
    watch = Watch(1)
    try:
        watched = watch.begin()
        assert watched is not None
        with pytest.raises(OSError) as raised:
            watched.mark(pidfd)
        assert raised.value.errno in GONE
    finally:
        watch.close()
        os.close(pidfd)


def test_nobody_else_is_told_of(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        assert ctypes.CDLL(None).chroot(b"/") == 0
        workload.do("import os; os.getpid()")
        measured(sidecar)
        assert not sidecar.seen(CallFact)


# Calls that pass no call's entry, or not by its own interface.

OLD_INTERFACE = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, 20 (getpid); int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
RING_OPEN = """
import ctypes, mmap, struct
libc = ctypes.CDLL(None, use_errno=True)
params = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 4, params)
assert ring >= 0, ctypes.get_errno()
head_at, tail_at, mask_at, entries_at, flags_at, dropped_at, array_at = struct.unpack_from('=7I', params.raw, 40)
queue = mmap.mmap(ring, array_at + 4 * 8, offset=0)
entries = mmap.mmap(ring, 64 * 4, offset=0x10000000)
path = ctypes.create_string_buffer(b'/etc/hostname')
struct.pack_into('=BBHiQQII', entries, 0, 18, 0, 0, -100, 0, ctypes.addressof(path), 0, 0)
struct.pack_into('=I', queue, array_at, 0)
struct.pack_into('=I', queue, tail_at, struct.unpack_from('=I', queue, tail_at)[0] + 1)
assert libc.syscall(426, ring, 1, 1, 1, None, 0) == 1
"""


def ran(workload: Workload, program: str) -> None:
    workload.do(f"exec({program!r})")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the interface of 32 bits is x86's")
def test_a_call_by_the_interface_of_32_bits_is_outside_of_every_baseline_that_does_not_name_it(
    workload: Workload, tree: Path
) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        ran(workload, OLD_INTERFACE)
        assert told(sidecar).call == calls.COMPAT
    with watched(workload, tree, replace(STRICT, allowed=(*ALL, calls.COMPAT))) as sidecar:
        ran(workload, OLD_INTERFACE)
        measured(sidecar)
        assert not sidecar.seen(CallFact)


@pytest.mark.parametrize("watching", [Watching.LEAN, Watching.STRICT])
def test_what_io_uring_is_asked_for_is_told_by_its_own_name_although_no_call_is_made(
    watching: Watching, workload: Workload, tree: Path
) -> None:
    with watched(workload, tree, Calls(watching, ALL)) as sidecar:
        ran(workload, RING_OPEN)
        assert told(sidecar).call == f"{RING}openat"
        assert f"{RING}openat" in measured(sidecar).calls
    with watched(workload, tree, Calls(watching, (*ALL, f"{RING}openat"))) as sidecar:
        ran(workload, RING_OPEN)
        measured(sidecar)
        assert not sidecar.seen(CallFact)


def test_making_a_ring_is_told_where_it_is_not_referenced_even_if_no_call_is_looked_at(
    workload: Workload, tree: Path
) -> None:
    with watched(workload, tree, Calls(Watching.LEAN, ("read",))) as sidecar:
        ran(workload, "import ctypes; ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120))")
        assert told(sidecar).call == "io_uring_setup"


# What others do to it.

WRITE = """
import ctypes, os, sys
libc, pid, at = ctypes.CDLL(None, use_errno=True), int(sys.argv[1]), int(sys.argv[2])
how = sys.argv[3]
if how == 'mem':
    os.pwrite(os.open(f'/proc/{pid}/mem', os.O_WRONLY), b'x', at)
elif how == 'process_vm_writev':
    class Part(ctypes.Structure):
        _fields_ = [('at', ctypes.c_void_p), ('size', ctypes.c_size_t)]
    mine = ctypes.create_string_buffer(b'x')
    here, there = ctypes.byref(Part(ctypes.addressof(mine), 1)), ctypes.byref(Part(at, 1))
    assert libc.process_vm_writev(pid, here, 1, there, 1, 0) == 1
else:
    PEEK, POKE, ATTACH, DETACH = 2, 5, 16, 17
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    assert libc.ptrace(ATTACH, pid, None, None) == 0
    os.waitpid(pid, 0x40000000)
    libc.ptrace(POKE, pid, at, libc.ptrace(PEEK, pid, at, None))
    libc.ptrace(DETACH, pid, None, None)
"""


@pytest.mark.parametrize("how", ["mem", "process_vm_writev", "ptrace"])
def test_whoever_writes_into_the_memory_of_the_workload_is_told(
    how: str, workload: Workload, tree: Path, elsewhere: Path
) -> None:
    at = elsewhere / "at"
    workload.do("import ctypes; kept = ctypes.create_string_buffer(64)")
    workload.do(f"open({str(at)!r}, 'w').write(str(ctypes.addressof(kept)))")
    with watched(workload, tree, Calls(Watching.LEAN, ALL)) as sidecar:
        writer = subprocess.Popen([sys.executable, "-c", WRITE, str(workload.pid), at.read_text(), how])
        assert writer.wait(20) == 0
        fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.WRITTEN)
        assert fact.process.pid == workload.pid
        assert fact.after.startswith(f"{writer.pid} ")


def test_reading_it_is_no_writing(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, Calls(Watching.LEAN, ALL)) as sidecar:
        for name in ("environ", "cmdline", "maps", "mem"):
            with open(f"/proc/{workload.pid}/{name}", "rb", buffering=0) as file, suppress(OSError):
                file.read(1)
        measured(sidecar)
        assert not sidecar.seen(ProcessFact)


# How it is watched.


def test_whoever_calls_outside_of_the_baseline_is_killed_by_the_kernel_where_that_is_asked_for(
    workload: Workload, tree: Path, elsewhere: Path
) -> None:
    status = elsewhere / "status"
    with watched(workload, tree, replace(STRICT, kill=True)) as sidecar:
        workload.do("import os; child = os.fork() or (os.chroot('/'), os._exit(0))")
        workload.do(f"open({str(status)!r}, 'w').write(str(os.waitpid(child, 0)[1]))")
        assert os.WTERMSIG(int(status.read_text())) == signal.SIGKILL
        assert told(sidecar).call == OUTSIDE


def test_samples_see_a_call_that_is_made_again_and_again(workload: Workload, tree: Path) -> None:
    wanted = replace(STRICT, watching=Watching.SAMPLED, window=0.2, period=0.6)
    with watched(workload, tree, wanted) as sidecar:
        covered = sidecar.expect(Covered).coverage
        (own,) = [each for each in covered.collectors if each.mechanism is Mechanism.BPF]
        assert own.latency_ms == pytest.approx(400.0)
        workload.begin("import os, time; [(os.chroot('/'), time.sleep(0.01)) for _ in range(300)]")
        assert told(sidecar).call == OUTSIDE
        workload.done()


def test_another_baseline_holds_at_once_and_against_it_everything_is_told_anew(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, Calls(Watching.STRICT, ALL)) as sidecar:
        workload.do("import os; os.chroot('/')")
        sidecar.send(replace(sidecar.scope, calls=STRICT))
        measured(sidecar)
        workload.do("os.chroot('/')")
        assert told(sidecar).call == OUTSIDE


def test_a_workload_that_is_not_asked_about_any_more_is_nobodys(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        sidecar.send(replace(sidecar.scope, calls=None))
        sidecar.expect(Covered, lambda each: not [c for c in each.coverage.collectors if c.layer is Layer.SYSCALLS])
        workload.do("import os; os.chroot('/')")
        sidecar.files()
        assert not sidecar.seen(CallFact)


def test_an_ordinary_users_measurer_says_why_it_watches_no_calls(nobody: User, tree: Path) -> None:
    workload = nobody.workload()
    try:
        with nobody.sidecar(Scope(workload.pid, (str(tree),), deadman=30.0, calls=STRICT)) as sidecar:
            covered = sidecar.expect(Covered)
            (own,) = [each for each in covered.coverage.collectors if each.layer is Layer.SYSCALLS]
            assert not own.running
            assert "the kernel takes no programs of ours: Operation not permitted" in own.detail
    finally:
        workload.end()
