"""Calls that wait for our answer: what is told of them, what is refused, and what becomes of them without us."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from attestation.calls import NAMES, Watching
from attestation.channel import Calls, Covered, Fault, Listener, Observed, Pinned, Scope
from attestation.coverage import NOTIFIED, CollectorCoverage
from attestation.facts import CallFact, CollectorFact, CollectorState, FileFact
from attestation.layers import Layer
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, User
from tests.system.measurer.test_calls import measured
from tests.system.measurer.under import Asking, under

pytestmark = needs_root
ALL = tuple(sorted(NAMES))
SILENT = ("memfd_create", "personality", "kcmp", "keyctl")
"""Of these no tracepoint of `lean` tells."""
ALLOWED = tuple(name for name in ALL if name not in SILENT)
LEAN = Calls(Watching.LEAN, ALLOWED, notified=True)
ACTS = {
    "memfd_create": "import os; os.close(os.memfd_create('hidden'))",
    "personality": "import ctypes; ctypes.CDLL(None).personality(0xffffffff)",
    "kcmp": "import ctypes, os; ctypes.CDLL(None).syscall(312, os.getpid(), os.getpid(), 0, 0, 1)",
    "keyctl": "import ctypes; ctypes.CDLL(None).syscall(250, 0, -3, 0)",
}
"""By the numbers of x86-64 where the C library has no name."""
FLOOD = """
def call():
    while True:
        libc.personality(0xffffffff)
for _ in range(64):
    threading.Thread(target=call, daemon=True).start()
"""
OWN_LISTENER = """
from proofbeat.up.filter import here, stand_under
code = 0
try:
    stand_under(here(()))
except OSError as error:
    code = error.errno
