"""A measurer with fewer and fewer capabilities, ambient to an ordinary user: what each run comes to."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from attestation.channel import Covered, Scope
from attestation.coverage import Profile
from attestation.facts import StdioFact
from attestation.means import Means
from proofbeat.doctor.profiles import GIVEN
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, User, Workload

SOMEBODY_ELSE = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")


def holding(capabilities: tuple[str, ...], nobody: User) -> tuple[str, ...]:
    """The command that gives these to an ordinary user, and can never give others."""
    added = ",".join(["-all", *(f"+{each.lower()}" for each in capabilities)])
    return (*nobody.first, f"--bounding-set={added}", f"--inh-caps={added}", f"--ambient-caps={added}")


@needs_root
@pytest.mark.parametrize("capabilities", GIVEN, ids=lambda given: "+".join(given) or "none")
def test_each_set_of_capabilities_comes_to_what_the_page_of_profiles_says(
    capabilities: tuple[str, ...], nobody: User, tree: Path
) -> None:
    profile, refused = GIVEN[capabilities]
    workload = Workload(SOMEBODY_ELSE, nobody.python) if capabilities else nobody.workload()
    try:
        scope = Scope(workload.pid, (str(tree),), deadman=60.0)
        with Sidecar(scope, holding(capabilities, nobody), nobody.python, nobody.sources) as sidecar:
            _, covered = sidecar.settle()
            assert {each.means for each in covered.tried if each.refusal} == refused
            assert {each.means for each in covered.tried} == set(Means)
            assert covered.coverage.profile is profile
    finally:
        workload.end()


@needs_root
def test_a_capability_that_is_only_added_and_not_ambient_gives_an_ordinary_user_nothing(
    nobody: User, tree: Path
) -> None:
    everything = ",".join(["-all", *(f"+{each.lower()}" for each in next(iter(GIVEN)))])
    workload = nobody.workload()
    try:
        first = (*nobody.first, f"--bounding-set={everything}", "sh", "-c", 'exec "$@"', "sh")
        with Sidecar(Scope(workload.pid, (str(tree),)), first, nobody.python, nobody.sources) as sidecar:
            _, covered = sidecar.settle()
            assert {each.refusal for each in covered.tried if each.means is Means.FILE_EVENTS} == {"EPERM"}
            assert covered.coverage.profile is Profile.RESTRICTED
    finally:
        workload.end()


def test_every_means_that_an_ordinary_user_lacks_is_named_with_the_kernels_refusal(nobody: User, tree: Path) -> None:
    workload = nobody.workload()
    try:
        if os.geteuid() == 0:
            os.chown(tree, 65534, 65534)
        with nobody.sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
            _, covered = sidecar.settle()
            told = {each.means: each.refusal for each in covered.tried}
            assert told[Means.FILE_EVENTS] == "EPERM"
            assert told[Means.FILE_ACCESS] == "EACCES"
            assert told[Means.PROCESS_ACCESS] == ""
    finally:
        workload.end()


@needs_root
@pytest.mark.parametrize("capabilities", [("SYS_PTRACE",), ("SYS_PTRACE", "DAC_READ_SEARCH")], ids="+".join)
def test_another_users_descriptors_take_two_capabilities_and_coverage_says_where_they_are_not_seen(
    capabilities: tuple[str, ...], nobody: User, tree: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as out:
        workload = Workload(SOMEBODY_ELSE, nobody.python, also=[out.fileno()])
        scope = Scope(workload.pid, (str(tree),), deadman=60.0)
        with Sidecar(scope, holding(capabilities, nobody), nobody.python, nobody.sources) as sidecar:
            sidecar.settle()
            workload.do(f"subprocess.Popen(['sh', '-c', 'read line'], stdin={out.fileno()})")
            if "DAC_READ_SEARCH" in capabilities:
                assert sidecar.expect(StdioFact).descriptors == (0,)
            else:
                covered = sidecar.expect(
                    Covered, lambda each: any("may not be seen" in one.detail for one in each.coverage.collectors)
                )
                assert not sidecar.seen(StdioFact)
                assert covered.coverage.profile is Profile.RESTRICTED
        workload.end()
