"""A measurer without descriptors cannot look: that is never taken for having seen nothing."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from attestation.channel import Fault, Measure, Scope, Sweep
from attestation.facts import ExecutionFact
from attestation.layers import Layer
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Proxy, Sidecar, Workload

pytestmark = needs_root


def exhaust(pid: int) -> None:
    """No descriptor more than it has open."""
    taken = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (next(each for each in range(most) if each not in taken), most))


def test_a_sweep_that_cannot_look_for_want_of_descriptors_ends_the_proxy(
    workload: Workload, proxy: Proxy, tree: Path
) -> None:
    proxy.connect(5)
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0)) as sidecar:
        sidecar.settle()
        sidecar.guard(proxy.pid)
        sidecar.sweep()
        proxy.connect(1)
        exhaust(sidecar.process.pid)
        sidecar.send(Sweep(2))
        assert proxy.process.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize("layer", [Layer.FILES, Layer.PROCESSES])
def test_a_measurement_without_descriptors_is_not_told_and_the_proxy_ends(
    layer: Layer, workload: Workload, proxy: Proxy, tree: Path
) -> None:
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0)) as sidecar:
        sidecar.settle()
        sidecar.guard(proxy.pid)
        sidecar.sweep()
        sidecar.inbox.clear()
        exhaust(sidecar.process.pid)
        sidecar.send(Measure((layer,), 0.0, True))
        said = sidecar.expect(Fault)
        assert "Too many open files" in said.what
        assert len(sidecar.inbox) == 1
        assert proxy.process.wait(5) == -signal.SIGKILL


def test_an_execution_that_could_not_be_looked_at_for_want_of_descriptors_is_no_foreign_program(
    workload: Workload, proxy: Proxy, tree: Path
) -> None:
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0)) as sidecar:
        sidecar.settle()
        sidecar.guard(proxy.pid)
        sidecar.sweep()
        exhaust(sidecar.process.pid)
        workload.do("subprocess.run(['/bin/sleep', '0.1'])")
        assert "Too many open files" in sidecar.expect(Fault).what
        assert [fact for fact in sidecar.seen(ExecutionFact) if not fact.digest] == []
        assert proxy.process.wait(5) == -signal.SIGKILL
