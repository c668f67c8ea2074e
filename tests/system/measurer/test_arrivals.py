"""The socket at which container runtimes hand over listeners: who may, and what becomes of what they leave."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from attestation.calls import NAMES, Watching
from attestation.channel import Calls, Covered, Pinned, Scope
from attestation.facts import CallFact
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.nodes import Node
from tests.system.measurer.stage import PATIENCE, Sidecar
from tests.system.measurer.under import Asking, under

pytestmark = needs_root
ASKED = "memfd_create"
LEAN = Calls(Watching.LEAN, tuple(sorted(NAMES - {ASKED})), notified=True)
ACT = f"import os; os.close(os.{ASKED}('hidden'))"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path, options=("--seccomp", str(tmp_path / "seccomp.sock"))) as listening:
        yield listening


@pytest.fixture
def asking() -> Iterator[Asking]:
    with under((ASKED,)) as started:
        yield started


def runtime(node: Node) -> socket.socket:
    """A caller's end."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.connect(str(node.socket.with_name("seccomp.sock")))
    return caller


def hand_over(node: Node, said: Any, *descriptors: int) -> None:
    """As runc does, until it has been looked at."""
    with runtime(node) as caller:
        socket.send_fds(caller, [json.dumps(said).encode()], list(descriptors))
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(1) == b""


def state(pid: int) -> dict[str, Any]:
    return {"ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": pid, "state": {"id": "box", "pid": pid}}


def scope(asking: Asking, tree: Path) -> Scope:
    return Scope(asking.workload.pid, (str(tree),), deadman=60.0, calls=LEAN)


@contextmanager
def succeeding(node: Node, wanted: Scope) -> Iterator[Sidecar]:
    """As soon as its predecessor has let go of the workload, whose end nothing tells."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with node.sidecar(wanted) as sidecar:
            try:
                sidecar.expect(Pinned)
            except (AssertionError, EOFError):
                time.sleep(0.01)
                continue
            yield sidecar
            return
    raise AssertionError("the predecessor goes on")


def test_a_listener_that_comes_before_its_sidecar_waits_for_it(node: Node, asking: Asking, tree: Path) -> None:
    hand_over(node, state(asking.workload.pid), asking.listener)
    asking.close()
    with node.sidecar(scope(asking, tree)) as sidecar:
        sidecar.expect(Covered, lambda each: each.coverage.notified)
        asking.workload.do(ACT)
        assert sidecar.expect(CallFact).call == ASKED


def test_one_that_comes_after_it_is_answered_from_then_on(node: Node, asking: Asking, tree: Path) -> None:
    with node.sidecar(scope(asking, tree)) as sidecar:
        sidecar.expect(Covered, lambda each: not each.coverage.notified)
        hand_over(node, state(asking.workload.pid), asking.listener)
        sidecar.expect(Covered, lambda each: each.coverage.notified)


def test_one_of_a_program_that_was_added_is_answered_and_says_nothing_of_the_workload_itself(
    node: Node, asking: Asking, tree: Path
) -> None:
    with node.sidecar(scope(asking, tree)) as sidecar:
        sidecar.expect(Covered, lambda each: not each.coverage.notified)
        hand_over(node, {**state(asking.workload.pid), "pid": os.getpid()}, asking.listener)
        asking.workload.do(ACT)
        assert sidecar.expect(CallFact).call == ASKED
        assert not any(each.coverage.notified for each in sidecar.seen(Covered))


def test_a_successor_is_handed_what_its_predecessor_had_however_soon_it_comes(
    node: Node, asking: Asking, tree: Path
) -> None:
    hand_over(node, state(asking.workload.pid), asking.listener)
    asking.close()
    with node.sidecar(scope(asking, tree)) as first:
        first.expect(Covered, lambda each: each.coverage.notified)
    with succeeding(node, scope(asking, tree)) as second:
        asking.workload.do(ACT)
        told = next(iter(second.seen(CallFact)), None) or second.expect(CallFact)
        assert told.call == ASKED


def test_listeners_of_what_has_ended_are_not_kept(node: Node, asking: Asking) -> None:
    hand_over(node, state(os.getpid()))
    before = node.descriptors
    for _ in range(20):
        with under((ASKED,)) as added:
            hand_over(node, state(os.getpid()), added.listener)
    hand_over(node, state(asking.workload.pid), asking.listener)
    assert node.descriptors == before + 2


def test_one_of_another_workload_is_not_handed_out(node: Node, asking: Asking, tree: Path) -> None:
    hand_over(node, state(os.getpid()), asking.listener)
    with node.sidecar(scope(asking, tree)) as sidecar:
        sidecar.expect(Pinned)
        assert not sidecar.expect(Covered).coverage.notified


def test_whoever_says_what_is_no_state_or_sends_what_is_no_listener_changes_nothing(
    node: Node, asking: Asking, tree: Path
) -> None:
    before = node.descriptors
    with open(os.devnull) as other:
        for said in (
            "no state",
            {"fds": ["seccompFd"]},
            state(2**22 - 1),
            state(2**70),
            {**state(os.getpid()), "fds": ["else"]},
        ):
            hand_over(node, said, other.fileno())
        hand_over(node, state(os.getpid()), other.fileno())
        hand_over(node, state(os.getpid()))
    assert node.descriptors == before
    hand_over(node, state(asking.workload.pid), asking.listener)
    with node.sidecar(scope(asking, tree)) as sidecar:
        sidecar.expect(Covered, lambda each: each.coverage.notified)


def test_whoever_is_silent_keeps_nobody_waiting(node: Node, asking: Asking, tree: Path) -> None:
    with runtime(node), runtime(node) as half:
        half.send(b'{"fds": [')
        hand_over(node, state(asking.workload.pid), asking.listener)
        with node.sidecar(scope(asking, tree)) as sidecar:
            sidecar.expect(Covered, lambda each: each.coverage.notified)


def test_another_user_cannot_even_connect(node: Node) -> None:
    path = node.socket.with_name("seccomp.sock")
    trying = f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r})"
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = subprocess.run([*user, "/usr/bin/python3", "-c", trying], capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr


def test_when_the_measurer_of_the_node_ends_calls_fail_rather_than_wait(
    tmp_path: Path, asking: Asking, tree: Path
) -> None:
    with Node(tmp_path, options=("--seccomp", str(tmp_path / "seccomp.sock"))) as node:
        hand_over(node, state(asking.workload.pid), asking.listener)
        asking.close()
        asking.workload.begin(f"import os; made = hasattr(os, {ASKED!r})")
        asking.workload.done()
    asking.workload.do("import ctypes; libc = ctypes.CDLL(None, use_errno=True)")
    asking.workload.do(f"code = ctypes.get_errno() if libc.{ASKED}(b'x', 0) == -1 else 0")
    asking.workload.do(f"open('{tree}/errno', 'w').write(str(code))")
    assert os.strerror(int((tree / "errno").read_text())) == "Function not implemented"
    assert not (tmp_path / "seccomp.sock").exists()
