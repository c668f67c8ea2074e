"""One workload, in a container, and each place from where it can be measured."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from attestation.channel import Scope
from tests.containers.podman import BUSYBOX, FULL, RESTRICTED, Beside, Container, refusal
from tests.system.measurer.nodes import Node
from tests.system.measurer.stage import Sidecar

Measuring = Callable[[Container], AbstractContextManager[Sidecar]]
APP = "/srv/app"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [each for each in ("podman", "runc") if shutil.which(each) is None]
    missing += [] if BUSYBOX.exists() else [str(BUSYBOX)]
    if missing or os.geteuid() != 0:
        raise pytest.UsageError(f"`make test-containers` as root brings {', '.join(missing) or 'what these need'}")


@pytest.fixture(scope="session", autouse=True)
def _containers_run_here() -> None:
    why = refusal()
    if why:
        pytest.skip(f"this kernel, or the container that we are in, runs no containers: {why}")


@pytest.fixture
def workload() -> Iterator[Container]:
    with Container() as running:
        yield running


def _on_the_host(workload: Container) -> AbstractContextManager[Sidecar]:
    return Sidecar(Scope(workload.pid, (APP,), cgroup=workload.cgroup, deadman=60.0))


def _on_the_host_by_descent(workload: Container) -> AbstractContextManager[Sidecar]:
    return Sidecar(Scope(workload.pid, (APP,), deadman=60.0))


def _beside(*options: str, capabilities: tuple[str, ...] = FULL) -> Measuring:
    return lambda workload: Beside(Scope(0, (APP,), deadman=60.0), workload, capabilities, *options)


PLACES: dict[str, Measuring] = {
    "host": _on_the_host,
    "host-by-descent": _on_the_host_by_descent,
    "beside-full": _beside(),
    "beside-full-own-cgroups": _beside("--cgroupns=private"),
    "beside-restricted": _beside(capabilities=RESTRICTED),
}


@pytest.fixture(params=[*PLACES, "node"])
def measuring(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Measuring]:
    """From everywhere, one after the other."""
    if request.param != "node":
        yield PLACES[request.param]
        return
    with Node(tmp_path) as node:
        yield lambda workload: node.sidecar(Scope(workload.pid, (APP,), cgroup=workload.cgroup, deadman=60.0))
