"""Whose a pid was when somebody else's detector saw it: by membership, by time, and for a while after the end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestation.channel import Owned, Scope, Whose
from attestation.facts import ExecutionFact
from tests.system.measurer.stage import Sidecar, Workload


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.fixture
def sidecar(workload: Workload, tmp_path: Path) -> Iterator[Sidecar]:
    with Sidecar(Scope(workload.pid, (str(tmp_path),))) as asking:
        asking.settle()
        yield asking


def asked(sidecar: Sidecar, pid: int, by: float) -> Owned:
    number = int(by * 1000)
    sidecar.send(Whose(number, pid, by))
    return sidecar.expect(Owned, lambda each: each.number == number)


def test_a_process_of_the_workload_is_its_and_another_is_not(sidecar: Sidecar, workload: Workload) -> None:
    found = asked(sidecar, workload.pid, now())
    assert found.workload is True
    assert found.process is not None and found.process.pid == workload.pid and found.process.executable
    assert asked(sidecar, os.getpid(), now()).workload is False


def test_what_had_a_pid_before_the_workload_did_was_none_of_its(sidecar: Sidecar, workload: Workload) -> None:
    """As after a pid was given out anew: whoever has it now says nothing of who had it then."""
    began = now()
    workload.do("child = subprocess.Popen(['/bin/sleep', '3600'])")
    pid = sidecar.expect(ExecutionFact, lambda each: each.path.endswith(("sleep", "coreutils"))).process.pid
    assert asked(sidecar, pid, now()).workload is True
    assert asked(sidecar, pid, began - 2.0).workload is not True


def test_a_process_that_has_ended_is_known_for_what_it_was_and_until_when(sidecar: Sidecar, workload: Workload) -> None:
    workload.do("child = subprocess.Popen(['/bin/sleep', '3600'])")
    pid = sidecar.expect(ExecutionFact, lambda each: each.path.endswith(("sleep", "coreutils"))).process.pid
    lived = now()
    workload.do("child.kill(); child.wait()")
    found = asked(sidecar, pid, lived)
    assert (found.workload, found.process and found.process.pid) == (True, pid)
    assert asked(sidecar, pid, now() + 1.0).workload is False, "whoever has it from then on is another"


def test_a_child_that_lost_its_parent_is_still_the_workloads(sidecar: Sidecar, workload: Workload) -> None:
    workload.do("subprocess.run(['/bin/sh', '-c', 'sleep 3600 & :'])")
    pid = sidecar.expect(ExecutionFact, lambda each: each.path.endswith(("sleep", "coreutils"))).process.pid
    assert asked(sidecar, pid, now()).workload is True
    subprocess.run(["/bin/kill", str(pid)], check=True)
