"""The kernel says who belongs: what only its programs see, who comes in from outside, what is told when it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestation.channel import Covered, Scope
from attestation.coverage import EXECUTIONS, Coverage, Mechanism, Profile
from attestation.facts import CollectorFact, CollectorState, ExecutionFact, ProcessAspect, ProcessFact
from attestation.means import Means
from measurer.heartbeat import INTERVAL, LIMIT
from measurer.processes.connector import Connector
from tests.system.measurer.conftest import WITHOUT_CONNECTOR, WITHOUT_PROGRAMS, needs_root
from tests.system.measurer.pods import Pod, inside
from tests.system.measurer.stage import Sidecar, Workload
from tests.system.measurer.test_executions import digest, foreign
from tests.system.measurer.test_scope import lasting

pytestmark = needs_root


@pytest.fixture
def sidecar(workload: Workload, tree: Path) -> Iterator[Sidecar]:
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=60.0)) as running:
        running.settle()
        yield running


def told(sidecar: Sidecar, program: Path) -> ExecutionFact:
    return sidecar.expect(ExecutionFact, lambda each: (each.path, each.digest) == (str(program), digest(program)))


def mechanism(coverage: Coverage) -> Mechanism:
    return next(each.mechanism for each in coverage.collectors if each.name == EXECUTIONS)


def wakes(pid: int) -> int:
    """How often any of its threads has waited."""
    texts = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/status")]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("voluntary_ctxt_switches")]
    return sum(int(line.split()[1]) for line in lines)


@pytest.mark.parametrize(
    ("first", "expected", "lacking"),
    [
        ((), Mechanism.BPF, frozenset()),
        (WITHOUT_CONNECTOR, Mechanism.BPF, {Means.PROCESS_EVENTS}),
        (WITHOUT_PROGRAMS, Mechanism.PROC_CONNECTOR, {Means.KERNEL_PROGRAMS}),
        ((*WITHOUT_CONNECTOR, *WITHOUT_PROGRAMS), Mechanism.FANOTIFY, {Means.KERNEL_PROGRAMS, Means.PROCESS_EVENTS}),
    ],
    ids=["both", "programs", "connector", "neither"],
)
def test_the_best_source_there_is_is_taken_and_coverage_says_which(
    first: tuple[str, ...], expected: Mechanism, lacking: frozenset[Means], workload: Workload, tree: Path
) -> None:
    with Sidecar(Scope(workload.pid, (str(tree),)), first) as sidecar:
        _, covered = sidecar.settle()
        assert mechanism(covered.coverage) is expected
        refused = {each.means for each in covered.tried if each.refusal}
        assert refused & {Means.KERNEL_PROGRAMS, Means.PROCESS_EVENTS} == lacking
        full = Profile.CONTAINED if expected is Mechanism.FANOTIFY else Profile.FULL
        assert covered.coverage.profile is full


def test_in_a_pod_a_program_of_a_millisecond_is_told_with_its_digest_and_one_of_the_host_is_not(
    tree: Path, elsewhere: Path
) -> None:
    with Pod() as pod:
        workload = pod.workload()
        try:
            with Sidecar(Scope(inside(workload), (str(tree),), deadman=60.0), pod.inside) as sidecar:
                _, covered = sidecar.settle()
                assert covered.coverage.profile is Profile.FULL
                assert {each.means for each in covered.tried if each.refusal} >= {Means.PROCESS_EVENTS}
                theirs, wanted = foreign(elsewhere, "theirs"), []
                for number in range(50):
                    program = foreign(elsewhere, f"ours{number}")
                    subprocess.run([theirs], check=True)
                    workload.do(f"subprocess.run(['{program}'])")
                    wanted.append((str(program), digest(program)))
                sidecar.expect(ExecutionFact, lambda each: (each.path, each.digest) == wanted[-1])
                facts = sidecar.seen(ExecutionFact)
                assert [(each.path, each.digest) for each in facts] == wanted
                assert {each.process.parent for each in facts} == {inside(workload)}, "by the pod's own numbers"
        finally:
            workload.end()


@pytest.mark.parametrize("first", [(), WITHOUT_CONNECTOR], ids=["beside-the-connector", "alone"])
def test_what_others_fork_and_execute_wakes_nobody(first: tuple[str, ...], workload: Workload, tree: Path) -> None:
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=60.0), first) as sidecar:
        sidecar.settle()
        before = wakes(sidecar.process.pid)
        line = "import subprocess\nfor _ in range(300): subprocess.run(['/bin/true'])"
        subprocess.run([sys.executable, "-c", line], check=True)
        assert wakes(sidecar.process.pid) - before < 100, "300 were forked, executed and ended"


# Who comes in from outside.


def groups() -> list[Path]:
    """A cgroup file system of each version that there is."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found: dict[str, Path] = {}
    for words in lines:
        kind = words[words.index("-") + 1]
        usable = kind == "cgroup2" or (kind == "cgroup" and words[4].endswith(("pids", "freezer")))
        if usable and os.access(words[4], os.W_OK):
            found.setdefault(kind, Path(words[4]))
    return list(found.values())


