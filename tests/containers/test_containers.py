"""Workloads in real containers, measured from the host, by a node's measurer, and from a container beside them."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from attestation.channel import Covered, Scope
from attestation.coverage import Profile
from attestation.facts import CollectorFact, ExecutionFact, FileChange, FileFact, InstanceFact, ProcessFact, RefusalFact
from attestation.layers import Layer
from tests.containers.conftest import APP, PLACES, Measuring
from tests.containers.podman import BUSYBOX, FULL, Beside, Container, refusal
from tests.system.measurer.gates import order, until
from tests.system.measurer.stage import Sidecar

BUSYBOX_DIGEST = hashlib.sha256(BUSYBOX.read_bytes()).hexdigest()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def change(sidecar: Sidecar, path: str, digest: str, what: FileChange = FileChange.MODIFIED) -> FileFact:
    return sidecar.expect(
        FileFact, lambda each: (each.path, each.change, each.digest) == (path, what, digest), seconds=15.0
    )


def execution(sidecar: Sidecar, path: str) -> ExecutionFact:
    return sidecar.expect(ExecutionFact, lambda each: each.path == path, seconds=15.0)


def test_files_and_programs_are_named_as_the_workload_sees_them(workload: Container, measuring: Measuring) -> None:
    with measuring(workload) as sidecar:
        sidecar.settle()
        workload.do(f"printf changed > {APP}/first")
        change(sidecar, f"{APP}/first", sha256("changed"))
        workload.do(f"rm {APP}/second")
        change(sidecar, f"{APP}/second", "", FileChange.REMOVED)
        workload.do("cp /bin/busybox /tmp/busybox; /tmp/busybox sleep 0.3")
        fact = execution(sidecar, "/tmp/busybox")
        assert (fact.digest, fact.deleted) == (BUSYBOX_DIGEST, False)
        assert not sidecar.seen(CollectorFact)


def test_an_executed_command_is_seen_though_it_descends_from_the_engine_and_the_engine_is_no_execution(
    workload: Container, measuring: Measuring
) -> None:
    with measuring(workload) as sidecar:
        sidecar.settle()
        workload.execute("/bin/sleep", "0.3")
        assert execution(sidecar, "/bin/busybox").digest == BUSYBOX_DIGEST
        time.sleep(2.5)  # who came in and stayed what it was is told after two seconds: nobody did
        sidecar.files()
        assert {each.path for each in sidecar.seen(ExecutionFact)} == {"/bin/busybox"}
        assert not sidecar.seen(ProcessFact)


@pytest.mark.parametrize("place", ["host", "beside-full"])
def test_a_pid_is_told_as_the_measurer_numbers_it_and_as_the_workload_does(workload: Container, place: str) -> None:
    with PLACES[place](workload) as sidecar:
        sidecar.settle()
        workload.do("cp /bin/busybox /tmp/busybox; /tmp/busybox sleep 0.5")
        fact = execution(sidecar, "/tmp/busybox")
        if place == "host":
            assert 1 < fact.pid_inside < fact.process.pid
        else:
            assert fact.pid_inside == 0


@pytest.mark.parametrize(
    ("place", "profile"),
    [
        ("host", Profile.FULL),
        ("beside-full", Profile.FULL),
        ("beside-restricted", Profile.RESTRICTED),
    ],
)
def test_each_place_comes_to_a_profile(workload: Container, place: str, profile: Profile) -> None:
    with PLACES[place](workload) as sidecar:
        _, covered = sidecar.settle()
        assert covered.coverage.profile is profile
        assert covered.coverage.isolation.shared_pid_namespace is (place != "host")


def test_without_a_single_capability_the_kernel_shows_nothing_of_it_and_that_is_said(workload: Container) -> None:
    with (
        Beside(Scope(0, (APP,)), workload, (), "--user=65534") as sidecar,
        pytest.raises(AssertionError, match="root folder cannot be opened"),
    ):
        sidecar.settle()


def test_a_read_only_root_is_measured_and_what_lies_on_its_tmpfs_as_well(measuring: Measuring) -> None:
    with Container("--read-only", "--tmpfs=/run:rw,exec,size=4m") as workload, measuring(workload) as sidecar:
        sidecar.settle()
        workload.do("cp /bin/busybox /run/busybox; /run/busybox sleep 0.3")
        assert execution(sidecar, "/run/busybox").digest == BUSYBOX_DIGEST


def test_a_workload_in_a_user_namespace_of_its_own_is_measured(measuring: Measuring) -> None:
    mapped = ("--uidmap=0:100000:65536", "--gidmap=0:100000:65536")
    why = refusal(*mapped)
    if why:
        pytest.skip(f"no user namespaces here: {why}")
    with Container(*mapped) as workload, measuring(workload) as sidecar:
        sidecar.settle()
        workload.do(f"printf changed > {APP}/first")
        change(sidecar, f"{APP}/first", sha256("changed"))
        workload.do("cp /bin/busybox /tmp/busybox; /tmp/busybox sleep 0.3")
        execution(sidecar, "/tmp/busybox")


def test_what_another_container_writes_into_a_shared_volume_is_told(measuring: Measuring, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "shared").write_text("one")
    shared = f"--volume={tmp_path}/app:{APP}"
    with Container(shared) as workload, Container(shared) as other, measuring(workload) as sidecar:
        sidecar.settle()
        other.do(f"printf theirs > {APP}/shared")
        change(sidecar, f"{APP}/shared", sha256("theirs"))
        other.do("cp /bin/busybox /tmp/theirs; /tmp/theirs true || true")
        sidecar.files()
        assert not sidecar.seen(ExecutionFact), "what the other executes is none of this workload's"


@pytest.mark.parametrize("place", ["host", "host-by-descent"])
def test_a_container_that_is_started_again_is_another_instance(workload: Container, place: str) -> None:
    with PLACES[place](workload) as sidecar:
        before, _ = sidecar.settle()
        workload.restart()
        sidecar.expect(InstanceFact)
    with PLACES[place](workload) as sidecar:
        after, _ = sidecar.settle()
    assert after.instance != before.instance


def test_a_write_into_the_layer_below_is_found_by_the_next_measurement(
    workload: Container, measuring: Measuring
) -> None:
    """Past the overlay: its folders are marked, not those that it is made of, so no event tells it."""
    workload.do(f"printf mine > {APP}/first")
    with measuring(workload) as sidecar:
        sidecar.settle()
        (workload.upper / APP.lstrip("/") / "first").write_text("past the overlay")
        sidecar.files()
        assert sha256("past the overlay") in {each.digest for each in sidecar.seen(FileFact)}


def test_a_folder_hidden_by_a_mount_is_found_out(measuring: Measuring) -> None:
    mighty = Container("--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined")
    with mighty as workload, measuring(workload) as sidecar:
        sidecar.settle()
        workload.do(f"mount -t tmpfs none {APP}")
        change(sidecar, f"{APP}/first", "", FileChange.REMOVED)


def test_what_one_container_does_is_no_fact_of_another(workload: Container, measuring: Measuring) -> None:
    with Container() as other, measuring(workload) as sidecar:
        sidecar.settle()
        other.do(f"printf theirs > {APP}/first; cp /bin/busybox /tmp/busybox; /tmp/busybox sleep 0.1")
        sidecar.files()
        assert not sidecar.seen(FileFact)
        assert not sidecar.seen(ExecutionFact)


def test_a_cgroup_is_known_by_name_where_no_mount_of_ours_shows_it(workload: Container) -> None:
    scope = Scope(0, (APP,), cgroup=workload.cgroup, deadman=60.0)
    with Beside(scope, workload, FULL, "--cgroupns=host") as sidecar:
        sidecar.settle()
        workload.execute("/bin/sleep", "0.3")
        assert execution(sidecar, "/bin/busybox").digest == BUSYBOX_DIGEST
        assert Layer.FILES in {each.layer for each in sidecar.seen(Covered)[-1].coverage.collectors}


def test_a_gate_refuses_what_is_foreign_in_the_container_and_in_what_is_executed_in_it(
    workload: Container, measuring: Measuring, request: pytest.FixtureRequest
) -> None:
    with measuring(workload) as sidecar:
        sidecar.settle()
        order(sidecar, BUSYBOX)
        if "restricted" in request.node.name:
            assert "no mount can be marked" in until(sidecar, stands=False).detail
            return
        assert until(sidecar, stands=True).detail == ""
        workload.do("mkdir /tmp/a /tmp/b; cp /bin/busybox /tmp/a; cp /bin/busybox /tmp/b; printf x >> /tmp/b/busybox")
        workload.do("/tmp/a/busybox touch /tmp/ran; test -e /tmp/ran || exit")
        workload.do("/tmp/b/busybox touch /tmp/never 2>/tmp/why; test -e /tmp/never && exit")
        workload.do("case $(cat /tmp/why) in *permitted*) ;; *) exit ;; esac")
        told = sidecar.expect(RefusalFact, lambda each: each.path == "/tmp/b/busybox")
        assert told.digest == hashlib.sha256(BUSYBOX.read_bytes() + b"x").hexdigest()
        assert told.process.executable == "/bin/busybox"
        workload.execute("/bin/true")
        with pytest.raises(AssertionError, match="permitted"):
            workload.execute("/tmp/b/busybox", "true")
        sidecar.expect(RefusalFact, lambda each: each.path == "/tmp/b/busybox")
        workload.do("true")
