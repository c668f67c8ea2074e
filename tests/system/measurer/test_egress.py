"""Connections of a real workload in a network of its own, and who is told of them."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.calls import NAMES, Watching
from attestation.channel import Calls, Covered, Measure, Observed, Scope
from attestation.coverage import EGRESS, CollectorCoverage
from attestation.facts import CollectorFact, CollectorState, EgressFact
from attestation.layers import Layer
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.networks import (
    ALONE,
    OTHERS,
    OURS,
    OURS_6,
    THEIRS,
    THEIRS_6,
    Elsewhere,
    beside,
    inside,
    neighbour,
)
from tests.system.measurer.stage import Sidecar, User, Workload

pytestmark = needs_root

EVERY = 0.1
CONNECT = "import socket; kept = []; peer = lambda *to: kept.append(socket.create_connection(to))"


@pytest.fixture
def workload() -> Iterator[Workload]:
    running = Workload(ALONE)
    running.do(CONNECT)
    yield running
    running.end()


@pytest.fixture
def elsewhere(workload: Workload) -> Iterator[Elsewhere]:
    there = Elsewhere(workload)
    yield there
    there.close()


def scope(workload: Workload, tree: Path, *allowed: str) -> Scope:
    return Scope(workload.pid, (str(tree),), egress=allowed, egress_every=EVERY)


@pytest.fixture(params=["node", "pod"])
def watching(request: pytest.FixtureRequest, workload: Workload, tree: Path) -> Callable[..., Sidecar]:
    """The measurer in another network than the workload's, and in the same."""

    def made(*allowed: str) -> Sidecar:
        sidecar = Sidecar(scope(workload, tree, *allowed))
        return beside(sidecar, workload) if request.param == "pod" else sidecar

    return made


def look_past(sidecar: Sidecar, workload: Workload) -> list[EgressFact]:
    """What was told by the end of a look that began after all that was done before."""
    for _ in range(2):  # the second is told by a later look than the first
        last = Elsewhere(workload, OTHERS)
        workload.do(f"peer('{OTHERS}', {last.port})")
        sidecar.expect(EgressFact, lambda each: (each.host, each.port) == (OTHERS, last.port))  # noqa: B023 - awaited
        last.close()
    return [each for each in sidecar.seen(EgressFact) if each.host != OTHERS]


def collector(covered: Covered) -> CollectorCoverage | None:
    return next((each for each in covered.coverage.collectors if each.name == EGRESS), None)


def test_a_connection_to_where_nobody_expects_it_is_told_with_address_and_process(
    watching: Callable[..., Sidecar], workload: Workload, elsewhere: Elsewhere
) -> None:
    with watching(f"{OTHERS}/32") as sidecar:
        sidecar.settle()
        workload.do(f"peer('{THEIRS}', {elsewhere.port})")
        told = sidecar.expect(EgressFact)
        assert (told.protocol, told.host, told.port) == ("tcp", THEIRS, elsewhere.port)
        assert (told.process.pid, told.process.executable) == (
            workload.pid,
            str(Path(f"/proc/{workload.pid}/exe").readlink()),
        )


def test_one_that_is_open_when_the_measurer_comes_is_told_too_and_each_once(
    watching: Callable[..., Sidecar], workload: Workload, elsewhere: Elsewhere
) -> None:
    workload.do(f"peer('{THEIRS}', {elsewhere.port})")
    with watching() as sidecar:
        sidecar.expect(EgressFact, lambda each: each.port == elsewhere.port)
        workload.do(f"peer('{THEIRS}', {elsewhere.port})")
        sidecar.expect(EgressFact, lambda each: each.port == elsewhere.port)
        assert len(look_past(sidecar, workload)) == 2


def test_what_is_expected_and_what_stays_on_the_machine_is_not_told(
    watching: Callable[..., Sidecar], workload: Workload, elsewhere: Elsewhere
) -> None:
    home = [Elsewhere(workload, host) for host in ("127.0.0.1", OURS)]
    with watching(f"203.0.113.0/28:{elsewhere.port}/tcp") as sidecar:
        sidecar.settle()
        for each in (elsewhere, *home):
            workload.do(f"peer('{each.host}', {each.port})")
        assert look_past(sidecar, workload) == []
    for each in home:
        each.close()


def test_what_others_opened_is_not_told_even_when_nobody_listens_there_any_more(
    watching: Callable[..., Sidecar], workload: Workload
) -> None:
    callers = []
    with watching() as sidecar:
        sidecar.settle()
        for number in range(20):
            workload.do(f"server = socket.create_server(('{OURS}', {7000 + number}))")
            with inside(workload):
                callers.append(socket.create_connection((OURS, 7000 + number), source_address=(THEIRS, 0)))
            workload.do("kept.append(server.accept()[0]); server.close(); kept[-1].send(b'x' * 1000)")
            callers[-1].recv(number + 1)
        assert look_past(sidecar, workload) == []
    for each in callers:
        each.close()


