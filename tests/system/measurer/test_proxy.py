"""What the measurer reads of the proxy that it guards."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestation.channel import Covered, Guarded, Inspected, Measure, Scope
from attestation.layers import Layer, Method
from attestation.proxy import Known, ProxyProcess
from tests.system.measurer.stage import Sidecar, Workload

SLEEP = shutil.which("sleep") or "/bin/sleep"


@contextmanager
def running(program: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Stands in for Envoy: it is only looked at."""
    process = subprocess.Popen([program, "60", *arguments])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy(SLEEP, tmp_path / "proxy"))


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Sidecar]:
    workload = Workload()
    try:
        with Sidecar(Scope(workload.pid, (str(tmp_path),))) as sidecar:
            sidecar.settle()
            yield sidecar
    finally:
        workload.end()


def inspected(sidecar: Sidecar, *, full: bool = False) -> Inspected:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    sidecar.send(Measure((Layer.PROXY,), now, full))
    return sidecar.expect(Inspected, lambda each: each.began >= now)


def guarded(sidecar: Sidecar, pid: int) -> None:
    sidecar.guard(pid)
    sidecar.expect(Guarded, lambda each: each.pid == pid)


def process_of(told: Inspected) -> ProxyProcess:
    assert told.process is not None
    return told.process


def test_the_layer_is_named_absent_until_somebody_asks_for_it(watching: Sidecar) -> None:
    assert all(Layer.PROXY in told.coverage.absent for told in watching.seen(Covered))
    told = inspected(watching)
    assert told.process is None
    covered = watching.seen(Covered)[-1].coverage
    assert Layer.PROXY not in covered.absent
    assert covered.weakest[Layer.PROXY]


def test_what_the_guarded_proxy_runs_is_read_once_and_again_only_in_full(watching: Sidecar, program: Path) -> None:
    with running(program) as proxy:
        guarded(watching, proxy.pid)
        first, second, third = inspected(watching), inspected(watching), inspected(watching, full=True)
        assert process_of(first).executable == hashlib.sha256(program.read_bytes()).hexdigest()
        assert process_of(first).traced is Known.NO
        assert first.pid == proxy.pid
        assert first.process == second.process == third.process
        assert [told.method for told in (first, second, third)] == [Method.FULL, Method.INCREMENTAL, Method.FULL]
        assert first.began == first.full_began == second.full_began < third.full_began == third.began


def test_whoever_takes_the_seat_next_is_read_anew_and_whoever_ended_is_nobody(
    watching: Sidecar, program: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(program.read_bytes() + b"\0")
    other.chmod(0o755)
    with running(program) as proxy:
        guarded(watching, proxy.pid)
        first = inspected(watching)
    with running(other) as successor:
        guarded(watching, successor.pid)
        second = inspected(watching)
        assert process_of(second).executable != process_of(first).executable
        assert second.method is Method.FULL
        ended = successor.pid
    last = inspected(watching)
    assert (last.process, last.pid) == (None, ended), "told apart from a word on whoever comes next"


def test_another_program_in_the_same_process_is_told_unasked(watching: Sidecar) -> None:
    shell = shutil.which("sh") or "/bin/sh"
    proxy = subprocess.Popen([shell, "-c", f"read go; exec {SLEEP} 60"], stdin=subprocess.PIPE)
    try:
        guarded(watching, proxy.pid)
        before = process_of(inspected(watching))
        assert proxy.stdin
        proxy.stdin.write(b"go\n")
        proxy.stdin.flush()
        told = watching.expect(Inspected, lambda each: each.process != before)
        assert process_of(told).executable == hashlib.sha256(Path(SLEEP).read_bytes()).hexdigest()
    finally:
        proxy.kill()
        proxy.wait()
        if proxy.stdin is not None:
            proxy.stdin.close()


def test_a_tracer_is_told_with_its_name(watching: Sidecar, program: Path) -> None:
    seize = "import ctypes, sys; assert ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0; input()"
    with running(program) as proxy:
        guarded(watching, proxy.pid)
        assert process_of(inspected(watching)).traced is Known.NO
        tracer = subprocess.Popen([sys.executable, "-c", seize, str(proxy.pid)], stdin=subprocess.PIPE)
        try:
            told = watching.expect(Inspected, lambda each: bool(each.tracer))
            assert process_of(told).traced is Known.YES
            assert told.tracer.split()[0] == str(tracer.pid)
        finally:
            tracer.kill()
            tracer.wait()
            if tracer.stdin:
                tracer.stdin.close()


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        ((), Known.NO),
        (("--drain-time-s", "0"), Known.YES),
        (("--drain-time-s", "600"), Known.NO),
        (("--drain-time-s",), Known.NO),
        (("--drain-time-s", "0", "--drain-time-s", "9"), Known.NO),
    ],
)
def test_how_the_proxy_was_started_says_whether_it_drains(
    watching: Sidecar, tmp_path: Path, arguments: tuple[str, ...], known: Known
) -> None:
    script = "import sys, time; time.sleep(60)"
    proxy = subprocess.Popen([sys.executable, "-c", script, *arguments])
    try:
        guarded(watching, proxy.pid)
        assert process_of(inspected(watching)).drains_at_once is known
    finally:
        proxy.kill()
        proxy.wait()
