"""Containers whose seccomp profile asks the node's measurer: what a runtime hands over is answered for that."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.calls import NAMES, Watching
from attestation.channel import Calls, Covered, Pinned, Scope
from attestation.facts import CallFact
from tests.containers.podman import LIMITS, PODMAN, Container, image
from tests.system.measurer.nodes import Node
from tests.system.measurer.stage import Sidecar

ASKED = ("mkdir", "mkdirat")
CALLS = Calls(Watching.LEAN, tuple(sorted(NAMES - set(ASKED))), notified=True)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path, options=("--seccomp", str(tmp_path / "seccomp.sock"))) as listening:
        yield listening


@pytest.fixture
def asking(node: Node) -> str:
    """The option that puts a container under a profile which asks for these calls, and lets all others through."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(node.socket.with_name("seccomp.sock")),
        "syscalls": [{"names": list(ASKED), "action": "SCMP_ACT_NOTIFY"}],
    }
    path = node.socket.with_name("profile.json")
    path.write_text(json.dumps(profile))
    return f"--security-opt=seccomp={path}"


@contextmanager
def answered(node: Node, workload: Container, calls: Calls = CALLS) -> Iterator[Sidecar]:
    scope = Scope(workload.pid, ("/srv/app",), cgroup=workload.cgroup, deadman=60.0, calls=calls)
    with node.sidecar(scope) as sidecar:
        sidecar.expect(Pinned)
        sidecar.expect(Covered, lambda each: each.coverage.notified)
        yield sidecar


def test_a_call_that_its_profile_does_not_let_through_is_told_and_goes_on(node: Node, asking: str) -> None:
    with Container(asking) as workload, answered(node, workload) as sidecar:
        workload.do("mkdir /srv/app/new")
        fact = sidecar.expect(CallFact)
        assert (fact.call in ASKED, fact.process.executable, fact.refused) == (True, "/bin/busybox", False)
        workload.do("test -d /srv/app/new || exit 1")


def test_it_is_refused_where_policy_says_so(node: Node, asking: str) -> None:
    with Container(asking) as workload, answered(node, workload, replace(CALLS, refuse=True)) as sidecar:
        workload.do("mkdir /srv/app/new && exit 1")
        assert sidecar.expect(CallFact).refused


def test_a_container_is_answered_again_once_its_sidecar_was_started_again(node: Node, asking: str) -> None:
    with Container(asking) as workload:
        with answered(node, workload):
            pass
        with answered(node, workload) as sidecar:
            workload.do("mkdir /srv/app/new")
            assert sidecar.expect(CallFact).call in ASKED


def test_a_program_that_is_added_to_a_container_has_a_listener_of_its_own_and_is_answered(
    node: Node, asking: str
) -> None:
    with Container(asking) as workload, answered(node, workload) as sidecar:
        workload.execute("/bin/mkdir", "/srv/app/new")
        assert sidecar.expect(CallFact).call in ASKED


def test_of_two_containers_each_sidecar_hears_of_its_own(node: Node, asking: str) -> None:
    refusing = replace(CALLS, refuse=True)
    with (
        Container(asking) as one,
        Container(asking) as other,
        answered(node, one) as sidecar,
        answered(node, other, refusing) as another,
    ):
        one.do("mkdir /srv/app/new")
        assert not sidecar.expect(CallFact).refused
        other.do("mkdir /srv/app/new && exit 1")
        assert another.expect(CallFact).refused
        assert len(sidecar.seen(CallFact)) == 1


def test_a_call_waits_for_the_sidecar_that_is_not_there_yet(node: Node, asking: str) -> None:
    command = [*PODMAN, "run", "--rm", "-d", *LIMITS, asking, image(), "/bin/sh", "-c", "mkdir /srv/app/new; sleep 60"]
    name = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    try:
        found = json.loads(subprocess.run([*PODMAN, "inspect", name], capture_output=True, check=True).stdout)[0]
        pid, cgroup = int(found["State"]["Pid"]), str(found["State"]["CgroupPath"])
        scope = Scope(pid, ("/srv/app",), cgroup=cgroup, deadman=60.0, calls=CALLS)
        with node.sidecar(scope) as sidecar:
            assert sidecar.expect(CallFact).call in ASKED
    finally:
        subprocess.run([*PODMAN, "rm", "-f", "-t", "0", name], capture_output=True, check=False)


def test_a_learned_profile_that_asks_starts_a_container_and_asks_for_what_was_not_learned(
    node: Node, tmp_path: Path
) -> None:
    learn = [sys.executable, "-P", "-m", "proofbeat", "policy", "learn", "box"]
    with Container() as workload:
        options = ["--pid", str(workload.pid), "--cgroup", workload.cgroup, "--for", "2s"]
        listener = ["--listener", str(node.socket.with_name("seccomp.sock"))]
        done = subprocess.run(
            [*learn, *options, *listener, "-o", str(tmp_path / "out")], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    refusing, profile = replace(CALLS, refuse=True), f"--security-opt=seccomp={tmp_path}/out/seccomp.json"
    with Container(profile) as workload, answered(node, workload, refusing) as sidecar:
        workload.do("mkdir /srv/app/new && exit 1")
        assert sidecar.expect(CallFact, lambda each: each.call in ASKED).refused
