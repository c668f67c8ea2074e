"""A fence in the kernel around a real workload: what it connects to, what is refused and told, and what is ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.channel import Contain, Contained, Covered, Fence, Pinned, Scope
from attestation.containment import Containment, Means
from attestation.coverage import FENCE, CollectorCoverage
from attestation.facts import EgressFact, Passage
from measurer.bpf.fence import LOOPBACK, Kind, Refusal
from measurer.fencing import Fencing
from measurer.loop import Loop, Reactor
from measurer.scope import pin
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.networks import (
    ALONE,
    OTHERS,
    OURS,
    OURS_6,
    THEIRS,
    Elsewhere,
    inside,
    neighbour,
)
from tests.system.measurer.stage import Sidecar, User, Workload

pytestmark = needs_root
GROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
"""Where the hierarchy of version 2 may be."""
AFAR_6 = "2001:db8:77::9"
"""No address of the workload's network."""
PRELUDE = """
import ctypes, errno, mmap, os, socket, struct, subprocess, sys, threading
kept = []
def refused(act, *arguments):
    try:
        kept.append(act(*arguments))
    except PermissionError:
        return True
    return False
def tcp(host, port, family=socket.AF_INET):
    out = socket.socket(family)
    out.settimeout(5)
    out.connect((host, port))
    return out
def send(host, port, family=socket.AF_INET):
    out = socket.socket(family, socket.SOCK_DGRAM)
    out.sendto(b'x', (host, port))
    return out
"""
RING = """
libc = ctypes.CDLL(None, use_errno=True)
def by_ring(host, port, flags):
    params = ctypes.create_string_buffer(struct.pack('=IIIII', 0, 0, flags, 0, 0).ljust(120, bytes(1)), 120)
    ring = libc.syscall(425, 4, params)
    assert ring >= 0, ctypes.get_errno()
    tail_at, array_at = struct.unpack_from('=I', params.raw, 44)[0], struct.unpack_from('=I', params.raw, 64)[0]
    entries_at = struct.unpack_from('=I', params.raw, 100)[0]
    queue = mmap.mmap(ring, max(array_at, entries_at + 16 * 8) + 64, offset=0)
    entries = mmap.mmap(ring, 256, offset=0x10000000)
    out = socket.socket()
    to = ctypes.create_string_buffer(struct.pack('=H', 2) + struct.pack('!H', port) + socket.inet_aton(host) + bytes(8))
    struct.pack_into('=BBHiQQII', entries, 0, 16, 0, 0, out.fileno(), 16, ctypes.addressof(to), 0, 0)
    struct.pack_into('=I', queue, array_at, 0)
    struct.pack_into('=I', queue, tail_at, struct.unpack_from('=I', queue, tail_at)[0] + 1)
    assert libc.syscall(426, ring, 1, 1, 1 | (2 if flags else 0), None, 0) == 1
    result = struct.unpack_from('=Qi', queue, entries_at)[1]
    os.close(ring)
    return result
"""
"""Connects by io_uring: what the kernel answers, 0 or less. flags: 2 for a thread of the kernel's that submits."""


@pytest.fixture
def workload() -> Iterator[Workload]:
    running = Workload(ALONE)
    running.do(f"exec({PRELUDE!r})")
    yield running
    running.end()


@pytest.fixture
def theirs(workload: Workload) -> Iterator[Elsewhere]:
    there = Elsewhere(workload)
    yield there
    there.close()


@pytest.fixture
def others(workload: Workload) -> Iterator[Elsewhere]:
    there = Elsewhere(workload, OTHERS)
    yield there
    there.close()


def scope(workload: Workload, tree: Path, *allowed: str, fence: Fence = Fence.LISTED) -> Scope:
    return Scope(workload.pid, (str(tree),), deadman=30.0, egress=allowed, egress_every=60.0, fence=fence)


def collector(covered: Covered) -> CollectorCoverage | None:
    return next((each for each in covered.coverage.collectors if each.name == FENCE), None)


