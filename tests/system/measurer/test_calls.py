"""The kernel's programs of ours: which calls of a real workload are told, by whom, and what is not."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestation import calls
from attestation.calls import NAMES, CallsMade, Watching
from attestation.channel import Calls, Measure, Observed, Pinned, Scope
from attestation.facts import CallFact
from attestation.layers import Layer
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, Workload

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


def test_nobody_else_is_told_of(workload: Workload, tree: Path) -> None:
    with watched(workload, tree, STRICT) as sidecar:
        assert ctypes.CDLL(None).chroot(b"/") == 0
        workload.do("import os; os.getpid()")
        measured(sidecar)
        assert not sidecar.seen(CallFact)