@contextmanager
def group(mount: Path) -> Iterator[Path]:
    made = mount / f"marked-{os.getpid()}"
    made.mkdir()
    try:
        yield made
    finally:
        made.rmdir()


@contextmanager
def scoped(made: Path, mount: Path, tree: Path) -> Iterator[tuple[Workload, Sidecar]]:
    workload = Workload()
    try:
        (made / "cgroup.procs").write_text(str(workload.pid))
        scope = Scope(workload.pid, (str(tree),), cgroup=f"/{made.relative_to(mount)}", deadman=60.0)
        with Sidecar(scope) as sidecar:
            sidecar.settle()
            yield workload, sidecar
    finally:
        workload.end()


@pytest.mark.parametrize("mount", groups(), ids=lambda each: each.name)
def test_who_is_moved_into_the_cgroup_and_lives_for_a_millisecond_there_is_told_each_time(
    mount: Path, tree: Path, elsewhere: Path
) -> None:
    with group(mount) as made, scoped(made, mount, tree) as (_, sidecar):
        wanted = []
        for number in range(20):
            program = foreign(elsewhere, f"visitor{number}")
            subprocess.run(["sh", "-c", f"echo $$ > {made}/cgroup.procs; exec {program}"], check=True)
            wanted.append(str(program))
        told(sidecar, program)
        paths = [each.path for each in sidecar.seen(ExecutionFact)]
        assert [path for path in paths if path in wanted] == wanted


def test_who_is_moved_below_the_cgroup_and_leaves_it_again_stays_a_member_with_all_that_it_makes(
    tree: Path, elsewhere: Path
) -> None:
    mount = groups()[0]
    with group(mount) as made, scoped(made, mount, tree) as (_, sidecar):
        below = made / "below"
        below.mkdir()
        try:
            program = foreign(elsewhere, "guest")
            act = f"echo $$ > {below}/cgroup.procs; echo $$ > {mount}/cgroup.procs; (setsid {program} &) & wait"
            subprocess.run(["sh", "-c", act], check=True)
            told(sidecar, program)
        finally:
            below.rmdir()


INTO = """
import ctypes, os, struct, sys
group = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
told = ctypes.create_string_buffer(struct.pack('=11Q', 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, group))
child = ctypes.CDLL(None, use_errno=True).syscall(435, told, 88)
assert child >= 0, ctypes.get_errno()
if child == 0:
    os.execv(sys.argv[2], ['x'])
os.waitpid(child, 0)
"""


def test_who_is_made_in_the_cgroup_by_somebody_outside_is_told(tree: Path, elsewhere: Path) -> None:
    """clone3(2) with CLONE_INTO_CGROUP: nobody is moved."""
    mount = next((each for each in groups() if (each / "cgroup.controllers").exists()), None)
    if mount is None:
        pytest.skip("needs a cgroup2 mount")
    with group(mount) as made, scoped(made, mount, tree) as (_, sidecar):
        program = foreign(elsewhere, "cloned")
        subprocess.run([sys.executable, "-c", INTO, str(made), str(program)], check=True)
        told(sidecar, program)


