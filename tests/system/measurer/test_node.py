"""One measurer for several workloads: the same protocol, kept apart from each other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestation.channel import Beat, Covered, Fault, Guarded, Measure, Observed, Pinned, Scope
from attestation.facts import CollectorFact, CollectorState, ExecutionFact, FileFact, InstanceFact
from attestation.layers import Layer
from measurer.relief import LOOK, LOOKS
from tests.system.measurer.conftest import Hanging, needs_root
from tests.system.measurer.nodes import Caller, Node
from tests.system.measurer.stage import Proxy, Workload
from tests.system.measurer.test_executions import foreign
from tests.system.measurer.test_guardian import is_reset

pytestmark = needs_root
IDLE = 6
"""Descriptors of a measurer without connections: three standard streams, epoll, the socket, what wakes its loop."""


@pytest.fixture
def node(elsewhere: Path) -> Iterator[Node]:
    with Node(elsewhere) as running:
        yield running


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[Workload, Path]]:
    """A second workload, with files of its own."""
    (tmp_path / "file").write_text("other")
    running = Workload()
    yield running, tmp_path
    running.end()


@contextmanager
def both(node: Node, first: Workload, tree: Path, second: Workload, folder: Path) -> Iterator[tuple[Caller, Caller]]:
    """A sidecar each, with the first observations behind them."""
    with node.sidecar(Scope(first.pid, (str(tree),))) as mine, node.sidecar(Scope(second.pid, (str(folder),))) as its:
        mine.settle()
        its.settle()
        yield mine, its


def test_each_sidecar_hears_of_its_own_workload_alone(
    node: Node, workload: Workload, tree: Path, other: tuple[Workload, Path], elsewhere: Path
) -> None:
    second, folder = other
    with both(node, workload, tree, *other) as (mine, its):
        assert mine.seen(Pinned)[0].instance != its.seen(Pinned)[0].instance
        assert "by the measurer of the node" in mine.seen(Covered)[0].coverage.collectors[-1].detail
        here, there = foreign(elsewhere, "here"), foreign(elsewhere, "there")
        second.do(f"subprocess.run(['{there}']); open('{folder}/file', 'w').write('changed')")
        workload.do(f"subprocess.run(['{here}']); open('{tree}/first', 'w').write('changed')")
        mine.expect(FileFact)
        its.expect(FileFact)
        assert [fact.path for fact in mine.seen(ExecutionFact)] == [str(here)]
        assert [fact.path for fact in its.seen(ExecutionFact)] == [str(there)]
        assert {fact.path for fact in mine.seen(FileFact)} == {f"{tree}/first"}
        assert {fact.path for fact in its.seen(FileFact)} == {f"{folder}/file"}


def test_an_error_of_one_ends_that_one_and_cuts_its_envoy_alone(
    node: Node, workload: Workload, proxy: Proxy, tree: Path, other: tuple[Workload, Path]
) -> None:
    bystander = Proxy()
    try:
        proxy.connect(2)
        bystander.connect(2)
        with both(node, workload, tree, *other) as (mine, its):
            mine.guard(proxy.pid)
            its.guard(bystander.pid)
            mine.expect(Guarded)
            its.expect(Guarded)
            mine.send(Scope(other[0].pid, ()))  # another workload than it began with
            assert "another workload" in mine.expect(Fault).what
            assert all(is_reset(each) for each in proxy.held)
            assert proxy.process.wait(5) == -signal.SIGKILL
            its.send(Measure((Layer.FILES,), 0.0, True))
            its.expect(Observed)
            assert not any(is_reset(each, 0.05) for each in bystander.held)
    finally:
        bystander.end()


@pytest.mark.parametrize("act", [signal.SIGTERM, signal.SIGABRT], ids=["ended", "crashed"])
def test_the_end_of_the_measurer_reaches_every_sidecar_and_an_orderly_one_every_envoy(
    act: signal.Signals, node: Node, workload: Workload, proxy: Proxy, tree: Path, other: tuple[Workload, Path]
) -> None:
    another = Proxy()
    try:
        with both(node, workload, tree, *other) as (mine, its):
            for each, envoy in ((mine, proxy), (its, another)):
                each.guard(envoy.pid)
                each.expect(Guarded)
            node.process.send_signal(act)
            for each in (mine, its):
                with pytest.raises((EOFError, ConnectionResetError)):
                    each.expect(InstanceFact)
            if act is signal.SIGTERM:
                assert [each.process.wait(5) for each in (proxy, another)] == [-signal.SIGKILL] * 2
    finally:
        another.end()


def test_a_silent_sidecars_guardian_acts_alone(
    node: Node, workload: Workload, proxy: Proxy, tree: Path, other: tuple[Workload, Path]
) -> None:
    second, folder = other
    another = Proxy()
    try:
        with (
            node.sidecar(Scope(workload.pid, (str(tree),), deadman=0.6)) as mine,
            node.sidecar(Scope(second.pid, (str(folder),), deadman=30.0)) as its,
        ):
            for each, envoy in ((mine, proxy), (its, another)):
                each.settle()
                each.guard(envoy.pid)
                each.expect(Guarded)
            fired = mine.expect(CollectorFact)
            assert (fired.collector, fired.state) == ("guardian", CollectorState.DEAD)
            assert proxy.process.wait(5) == -signal.SIGKILL
            its.send(Beat(1))
            its.expect(Beat)
            assert another.process.poll() is None
    finally:
        another.end()


def until_idle(node: Node) -> None:
    """Nothing of an earlier connection is open any more."""
    until(lambda: node.descriptors <= IDLE, "nothing stays open")


def until(holds: Callable[[], bool], what: str) -> None:
    """It comes to hold: of another process's descriptors there is no event."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_connections_that_come_and_go_leave_nothing_open(node: Node, workload: Workload, tree: Path) -> None:
    for _ in range(3):
        with node.sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
            sidecar.settle()
            assert node.descriptors > IDLE
        until_idle(node)
    for hostile in (b"no message", b"", b'{"is":"Beat","number":1}'):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as calling:
            calling.connect(str(node.socket))
            socket.send_fds(calling, [hostile], [0, 1, 2])
        until_idle(node)
    with node.sidecar(Scope(workload.pid, (f"{tree}/nowhere",))) as refused:
        assert "No such file" in refused.expect(Fault).what
    until_idle(node)


