"""The guardian and the sweep against real TCP connections."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attestation.channel import Covered, KillEnvoy, Measure, Scope, Sever, Severed, Sweep, Swept
from attestation.coverage import Cutting, Grade
from attestation.facts import CollectorFact, CollectorState
from attestation.layers import Layer
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import ROOT, Proxy, Sidecar, Workload

pytestmark = needs_root
DEADMAN = 0.6
BUSY = 1.0
"""Seconds that a busy machine may add; how promptly it is, `proofbeat bench deadman` measures."""
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
"""netdevice(7)."""


def is_reset(connection: socket.socket, seconds: float = 5.0) -> bool:
    """Wait until the other end has reset it; False when it is still open after that time."""
    connection.settimeout(seconds)
    try:
        connection.recv(1)
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return False


def test_a_sweep_cuts_a_hundred_connections_and_only_those_of_the_proxy(
    workload: Workload, proxy: Proxy, tree: Path, elsewhere: Path
) -> None:
    bystander = Proxy()
    try:
        bystander.connect(3)
        proxy.connect(50)
        proxy.accept(40, socket.AF_INET, "127.0.0.1", elsewhere)
        proxy.accept(10, socket.AF_INET6, "::1", elsewhere)
        with Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0)) as sidecar:
            sidecar.settle()
            sidecar.guard(proxy.pid)
            swept = sidecar.sweep()
            assert (swept.destroyed, swept.left) == (100, 0)
            assert all(is_reset(each) for each in proxy.held)
            assert not any(is_reset(each, 0.05) for each in bystander.held)
            assert sidecar.sweep(2).destroyed == 0
            proxy.connect(5)
            sidecar.send(Sweep(3, verify=False))
            struck = sidecar.expect(Swept, lambda each: each.number == 3)
            assert (struck.destroyed, struck.passes) == (5, 1)
            assert all(is_reset(each) for each in proxy.held[100:])
    finally:
        bystander.end()


def test_what_is_open_to_an_address_is_cut_in_either_family_and_nothing_else_is(
    workload: Workload, proxy: Proxy, tree: Path, elsewhere: Path
) -> None:
    other = Proxy()
    six = socket.create_server(("::1", 0), family=socket.AF_INET6)
    try:
        proxy.connect(3)
        other.connect(1)
        proxy.accept(2, socket.AF_INET, "127.0.0.1", elsewhere)
        proxy.begin(f"kept.append(socket.create_connection(('::1', {six.getsockname()[1]})))")
        over_six, _ = six.accept()
        assert proxy.process.stdout
        assert proxy.process.stdout.readline() == "done\n"
        with over_six, Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0)) as sidecar:
            sidecar.settle()
            sidecar.guard(proxy.pid)
            four = f"127.0.0.1:{proxy.listener.getsockname()[1]}"
            strangers = (f"127.0.0.1:{other.listener.getsockname()[1]}", "192.0.2.7:9443")
            sidecar.send(Sever(1, (four, *strangers)))
            assert sidecar.expect(Severed) == Severed(1, 3, 0)
            assert all(is_reset(each) for each in proxy.held[:3])
            assert not any(is_reset(each, 0.05) for each in (*proxy.held[3:], *other.held, over_six))
            sidecar.send(Sever(2, (f"[::1]:{six.getsockname()[1]}",)))
            assert sidecar.expect(Severed, lambda each: each.number == 2) == Severed(2, 1, 0)
            assert is_reset(over_six)
    finally:
        six.close()
        other.end()


def test_a_connection_that_waits_to_be_accepted_is_cut_as_well(
    workload: Workload, proxy: Proxy, tree: Path, elsewhere: Path
) -> None:
    proxy.accept(0, socket.AF_INET, "127.0.0.1", elsewhere)
    waiting = socket.create_connection(("127.0.0.1", int((elsewhere / "port").read_text())))
    with waiting, Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0)) as sidecar:
        sidecar.settle()
        sidecar.guard(proxy.pid)
        assert sidecar.sweep().destroyed == 1
        assert is_reset(waiting)


def test_a_connection_that_waits_at_the_same_port_of_another_address_is_left_alone(
    workload: Workload, proxy: Proxy, tree: Path, elsewhere: Path
) -> None:
    proxy.accept(0, socket.AF_INET, "127.0.0.1", elsewhere)
    port = int((elsewhere / "port").read_text())
    with socket.create_server(("127.0.0.77", port)) as other:
        stranger = socket.create_connection(other.getsockname())
        with stranger, Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0)) as sidecar:
            sidecar.settle()
            sidecar.guard(proxy.pid)
            assert sidecar.sweep().destroyed == 0
            accepted, _ = other.accept()
            with accepted:
                stranger.sendall(b"still here")
                assert accepted.recv(16) == b"still here"


NEIGHBOURS = """
import socket
def listen(family, address):
    return socket.create_server((address, 0), family=family)
