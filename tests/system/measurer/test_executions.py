"""Executions and drift against the real kernel."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestation import processes
from attestation.channel import Fault, Measure, Observed, Pinned, Scope
from attestation.facts import ExecutionFact, InstanceFact, ProcessAspect, ProcessFact, Sighting
from attestation.instance import InstanceId
from attestation.layers import Layer
from measurer.processes.proc import namespaces_at, open_process
from tests.system.measurer.conftest import WITHOUT_PROGRAMS, needs_root
from tests.system.measurer.stage import Sidecar, Workload

pytestmark = needs_root


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def sidecar(workload: Workload, tree: Path, source: tuple[str, ...]) -> Iterator[Sidecar]:
    with Sidecar(Scope(workload.pid, (str(tree),)), source) as running:
        running.settle()
        yield running


def foreign(folder: Path, name: str) -> Path:
    """A short-lived program that is like no other: /bin/true with its name at the end."""
    path = folder / name
    path.write_bytes(Path("/bin/true").read_bytes() + name.encode())
    path.chmod(0o755)
    return path


def test_a_short_lived_foreign_program_is_told_a_hundred_times_out_of_a_hundred(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    wanted = []
    for number in range(100):
        program = foreign(elsewhere, f"program{number}")
        wanted.append((str(program), digest(program)))
        workload.do(f"subprocess.run(['{program}'])")
    sidecar.expect(ExecutionFact, lambda each: (each.path, each.digest) == wanted[-1])
    told = [(fact.path, fact.digest) for fact in sidecar.seen(ExecutionFact)]
    assert told == wanted


def test_an_execution_names_the_process_and_who_forked_it_even_when_it_is_gone(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    program = foreign(elsewhere, "child")
    workload.do(f"subprocess.run(['{program}'])")
    told = sidecar.expect(ExecutionFact, lambda each: each.path == str(program))
    assert told.process.parent == workload.pid


def test_a_burst_of_executions_is_told_completely(sidecar: Sidecar, workload: Workload, elsewhere: Path) -> None:
    program = foreign(elsewhere, "often")
    workload.do(f"subprocess.run(['sh', '-c', 'for n in $(seq 400); do {program}; done'])")
    last = foreign(elsewhere, "last")
    workload.do(f"subprocess.run(['{last}'])")
    sidecar.expect(ExecutionFact, lambda each: each.path == str(last))
    assert [fact.path for fact in sidecar.seen(ExecutionFact)].count(str(program)) == 400


def test_the_child_of_a_child_that_has_ended_is_still_the_workload(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    program = foreign(elsewhere, "orphan")
    workload.do(f"subprocess.run(['sh', '-c', '(setsid {program} &) & exit 0'])")
    assert sidecar.expect(ExecutionFact, lambda each: each.path == str(program)).digest == digest(program)


def test_a_script_is_told_as_well_as_its_interpreter(sidecar: Sidecar, workload: Workload, elsewhere: Path) -> None:
    script = elsewhere / "script"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    workload.do(f"subprocess.run(['{script}'])")
    fact = sidecar.expect(ExecutionFact, lambda each: each.path == str(script))
    assert (fact.digest, fact.sighting, fact.deleted) == (digest(script), Sighting.EVENT, False)
    shell = Path(os.path.realpath("/bin/sh"))
    assert sidecar.expect(ExecutionFact, lambda each: each.path == str(shell)).digest == digest(shell)


def test_a_program_that_deletes_its_file_before_it_runs_is_told_as_deleted(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    program = foreign(elsewhere, "gone")
    wanted = digest(program)
    workload.do(f"held = os.open('{program}', os.O_RDONLY); os.unlink('{program}')")
    workload.do("subprocess.run(['/proc/self/fd/%d' % held], pass_fds=[held])")
    assert sidecar.expect(ExecutionFact, lambda each: each.digest == wanted).deleted


def test_a_program_in_a_memfd_is_told_as_deleted(sidecar: Sidecar, workload: Workload) -> None:
    workload.do("held = os.memfd_create('x'); os.write(held, open('/bin/sleep', 'rb').read())")
    workload.do("subprocess.Popen(['/proc/self/fd/%d' % held, '5'], pass_fds=[held])")
    fact = sidecar.expect(ExecutionFact, lambda each: each.deleted)
    assert fact.digest in (digest(Path("/bin/sleep")), "")


def test_a_memfd_program_that_is_gone_at_once_is_told_without_a_name(sidecar: Sidecar, workload: Workload) -> None:
    workload.do("held = os.memfd_create('x'); os.write(held, open('/bin/true', 'rb').read())")
    for _ in range(20):
        workload.do("subprocess.run(['/proc/self/fd/%d' % held], pass_fds=[held])")
    for _ in range(20):
        fact = sidecar.expect(ExecutionFact, lambda each: each.deleted)
        assert fact.digest in (digest(Path("/bin/true")), "")


def test_a_program_that_a_passing_child_runs_while_everything_is_measured_is_told(
    sidecar: Sidecar, workload: Workload
) -> None:
    """Who forked it may be gone before its fork is heard of: looking at what runs makes nobody a stranger."""
    workload.do("held = os.memfd_create('x'); os.write(held, open('/bin/true', 'rb').read())")
    program = "subprocess.run(['/proc/self/fd/%d' % held], pass_fds=[held])"
    for number in range(100):
        workload.begin(f"os.fork() or ({program}, os._exit(0)); os.wait()")
        sidecar.send(Measure((Layer.PROCESSES,), 0.0, full=number % 3 == 0))
        workload.done()
        sidecar.expect(ExecutionFact, lambda each: each.deleted)


def test_an_execution_by_a_process_of_somebody_else_is_not_told(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    ours, theirs = foreign(elsewhere, "ours"), foreign(elsewhere, "theirs")
    for _ in range(20):
        subprocess.run([theirs], check=True)
    workload.do(f"subprocess.run(['{ours}'])")
    sidecar.expect(ExecutionFact, lambda each: each.path == str(ours))
    assert {fact.path for fact in sidecar.seen(ExecutionFact)} == {str(ours)}


def test_a_thread_that_ends_or_execs_does_not_take_its_process_out_of_the_workload(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    first, second = foreign(elsewhere, "first"), foreign(elsewhere, "second")
    workload.do("import threading; other = threading.Thread(target=lambda: None); other.start(); other.join()")
    shell = ["sh", "-c", f"{first}; true"]
    line = f"import os,threading; threading.Thread(target=os.execv, args=('/bin/sh', {shell})).start()"
    workload.do(f"subprocess.run([sys.executable, '-c', {line!r}])")
    sidecar.expect(ExecutionFact, lambda each: each.path == str(first))
    workload.do(f"subprocess.run(['{second}'])")
    sidecar.expect(ExecutionFact, lambda each: each.path == str(second))


def test_a_changed_right_is_told(sidecar: Sidecar, workload: Workload) -> None:
    workload.do("import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)")
    fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.NO_NEW_PRIVILEGES)
    assert (fact.process.pid, fact.before, fact.after) == (workload.pid, "false", "true")


def test_a_process_that_is_ending_or_gone_has_no_namespaces_that_could_differ_from_those_it_had() -> None:
    """Between two readings of one look, of which the first still found it as it was."""
    ended = os.fork()
    if ended == 0:
        os._exit(0)
    os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
    folder = open_process(ended)
    try:
        with pytest.raises(FileNotFoundError):
            namespaces_at(folder)
        os.waitpid(ended, 0)
        with pytest.raises(ProcessLookupError):
            namespaces_at(folder)
    finally:
        os.close(folder)


def test_a_changed_user_is_told_at_once(sidecar: Sidecar, workload: Workload) -> None:
    began = time.monotonic()
    workload.do("os.setresuid(65534, 65534, 0)")
    fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.USER)
    assert (fact.before, fact.after) == ("0:0 real 0:0 saved 0:0", "65534:0 real 65534:0 saved 0:0")
    assert time.monotonic() - began < 2.0, "by looking all the time, and not at the next measurement"


@pytest.mark.parametrize(
    "source", [(), WITHOUT_PROGRAMS], indirect=True, ids=["programs-and-connector", "connector-alone"]
)
def test_a_thread_that_becomes_root_by_itself_is_told(sidecar: Sidecar, workload: Workload) -> None:
    """Past the C library, which has all threads of a process change their user together."""
    workload.do("import ctypes, threading; libc = ctypes.CDLL(None); os.setresuid(65534, 65534, 0)")
    sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.USER)
    workload.do("becoming = lambda: (libc.syscall(117, -1, 0, -1), __import__('time').sleep(0.5))")
    workload.do("thread = threading.Thread(target=becoming); thread.start()")
    fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.USER and each.after.startswith("0:"))
    assert fact.process.pid == workload.pid


def test_a_tracer_is_told(sidecar: Sidecar, workload: Workload) -> None:
    line = f"import ctypes,time; ctypes.CDLL(None).ptrace(0x4206, {workload.pid}, 0, 0); time.sleep(9)"
    tracer = subprocess.Popen([sys.executable, "-c", line])
    try:
        fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.TRACER)
        assert fact.before == "0"
        assert fact.after.split()[0] == str(tracer.pid)
    finally:
        tracer.kill()
        tracer.wait()


def test_the_processes_layer_names_what_runs_and_is_stable(sidecar: Sidecar, workload: Workload) -> None:
    observed, body = next(
        (message, body)
        for message, body in sidecar.inbox
        if isinstance(message, Observed) and message.observation.layer is Layer.PROCESSES
    )
    assert body is not None
    (kind,) = processes.unpack(body)
    assert kind.executable == os.path.realpath(sys.executable)
    assert kind.digest == digest(Path(kind.executable))
    assert (kind.uid, kind.deleted) == (0, False)
    assert kind.loader == "" or digest(Path(kind.loader)) == kind.loader_digest
    sidecar.send(Measure((Layer.PROCESSES,), 0.0, full=True))
    again = sidecar.expect(Observed, lambda each: each.observation.began > observed.observation.began)
    assert (again.observation.digest, again.has_body) == (observed.observation.digest, False)


def test_the_end_of_the_first_process_ends_the_instance(sidecar: Sidecar, workload: Workload) -> None:
    workload.process.kill()
    sidecar.expect(InstanceFact)


def test_the_instance_is_the_one_that_the_vocabulary_names(sidecar: Sidecar, workload: Workload) -> None:
    pinned = sidecar.seen(Pinned)[0]
    ticks = int(Path(f"/proc/{workload.pid}/stat").read_text().rpartition(")")[2].split()[19])
    assert pinned.instance == InstanceId.of_run(boot_id=pinned.boot_id, cgroup=0, pid=workload.pid, start_ticks=ticks)


def test_a_workload_that_is_gone_and_a_path_that_is_not_there_are_faults(workload: Workload, tree: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tree / "into").symlink_to("below")
    for scope, word in (
        (Scope(ended.pid, (str(tree),)), "ended"),
        (Scope(workload.pid, (str(tree / "nowhere"),)), "No such file"),
        (Scope(workload.pid, (str(tree / "into"),)), "symbolic link"),
    ):
        with Sidecar(scope) as sidecar:
            fault = sidecar.expect(Fault)
            assert word in fault.what
            assert fault.where
            assert fault.mend
            assert sidecar.process.wait(5) == 1


def test_a_cgroup_as_scope_covers_what_enters_it(elsewhere: Path, tree: Path) -> None:
    mount = next(
        (
            Path(line.split()[4])
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if " - cgroup2 " in line
        ),
        None,
    )
    if mount is None:
        pytest.skip("needs a cgroup2 mount")
    group = mount / f"measured-{os.getpid()}"
    group.mkdir()
    workload = Workload()
    try:
        (group / "cgroup.procs").write_text(str(workload.pid))
        with Sidecar(Scope(workload.pid, (str(tree),), cgroup=f"/{group.name}")) as sidecar:
            sidecar.settle()
            program = elsewhere / "entered"
            program.write_bytes(Path("/bin/sleep").read_bytes())
            program.chmod(0o755)
            subprocess.run(["sh", "-c", f"echo $$ > {group}/cgroup.procs; exec {program} 0.5"], check=True)
            sidecar.expect(ExecutionFact, lambda each: each.path == str(program))
            workload.do(f"open('{mount}/cgroup.procs', 'w').write('0')")
            sidecar.send(Measure((Layer.PROCESSES,), 0.0))
            fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.SCOPE)
            assert fact.process.pid == workload.pid
    finally:
        workload.end()
        group.rmdir()