@contextmanager
def fenced(wanted: Scope) -> Iterator[Sidecar]:
    with Sidecar(wanted) as sidecar:
        _, covered = sidecar.settle()
        own = collector(covered)
        assert own is not None and own.running, own
        yield sidecar


def told(sidecar: Sidecar, passage: Passage = Passage.REFUSED) -> EgressFact:
    return sidecar.expect(EgressFact, lambda each: each.passage is passage)


# What is refused.


@pytest.mark.parametrize(
    ("act", "host", "protocol", "passage"),
    [
        ("tcp, '{four}', {port}", THEIRS, "tcp", Passage.REFUSED),
        ("tcp, '{six}', {port}, 10", AFAR_6, "tcp", Passage.REFUSED),
        ("tcp, '::ffff:{four}', {port}, 10", THEIRS, "tcp", Passage.REFUSED),
        ("lambda: socket.socket(2, 1, 262).connect(('{four}', {port}))", THEIRS, "tcp", Passage.REFUSED),
        ("lambda: socket.socket().sendto(b'x', 0x20000000, ('{four}', {port}))", THEIRS, "tcp", Passage.REFUSED),
        ("send, '{four}', {port}", THEIRS, "udp", Passage.REFUSED),
        ("send, '{six}', {port}, 10", AFAR_6, "udp", Passage.REFUSED),
        ("send, '::ffff:{four}', {port}, 10", THEIRS, "udp", Passage.REFUSED),
        ("lambda: socket.socket(2, 2).sendmsg([b'x'], [], 0, ('{four}', {port}))", THEIRS, "udp", Passage.REFUSED),
        ("lambda: socket.socket(2, 2).connect(('{four}', {port}))", THEIRS, "udp", Passage.UNSENT),
        ("lambda: socket.socket(10, 2).connect(('{six}', {port}))", AFAR_6, "udp", Passage.UNSENT),
        ("lambda: socket.socket(10, 2).connect(('::ffff:{four}', {port}))", THEIRS, "udp", Passage.UNSENT),
    ],
)  # fmt: skip
def test_what_no_destination_holds_is_refused_before_the_first_packet_and_told_with_who_wanted_it(
    act: str, host: str, protocol: str, passage: Passage, workload: Workload, theirs: Elsewhere, tree: Path
) -> None:
    with fenced(scope(workload, tree, f"{OTHERS}/32")) as sidecar:
        workload.do(f"assert refused({act.format(four=THEIRS, six=AFAR_6, port=theirs.port)})")
        fact = told(sidecar, passage)
        assert (fact.host, fact.port, fact.protocol) == (host, theirs.port, protocol)
        assert (fact.process.pid, fact.process.executable) == (
            workload.pid,
            os.path.realpath(f"/proc/{workload.pid}/exe"),
        )


@pytest.mark.parametrize("flags", [0, 2], ids=["submitted", "polled"])
def test_what_is_connected_by_io_uring_passes_the_same_fence(
    flags: int, workload: Workload, theirs: Elsewhere, others: Elsewhere, tree: Path
) -> None:
    workload.do(f"exec({RING!r})")
    with fenced(scope(workload, tree, f"{OTHERS}/32")) as sidecar:
        workload.do(f"assert by_ring('{THEIRS}', {theirs.port}, {flags}) == -errno.EPERM")
        fact = told(sidecar)
        assert (fact.host, fact.process.pid) == (THEIRS, workload.pid)
        workload.do(f"assert by_ring('{OTHERS}', {others.port}, {flags}) == 0")


