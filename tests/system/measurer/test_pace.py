"""A collector that does not keep up says so, and says when it has caught up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestation.channel import Scope
from attestation.facts import CollectorFact, CollectorState, FileChange, FileFact
from measurer.heartbeat import INTERVAL, LIMIT
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, User, Workload

CPU = Path("/sys/fs/cgroup/cpu")


@pytest.fixture
def sidecar(root: User, workload: Workload, tree: Path) -> Iterator[Sidecar]:
    with root.sidecar(Scope(workload.pid, (str(tree),), deadman=60.0)) as running:
        running.settle()
        yield running


def paced(sidecar: Sidecar, collector: str, state: CollectorState) -> CollectorFact:
    return sidecar.expect(CollectorFact, lambda each: (each.collector, each.state) == (collector, state), 60.0)


def test_a_measurer_that_was_stopped_for_a_while_says_that_it_lags_and_then_that_it_does_not(
    sidecar: Sidecar, workload: Workload, tree: Path
) -> None:
    os.kill(sidecar.process.pid, signal.SIGSTOP)
    workload.do(f"open('{tree}/first', 'w').write('while nobody looked')")
    time.sleep(INTERVAL + LIMIT + 0.5)  # time is what passes here, and nothing can be awaited of who is stopped
    os.kill(sidecar.process.pid, signal.SIGCONT)
    assert "behind" in paced(sidecar, "files", CollectorState.LAGGING).detail
    paced(sidecar, "files", CollectorState.RUNNING)
    facts = [each for each in sidecar.seen(FileFact) if each.change is FileChange.MODIFIED]
    assert [each.path for each in facts] == [f"{tree}/first"]


@needs_root
def test_executions_lag_as_well(sidecar: Sidecar) -> None:
    os.kill(sidecar.process.pid, signal.SIGSTOP)
    time.sleep(INTERVAL + LIMIT + 0.5)
    os.kill(sidecar.process.pid, signal.SIGCONT)
    paced(sidecar, "processes.executions", CollectorState.LAGGING)
    paced(sidecar, "processes.executions", CollectorState.RUNNING)


@needs_root
@pytest.mark.skipif(not (CPU / "cpu.cfs_quota_us").exists(), reason="takes the cpu controller of cgroups v1")
def test_a_measurer_without_enough_of_a_processor_for_what_happens_says_so(
    sidecar: Sidecar, workload: Workload, tree: Path
) -> None:
    with starved(sidecar.process.pid):
        workload.do(f"for i in range(3000): open('{tree}/' + str(i), 'w').close()")
        paced(sidecar, "files", CollectorState.LAGGING)
    paced(sidecar, "files", CollectorState.RUNNING)


def test_who_keeps_up_says_nothing_of_it(sidecar: Sidecar, workload: Workload, tree: Path) -> None:
    end = time.monotonic() + LIMIT + 2 * INTERVAL + 0.5  # so long it takes to miss a beat that never comes out
    while time.monotonic() < end:
        workload.do(f"open('{tree}/first', 'w').write(str({time.monotonic()}))")
        while (received := sidecar.receive(0.02)) is not None:  # read in time: who does not is told so, rightly
            assert not isinstance(received[0], CollectorFact)


@contextmanager
def starved(pid: int) -> Iterator[None]:
    """Three thousandths of a processor."""
    group = CPU / f"proofbeat-starved-{pid}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text("1000000")
        (group / "cpu.cfs_quota_us").write_text("3000")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (CPU / "cgroup.procs").write_text(str(pid))
        group.rmdir()
