"""The kernel's programs of ours: which calls of a real workload are told, by whom, and what is not."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
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
from attestation.coverage import CALLS, Mechanism
from attestation.facts import CallFact, CapabilityFact, CollectorFact, CollectorState, ProcessAspect, ProcessFact
from attestation.layers import Layer
from attestation.observation import Observation
from attestation.tally import Tally, amount
from measurer.bpf.watch import OBJECT, Watch
from measurer.marking import GONE
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import ROOT, Sidecar, User, Workload

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


def observed(sidecar: Sidecar, *, full: bool = False) -> Observation:
    """A measurement from now on."""
    sidecar.send(Measure((Layer.SYSCALLS,), 0.0, full))
    return sidecar.expect(Observed, lambda each: each.observation.layer is Layer.SYSCALLS).observation


def measured(sidecar: Sidecar, *, full: bool = False) -> CallsMade:
    """The same."""
    observed(sidecar, full=full)
    return latest(sidecar)


def latest(sidecar: Sidecar) -> CallsMade:
    """The body comes where it differs from the last."""
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
        with pytest.raises(GONE):
            watched.mark(pidfd)
    finally:
        watch.close()
        os.close(pidfd)


def test_nobody_else_is_told_of(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        assert ctypes.CDLL(None).chroot(b"/") == 0
        workload.do("import os; os.getpid()")
        measured(sidecar)
        assert not sidecar.seen(CallFact)


# What is told beside the layer.


def tally(sidecar: Sidecar) -> tuple[Tally, dict[str, int]]:
    """Of a measurement from now on; and how often each call was made, by name."""
    found = observed(sidecar).tally
    assert found is not None
    return found, dict(zip(latest(sidecar).calls, map(amount, found.counts), strict=True))


def test_how_often_each_call_was_made_is_told_within_a_factor_of_two(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        workload.do("import os; [os.getppid() for _ in range(5000)]; os.getsid(0)")
        measured(sidecar)
        _, made = tally(sidecar)
        assert 5000 <= made["getppid"] < 2 * 5100
        assert made["getsid"] == 1


def test_a_steady_workload_is_told_of_by_the_same_counts(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        workload.do("import os; [os.getppid() for _ in range(5000)]")
        measured(sidecar)
        before = tally(sidecar)[1]["getppid"]
        workload.do("[os.getppid() for _ in range(1000)]")
        assert tally(sidecar)[1]["getppid"] == before


def test_a_second_full_of_calls_is_told_as_the_busiest_one(workload: Workload, tree: Path) -> None:
    busy = "import os, time; end = time.monotonic() + 2.5\nwhile time.monotonic() < end: os.getppid()"
    with watched(workload, tree, STRICT) as sidecar:
        ran(workload, busy)
        told, made = tally(sidecar)
        assert amount(told.peak) >= amount(told.rate) > made["getppid"] / 8


def test_who_was_first_outside_of_the_baseline_is_told_in_every_measurement_from_then_on(
    workload: Workload, tree: Path
) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        workload.do("import os; os.chroot('/')")
        told(sidecar)
        workload.do("os.waitpid(os.fork() or (os.chroot('/'), os._exit(0)), 0)")
        for full in (False, True, False):
            found = observed(sidecar, full=full).tally
            assert found is not None
            ((first,), more) = found.offences, found.more
            assert (first.call, first.pid, more) == (OUTSIDE, workload.pid, 0)
            assert first.executable == os.path.realpath(f"/proc/{workload.pid}/exe")


def test_a_list_with_it_makes_it_no_offence_any_more(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        workload.do("import os; os.chroot('/')")
        told(sidecar)
        sidecar.send(replace(sidecar.scope, calls=replace(STRICT, allowed=ALL)))
        assert tally(sidecar)[0].offences == ()


def test_where_no_call_is_looked_at_none_is_counted(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, Calls(Watching.LEAN, ALL)) as sidecar:
        ran(workload, RING_OPEN)
        measured(sidecar)
        found, made = tally(sidecar)
        assert set(made.values()) == {0}
        assert (found.rate, found.peak) == (0, 0)


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


MAKE_RING = "import ctypes; ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120))"


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
        ran(workload, MAKE_RING)
        assert told(sidecar).call == "io_uring_setup"


def test_making_a_ring_is_told_once_where_calls_are_looked_at_as_well(workload: Workload, tree: Path) -> None:
    without = tuple(name for name in ALL if name != "io_uring_setup")
    with watched(workload, tree, Calls(Watching.STRICT, without)) as sidecar:
        ran(workload, MAKE_RING)
        assert told(sidecar).call == "io_uring_setup"
        measured(sidecar)
        ran(workload, MAKE_RING)
        measured(sidecar)
        assert len(sidecar.seen(CallFact)) == 1


def test_the_layer_says_of_a_ring_what_was_told_of_it(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, Calls(Watching.LEAN, ("read",))) as sidecar:
        ran(workload, MAKE_RING)
        assert told(sidecar).call == "io_uring_setup"
        assert measured(sidecar).calls == ("io_uring_setup",)
        assert measured(sidecar, full=True).calls == ()


def test_a_list_that_differs_in_operations_alone_has_all_told_anew(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, Calls(Watching.STRICT, ALL)) as sidecar:
        ran(workload, RING_OPEN)
        assert told(sidecar).call == f"{RING}openat"
        sidecar.send(replace(sidecar.scope, calls=Calls(Watching.STRICT, (*ALL, f"{RING}read"))))
        measured(sidecar)
        ran(workload, RING_OPEN)
        assert told(sidecar).call == f"{RING}openat"
        assert len(sidecar.seen(CallFact)) == 2


# Uses of capabilities.

USES = Calls(Watching.LEAN, ALL, capabilities=("CAP_SETUID", "CAP_SETGID"))


def used(sidecar: Sidecar) -> CapabilityFact:
    return sidecar.expect(CapabilityFact)


def test_the_first_use_of_a_capability_that_is_not_listed_is_told_with_its_call_and_who_used_it(
    workload: Workload, tree: Path
) -> None:
    with watched(workload, tree, USES) as sidecar:
        workload.do("import os; os.chroot('/')")
        fact = used(sidecar)
        assert (fact.capability, fact.call, fact.process.pid) == ("CAP_SYS_CHROOT", "chroot", workload.pid)
        assert measured(sidecar).capabilities == ("CAP_SYS_CHROOT",)
        workload.do("os.chroot('/')")
        measured(sidecar)
        assert len(sidecar.seen(CapabilityFact)) == 1
        assert measured(sidecar, full=True).capabilities == ()
        workload.do("os.chroot('/')")
        used(sidecar)
        assert len(sidecar.seen(CapabilityFact)) == 2


@pytest.mark.parametrize(
    ("act", "capability", "call"),
    [
        ("ctypes.CDLL(None).unshare(0x04000000)", "CAP_SYS_ADMIN", "unshare"),
        ("ctypes.CDLL(None).mount(b'none', b'/proc/self', b'nosuch', 0, None)", "CAP_SYS_ADMIN", "mount"),
        ("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()", "CAP_NET_RAW", "socket"),
        ("os.setpriority(os.PRIO_PROCESS, 0, -1)", "CAP_SYS_NICE", "setpriority"),
    ],
    ids=["namespace", "mount", "raw-socket", "priority"],
)
def test_what_takes_a_capability_is_told_by_that(
    act: str, capability: str, call: str, workload: Workload, tree: Path
) -> None:
    with watched(workload, tree, USES) as sidecar:
        workload.do("import ctypes, os, socket")
        workload.do(act)
        fact = sidecar.expect(CapabilityFact, lambda each: each.capability == capability)
        assert fact.call == call


@pytest.mark.parametrize(
    "act",
    [
        "os.setresuid(0, 0, 0)",
        "kept = [bytearray(1 << 24) for _ in range(8)]",
        "os.waitpid(os.fork() or os._exit(0), 0)",
        "threading.Thread(target=int).start()",
        "subprocess.run(['/bin/true'])",
        "page = mmap.mmap(-1, 1 << 24); page.write(bytes(1 << 24))",
        "held = os.memfd_create('x'); os.ftruncate(held, 1 << 20); os.write(held, bytes(1 << 20))",
        "open('/dev/shm/proofbeat-test', 'wb').write(bytes(1 << 20)); os.unlink('/dev/shm/proofbeat-test')",
        "os.listdir('/proc'); open('/etc/shadow').read(); os.kill(os.getpid(), 0)",
    ],
    ids=["listed", "memory", "fork", "thread", "program", "mapping", "memfd", "tmpfs", "reading"],
)
def test_what_any_program_of_roots_does_uses_nothing(act: str, workload: Workload, tree: Path) -> None:
    with watched(workload, tree, USES) as sidecar:
        workload.do("import mmap, os, subprocess, threading")
        workload.do(act)
        assert measured(sidecar).capabilities == ()
        assert not sidecar.seen(CapabilityFact)


def test_what_is_refused_was_not_used(tree: Path, nobody: User) -> None:
    workload = nobody.workload()
    try:
        with watched(workload, tree, USES) as sidecar:
            workload.do("import os, contextlib")
            ran(workload, "with contextlib.suppress(PermissionError): os.chroot('/')")
            assert measured(sidecar).capabilities == ()
            assert not sidecar.seen(CapabilityFact)
    finally:
        workload.end()


def test_who_asks_for_calls_again_is_told_of_uses_as_if_nobody_had_ever_asked(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, USES) as sidecar:
        workload.do("import os; os.chroot('/')")
        used(sidecar)
        sidecar.send(replace(sidecar.scope, calls=None))
        sidecar.expect(Covered, lambda each: CALLS not in {one.name for one in each.coverage.collectors})
        workload.do("os.chroot('/')")
        sidecar.send(sidecar.scope)
        assert measured(sidecar).capabilities == (), "what was used while nobody asked"
        assert len(sidecar.seen(CapabilityFact)) == 1
        workload.do("os.chroot('/')")
        assert used(sidecar).capability == "CAP_SYS_CHROOT"


def test_where_nobody_asks_for_uses_the_layer_says_nothing_of_them(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, USES) as sidecar:
        sidecar.send(replace(sidecar.scope, calls=replace(USES, capabilities=None)))
        assert measured(sidecar).capabilities is None
        workload.do("import os; os.chroot('/')")
        measured(sidecar)
        assert not sidecar.seen(CapabilityFact)


# What others do to it.

WRITE = """
import ctypes, os, sys
libc, pid, at = ctypes.CDLL(None, use_errno=True), int(sys.argv[1]), int(sys.argv[2])
how = sys.argv[3]
if how == 'mem':
    os.pwrite(os.open(f'/proc/{pid}/mem', os.O_WRONLY), b'x', at)