@pytest.mark.parametrize(
    ("kind", "name"), [("2, 3, 1", "raw"), ("2, 2, 1", "protocol 1"), ("10, 3, 58", "raw"), ("2, 3, 255", "raw")]
)
def test_a_socket_of_a_protocol_that_no_destination_can_name_is_refused_when_it_is_made(
    kind: str, name: str, workload: Workload, tree: Path
) -> None:
    workload.do("open('/proc/sys/net/ipv4/ping_group_range', 'w').write('0 0')")
    with fenced(scope(workload, tree, "0.0.0.0/0")) as sidecar:
        workload.do(f"assert refused(socket.socket, {kind})")
        fact = told(sidecar)
        assert (fact.protocol, fact.host, fact.port) == (name, "", 0)


@pytest.mark.parametrize(
    "who",
    [
        "child = os.fork() or os._exit(0 if {act} else 1); assert os.waitpid(child, 0)[1] == 0",
        "child = os.fork() or os._exit(0 if not os.setsid() and {act} else 1); assert os.waitpid(child, 0)[1] == 0",
        "child = os.fork() or os._exit(0 if not libc.unshare(0x40000000) and {act} else 1);"
        " assert os.waitpid(child, 0)[1] == 0",
        "child = os.fork() or os._exit(0 if not move(os.getpid()) and {act} else 1);"
        " assert os.waitpid(child, 0)[1] == 0",
        "done = []; t = threading.Thread(target=lambda: done.append({act})); t.start(); t.join(); assert done[0]",
        "assert subprocess.run([sys.executable, '-c', {program!r}]).returncode == 9",
    ],
    ids=["child", "session", "network", "group", "thread", "program"],
)
def test_whoever_descends_from_the_workload_is_behind_the_fence_wherever_it_goes(
    who: str, workload: Workload, theirs: Elsewhere, tree: Path
) -> None:
    group = next(each for each in GROUPS if (each / "cgroup.controllers").exists()) / f"elsewhere-{os.getpid()}"
    group.mkdir()
    workload.do("libc = ctypes.CDLL(None)")
    workload.do(f"move = lambda pid: open('{group}/cgroup.procs', 'w').write(str(pid)) and None")
    act = f"refused(tcp, '{THEIRS}', {theirs.port})"
    connects = f"socket.socket().connect(('{THEIRS}', {theirs.port}))"
    program = f"import socket, sys\ntry: {connects}\nexcept PermissionError: sys.exit(9)"
    try:
        with fenced(scope(workload, tree)) as sidecar:
            workload.do(who.format(act=act, program=program))
            assert told(sidecar).host == THEIRS
    finally:
        workload.end()
        group.rmdir()


def test_a_thread_that_was_there_before_stays_behind_it_when_it_executes_something(
    workload: Workload, theirs: Elsewhere, tree: Path
) -> None:
    """exec(2) of another thread than the first makes it the first: what is known of that is gone with it."""
    connects = f"socket.socket().connect(('{THEIRS}', {theirs.port}))"
    program = f"import os, socket\ntry: {connects}\nexcept PermissionError: os.write(1, b'done\\n')"
    workload.do("go = threading.Event()")
    line = f"(go.wait(), os.execv(sys.executable, [sys.executable, '-c', {program!r}]))"
    workload.do(f"threading.Thread(target=lambda: {line}).start()")
    with fenced(scope(workload, tree)) as sidecar:
        workload.do("go.set(); import time; time.sleep(60)")
        assert told(sidecar).host == THEIRS


def test_the_same_is_told_once_and_another_one_too(
    workload: Workload, theirs: Elsewhere, others: Elsewhere, tree: Path
) -> None:
    with fenced(scope(workload, tree)) as sidecar:
        workload.do(f"assert all(refused(tcp, '{THEIRS}', {theirs.port}) for _ in range(500))")
        assert told(sidecar).host == THEIRS
        time.sleep(1.1)  # the kernel tells no more than so many in a second
        workload.do(f"assert refused(tcp, '{OTHERS}', {others.port})")
        assert told(sidecar).host == OTHERS
        assert len(sidecar.seen(EgressFact)) == 2