def test_a_workload_or_a_part_of_one_is_measured_once(node: Node, workload: Workload, tree: Path) -> None:
    workload.do("child = subprocess.Popen(['sleep', '60'])")
    child = int(Path(f"/proc/{workload.pid}/task/{workload.pid}/children").read_text().split()[0])
    with node.sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
        sidecar.settle()
        for pid in (workload.pid, child):
            with node.sidecar(Scope(pid, (str(tree),))) as second:
                assert "measured already" in second.expect(Fault).what
    until_idle(node)
    with node.sidecar(Scope(child, (str(tree),))) as part:
        part.settle()
        with node.sidecar(Scope(workload.pid, (str(tree),))) as whole:
            assert "measured already" in whole.expect(Fault).what


def test_a_scope_needs_a_pidfd_so_that_a_sidecars_pid_means_what_it_means_there(node: Node, workload: Workload) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as calling:
        calling.connect(str(node.socket))
        calling.send(b'{"is":"Scope","pid":%d,"include":[]}' % workload.pid)
        assert b"pidfd" in calling.recv(4096)


def test_only_users_that_are_granted_something_are_heard(elsewhere: Path, workload: Workload, tree: Path) -> None:
    with Node(elsewhere, ["4242:any"]) as node, node.sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
        assert "not allowed" in sidecar.expect(Fault).what


def test_the_socket_is_its_owners_unless_a_group_is_named(elsewhere: Path, tmp_path: Path) -> None:
    with Node(elsewhere) as node:
        assert node.socket.stat().st_mode & 0o777 == 0o600
    with Node(tmp_path, options=["--group", "daemon"]) as node:
        status = node.socket.stat()
        assert (status.st_mode & 0o777, status.st_gid) == (0o660, 1)


