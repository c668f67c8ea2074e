"""Whatever a process does to get out of sight, it stays in scope: each attack a real program on this kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestation import processes
from attestation.channel import Covered, Measure, Observed, Scope
from attestation.coverage import Coverage
from attestation.facts import ExecutionFact, ProcessAspect, ProcessFact
from attestation.layers import Layer
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, User, Workload
from tests.system.measurer.test_executions import digest, foreign

pytestmark = needs_root

SIDEWAYS = """
import ctypes, os
def sideways(act):
    '''clone(2) with CLONE_PARENT: the new process is our parent's child, and not ours.'''
    if ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0) == 0:
        act()
        os._exit(0)
def orphaned(act):
    '''Fork twice and lose the one in between.'''
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        return
    if os.fork():
        os._exit(0)
    while os.getppid() != 1: pass
    act()
    os._exit(0)
"""


@pytest.fixture
def sidecar(workload: Workload, tree: Path, source: tuple[str, ...]) -> Iterator[Sidecar]:
    workload.do(f"exec({SIDEWAYS!r}, globals())")
    with Sidecar(Scope(workload.pid, (str(tree),)), source) as running:
        running.settle()
        yield running


def told(sidecar: Sidecar, program: Path) -> ExecutionFact:
    return sidecar.expect(ExecutionFact, lambda each: (each.path, each.digest) == (str(program), digest(program)))


@pytest.mark.parametrize(
    "way",
    [
        "sideways({act})",
        "orphaned(lambda: sideways({act}))",
        "orphaned(lambda: (os.setsid(), sideways({act})))",
        "sideways(lambda: sideways({act}))",
        "orphaned({act})",
        "orphaned(lambda: (os.setsid(), os.execv('/bin/sh', ['sh', '-c', 'setsid {program} & exit'])))",
    ],
    ids=["its parent's child", "init's child", "of another session", "twice", "orphan", "daemon"],
)
def test_a_process_that_is_made_under_another_parent_is_in_scope(
    way: str, sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    program = foreign(elsewhere, "escaped")
    workload.do(way.format(program=program, act=f"lambda: os.execv('{program}', ['x'])"))
    told(sidecar, program)


def lasting(folder: Path, name: str) -> Path:
    """A program that runs for as many seconds as it is told: the first in mounts that are not marked yet."""
    path = folder / name
    path.write_bytes(Path("/bin/sleep").read_bytes() + name.encode())
    path.chmod(0o755)
    return path


def test_a_process_in_another_pid_namespace_is_in_scope_and_its_namespace_is_told(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    program = lasting(elsewhere, "unshared")
    workload.begin(f"subprocess.run(['unshare', '--pid', '--fork', '--mount-proc', 'sh', '-c', '{program} 1; true'])")
    told(sidecar, program)
    workload.done()
    last(sidecar, workload, elsewhere)
    spaces = [fact for fact in sidecar.seen(ProcessFact) if fact.aspect is ProcessAspect.NAMESPACES]
    assert any(pid_namespace(fact.before) != pid_namespace(fact.after) for fact in spaces)


def last(sidecar: Sidecar, workload: Workload, folder: Path) -> None:
    """All that was to be told until now is in the inbox."""
    program = foreign(folder, "last")
    workload.do(f"subprocess.run(['{program}'])")
    told(sidecar, program)


def pid_namespace(links: str) -> str:
    return next(link for link in links.split() if link.startswith("pid:"))


def test_a_process_that_enters_the_namespaces_of_another_container_is_in_scope_and_told(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    container = Workload(["unshare", "--net", "--uts", "--mount", "--pid", "--fork"])
    try:
        program = lasting(elsewhere, "visitor")
        enter = ["nsenter", "--net", "--uts", "--mount", f"--target={container.pid}", "sh", "-c", f"{program} 1; true"]
        workload.do(f"subprocess.run({enter!r})")
        told(sidecar, program)
        last(sidecar, workload, elsewhere)
        assert ProcessAspect.NAMESPACES in {fact.aspect for fact in sidecar.seen(ProcessFact)}
    finally:
        container.end()


def test_a_process_that_leaves_the_cgroup_is_told_within_seconds_and_followed_with_all_that_it_makes(
    group: Path, workload: Workload, tree: Path, elsewhere: Path
) -> None:
    (group / "cgroup.procs").write_text(str(workload.pid))
    try:
        with Sidecar(Scope(workload.pid, (str(tree),), cgroup=f"/{group.name}")) as sidecar:
            sidecar.settle()
            workload.do(f"open('{group.parent}/cgroup.procs', 'w').write('0')")
            left = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.SCOPE)
            assert (left.process.pid, left.after) == (workload.pid, "outside")
            program = foreign(elsewhere, "outside")
            workload.do(f"subprocess.run(['sh', '-c', '{program}; true'])")
            told(sidecar, program)
            assert len([fact for fact in sidecar.seen(ProcessFact) if fact.aspect is ProcessAspect.SCOPE]) == 1
    finally:
        workload.end()


def test_a_process_that_is_moved_into_the_cgroup_and_executes_nothing_is_told_with_what_it_runs(
    group: Path, workload: Workload, tree: Path, elsewhere: Path
) -> None:
    (group / "cgroup.procs").write_text(str(workload.pid))
    program = lasting(elsewhere, "visitor")
    visitor = subprocess.Popen([program, "60"])
    try:
        with Sidecar(Scope(workload.pid, (str(tree),), cgroup=f"/{group.name}")) as sidecar:
            sidecar.settle()
            (group / "cgroup.procs").write_text(str(visitor.pid))
            assert told(sidecar, program).process.pid == visitor.pid
    finally:
        visitor.kill()
        visitor.wait()
        workload.end()


def test_a_process_that_cannot_be_read_is_a_fact(nobody: User, tree: Path) -> None:
    workload = nobody.workload()
    try:
        with nobody.sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
            sidecar.settle()
            workload.do("import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)")
            fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.UNMEASURED)
            assert (fact.process.pid, fact.before) == (workload.pid, "no")
            assert "cannot be read" in fact.after
    finally:
        workload.end()


def test_beyond_the_descriptors_there_are_processes_are_told_apart_by_their_start_and_coverage_says_so(
    workload: Workload, tree: Path
) -> None:
    with Sidecar(Scope(workload.pid, (str(tree),)), first=("prlimit", "--nofile=160:160")) as sidecar:
        sidecar.settle()
        workload.do("kept = [subprocess.Popen(['sleep', '60']) for _ in range(100)]")
        sidecar.send(Measure((Layer.PROCESSES,), 0.0, True))
        _, body = sidecar.expect_with_body(Observed, lambda each: each.has_body)
        assert body is not None
        assert os.path.realpath("/bin/sleep") in {kind.executable for kind in processes.unpack(body)}
        assert any("beyond 53 processes held" in details(each.coverage) for each in sidecar.seen(Covered))
        workload.do("[each.kill() or each.wait() for each in kept]")


def details(coverage: Coverage) -> str:
    return "; ".join(each.detail for each in coverage.collectors)


def test_an_interpreter_of_ours_makes_no_process_of_somebody_elses_one_of_the_workload(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    """We are the first process's parent, and run what it runs."""
    theirs, ours = foreign(elsewhere, "theirs"), foreign(elsewhere, "ours")
    for _ in range(5):
        subprocess.run([sys.executable, "-c", f"import subprocess; subprocess.run(['{theirs}'])"], check=True)
    workload.do(f"subprocess.run(['{ours}'])")
    told(sidecar, ours)
    assert {fact.path for fact in sidecar.seen(ExecutionFact)} == {str(ours)}