def test_a_connection_from_a_port_that_is_listened_on_does_not_pass_for_an_accepted_one(
    watching: Callable[..., Sidecar], workload: Workload, elsewhere: Elsewhere
) -> None:
    with watching() as sidecar:
        sidecar.settle()
        workload.do(f"server = socket.create_server(('{OURS}', 7000), reuse_port=True); out = socket.socket()")
        workload.do(
            f"out.setsockopt(1, 15, 1); out.bind(('{OURS}', 7000)); out.connect(('{THEIRS}', {elsewhere.port}))"
        )
        assert sidecar.expect(EgressFact).port == elsewhere.port


def test_an_attempt_that_nobody_answers_is_told(watching: Callable[..., Sidecar], workload: Workload) -> None:
    with watching() as sidecar:
        sidecar.settle()
        with inside(workload):
            subprocess.run(["ip", "route", "add", "192.0.2.0/24", "dev", "lo"], check=True)
        workload.do("out = socket.socket(); out.setblocking(False); out.connect_ex(('192.0.2.1', 80))")
        assert sidecar.expect(EgressFact).host == "192.0.2.1"


@pytest.mark.parametrize("kind", ["2", "socket.SOCK_STREAM, 262"], ids=["udp", "mptcp"])
def test_other_protocols_than_tcp_are_told(
    watching: Callable[..., Sidecar], workload: Workload, elsewhere: Elsewhere, kind: str
) -> None:
    with watching() as sidecar:
        sidecar.settle()
        workload.do(f"out = socket.socket(2, {kind}); out.connect(('{THEIRS}', {elsewhere.port})); out.send(b'x')")
        told = sidecar.expect(EgressFact)
        assert (told.host, told.protocol) == (THEIRS, "udp" if kind == "2" else "tcp")


def test_a_connection_over_ipv6_and_one_to_ipv4_by_a_socket_of_ipv6_are_told_as_what_they_are(
    watching: Callable[..., Sidecar], workload: Workload, elsewhere: Elsewhere
) -> None:
    six = Elsewhere(workload, THEIRS_6, socket.AF_INET6)
    with watching() as sidecar:
        sidecar.settle()
        workload.do(f"six = socket.socket(10); six.bind(('{OURS_6}', 0)); six.connect(('{THEIRS_6}', {six.port}))")
        assert sidecar.expect(EgressFact).host == THEIRS_6
        workload.do(f"out = socket.socket(10); out.connect(('::ffff:{THEIRS}', {elsewhere.port}))")
        assert sidecar.expect(EgressFact).host == THEIRS
    six.close()


def test_what_a_neighbour_in_the_same_network_connects_to_is_not_the_workloads_until_it_is_handed_over(
    watching: Callable[..., Sidecar], workload: Workload, elsewhere: Elsewhere, tree: Path
) -> None:
    other = neighbour(workload)
    assert other.stdin is not None and other.stdout is not None

    def has(line: str) -> None:
        other.stdin.write(line + "\n")
        assert other.stdout.readline() == "done\n"

    with watching() as sidecar:
        sidecar.settle()
        has(f"out = socket.create_connection(('{THEIRS}', {elsewhere.port}))")
        assert look_past(sidecar, workload) == []
        workload.do(f"post = socket.socket(1); post.bind('{tree}/post'); post.listen()")
        has(f"to = socket.socket(1); to.connect('{tree}/post')")
        has("socket.send_fds(to, [b'x'], [out.fileno()]); out.close()")
        workload.do("kept.append(socket.recv_fds(post.accept()[0], 1, 1))")
        assert sidecar.expect(EgressFact, lambda each: each.host == THEIRS, 40).process.pid == workload.pid
    other.kill()
    other.wait()


def test_another_policy_has_what_is_open_told_anew_and_none_has_nothing_told(
    watching: Callable[..., Sidecar], workload: Workload, elsewhere: Elsewhere, tree: Path
) -> None:
    with watching("203.0.113.0/24") as sidecar:
        _, covered = sidecar.settle()
        assert collector(covered) is not None
        workload.do(f"peer('{THEIRS}', {elsewhere.port})")
        for _ in range(2):
            sidecar.send(scope(workload, tree, f"{OTHERS}/32"))
            assert sidecar.expect(EgressFact).port == elsewhere.port
        sidecar.send(replace(scope(workload, tree), egress=None))
        assert collector(sidecar.expect(Covered, lambda each: collector(each) is None)) is None
        workload.do(f"peer('{THEIRS}', {elsewhere.port})")
        told = len(sidecar.seen(EgressFact))
        time.sleep(EVERY * 5)  # nothing is to come, so that nothing can be awaited
        sidecar.send(Measure((Layer.PROCESSES,), 0.0))
        sidecar.expect(Observed)
        assert len(sidecar.seen(EgressFact)) == told