def test_to_look_up_a_name_of_several_addresses_is_refused_nothing_but_what_a_library_tries(
    tree: Path, elsewhere: Path
) -> None:
    """As getaddrinfo(3) does to sort them: it finds all, and nothing of it is told as refused."""
    hosts = elsewhere / "hosts"
    hosts.write_text(f"{THEIRS} several.example\n{OTHERS} several.example\n{AFAR_6} several.example\n")
    apart = f'mount --bind {hosts} /etc/hosts && exec "$0" "$@"'
    running = Workload((*ALONE, "unshare", "--mount", "--propagation", "private", "sh", "-c", apart))
    running.do(f"exec({PRELUDE!r})")
    there = Elsewhere(running, OTHERS)
    with fenced(scope(running, tree, f"{OTHERS}:{there.port}/tcp")) as sidecar:
        running.do(f"found = {{each[4][0] for each in socket.getaddrinfo('several.example', {there.port}, type=1)}}")
        running.do(f"assert found == {{'{THEIRS}', '{OTHERS}', '{AFAR_6}'}}, found")
        running.do(f"tcp('{OTHERS}', {there.port})")
        assert told(sidecar, Passage.UNSENT).protocol == "udp"
        running.do(f"assert refused(tcp, '{THEIRS}', {there.port})")
        assert told(sidecar).host == THEIRS
        assert [each.host for each in sidecar.seen(EgressFact) if each.passage is Passage.REFUSED] == [THEIRS]
    there.close()
    running.end()


# What passes.


def test_what_is_listed_passes_and_so_does_what_stays_on_this_machine(
    workload: Workload, theirs: Elsewhere, others: Elsewhere, tree: Path
) -> None:
    home = [Elsewhere(workload, host) for host in ("127.0.0.1", "127.0.0.2", OURS)]
    home += [Elsewhere(workload, host, socket.AF_INET6) for host in ("::1", OURS_6)]
    with fenced(
        scope(workload, tree, f"{OTHERS}:{others.port}/tcp", "203.0.113.0/29", "[2001:db8:7::/48]:53")
    ) as sidecar:
        workload.do(f"tcp('{OTHERS}', {others.port})")
        workload.do(f"send('{OTHERS.rsplit('.', 1)[0]}.1', 9)")
        workload.do(f"tcp('0.0.0.0', {home[0].port})")
        for each in home:
            workload.do(f"tcp('{each.host}', {each.port}, {10 if ':' in each.host else 2})")
        workload.do(f"assert refused(send, '{OTHERS}', {others.port})")
        workload.do(f"assert refused(tcp, '{OTHERS}', {others.port + 1})")
        assert told(sidecar).protocol == "udp"
    for each in home:
        each.close()


def test_an_address_that_the_machine_is_given_later_is_its_own_as_well(workload: Workload, tree: Path) -> None:
    late = "198.51.100.77"
    with fenced(scope(workload, tree)):
        workload.do(f"assert refused(tcp, '{late}', 9)")
        with inside(workload):
            subprocess.run(["ip", "addr", "add", f"{late}/32", "dev", "lo"], check=True)
        there = Elsewhere(workload, late)
        waits = f"while refused(tcp, '{late}', {there.port}): assert time.monotonic() < end"
        workload.do(f"import time; end = time.monotonic() + 5; exec({waits!r})")
        there.close()


def test_nobody_else_is_held_up(workload: Workload, theirs: Elsewhere, tree: Path) -> None:
    other = neighbour(workload)
    assert other.stdin is not None and other.stdout is not None
    with fenced(scope(workload, tree)):
        other.stdin.write(f"socket.create_connection(('{THEIRS}', {theirs.port}))\n")
        assert other.stdout.readline() == "done\n"
        with inside(workload):
            socket.create_connection((THEIRS, theirs.port)).close()
    other.kill()
    other.wait()


