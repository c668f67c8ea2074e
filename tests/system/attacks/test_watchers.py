"""Attacks on the sidecar, the measurer and Envoy as processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.attacks.stage import DEADMAN, PATIENCE, Proxy, Scene, scene, user

US, THE_WORKLOAD = 61803, 61804
PEER = ("dac_read_search",)
"""What every user of these tests has, so that it gets at the interpreter: no difference between them."""


@pytest.fixture
def attacked() -> Iterator[Scene]:
    """The weakest layout: all of one user, and that is root."""
    with scene() as playing:
        playing.until_open()
        yield playing


def target(playing: Scene, proxy: Proxy, name: str) -> int:
    return {"sidecar": playing.sidecar.pid, "measurer": playing.measurer, "envoy": proxy.pid}[name]


@pytest.mark.parametrize("name", ["sidecar", "measurer"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_envoy_does_not_outlive_a_watcher_that_the_workload_kills_or_stops(
    attacked: Scene, name: str, number: signal.Signals
) -> None:
    proxy = attacked.proxy()
    victim = target(attacked, proxy, name)
    began = time.monotonic()
    attacked.workload.do(f"os.kill({victim}, {int(number)})")
    try:
        assert proxy.killed()
        assert time.monotonic() - began < DEADMAN * 2
    finally:
        if number is signal.SIGSTOP:
            os.kill(victim, signal.SIGCONT)


def test_an_envoy_that_the_workload_stops_is_killed_once_it_has_to_close(attacked: Scene) -> None:
    proxy = attacked.proxy()
    attacked.workload.do(f"os.kill({proxy.pid}, {int(signal.SIGSTOP)})")
    (attacked.folder / "app" / "main").write_text("changed")
    assert proxy.killed()
    attacked.until_quarantined("file-modified")


def test_an_envoy_that_the_workload_kills_has_a_successor_that_is_admitted_on_its_own(attacked: Scene) -> None:
    proxy = attacked.proxy()
    attacked.workload.do(f"os.kill({proxy.pid}, {int(signal.SIGKILL)})")
    assert proxy.killed()
    successor = attacked.proxy()
    assert attacked.until("envoy-admitted", lambda each: each["envoy"] == successor.pid)


@pytest.mark.parametrize("name", ["sidecar", "measurer", "envoy"])
def test_whoever_attaches_to_sidecar_measurer_or_envoy_is_told_as_tamper(attacked: Scene, name: str) -> None:
    proxy = attacked.proxy()
    assert attacked.isolation(lambda each: not each.distinct_user).workload_can_trace_envoy
    attacked.workload.do("import ctypes; libc = ctypes.CDLL(None, use_errno=True)")
    attacked.workload.do(f"assert libc.ptrace(0x4206, {target(attacked, proxy, name)}, 0, 0) == 0")
    try:
        told = attacked.until_quarantined("process-tracer")
        assert told["violation_class"] == "tamper"
        assert f"to {attacked.workload.pid} " in told["text"]
    finally:
        attacked.workload.end()  # nobody can wait for a process while somebody else is attached to it


@pytest.fixture
def peers() -> Iterator[Scene]:
    """One user for all, with the same capabilities: nothing but non-dumpable keeps the workload from us."""
    one = user(US, *PEER)
    with scene(workload=one, sidecar=("prlimit", "--core=unlimited", *one), owner=US) as playing:
        playing.until_open()
        yield playing


ATTACH = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)"
ATTEMPTS = {
    "attach": "'attached' if libc.ptrace(0x4206, {pid}, 0, 0) == 0 else -1",
    "memory": "open('/proc/{pid}/mem', 'rb').fileno() and 'opened'",
    "environment": "len(open('/proc/{pid}/environ', 'rb').read()) and 'read'",
    "root": "os.listdir('/proc/{pid}/root') and 'listed'",
    "descriptors": "os.readlink('/proc/{pid}/fd/0') and 'followed'",
}


@pytest.mark.parametrize("name", ["sidecar", "measurer"])
def test_our_own_user_gets_neither_memory_nor_descriptors_of_sidecar_and_measurer(peers: Scene, name: str) -> None:
    pid = peers.sidecar.pid if name == "sidecar" else peers.measurer
    assert Path(f"/proc/{pid}/mem").stat().st_uid == 0, "the kernel gives it to nobody but root"
    peers.workload.do(ATTACH)
    for what, attempt in ATTEMPTS.items():
        said = peers.workload.tries(attempt.format(pid=pid))
        assert said in ("-1", "PermissionError"), what
    graded = peers.isolation(lambda each: each.non_dumpable)
    assert not graded.workload_can_trace
    assert not graded.distinct_user
    assert graded.workload_can_become_us


def test_the_same_attempts_succeed_on_a_process_that_is_dumpable(peers: Scene) -> None:
    """What the test above relies on: our user and capabilities would suffice."""
    peers.workload.do(ATTACH)
    line = "import time; print(1, flush=True); time.sleep(60)"
    peers.workload.do(f"child = subprocess.Popen([sys.executable, '-c', {line!r}], stdout=subprocess.PIPE)")
    peers.workload.do("child.stdout.readline()")
    pid = peers.workload.tries("child.pid")
    said = {what: peers.workload.tries(attempt.format(pid=pid)) for what, attempt in ATTEMPTS.items()}
    assert set(said.values()) == {"attached", "opened", "read", "listed", "followed"}
    peers.workload.do("child.kill(); child.wait()")


def test_a_sidecar_that_is_aborted_leaves_no_core(peers: Scene) -> None:
    proxy = peers.proxy(user(US, *PEER))
    cores = peers.folder / "keys"
    control = [*user(US, *PEER), "sh", "-c", "ulimit -c unlimited; kill -ABRT $$"]
    subprocess.run(control, cwd=cores, check=False)
    written = {each.name for each in cores.glob("core*")}
    peers.workload.do(f"os.kill({peers.sidecar.pid}, {int(signal.SIGABRT)})")
    assert peers.sidecar.wait(10) == -signal.SIGABRT
    assert proxy.killed()
    assert written, "cores go elsewhere on this machine: this test shows nothing"
    assert {each.name for each in cores.glob("core*")} == written


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of version 2 with nobody in it."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    if not mounts:
        pytest.skip("needs a cgroup2 mount")
    made = Path(mounts[0][4], f"envoy-test-{os.getpid()}")
    made.mkdir()
    yield made
    made.rmdir()


def inside(group: Path) -> tuple[str, ...]:
    """Before a command: that control group."""
    return ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")


TALKS = (
    "import socket, threading; talking = socket.create_connection(('127.0.0.1', {port}));"
    " threading.Thread(target=lambda: [(talking.send(b'.'), time.sleep(0.01)) for _ in iter(int, 1)],"
    " daemon=True).start()"
)


def open_to_us(proxy: Proxy) -> socket.socket:
    """A connection on which the proxy says something all the time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        proxy.do(TALKS.format(port=listener.getsockname()[1]))
        accepted, _ = listener.accept()
    return accepted