def test_who_enters_a_containers_mounts_and_executes_something_is_a_member_with_all_that_it_makes(
    tree: Path, elsewhere: Path
) -> None:
    container = Workload(["unshare", "--mount"])
    try:
        with Sidecar(Scope(container.pid, (str(tree),), deadman=60.0)) as sidecar:
            sidecar.settle()
            for number in range(10):
                program = foreign(elsewhere, f"entered{number}")
                enter = ["nsenter", f"--target={container.pid}", "--mount", "--", "sh", "-c"]
                subprocess.run([*enter, f"(setsid {program} &) & wait"], check=True)
                told(sidecar, program)
    finally:
        container.end()


# What only the maker's mark tells.


@pytest.mark.parametrize("first", [(), WITHOUT_CONNECTOR], ids=["beside-the-connector", "alone"])
def test_a_process_made_sideways_in_another_session_by_an_orphan_of_another_session_is_in_scope(
    first: tuple[str, ...], workload: Workload, tree: Path, elsewhere: Path
) -> None:
    """Nothing but its maker makes it ours: neither a parent nor a session nor a cgroup."""
    program = foreign(elsewhere, "escaped")
    workload.do("import ctypes")
    workload.do("clone = lambda: ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0)")
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=60.0), first) as sidecar:
        sidecar.settle()
        fork = f"os.fork() or (os.setsid(), clone() or (os.setsid(), os.execv('{program}', ['x'])), os._exit(0))"
        workload.do(f"os.fork() or ({fork}, os._exit(0)); os.wait()")
        told(sidecar, program)


def test_a_program_in_a_memfd_is_not_hidden_by_a_file_that_was_opened_before_and_could_not_run(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    """The kernel says that what was executed has no name; the file that was opened had one."""
    broken = elsewhere / "broken"
    broken.write_text("no program")
    broken.chmod(0o755)
    workload.do("held = os.memfd_create('x'); os.write(held, open('/bin/true', 'rb').read())")
    workload.do("from contextlib import suppress")
    child = (
        f"exec(\"with suppress(OSError): os.execv('{broken}', ['x'])\\nos.execv('/proc/self/fd/%d' % held, ['x'])\")"
    )
    os.kill(sidecar.process.pid, signal.SIGSTOP)
    workload.do(f"os.fork() or {child}; os.wait()")
    os.kill(sidecar.process.pid, signal.SIGCONT)
    assert sidecar.expect(ExecutionFact, lambda each: each.deleted).path == ""


@pytest.mark.parametrize("first", [(), WITHOUT_CONNECTOR], ids=["beside-the-connector", "alone"])
def test_a_tracer_that_detaches_in_time_is_told(first: tuple[str, ...], workload: Workload, tree: Path) -> None:
    act = (
        f"import ctypes, os; trace = ctypes.CDLL(None).ptrace; assert trace(16, {workload.pid}, 0, 0) == 0;"
        f"os.waitpid({workload.pid}, 0x40000000); trace(17, {workload.pid}, 0, 0)"
    )
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=60.0), first) as sidecar:
        sidecar.settle()
        tracer = subprocess.Popen([sys.executable, "-c", act])
        assert tracer.wait(10) == 0
        fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.TRACER)
        assert fact.after.split()[0] == str(tracer.pid)


def test_who_goes_on_to_look_into_it_is_no_flood(tree: Path, elsewhere: Path) -> None:
    """A debugger waits for it at each of its calls; some make ten thousand a second."""
    at, workload = elsewhere / "at", Workload()
    workload.do("import ctypes; kept = ctypes.create_string_buffer(64)")
    workload.do(f"open({str(at)!r}, 'w').write(str(ctypes.addressof(kept)))")
    try:
        with Sidecar(Scope(workload.pid, (str(tree),), deadman=60.0), WITHOUT_CONNECTOR) as sidecar:
            sidecar.settle()
            os.kill(sidecar.process.pid, signal.SIGSTOP)
            subprocess.run([sys.executable, "-c", PEEK, str(workload.pid), at.read_text()], check=True)
            os.kill(sidecar.process.pid, signal.SIGCONT)
            sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.TRACER)
            program = foreign(elsewhere, "after")
            workload.do(f"subprocess.run(['{program}'])")
            told(sidecar, program)
            assert CollectorState.OVERFLOWED not in {each.state for each in sidecar.seen(CollectorFact)}
    finally:
        workload.end()