def test_another_list_holds_at_once_and_none_lets_everything_pass(
    workload: Workload, theirs: Elsewhere, others: Elsewhere, tree: Path
) -> None:
    with fenced(scope(workload, tree, f"{OTHERS}/32")) as sidecar:
        workload.do(f"tcp('{OTHERS}', {others.port})")
        sidecar.send(scope(workload, tree, f"{THEIRS}/32"))
        sidecar.files()
        workload.do(f"tcp('{THEIRS}', {theirs.port}); assert refused(tcp, '{OTHERS}', {others.port})")
        sidecar.send(scope(workload, tree, fence=Fence.NONE))
        sidecar.expect(Covered, lambda each: collector(each) is None)
        workload.do(f"tcp('{OTHERS}', {others.port})")


def test_a_fence_that_stands_ready_lets_everything_pass(workload: Workload, theirs: Elsewhere, tree: Path) -> None:
    with fenced(scope(workload, tree, fence=Fence.READY)):
        workload.do(f"tcp('{THEIRS}', {theirs.port}); send('{THEIRS}', 9); socket.socket(2, 3, 1)")


def test_a_process_that_comes_in_from_outside_is_behind_it_soon(
    theirs: Elsewhere, workload: Workload, tree: Path
) -> None:
    """As whoever enters a container does."""
    group = next(each for each in GROUPS if (each / "cgroup.controllers").exists()) / f"entered-{os.getpid()}"
    group.mkdir()
    (group / "cgroup.procs").write_text(str(workload.pid))
    other = Workload(("nsenter", f"--net=/proc/{workload.pid}/ns/net"))
    other.do(f"exec({PRELUDE!r})")
    try:
        with fenced(replace(scope(workload, tree), cgroup=f"/{group.name}")):
            other.do(f"tcp('{THEIRS}', {theirs.port})")
            (group / "cgroup.procs").write_text(str(other.pid))
            waits = f"while not refused(send, '{THEIRS}', 9): time.sleep(0.01 if time.monotonic() < end else -1)"
            other.do(f"import time; end = time.monotonic() + 10; exec({waits!r})")
    finally:
        other.end()
        workload.end()
        group.rmdir()


def test_where_no_task_can_be_asked_for_its_mark_a_workloads_own_group_has_one(tree: Path) -> None:
    """As of an older kernel: here, since there is one already and no room for a second."""
    first, second = Workload(ALONE), Workload(ALONE)
    group = next(each for each in GROUPS if (each / "cgroup.controllers").exists()) / f"own-{os.getpid()}"
    group.mkdir()
    (group / "cgroup.procs").write_text(str(second.pid))
    reactor, heard = Reactor(), list[Refusal]()
    loop = Loop(reactor)
    fencing = Fencing(loop, many=False)
    pinned = [pin(Scope(first.pid, ())), pin(Scope(second.pid, (), cgroup=f"/{group.name}"))]
    raised = [fencing.put_up(each, loop, heard.append) for each in pinned]
    try:
        assert [each.own is not None for each in raised] == [False, True]
        raised[1].fenced.pass_only(LOOPBACK)
        for each in (first, second):
            each.do(f"exec({PRELUDE!r})")
        theirs = Elsewhere(second)
        second.do(f"assert refused(tcp, '{THEIRS}', {theirs.port}) and refused(send, '::ffff:{THEIRS}', 9, 10)")
        second.do(f"child = os.fork() or os._exit(0 if refused(tcp, '{THEIRS}', {theirs.port}) else 1)")
        second.do("assert os.waitpid(child, 0)[1] == 0 and refused(socket.socket, 2, 3, 1)")
        first.do("socket.socket(2, 3, 1)")
        loop.after("over", 0.1, lambda: setattr(reactor, "stopped", True))
        reactor.run()
        assert [each.kind for each in heard] == [Kind.CONNECT, Kind.DATAGRAM, Kind.CONNECT, Kind.SOCKET]
        assert heard[0].pid == second.pid
        theirs.close()
    finally:
        for around, whose in zip(raised, pinned, strict=True):
            fencing.take_down(around)
            whose.close()
        first.end()
        second.end()
        group.rmdir()