elif how == 'io_uring':
    import mmap, struct
    params = ctypes.create_string_buffer(120)
    ring = libc.syscall(425, 4, params)
    _, tail, _, _, _, _, array = struct.unpack_from('=7I', params.raw, 40)
    queue, entries = mmap.mmap(ring, array + 32, offset=0), mmap.mmap(ring, 256, offset=0x10000000)
    byte, memory = ctypes.create_string_buffer(b'x'), os.open(f'/proc/{pid}/mem', os.O_WRONLY)
    WRITE = 23
    struct.pack_into('=BBHiQQII', entries, 0, WRITE, 0, 0, memory, at, ctypes.addressof(byte), 1, 0)
    struct.pack_into('=I', queue, array, 0)
    struct.pack_into('=I', queue, tail, struct.unpack_from('=I', queue, tail)[0] + 1)
    assert libc.syscall(426, ring, 1, 1, 1, None, 0) == 1
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


@pytest.mark.parametrize("how", ["mem", "process_vm_writev", "ptrace", "io_uring"])
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
        (own,) = [each for each in covered.collectors if each.layer is Layer.SYSCALLS]
        assert own.mechanism is Mechanism.BPF
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


def test_what_was_made_before_is_nothing_to_whoever_asks_again(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, Calls(Watching.STRICT, (*ALL, f"{RING}openat"))) as sidecar:
        ran(workload, RING_OPEN)
        assert f"{RING}openat" in measured(sidecar).calls
        sidecar.send(replace(sidecar.scope, calls=None))
        sidecar.send(sidecar.scope)
        sidecar.expect(Observed, lambda each: each.observation.layer is Layer.SYSCALLS)
        assert f"{RING}openat" not in measured(sidecar).calls