PEEK = """
import ctypes, os, sys
libc, pid, at = ctypes.CDLL(None), int(sys.argv[1]), int(sys.argv[2])
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
assert libc.ptrace(16, pid, None, None) == 0
os.waitpid(pid, 0x40000000)
for _ in range(40000): libc.ptrace(2, pid, at, None)
libc.ptrace(17, pid, None, None)
"""


# What is lost, and who does not keep up.

FORKS = """
import ctypes, os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
libc = ctypes.CDLL(None)
for _ in range({count}):
    if libc.syscall({fork}) == 0: libc.syscall({exit}, 0)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
"""
ORPHAN = """
import os, sys
executed, executing = os.pipe()
if os.fork():
    os.close(executing)
    os.read(executed, 1)
    os._exit(0)
os.setsid()
os.execv(sys.argv[1], ['x', '60'])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="by x86's numbers of calls")
def test_more_forks_than_there_is_room_for_are_told_as_lost_and_who_lives_by_then_is_a_member(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    orphan = lasting(elsewhere, "orphan")
    os.kill(sidecar.process.pid, signal.SIGSTOP)
    workload.do(f"exec({FORKS.format(count=16000, fork=57, exit=60)!r})")
    # Its fork is lost, and it is nobody's child by the time that anybody looks.
    workload.do(f"subprocess.run([sys.executable, '-c', {ORPHAN!r}, '{orphan}'])")
    os.kill(sidecar.process.pid, signal.SIGCONT)
    lost = sidecar.expect(CollectorFact, lambda each: each.state is CollectorState.OVERFLOWED)
    assert lost.collector == EXECUTIONS
    os.kill(told(sidecar, orphan).process.pid, signal.SIGKILL)
    program = foreign(elsewhere, "after")
    workload.do(f"subprocess.run(['{program}'])")
    told(sidecar, program)
    covered = sidecar.seen(Covered)[-1].coverage
    assert next(each.lost for each in covered.collectors if each.name == EXECUTIONS) > 0


def test_forks_of_others_fill_no_room(sidecar: Sidecar, workload: Workload, elsewhere: Path) -> None:
    os.kill(sidecar.process.pid, signal.SIGSTOP)
    subprocess.run([sys.executable, "-c", FORKS.format(count=16000, fork=57, exit=60)], check=True)
    os.kill(sidecar.process.pid, signal.SIGCONT)
    program = foreign(elsewhere, "after")
    workload.do(f"subprocess.run(['{program}'])")
    told(sidecar, program)
    overflowed = [each for each in sidecar.seen(CollectorFact) if each.state is CollectorState.OVERFLOWED]
    assert overflowed == []


def test_a_measurer_whose_heartbeat_does_not_come_out_of_the_kernel_says_so(sidecar: Sidecar) -> None:
    """Its heartbeat is a thread of its own: where it may make none, none is told. That others subscribe to the
    connector, of which it tells all who listen, is none.
    """
    mount = next((each for each in map(Path, ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")) if _counts(each)), None)
    if mount is None:
        pytest.skip("needs the controller of pids")
    with group(mount) as made:
        (made / "pids.max").write_text("1")
        (made / "cgroup.procs").write_text(str(sidecar.process.pid))
        try:
            end = time.monotonic() + INTERVAL + LIMIT + 1.0
            while time.monotonic() < end and not any(isinstance(each, CollectorFact) for each, _ in sidecar.inbox):
                Connector().close()
                received = sidecar.receive(0.2)
                sidecar.inbox += [received] if received is not None else []
            assert {each.state for each in sidecar.seen(CollectorFact)} == {CollectorState.LAGGING}
            (made / "pids.max").write_text("max")
            sidecar.expect(CollectorFact, lambda each: each.state is CollectorState.RUNNING, 20.0)
        finally:
            (mount / "cgroup.procs").write_text(str(sidecar.process.pid))


def _counts(mount: Path) -> bool:
    if mount.name == "pids":
        return mount.is_dir()
    controlled = mount / "cgroup.subtree_control"
    return controlled.exists() and "pids" in controlled.read_text().split()
