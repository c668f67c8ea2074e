"""Which workload a sidecar may have measured by the node's measurer."""

from __future__ import annotations

import pytest

from attestation.errors import InvalidInput
from measurer.grants import ANY, POD, Grant, parse, pods, refusal

POD_A, POD_B = "pod2c48913c-b29f-11e7-9350-020968147796", "pod39f0be4e-b29f-11e7-9350-020968147796"
CGROUPFS = "/kubepods/burstable/{}/{}"
SYSTEMD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{}.slice/cri-containerd-{}.scope"
PODMAN = "/machine.slice/machine-libpod_pod_{}.slice/libpod-{}.scope"
UID = 1337


def text(path: str) -> bytes:
    """/proc/PID/cgroup of a process in it, on a system with both versions."""
    return f"4:memory:{path}\n0::{path}\n".encode()


def refused(sidecar: str, workload: str, granted: str = POD, scope: str | None = None, uid: int = UID) -> str:
    return refusal([Grant(UID, granted)], uid, text(sidecar), text(workload), (0, scope) if scope is not None else None)


@pytest.mark.parametrize(
    ("form", "mine", "other"),
    [
        (CGROUPFS, POD_A, POD_B),
        (SYSTEMD, POD_A.replace("-", "_"), POD_B.replace("-", "_")),
        (PODMAN, "a" * 64, "b" * 64),
    ],
)
def test_a_sidecar_may_name_what_is_in_its_own_pod_and_nothing_else(form: str, mine: str, other: str) -> None:
    sidecar, workload = form.format(mine, "sidecar"), form.format(mine, "app")
    assert refused(sidecar, workload) == ""
    assert refused(sidecar, workload, scope=workload) == ""
    assert refused(sidecar, workload, scope=workload.rpartition("/")[0]) == ""
    assert refused(sidecar, form.format(other, "app"))
    assert refused(sidecar, "/system.slice/sshd.service")
    assert refused(sidecar, "/")


def test_a_cgroup_around_the_pod_is_not_to_be_measured_though_the_workload_lives_in_it() -> None:
    sidecar, workload = CGROUPFS.format(POD_A, "sidecar"), CGROUPFS.format(POD_A, "app")
    for scope in ("/", "/kubepods", "/kubepods/burstable", CGROUPFS.format(POD_B, "app")):
        assert refused(sidecar, workload, scope=scope)


def test_a_cgroup_that_a_container_names_like_another_pod_leads_nowhere() -> None:
    nested = CGROUPFS.format(POD_A, "sidecar") + f"/kubepods/burstable/{POD_B}/app"
    assert refused(nested, CGROUPFS.format(POD_B, "app"))
    assert refused(nested, CGROUPFS.format(POD_A, "app")) == ""
    assert refused(CGROUPFS.format(POD_A, "s"), CGROUPFS.format(POD_A + "0", "app"))


def test_whoever_is_in_another_pod_in_one_hierarchy_is_in_another_pod() -> None:
    sidecar, split = (
        text(CGROUPFS.format(POD_A, "s")),
        b"4:memory:/kubepods/burstable/%s/x\n0::/kubepods/burstable/%s/x\n",
    )
    for first, second in ((POD_A, POD_B), (POD_B, POD_A)):
        workload = split % (first.encode(), second.encode())
        assert refusal([Grant(UID)], UID, sidecar, workload, None)


def test_a_sidecar_outside_of_every_pod_needs_another_grant() -> None:
    here = "/system.slice/app-sidecar.service"
    assert "not pod" in refused(here, "/system.slice/app.service")
    assert refused(here, "/system.slice/app.service", "/system.slice/app.service") == ""
    assert refused(here, "/system.slice/app.service/worker", "/system.slice/app.service") == ""
    assert refused(here, "/system.slice/app.service", "/system.slice/app.service", scope="/system.slice")
    assert refused(here, "/system.slice/application.service", "/system.slice/app.service")
    assert refused(here, "/anything", ANY) == ""


def test_a_user_that_is_granted_nothing_has_nothing_measured() -> None:
    where = CGROUPFS.format(POD_A, "app")
    assert refused(where, where, uid=UID + 1)
    assert refused(where, where, ANY, uid=0)


def test_pods_are_recognised_by_whole_names_only() -> None:
    for path in ("/", "/pod", "/podman/x", f"/x{POD_A}/app", "/kubepods-besteffort.slice", "/machine-libpod_pod_abc"):
        assert pods({0: path}) == {}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1337", Grant(1337, POD)),
        ("1337:pod", Grant(1337, POD)),
        ("0:any", Grant(0, ANY)),
        ("7:/a/b/", Grant(7, "/a/b")),
        ("7:/", Grant(7, ANY)),
    ],
)
def test_a_grant_is_read_as_it_is_written(written: str, meant: Grant) -> None:
    assert parse(written) == meant


@pytest.mark.parametrize("written", ["", "root", "-1", "1:everything", "1:a/b", "1:/a/../b", "4294967296"])
def test_a_grant_that_says_nothing_clear_is_refused(written: str) -> None:
    with pytest.raises(InvalidInput):
        parse(written)