def copied(elsewhere: Path) -> Path:
    """What the measurer is made of, to be changed. Returns the copy of its object."""
    for room in ("attestation", "measurer"):
        shutil.copytree(ROOT / room, elsewhere / room, ignore=shutil.ignore_patterns("__pycache__"))
    return elsewhere / OBJECT.relative_to(ROOT)


def test_where_the_kernel_tells_of_no_use_nobody_is_said_to_look_at_any(
    workload: Workload, tree: Path, elsewhere: Path
) -> None:
    """A tracepoint by another name of the same length is what an older kernel does not have."""
    other, ours = copied(elsewhere), elsewhere / "measurer" / "bpf" / "watch.py"
    other.write_bytes(OBJECT.read_bytes().replace(b"cap_capable", b"cap_capabl0"))
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    other.with_suffix(".o.sha256").write_text(f"{digest}  {other.name}\n")
    ours.write_text(ours.read_text().replace('"cap_capable"', '"cap_capabl0"'))
    scope = Scope(workload.pid, (str(tree),), deadman=30.0, calls=USES)
    with Sidecar(scope, sources=elsewhere) as sidecar:
        dead = sidecar.expect(CollectorFact, lambda each: each.state is CollectorState.DEAD)
        assert "this kernel has no btf_trace_cap_capabl0" in dead.detail
        covered = sidecar.expect(Covered).coverage
        (own,) = [each for each in covered.collectors if each.name == "syscalls"]
        assert not own.running


def test_an_object_that_was_exchanged_is_loaded_by_nobody(workload: Workload, tree: Path, elsewhere: Path) -> None:
    other = copied(elsewhere)
    other.write_bytes(OBJECT.read_bytes() + b"\0")
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0, calls=STRICT), sources=elsewhere) as sidecar:
        covered = sidecar.expect(Covered)
        (own,) = [each for each in covered.coverage.collectors if each.layer is Layer.SYSCALLS]
        assert not own.running
        assert "watch.bpf.o is not what was compiled from its source" in own.detail


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