"""


@contextmanager
def answered(asking: Asking, tree: Path, wanted: Calls | None = LEAN) -> Iterator[Sidecar]:
    with Sidecar(Scope(asking.workload.pid, (str(tree),), deadman=30.0, calls=wanted)) as sidecar:
        sidecar.send(Listener(), asking.listener)
        sidecar.expect(Pinned)
        if wanted is not None:
            sidecar.expect(Observed, lambda each: each.observation.layer is Layer.SYSCALLS)
            sidecar.expect(Covered, lambda each: each.coverage.notified)
        yield sidecar


@pytest.fixture
def asking() -> Iterator[Asking]:
    with under(SILENT) as started:
        yield started


def listening(sidecar: Sidecar) -> CollectorCoverage:
    told = sidecar.expect(Covered, lambda each: any(one.name == NOTIFIED for one in each.coverage.collectors))
    return next(each for each in told.coverage.collectors if each.name == NOTIFIED)


def result(asking: Asking, act: str, tree: Path) -> int:
    """The errno of such a call; 0 where it was made."""
    asking.workload.do("import ctypes; libc = ctypes.CDLL(None, use_errno=True)")
    asking.workload.do(f"code = ctypes.get_errno() if libc.{act} == -1 else 0")
    asking.workload.do(f"open('{tree}/errno', 'w').write(str(code))")
    return int((tree / "errno").read_text())


@pytest.mark.parametrize("call", SILENT)
def test_a_call_of_which_no_tracepoint_tells_is_told_before_it_is_made(asking: Asking, tree: Path, call: str) -> None:
    with answered(asking, tree) as sidecar:
        asking.workload.do(ACTS[call])
        fact = sidecar.expect(CallFact)
        assert (fact.call, fact.process.pid, fact.refused) == (call, asking.workload.pid, False)
        assert fact.process.executable == os.path.realpath(f"/proc/{asking.workload.pid}/exe")
        assert call in measured(sidecar).calls


def test_a_call_that_may_be_made_goes_on_and_nobody_is_told(asking: Asking, tree: Path) -> None:
    with answered(asking, tree, replace(LEAN, allowed=ALL, refuse=True)) as sidecar:
        for act in ACTS.values():
            asking.workload.do(act)
        assert set(SILENT) <= set(measured(sidecar).calls)
        assert not sidecar.seen(CallFact)


def test_a_call_that_is_refused_fails_and_is_told_as_refused(asking: Asking, tree: Path) -> None:
    with answered(asking, tree, replace(LEAN, refuse=True)) as sidecar:
        assert result(asking, "memfd_create(b'hidden', 0)", tree) == errno.EPERM
        assert sidecar.expect(CallFact).refused


def test_until_anybody_says_what_may_be_called_every_call_goes_on_and_is_told_then(asking: Asking, tree: Path) -> None:
    with answered(asking, tree, None) as sidecar:
        asking.workload.do(ACTS["memfd_create"])
        asking.workload.do(ACTS["kcmp"])
        sidecar.send(
            replace(
                sidecar.scope,
                calls=replace(LEAN, allowed=(*ALLOWED, "kcmp")),
            )
        )
        fact = sidecar.expect(CallFact)
        assert (fact.call, fact.process.pid) == ("memfd_create", asking.workload.pid)
        assert listening(sidecar).running
        assert [each.call for each in sidecar.seen(CallFact)] == ["memfd_create"]


def test_a_listener_that_is_wanted_and_not_there_is_told(tree: Path, asking: Asking) -> None:
    with Sidecar(Scope(asking.workload.pid, (str(tree),), deadman=30.0, calls=LEAN)) as sidecar:
        told = listening(sidecar)
        assert (told.running, told.detail) == (False, "nobody has handed over a listener")
        sidecar.send(Listener(), asking.listener)
        assert sidecar.expect(Covered, lambda each: each.coverage.notified)


def test_calls_wait_while_no_measurer_answers_and_are_told_by_the_next(asking: Asking, tree: Path) -> None:
    with answered(asking, tree):
        pass
    asking.workload.begin(ACTS["memfd_create"])
    with answered(asking, tree) as sidecar:
        told = next(iter(sidecar.seen(CallFact)), None) or sidecar.expect(CallFact)
        assert told.call == "memfd_create"
        asking.workload.done()


def test_where_nobody_is_left_who_could_answer_such_calls_fail(asking: Asking, tree: Path) -> None:
    with answered(asking, tree):
        pass
    asking.close()
    assert result(asking, "memfd_create(b'hidden', 0)", tree) == errno.ENOSYS


def test_the_workload_gets_no_listener_of_its_own(asking: Asking, tree: Path) -> None:
    """With one it could answer for what it has its children call."""
    with answered(asking, tree) as sidecar:
        asking.workload.do(f"exec({OWN_LISTENER!r})")
        asking.workload.do(f"open('{tree}/errno', 'w').write(str(code))")
        assert int((tree / "errno").read_text()) == errno.EBUSY
        asking.workload.do(ACTS["memfd_create"])
        assert sidecar.expect(CallFact).call == "memfd_create"


def test_it_takes_no_capability() -> None:
    with TemporaryDirectory() as folder:
        user = User.ordinary(Path(folder))
        with under(SILENT, user) as asking:
            scope = Scope(asking.workload.pid, (folder,), deadman=30.0, calls=LEAN)
            with user.sidecar(scope) as sidecar:
                sidecar.send(Listener(), asking.listener)
                told = sidecar.expect(Covered, lambda each: each.coverage.notified).coverage
                running = [each.name for each in told.collectors if each.layer is Layer.SYSCALLS and each.running]
                assert running == [NOTIFIED]
                asking.workload.do(ACTS["memfd_create"])
                assert sidecar.expect(CallFact).process.pid == asking.workload.pid
                again = "while True: libc.personality(0xffffffff)"
                asking.workload.do("import ctypes; libc = ctypes.CDLL(None)")
                asking.workload.begin(again)
                _, one, other = (sidecar.expect(CallFact, lambda each: each.call == "personality") for _ in range(3))
                assert other.at - one.at >= 0.1, "again and again, for no measurement forgets it; but not each time"


def test_a_thread_is_told_as_its_process_and_a_child_as_itself(asking: Asking, tree: Path) -> None:
    with answered(asking, tree) as sidecar:
        asking.workload.do("import threading, os, ctypes; libc = ctypes.CDLL(None)")
        asking.workload.do("t = threading.Thread(target=lambda: os.memfd_create('x')); t.start(); t.join()")
        assert sidecar.expect(CallFact).process.pid == asking.workload.pid
        asking.workload.do("child = os.fork(); child or (libc.personality(0xffffffff), os._exit(0))")
        assert sidecar.expect(CallFact).process.pid not in (0, asking.workload.pid)
        asking.workload.do("os.waitpid(child, 0)")


def test_whoever_floods_us_with_calls_keeps_no_other_fact_waiting(asking: Asking, tree: Path) -> None:
    with answered(asking, tree) as sidecar:
        sidecar.files()
        asking.workload.do("import ctypes, threading; libc = ctypes.CDLL(None)")
        asking.workload.do(f"exec({FLOOD!r})")
        assert sidecar.expect(CallFact).call == "personality"
        (tree / "new").write_text("written meanwhile")
        assert sidecar.expect(FileFact).path == str(tree / "new")


def test_once_nobody_is_left_under_the_filter_that_is_told(tree: Path, asking: Asking) -> None:
    with answered(asking, tree) as sidecar:
        asking.workload.process.kill()
        fact = sidecar.expect(CollectorFact, lambda each: each.collector == NOTIFIED)
        assert (fact.state, fact.detail) == (CollectorState.DEAD, "nobody is left under the filter")


def test_a_descriptor_that_is_no_listener_ends_the_measurer(tree: Path, asking: Asking) -> None:
    with answered(asking, tree) as sidecar, open(os.devnull) as other:
        sidecar.send(Listener(), other.fileno())
        assert "no seccomp listener" in sidecar.expect(Fault).what
