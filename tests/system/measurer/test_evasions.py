"""Ways around whoever watches system calls, each a real program: what is told all the same, and what is not seen.

docs/evasions.md has a row for each.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attestation import calls
from attestation.calls import Watching
from attestation.channel import Calls, Measure, Observed
from attestation.coverage import CALLS
from attestation.facts import (
    Actor,
    CallFact,
    CollectorFact,
    CollectorState,
    ExecutionFact,
    ProcessAspect,
    ProcessFact,
)
from attestation.layers import Layer
from measurer.clock import boottime
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Workload
from tests.system.measurer.test_calls import ALL, OUTSIDE, STRICT, measured, ran, told, watched

pytestmark = needs_root
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is x86-64's machine code")
MOST_OF_THE_RING = 13_000
"""Events: more than the ring has room for."""


def without(*names: str) -> Calls:
    """Every call but these is expected."""
    return Calls(Watching.STRICT, tuple(name for name in ALL if name not in names))


# By another interface.


@on_x86
def test_a_call_by_x32s_interface_is_told_even_where_the_kernel_has_none(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, Calls(Watching.STRICT, ALL)) as sidecar:
        workload.do("import ctypes; ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 | 39))")
        assert told(sidecar).call == calls.X32


@pytest.mark.parametrize(
    "name", ["pidfd_getfd", "memfd_create", "unshare", "personality", "keyctl", "kcmp", "process_vm_readv", "ptrace"]
)
def test_what_leaves_no_other_trace_is_told_where_every_call_is_looked_at_and_nowhere_else(
    name: str, workload: Workload, tree: Path
) -> None:
    act = f"import ctypes; ctypes.CDLL(None).syscall({calls.here()[name]}, -1, 0, 0, 0, 0)"
    with watched(workload, tree, without(name)) as sidecar:
        ran(workload, act)
        assert told(sidecar).call == name
    with watched(workload, tree, Calls(Watching.LEAN, without(name).allowed)) as sidecar:
        ran(workload, act)
        measured(sidecar)
        assert not sidecar.seen(CallFact)


# By somebody who is not where one looks.


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup of version 2."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    if not mounts:
        pytest.skip("needs a cgroup2 mount")
    made = Path(mounts[0][4]) / f"evasion-{os.getpid()}"
    made.mkdir()
    yield made
    for line in (made / "cgroup.procs").read_text().split():
        (made.parent / "cgroup.procs").write_text(line)
    made.rmdir()


def test_whoever_puts_itself_into_another_cgroup_stays_watched(workload: Workload, tree: Path, group: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        workload.do(f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid()))")
        workload.do("os.chroot('/')")
        assert told(sidecar).call == OUTSIDE
        ran(workload, "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import os; os.chroot(chr(47))'])")
        measured(sidecar, full=True)
        ran(workload, "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import os; os.chroot(chr(47))'])")
        assert told(sidecar).process.pid != workload.pid


def test_a_thread_that_was_there_before_is_watched(workload: Workload, tree: Path) -> None:
    workload.do("import os, threading; go, over = threading.Event(), threading.Event()")
    workload.do("threading.Thread(target=lambda: (go.wait(), os.chroot('/'), over.set()), daemon=True).start()")
    with watched(workload, tree, STRICT) as sidecar:
        workload.do("go.set(); over.wait()")
        fact = told(sidecar)
        assert (fact.call, fact.process.pid) == (OUTSIDE, workload.pid)


SHARING = """
import ctypes, mmap, os
CLONE_VM, CLONE_VFORK = 0x100, 0x4000
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex('b8a10000000f05' '31ffb83c0000000f05'))  # chroot(rdi); exit(0)
at = ctypes.addressof(ctypes.c_char.from_buffer(page))
stack, root = ctypes.create_string_buffer(65536), ctypes.create_string_buffer(b'/')
libc = ctypes.CDLL(None, use_errno=True)
libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
top = (ctypes.addressof(stack) + 65536) & ~15
child = libc.clone(at, top, FLAGS | 17, ctypes.addressof(root))
assert child > 0, ctypes.get_errno()
os.waitpid(child, 0)
"""


@on_x86
@pytest.mark.parametrize("flags", ["CLONE_VM", "CLONE_VM | CLONE_VFORK"])
def test_a_child_that_shares_its_parents_memory_is_watched(flags: str, workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        ran(workload, SHARING.replace("FLAGS", flags))
        fact = told(sidecar)
        assert fact.call == OUTSIDE
        assert fact.process.pid != workload.pid


def test_a_program_without_a_file_is_told_three_times_and_stays_watched(workload: Workload, tree: Path) -> None:
    """memfd_create(2), what it is executed from, and what it does then."""
    program = (
        "import os, sys\n"
        "held = os.memfd_create('x', 0)\n"
        "os.write(held, open(os.path.realpath(sys.executable), 'rb').read())\n"
        "if os.fork() == 0:\n"
        "    os.execve(held, [sys.executable, '-S', '-c', 'import os; os.chroot(chr(47))'], os.environ)\n"
        "os.wait()\n"
    )
    with watched(workload, tree, without("memfd_create", OUTSIDE)) as sidecar:
        sidecar.send(Measure((Layer.PROCESSES,), boottime()))
        sidecar.expect(Observed, lambda each: each.observation.layer is Layer.PROCESSES)
        ran(workload, program)
        assert told(sidecar).call == "memfd_create"
        sidecar.expect(ExecutionFact, lambda each: each.deleted)
        if OUTSIDE not in {each.call for each in sidecar.seen(CallFact)}:
            assert told(sidecar).call == OUTSIDE


# By somebody who is gone by then.


def test_a_tracer_that_is_gone_again_at_once_is_told(workload: Workload, tree: Path) -> None:
    """PTRACE_SEIZE sends no signal and waits for nobody; it ends with its tracer."""
    seize = f"import ctypes, os; os._exit(ctypes.CDLL(None).ptrace(0x4206, {workload.pid}, 0, 0))"
    with watched(workload, tree, Calls(Watching.LEAN, ALL)) as sidecar:
        tracer = subprocess.Popen([sys.executable, "-c", seize])
        assert tracer.wait(20) == 0
        fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.TRACER)
        assert fact.process.pid == workload.pid
        assert str(tracer.pid) in fact.after


def test_a_call_between_two_windows_is_not_seen(workload: Workload, tree: Path) -> None:
    window = 0.3
    with watched(workload, tree, Calls(Watching.SAMPLED, STRICT.allowed, window=window, period=60.0)) as sidecar:
        time.sleep(4 * window)  # nobody is told of a window's end
        workload.do("import os; os.chroot('/')")
        assert OUTSIDE not in measured(sidecar).calls
        assert not sidecar.seen(CallFact)


# By more than can be told.

OVERFLOWED = (CALLS, CollectorState.OVERFLOWED)


def test_whoever_fills_the_ring_to_hide_a_call_is_told_of_and_so_is_the_call(workload: Workload, tree: Path) -> None:
    flood = (
        "import ctypes, os\n"
        "libc, params = ctypes.CDLL(None), ctypes.create_string_buffer(120)\n"
        f"for _ in range({MOST_OF_THE_RING}):\n"
        "    ctypes.memset(params, 0, 120)\n"
        "    os.close(libc.syscall(425, 1, params))\n"
        "os.chroot('/')\n"
    )
    with watched(workload, tree, STRICT) as sidecar:
        sidecar.process.send_signal(signal.SIGSTOP)
        try:
            ran(workload, flood)
        finally:
            sidecar.process.send_signal(signal.SIGCONT)
        lost = sidecar.expect(CollectorFact, lambda each: (each.collector, each.state) == OVERFLOWED)
        assert "no room for events" in lost.detail
        (hidden,) = sidecar.seen(CallFact)
        assert (hidden.call, hidden.process) == (OUTSIDE, Actor(0))
        sidecar.send(replace(sidecar.scope, calls=None))
        sidecar.send(sidecar.scope)
        measured(sidecar)
        overflows = [each for each in sidecar.seen(CollectorFact) if (each.collector, each.state) == OVERFLOWED]
        assert overflows == [lost], "what was lost before is nothing to whoever asks again"


# By having it refused.

REFUSED = """
import ctypes, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGSYS, lambda *_: libc.personality(ctypes.c_ulong(0xffffffff)))
LOAD, JUMP_IF, RETURN, ALLOW = 0x20, 0x15, 0x06, 0x7fff0000
steps = [(LOAD, 0, 0, 0), (JUMP_IF, 0, 1, NUMBER), (RETURN, 0, 0, ACTION), (RETURN, 0, 0, ALLOW)]
text = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *each) for each in steps))
class Program(ctypes.Structure):
    _fields_ = [('steps', ctypes.c_ushort), ('at', ctypes.c_void_p)]
program = Program(len(steps), ctypes.addressof(text))
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()
libc.syscall(NUMBER, b'/')
"""
"""Has the kernel refuse one call of its own (PR_SET_SECCOMP), makes it, and makes another one when it is told so."""


@pytest.mark.parametrize(("action", "made"), [(0x00050001, []), (0x00030000, ["personality"])], ids=["errno", "trap"])
def test_a_call_that_a_filter_refuses_is_not_made_and_what_is_made_in_its_place_is_told(
    action: int, made: list[str], workload: Workload, tree: Path
) -> None:
    act = REFUSED.replace("NUMBER", str(calls.here()[OUTSIDE])).replace("ACTION", str(action))
    with watched(workload, tree, without(OUTSIDE, "personality")) as sidecar:
        ran(workload, act)
        measured(sidecar)
        assert [each.call for each in sidecar.seen(CallFact)] == made