def held(connection):
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    connection.settimeout(5)
    try:
        connection.recv(1)
    except ConnectionResetError:
        return False
    return True
"""
BOTH_FAMILIES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def test_in_a_network_namespace_of_its_own_both_families_and_ways_are_swept_and_the_other_ends_are_reset(
    workload: Workload, tree: Path, elsewhere: Path
) -> None:
    proxy = Workload(["unshare", "--net"])
    proxy.do("import fcntl, socket, struct")
    proxy.do(f"fcntl.ioctl(socket.socket(), {SIOCSIFFLAGS}, struct.pack('16sh14x', b'lo', {IFF_UP}))")
    neighbour = Workload(["nsenter", f"--net=/proc/{proxy.pid}/ns/net"])
    try:
        for each in (proxy, neighbour):
            each.do(f"exec({NEIGHBOURS!r}, globals()); kept = []")
        for family, address in BOTH_FAMILIES:
            for listening, calling in ((proxy, neighbour), (neighbour, proxy)):
                listening.do(f"server = listen({int(family)}, '{address}'); kept.append(server)")
                listening.do(f"open('{elsewhere}/port', 'w').write(str(server.getsockname()[1]))")
                port = (elsewhere / "port").read_text()
                calling.do(f"kept.append(socket.create_connection(('{address}', {port})))")
                listening.do("kept.append(server.accept()[0])")
        with Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0)) as sidecar:
            sidecar.settle()
            sidecar.guard(proxy.pid)
            swept = sidecar.sweep()
            assert (swept.destroyed, swept.left) == (4, 0)
        neighbour.do("open_still = [each for each in kept if held(each)]")
        neighbour.do("assert not open_still, open_still")
    finally:
        neighbour.end()
        proxy.end()


def test_the_last_rung_kills_the_proxy(workload: Workload, proxy: Proxy, tree: Path) -> None:
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0)) as sidecar:
        sidecar.settle()
        sidecar.guard(proxy.pid)
        sidecar.send(KillEnvoy(7))
        assert sidecar.expect(Swept).number == 7
        assert proxy.process.wait(5) == -signal.SIGKILL


def test_a_silent_sidecar_fires_the_guardian_once_and_beats_do_not_take_it_back(
    workload: Workload, proxy: Proxy, tree: Path
) -> None:
    proxy.connect(5)
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=DEADMAN)) as sidecar:
        sidecar.settle()
        sidecar.guard(proxy.pid)
        assert sidecar.expect(Covered).coverage.grade is Grade.CLOSED_BY_GUARDIAN
        for number in range(4):
            assert not is_reset(proxy.held[0], DEADMAN / 2)
            sidecar.beat(number)
        silent = time.monotonic()
        assert is_reset(proxy.held[0])
        assert DEADMAN * 0.8 < time.monotonic() - silent < DEADMAN + BUSY
        assert proxy.process.wait(5) == -signal.SIGKILL
        fact = sidecar.expect(CollectorFact)
        assert (fact.collector, fact.state) == ("guardian", CollectorState.DEAD)
        sidecar.beat()
        assert sidecar.expect(Covered).coverage.grade is Grade.BOUNDED_NEW_CONNECTIONS_ONLY
        replacement = Proxy()
        try:
            sidecar.guard(replacement.pid)
            again = sidecar.expect(CollectorFact)
            assert (again.collector, again.state) == ("guardian", CollectorState.RUNNING)
            assert sidecar.expect(Covered).coverage.grade is Grade.CLOSED_BY_GUARDIAN
        finally:
            replacement.end()


STAND_IN = """
import os, sys, time
from attestation.channel import Beat, Scope
from tests.system.measurer.stage import Proxy, Sidecar
workload, proxy, tree = sys.argv[1:]
with Sidecar(Scope(int(workload), (tree,), deadman={deadman})) as sidecar:
    sidecar.settle()
    sidecar.guard(int(proxy))
    sidecar.sweep()
    print(sidecar.process.pid, flush=True)
    while True:
        sidecar.beat()
        time.sleep(0.1)