def test_an_ordinary_users_measurer_tells_in_its_own_network_and_says_that_it_cannot_in_another(
    nobody: User, tree: Path
) -> None:
    running = Workload((*ALONE, *nobody.first), nobody.python)
    running.do(CONNECT)
    there = Elsewhere(running)
    with beside(nobody.sidecar(scope(running, tree)), running) as sidecar:
        _, covered = sidecar.settle()
        assert (found := collector(covered)) is not None and found.running
        running.do(f"peer('{THEIRS}', {there.port})")
        assert sidecar.expect(EgressFact).process.pid == running.pid
    with nobody.sidecar(scope(running, tree)) as sidecar:
        _, covered = sidecar.settle()
        assert (found := collector(covered)) is not None and not found.running
        assert "Operation not permitted" in found.detail
    there.close()
    running.end()


def test_a_process_whose_descriptors_may_not_be_read_is_no_reason_to_say_that_nothing_is_connected(
    nobody: User, tree: Path
) -> None:
    running = Workload((*ALONE, *nobody.first), nobody.python)
    running.do(CONNECT)
    there = Elsewhere(running)
    with beside(nobody.sidecar(scope(running, tree)), running) as sidecar:
        sidecar.settle()
        running.do("import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)")
        running.do(f"peer('{THEIRS}', {there.port})")
        dead = sidecar.expect(CollectorFact, lambda each: each.collector == EGRESS)
        assert (dead.state, "may not be read" in dead.detail) == (CollectorState.DEAD, True)
        running.do("ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)")
        assert sidecar.expect(EgressFact).port == there.port
        sidecar.expect(CollectorFact, lambda each: each.state is CollectorState.RUNNING)
    there.close()
    running.end()


def test_the_network_that_is_watched_stays_the_one_that_the_workload_began_in(
    workload: Workload, elsewhere: Elsewhere, tree: Path
) -> None:
    stay = f"os.fork() or (os.read(later[0], 1), peer('{THEIRS}', {elsewhere.port}), os.read(later[0], 1), os._exit(0))"
    workload.do(f"import ctypes; later = os.pipe(); child = {stay}")
    with Sidecar(replace(scope(workload, tree), egress=None)) as sidecar:
        sidecar.settle()
        workload.do("assert ctypes.CDLL(None).unshare(0x40000000) == 0")
        sidecar.send(scope(workload, tree))
        workload.do("os.write(later[1], b'x')")
        told = sidecar.expect(EgressFact)
        assert told.host == THEIRS
        assert told.process.pid != workload.pid
    workload.do("os.write(later[1], b'x')")


# By the kernel's program, where calls are watched: when it begins.


def at_once(workload: Workload, tree: Path, every: float, *allowed: str) -> Sidecar:
    wanted = Calls(Watching.LEAN, tuple(sorted(NAMES)))
    return Sidecar(replace(scope(workload, tree, *allowed), calls=wanted, egress_every=every))


@pytest.mark.parametrize(
    ("host", "here", "family"), [(THEIRS, OURS, socket.AF_INET), (THEIRS_6, OURS_6, socket.AF_INET6)]
)
def test_a_connection_is_told_when_it_begins_long_before_anybody_looks_for_it(
    host: str, here: str, family: socket.AddressFamily, workload: Workload, tree: Path
) -> None:
    there = Elsewhere(workload, host, family)
    with at_once(workload, tree, 60.0) as sidecar:
        sidecar.expect(Observed, lambda each: each.observation.layer is Layer.SYSCALLS)
        workload.do(f"kept.append(socket.create_connection(('{host}', {there.port}), source_address=('{here}', 0)))")
        told = sidecar.expect(EgressFact)
        assert (told.protocol, told.host, told.port, told.process.pid) == ("tcp", host, there.port, workload.pid)
    there.close()


def test_one_that_is_over_before_anybody_looks_is_told_as_well(
    workload: Workload, tree: Path, elsewhere: Elsewhere
) -> None:
    with at_once(workload, tree, 60.0) as sidecar:
        sidecar.expect(Observed, lambda each: each.observation.layer is Layer.SYSCALLS)
        workload.do(f"peer('{THEIRS}', {elsewhere.port}); kept.pop().close()")
        assert sidecar.expect(EgressFact).port == elsewhere.port


def test_a_connection_that_was_told_when_it_began_is_not_told_by_the_look_that_finds_it(
    workload: Workload, tree: Path, elsewhere: Elsewhere
) -> None:
    with at_once(workload, tree, EVERY) as sidecar:
        sidecar.expect(Observed, lambda each: each.observation.layer is Layer.SYSCALLS)
        workload.do(f"peer('{THEIRS}', {elsewhere.port})")
        assert len(look_past(sidecar, workload)) == 1


def test_what_stays_on_the_machine_or_is_expected_is_not_told_when_it_begins(
    workload: Workload, tree: Path, elsewhere: Elsewhere
) -> None:
    home = [Elsewhere(workload, host) for host in ("127.0.0.1", OURS)]
    with at_once(workload, tree, EVERY, f"{THEIRS}:{elsewhere.port}/tcp") as sidecar:
        sidecar.expect(Observed, lambda each: each.observation.layer is Layer.SYSCALLS)
        for each in (elsewhere, *home):
            workload.do(f"peer('{each.host}', {each.port})")
        assert look_past(sidecar, workload) == []
    for each in home:
        each.close()