def falls_silent(connection: socket.socket, within: float) -> bool:
    """Nothing comes for as long as would bring some hundred words, or it is over."""
    connection.settimeout(1.0)
    end = time.monotonic() + within + 1.0
    while time.monotonic() < end:
        try:
            if not connection.recv(4096):
                return True
        except (TimeoutError, ConnectionResetError):
            return True
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_is_open_ends_when_both_watchers_are_killed_or_stopped_in_one_act(
    group: Path, attacked: Scene, number: signal.Signals
) -> None:
    proxy = attacked.proxy(inside(group))
    assert attacked.until("envoy-admitted")["outlives"] == ""
    victims = attacked.sidecar.pid, attacked.measurer
    with open_to_us(proxy) as connection:
        assert not falls_silent(connection, DEADMAN), "while they live it goes on, for longer than the dead-man time"
        attacked.workload.do(f"[os.kill(each, {int(number)}) for each in {victims}]")
        try:
            assert falls_silent(connection, DEADMAN + 2.0)
            assert proxy.process.poll() is None, "nobody was left to end it"
        finally:
            for victim in victims if number is signal.SIGSTOP else ():
                os.kill(victim, signal.SIGCONT)


def test_an_envoy_that_shares_its_group_is_not_bounded_by_the_kernel_and_the_log_says_so(
    group: Path, attacked: Scene
) -> None:
    other = subprocess.Popen([*inside(group), "sleep", "600"])
    try:
        attacked.proxy(inside(group))
        assert f"process {other.pid} lives" in attacked.until("envoy-admitted")["outlives"]
    finally:
        other.kill()
        other.wait()


def test_the_successor_in_the_same_group_is_not_held_to_what_a_dead_measurer_left(group: Path) -> None:
    with scene() as playing:
        playing.until_open()
        first = playing.proxy(inside(group))
        playing.until("envoy-admitted")
        playing.workload.do(f"[os.kill(each, 9) for each in {(playing.sidecar.pid, playing.measurer)}]")
        with open_to_us(first) as connection:
            assert falls_silent(connection, DEADMAN + 2.0)
    with scene() as playing:
        playing.until_open()
        second = playing.proxy(inside(group))
        playing.until("envoy-admitted")
        with open_to_us(second) as connection:
            assert not falls_silent(connection, DEADMAN)