"""


@pytest.mark.parametrize("act", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_stopped_sidecar_ends_the_proxy_and_its_connections(
    act: signal.Signals, workload: Workload, proxy: Proxy, tree: Path
) -> None:
    line = STAND_IN.format(deadman=DEADMAN)
    sidecar = subprocess.Popen(
        [sys.executable, "-c", line, str(workload.pid), str(proxy.pid), str(tree)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert sidecar.stdout
        measurer = os.pidfd_open(int(sidecar.stdout.readline()))
        proxy.connect(5)
        began = time.monotonic()
        os.kill(sidecar.pid, act)
        assert all(is_reset(each) for each in proxy.held)
        assert time.monotonic() - began < DEADMAN + BUSY
        assert proxy.process.wait(5) == -signal.SIGKILL
    finally:
        sidecar.kill()
        sidecar.wait()
    poll = select.poll()
    poll.register(measurer, select.POLLIN)
    assert poll.poll(5000), "the measurer outlived its sidecar"
    os.close(measurer)


def test_the_guardian_acts_even_when_the_rest_of_the_measurer_hangs(
    workload: Workload, proxy: Proxy, tree: Path, elsewhere: Path
) -> None:
    """A debugger's stop of the main thread alone stands for an open() that never returns."""
    proxy.connect(1)
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=DEADMAN)) as sidecar:
        sidecar.settle()
        sidecar.guard(proxy.pid)
        sidecar.sweep(1)
        proxy.held.clear()
        proxy.connect(1)
        line = f"import ctypes,time,os; ctypes.CDLL(None).ptrace(16, {sidecar.process.pid}, 0, 0); time.sleep(60)"
        debugger = subprocess.Popen([sys.executable, "-c", line])
        try:
            deadline = time.monotonic() + 10
            while not is_reset(proxy.held[0], 0.05) and time.monotonic() < deadline:
                sidecar.beat()
            assert time.monotonic() < deadline
            assert proxy.process.wait(5) == -signal.SIGKILL
        finally:
            debugger.kill()
            debugger.wait()
            os.kill(sidecar.process.pid, signal.SIGCONT)  # what attaching left behind


def test_the_guardian_acts_while_the_measurer_waits_for_a_file_system_that_never_answers(
    workload: Workload, proxy: Proxy, tree: Path, hanging: Path
) -> None:
    proxy.connect(2)
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=DEADMAN)) as sidecar:
        sidecar.settle()
        sidecar.guard(proxy.pid)
        sidecar.sweep()
        proxy.held.clear()
        proxy.connect(1)
        subprocess.run(["mount", "--bind", hanging, tree / "below"], check=True)
        try:
            sidecar.send(Measure((Layer.FILES,), 0.0, full=True))
            began = time.monotonic()
            while not is_reset(proxy.held[0], 0.05):
                sidecar.beat()
                assert time.monotonic() - began < DEADMAN + BUSY
            assert proxy.process.wait(5) == -signal.SIGKILL
            sidecar.process.kill()
            assert sidecar.process.wait(5) == -signal.SIGKILL
        finally:
            subprocess.run(["umount", "--lazy", tree / "below"], check=True)


def test_a_sidecar_whose_group_is_frozen_is_a_silent_one(workload: Workload, proxy: Proxy, tree: Path) -> None:
    freezer = Path("/sys/fs/cgroup/freezer")
    if not (freezer / "cgroup.procs").exists():
        pytest.skip("this kernel has no freezer of version 1")
    group = freezer / f"frozen-{os.getpid()}"
    group.mkdir()
    line = STAND_IN.format(deadman=DEADMAN)
    sidecar = subprocess.Popen(
        [sys.executable, "-c", line, str(workload.pid), str(proxy.pid), str(tree)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert sidecar.stdout
        assert sidecar.stdout.readline()
        proxy.connect(3)
        (group / "cgroup.procs").write_text(str(sidecar.pid))
        (group / "freezer.state").write_text("FROZEN")
        assert all(is_reset(each) for each in proxy.held)
        assert proxy.process.wait(5) == -signal.SIGKILL
    finally:
        (group / "freezer.state").write_text("THAWED")
        sidecar.kill()
        sidecar.wait()
        group.rmdir()


def test_the_strongest_way_to_cut_is_the_one_that_was_tried(workload: Workload, tree: Path) -> None:
    with Sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
        _, covered = sidecar.settle()
        assert covered.coverage.cutting is Cutting.DESTROY
        assert not covered.coverage.isolation.non_dumpable, "the sidecar is the test itself"
        assert not covered.coverage.isolation.distinct_user