# Where there is none.


def test_an_ordinary_users_measurer_says_that_it_has_no_fence(nobody: User, tree: Path) -> None:
    running = nobody.workload()
    with nobody.sidecar(scope(running, tree)) as sidecar:
        own = collector(sidecar.expect(Covered))
        assert own is not None and not own.running
        assert "no fence: Operation not permitted" in own.detail
    running.end()


def test_no_fence_stands_around_the_sidecar_or_its_measurer(tree: Path) -> None:
    with Sidecar(Scope(os.getpid(), (str(tree),), deadman=30.0, egress=(), fence=Fence.LISTED)) as sidecar:
        own = collector(sidecar.expect(Covered))
        assert own is not None and not own.running
        assert "is among those of the workload" in own.detail


def test_what_was_refused_passes_again_when_the_measurer_is_gone(
    workload: Workload, theirs: Elsewhere, tree: Path
) -> None:
    """The kernel holds it for whoever holds its descriptors. The sidecar closes for the measurer's end, and has another
    one put it up again."""
    with Sidecar(scope(workload, tree)) as sidecar:
        sidecar.settle()
        workload.do(f"assert refused(tcp, '{THEIRS}', {theirs.port})")
        os.kill(sidecar.process.pid, signal.SIGKILL)
        sidecar.process.wait()
        workload.do(f"tcp('{THEIRS}', {theirs.port})")
    with fenced(scope(workload, tree)):
        workload.do(f"assert refused(tcp, '{THEIRS}', {theirs.port})")


def test_a_measurer_that_is_stopped_lets_nothing_pass(workload: Workload, theirs: Elsewhere, tree: Path) -> None:
    with fenced(scope(workload, tree)) as sidecar:
        os.kill(sidecar.process.pid, signal.SIGSTOP)
        try:
            workload.do(f"assert refused(tcp, '{THEIRS}', {theirs.port})")
            workload.do(
                f"child = os.fork() or os._exit(0 if refused(tcp, '{THEIRS}', {theirs.port}) else 1);"
                " assert os.waitpid(child, 0)[1] == 0"
            )
        finally:
            os.kill(sidecar.process.pid, signal.SIGCONT)
        assert told(sidecar).host == THEIRS


# Shut, as containment.


def order(sidecar: Sidecar, number: int, how: Containment, *, before: bool = False) -> Contained:
    sidecar.send(Contain(number, how, before=before))
    return sidecar.expect(Contained, lambda each: each.number == number)


def is_over(connection: socket.socket) -> bool:
    """By a reset, or its end."""
    connection.settimeout(5)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("fence", list(Fence))
def test_egress_that_is_denied_is_refused_and_what_is_open_is_ended_until_it_is_let_go(
    fence: Fence, workload: Workload, theirs: Elsewhere, tree: Path
) -> None:
    home = Elsewhere(workload, "127.0.0.1")
    with Sidecar(scope(workload, tree, f"{THEIRS}/32", fence=fence)) as sidecar:
        sidecar.expect(Pinned)
        workload.do(f"tcp_out = tcp('{THEIRS}', {theirs.port}); udp_out = socket.socket(2, 2)")
        workload.do(f"udp_out.connect(('{THEIRS}', 9)); udp_out.send(b'x'); at_home = tcp('127.0.0.1', {home.port})")
        theirs.accept()
        home.accept()
        denied = order(sidecar, 1, Containment.DENY_EGRESS)
        assert (denied.means, denied.refusal, denied.left) == (Means.FENCE, "", 0)
        assert denied.processes >= 1
        assert is_over(theirs.held[0])
        workload.do(f"assert refused(tcp, '{THEIRS}', {theirs.port}) and refused(send, '{THEIRS}', {theirs.port})")
        workload.do("exec('try: udp_out.send(b\"x\")\\nexcept OSError: pass\\nelse: assert False')")
        workload.do(f"at_home.send(b'x'); tcp('127.0.0.1', {home.port})")
        assert home.held[0].recv(1) == b"x"
        order(sidecar, 2, Containment.NONE)
        workload.do(f"tcp('{THEIRS}', {theirs.port})")
    home.close()


