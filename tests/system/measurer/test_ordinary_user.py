"""The measurer without any privilege: it falls back, and says so."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestation.channel import Covered, KillEnvoy, Observed, Scope, Swept
from attestation.coverage import Cutting, Grade, Mechanism
from attestation.facts import (
    CollectorFact,
    CollectorState,
    ExecutionFact,
    FileChange,
    FileFact,
    PreloadFact,
    ScriptFact,
    Sighting,
)
from attestation.layers import Method
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, User, Workload


@pytest.fixture
def theirs(nobody: User, tree: Path) -> Iterator[Workload]:
    for each in (tree, tree / "first", tree / "below", tree / "below" / "second"):
        if os.geteuid() == 0:
            os.chown(each, 65534, 65534)
    running = nobody.workload()
    yield running
    running.end()


@pytest.fixture
def sidecar(nobody: User, theirs: Workload, tree: Path) -> Iterator[Sidecar]:
    with nobody.sidecar(Scope(theirs.pid, (str(tree),), deadman=30.0)) as running:
        running.settle()
        yield running


def test_coverage_says_what_is_missing(sidecar: Sidecar) -> None:
    coverage = sidecar.seen(Covered)[-1].coverage
    collectors = {each.name: each for each in coverage.collectors}
    assert collectors["files"].mechanism is Mechanism.INOTIFY
    assert "not permitted" in collectors["files"].detail
    most = Path("/proc/sys/fs/inotify/max_user_watches").read_text().strip()
    assert f"{most} folders at most (fs.inotify.max_user_watches)" in collectors["files"].detail
    assert collectors["processes.executions"].mechanism is Mechanism.POLL
    assert collectors["processes.executions"].latency_ms >= 10
    assert coverage.cutting is Cutting.CAPPED
    assert not coverage.isolation.distinct_user


def test_a_change_of_every_kind_is_still_told_but_without_its_writer(
    sidecar: Sidecar, theirs: Workload, tree: Path
) -> None:
    theirs.do(f"open('{tree}/first', 'w').write('changed')")
    fact = sidecar.expect(FileFact, lambda each: each.digest == hashlib.sha256(b"changed").hexdigest())
    assert fact.actor is None
    theirs.do(f"os.makedirs('{tree}/a/b'); open('{tree}/a/b/c', 'w').write('deep')")
    sidecar.expect(FileFact, lambda each: each.digest == hashlib.sha256(b"deep").hexdigest())
    theirs.do(f"os.chmod('{tree}/a/b/c', 0o700)")
    sidecar.expect(FileFact, lambda each: each.change is FileChange.ATTRIBUTES and each.mode == 0o700)
    theirs.do(f"os.rename('{tree}/a', '{tree}/z')")
    sidecar.expect(FileFact, lambda each: each.path == f"{tree}/a/b/c" and each.change is FileChange.REMOVED)
    sidecar.expect(FileFact, lambda each: each.path == f"{tree}/z/b/c" and each.change is FileChange.ADDED)
    theirs.do(f"open('{tree}/z/b/c', 'w').write('again')")
    sidecar.expect(FileFact, lambda each: each.digest == hashlib.sha256(b"again").hexdigest())


def test_a_file_that_is_written_by_another_name_or_through_a_mapping_that_stays_is_told(
    nobody: User, theirs: Workload, tree: Path, elsewhere: Path
) -> None:
    (elsewhere / "other").hardlink_to(tree / "below" / "second")
    elsewhere.chmod(0o777)
    with nobody.sidecar(Scope(theirs.pid, (str(tree),), deadman=30.0)) as sidecar:
        sidecar.settle()
        theirs.do(f"open('{elsewhere}/other', 'r+').write('TWO')")
        fact = sidecar.expect(FileFact, lambda each: each.digest == hashlib.sha256(b"TWO").hexdigest())
        assert fact.path == f"{tree}/below/second"
        theirs.do(
            f"import mmap; held = open('{tree}/first', 'r+b'); page = mmap.mmap(held.fileno(), 0); page[:] = b'1ne'"
        )
        sidecar.expect(FileFact, lambda each: each.digest == hashlib.sha256(b"1ne").hexdigest())
        theirs.do("page[:] = b'2ne'")
        fact = sidecar.expect(FileFact, lambda each: each.digest == hashlib.sha256(b"2ne").hexdigest())
        assert fact.path == f"{tree}/first"


def test_a_queue_that_ran_over_is_told_and_everything_is_read_again(
    sidecar: Sidecar, theirs: Workload, tree: Path
) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    os.kill(sidecar.process.pid, signal.SIGSTOP)
    theirs.do(f"[os.close(os.open('{tree}/below/%d' % each, os.O_CREAT)) for each in range({limit // 2 + 200})]")
    theirs.do(f"[os.unlink('{tree}/below/%d' % each) for each in range({limit // 2 + 200})]")
    theirs.do(f"open('{tree}/below/last', 'w').write('after the flood')")
    os.kill(sidecar.process.pid, signal.SIGCONT)
    fact = sidecar.expect(CollectorFact, lambda each: each.collector == "files")
    assert fact.state is CollectorState.OVERFLOWED
    sidecar.expect(Observed, lambda each: each.observation.method is Method.FULL and each.observation.began > fact.at)


def test_a_program_that_keeps_running_is_seen_by_polling(sidecar: Sidecar, theirs: Workload) -> None:
    theirs.do("child = subprocess.Popen(['/bin/sleep', '30'])")
    fact = sidecar.expect(ExecutionFact, lambda each: each.path.endswith("/sleep"))
    assert fact.digest == hashlib.sha256(Path("/bin/sleep").read_bytes()).hexdigest()
    assert fact.sighting is Sighting.POLL
    theirs.do("child.kill()")


def test_what_a_program_that_keeps_running_was_started_with_is_seen_by_polling(
    sidecar: Sidecar, theirs: Workload, elsewhere: Path
) -> None:
    script = elsewhere / "script.sh"
    script.write_text("sleep 30; true")
    theirs.do(f"child = subprocess.Popen(['/bin/sh', '{script}'], env={{'LD_LIBRARY_PATH': '/nowhere'}})")
    fact = sidecar.expect(ScriptFact, lambda each: each.path == str(script))
    assert (fact.digest, fact.sighting) == (hashlib.sha256(script.read_bytes()).hexdigest(), Sighting.POLL)
    assert sidecar.expect(PreloadFact).entry == "/nowhere"
    theirs.do("child.kill()")


def test_a_proxy_of_the_same_user_can_at_least_be_killed(nobody: User, sidecar: Sidecar) -> None:
    proxy = nobody.workload()
    try:
        sidecar.guard(proxy.pid)
        coverage = sidecar.expect(Covered).coverage
        assert (coverage.cutting, coverage.grade) == (Cutting.KILL, Grade.CLOSED_BY_GUARDIAN)
        sidecar.socket.close()
        assert proxy.process.wait(5) == -signal.SIGKILL
    finally:
        proxy.end()


def test_a_proxy_that_may_not_be_looked_into_counts_as_open_until_it_has_ended(nobody: User, sidecar: Sidecar) -> None:
    proxy = nobody.workload()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            proxy.do("import ctypes, socket; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)")  # PR_SET_DUMPABLE, linux/prctl.h
            proxy.do(f"kept = socket.create_connection({listener.getsockname()})")
            sidecar.guard(proxy.pid)
            assert sidecar.sweep().left > 0
            sidecar.send(KillEnvoy(1000))
            assert sidecar.expect(Swept, lambda each: each.number == 1000).left == 0
            assert proxy.process.wait(5) == -signal.SIGKILL
            assert sidecar.sweep().left == 0
    finally:
        proxy.end()


def test_what_the_kernel_still_sends_for_a_proxy_that_has_ended_counts_as_open_until_it_is_sent(
    nobody: User, sidecar: Sidecar
) -> None:
    proxy = nobody.workload()
    filling = "while True:\n  try: kept.send(bytes(65536))\n  except BlockingIOError: break"
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            proxy.do(f"import socket; kept = socket.create_connection({listener.getsockname()})")
            proxy.do(f"kept.setblocking(False); exec({filling!r})")
            peer, _ = listener.accept()
            with peer:
                sidecar.guard(proxy.pid)
                assert sidecar.sweep(1).left == 1
                proxy.process.kill()
                proxy.process.wait()
                assert sidecar.sweep(2).left == 1
                while peer.recv(1 << 20):
                    pass
                assert sidecar.sweep(3).left == 0
    finally:
        proxy.end()


@needs_root
def test_a_proxy_of_somebody_else_cannot_be_cut_and_the_grade_says_so(sidecar: Sidecar) -> None:
    proxy = Workload()
    try:
        sidecar.guard(proxy.pid)
        swept = sidecar.sweep()
        assert (swept.destroyed, swept.left > 0) == (0, True)
        sidecar.send(KillEnvoy(1000))
        assert sidecar.expect(Swept, lambda each: each.number == 1000).left > 0
        assert proxy.process.poll() is None
        coverage = sidecar.seen(Covered)[-1].coverage
        assert (coverage.cutting, coverage.grade) == (Cutting.CAPPED, Grade.BOUNDED_NEW_CONNECTIONS_ONLY)
    finally:
        proxy.end()