def test_a_second_measurer_does_not_take_the_socket_over_and_a_left_over_one_is_no_hindrance(elsewhere: Path) -> None:
    with Node(elsewhere) as node:
        second = Node(elsewhere)
        assert second.process.wait(10) == 2
        node.process.kill()
        node.process.wait()
        assert node.socket.exists()
        with Node(elsewhere):
            pass


def test_what_one_workload_burns_does_not_hold_up_another(
    node: Node, workload: Workload, tree: Path, other: tuple[Workload, Path], elsewhere: Path
) -> None:
    """Files without end, executions without end and two gigabytes to be hashed, all by one."""
    second, folder = other
    large = elsewhere / "large"
    large.write_bytes(Path("/bin/true").read_bytes())
    large.chmod(0o755)
    os.truncate(large, 2 << 30)
    with both(node, workload, tree, *other) as (mine, its):
        burn = f"for n in $(seq 300); do /bin/true; echo $n > {tree}/$n; done; {large}"
        workload.begin(f"subprocess.run(['sh', '-c', {burn!r}])")
        waits, number = [], 0
        while str(large) not in {fact.path for fact in mine.seen(ExecutionFact)}:
            number += 1
            second.do(f"open('{folder}/file', 'w').write('{number}')")
            its.send(Beat(number))
            began = time.monotonic()
            its.expect(Beat)
            waits.append(time.monotonic() - began)
            while (told := mine.receive(0.0)) is not None:
                mine.inbox.append(told)
        workload.done()
        assert max(waits) < 1.0, "no answer waits for the gigabytes, which take longer than that"
        assert sorted(waits)[len(waits) // 2] < 0.2


def beats(sidecar: Caller, seconds: float) -> float:
    """Beat for so long. Gives the longest time that one took to be answered."""
    longest, end, number = 0.0, time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1
        began = time.monotonic()
        sidecar.send(Beat(number))
        sidecar.expect(Beat, lambda each, now=number: each.number == now)  # type: ignore[misc]
        longest = max(longest, time.monotonic() - began)
    return longest


def test_a_file_system_that_never_answers_ends_its_own_workload_alone_and_the_others_go_on(
    node: Node, workload: Workload, proxy: Proxy, tree: Path, other: tuple[Workload, Path], unanswered: Hanging
) -> None:
    second, folder = other
    bystander = Proxy()
    covered = tree / "below"
    try:
        with both(node, workload, tree, *other) as (mine, its):
            for each, envoy in ((mine, proxy), (its, bystander)):
                envoy.connect(2)
                each.guard(envoy.pid)
                each.expect(Guarded)
            subprocess.run(["mount", "--bind", unanswered.where, covered], check=True)
            mine.send(Measure((Layer.FILES,), 0.0, full=True))
            assert beats(its, 4 * LOOK) < (LOOKS + 2) * LOOK + 0.5, "less than the shortest reasonable dead-man time"
            assert "does not answer" in mine.expect(Fault).what
            assert all(is_reset(each) for each in proxy.held)
            assert proxy.process.wait(5) == -signal.SIGKILL
            second.do(f"open('{folder}/file', 'w').write('changed')")
            its.expect(FileFact)
            assert not any(is_reset(each, 0.05) for each in bystander.held)
            assert beats(its, 1.0) < 2 * LOOK, "and what hangs is waited for once"
            with node.sidecar(Scope(workload.pid, (str(tree),))) as again:
                assert again.expect(Fault).what
            open_meanwhile = node.descriptors
            unanswered.end()
            until(lambda: node.descriptors < open_meanwhile, "what the one that hung had open is closed")
            with node.sidecar(Scope(workload.pid, (str(tree),))) as again:
                assert "tried again" in again.expect(Fault).what
            its.send(Measure((Layer.FILES,), 0.0, full=True))
            its.expect(Observed)
        until_idle(node)
    finally:
        subprocess.run(["umount", "--lazy", covered], check=True)
        bystander.end()


def test_a_node_ends_in_order_while_one_file_system_does_not_answer(
    node: Node, workload: Workload, tree: Path, other: tuple[Workload, Path], unanswered: Hanging
) -> None:
    bystander = Proxy()
    covered = tree / "below"
    try:
        with both(node, workload, tree, *other) as (mine, its):
            its.guard(bystander.pid)
            its.expect(Guarded)
            subprocess.run(["mount", "--bind", unanswered.where, covered], check=True)
            mine.send(Measure((Layer.FILES,), 0.0, full=True))
            mine.expect(Fault)
            node.process.terminate()
            assert bystander.process.wait(5) == -signal.SIGKILL
            unanswered.end()
            assert node.process.wait(10) == 0
    finally:
        subprocess.run(["umount", "--lazy", covered], check=True)
        bystander.end()


WRITERS = """
import os, threading, time
def storm(folder, seconds):
    end, block = time.monotonic() + seconds, os.urandom(1 << 20)
    def write(number):
        while time.monotonic() < end:
            for each in range(20):
                with open(f"{folder}/large-{number}-{each}", "wb") as file: file.write(block)
    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    [each.start() for each in threads]
    [each.join() for each in threads]
"""


def test_file_events_that_come_faster_than_they_can_be_read_leave_others_their_turn(
    node: Node, workload: Workload, tree: Path, other: tuple[Workload, Path]
) -> None:
    workload.do(f"exec({WRITERS!r}, globals())")
    with both(node, workload, tree, *other) as (mine, its):
        workload.begin(f"storm({str(tree)!r}, 3)")
        mine.expect(FileFact)
        waits, end = [], time.monotonic() + 2.5
        while time.monotonic() < end:
            its.send(Beat(1))
            began = time.monotonic()
            its.expect(Beat)
            waits.append(time.monotonic() - began)
            while (told := mine.receive(0.0)) is not None:
                mine.inbox.append(told)
        workload.done()
        assert max(waits) < 0.5


@pytest.fixture
def pods() -> Iterator[tuple[Path, Path]]:
    """Two cgroups as a kubelet makes them for two pods, a container in each."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    if not mounts:
        pytest.skip("needs a cgroup2 mount")
    root = Path(mounts[0][4], f"kubepods-test-{os.getpid()}")
    made = [root / f"pod{letter * 8}-0000-4000-8000-{letter * 12}" / "container" for letter in "ab"]
    for each in made:
        each.mkdir(parents=True)
    yield made[0], made[1]
    for each in made:
        each.rmdir()
        each.parent.rmdir()
    root.rmdir()


def test_a_sidecar_of_one_pod_learns_nothing_of_another(
    pods: tuple[Path, Path], workload: Workload, other: tuple[Workload, Path], proxy: Proxy, tree: Path, elsewhere: Path
) -> None:
    mine, theirs = pods
    second, folder = other
    home = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].strip()
    mount = mine.parents[2]
    for pid in (os.getpid(), workload.pid):
        (mine / "cgroup.procs").write_text(str(pid))
    for pid in (second.pid, proxy.pid):
        (theirs / "cgroup.procs").write_text(str(pid))
    try:
        with Node(elsewhere, ["0:pod"]) as node:
            for scope in (
                Scope(second.pid, (str(folder),)),
                Scope(workload.pid, (str(tree),), cgroup=f"/{mine.parents[1].name}"),
            ):
                with node.sidecar(scope) as curious:
                    assert "may not have" in curious.expect(Fault).what
                    assert len(curious.inbox) == 1, "and nothing else is told"
            with node.sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
                sidecar.settle()
                sidecar.guard(proxy.pid)
                refused = sidecar.expect(CollectorFact, lambda each: each.collector == "guardian")
                assert "may not have" in refused.detail
            until_idle(node)
            assert proxy.process.poll() is None
    finally:
        for running in (workload, second, proxy):
            running.end()
        (mount / home.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