def test_what_is_shut_stays_so_without_a_measurer_where_the_workload_has_a_group_of_its_own(
    workload: Workload, theirs: Elsewhere, tree: Path
) -> None:
    group = next(each for each in GROUPS if (each / "cgroup.controllers").exists()) / f"kept-{os.getpid()}"
    group.mkdir()
    (group / "cgroup.procs").write_text(str(workload.pid))
    wanted = replace(scope(workload, tree, fence=Fence.READY), cgroup=f"/{group.name}")
    refuses = f"refused(tcp, '{THEIRS}', {theirs.port})"
    try:
        with Sidecar(wanted) as sidecar:
            sidecar.expect(Pinned)
            order(sidecar, 1, Containment.DENY_EGRESS)
            os.kill(sidecar.process.pid, signal.SIGKILL)
            sidecar.process.wait()
        workload.do(f"assert {refuses}")
        workload.do(f"child = os.fork() or os._exit(0 if {refuses} else 1); assert os.waitpid(child, 0)[1] == 0")
        with Sidecar(wanted) as sidecar:
            sidecar.expect(Pinned)
            order(sidecar, 1, Containment.DENY_EGRESS)
            workload.do(f"assert {refuses}")
            order(sidecar, 2, Containment.NONE)
            workload.do(f"assert not {refuses}")
            order(sidecar, 3, Containment.DENY_EGRESS)
        workload.do(f"assert {refuses}")
        with Sidecar(replace(wanted, fence=Fence.NONE)) as sidecar:
            sidecar.expect(Pinned)
            order(sidecar, 1, Containment.NONE)
            workload.do(f"assert not {refuses}")
    finally:
        workload.end()
        group.rmdir()


def test_what_others_opened_to_it_goes_on(workload: Workload, tree: Path) -> None:
    with Sidecar(scope(workload, tree, fence=Fence.READY)) as sidecar:
        sidecar.expect(Pinned)
        workload.do(f"server = socket.create_server(('{OURS}', 7000))")
        with inside(workload):
            caller = socket.create_connection((OURS, 7000), source_address=(THEIRS, 0))
        workload.do("accepted = server.accept()[0]")
        assert order(sidecar, 1, Containment.DENY_EGRESS).left == 0
        workload.do("accepted.send(b'x')")
        assert caller.recv(1) == b"x"
        caller.close()


def test_what_was_frozen_goes_on_behind_the_fence(workload: Workload, theirs: Elsewhere, tree: Path) -> None:
    with Sidecar(scope(workload, tree, fence=Fence.READY)) as sidecar:
        sidecar.expect(Pinned)
        order(sidecar, 1, Containment.FREEZE)
        assert state_of(workload.pid) == "T"
        assert order(sidecar, 2, Containment.DENY_EGRESS).refusal == ""
        workload.do(f"assert refused(tcp, '{THEIRS}', {theirs.port})")
        order(sidecar, 3, Containment.FREEZE)
        assert state_of(workload.pid) == "T"
        order(sidecar, 4, Containment.NONE)
        workload.do(f"tcp('{THEIRS}', {theirs.port})")


def test_where_egress_cannot_be_denied_that_is_said_and_nothing_frozen_is_let_go(nobody: User, tree: Path) -> None:
    running = nobody.workload()
    try:
        with nobody.sidecar(scope(running, tree, fence=Fence.READY)) as sidecar:
            sidecar.expect(Pinned)
            order(sidecar, 1, Containment.FREEZE)
            assert "no fence" in order(sidecar, 2, Containment.DENY_EGRESS).refusal
            assert state_of(running.pid) == "T"
            order(sidecar, 3, Containment.NONE)
    finally:
        running.end()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
