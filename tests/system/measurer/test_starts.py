"""What processes are started with, against the real kernel: scripts, and libraries that come before their own."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestation.channel import Beat, Measure, Observed, Scope
from attestation.facts import ExecutionFact, PreloadFact, ProcessAspect, ProcessFact, ScriptFact, Sighting
from attestation.layers import Layer
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.silent import Silent
from tests.system.measurer.stage import Sidecar, Workload
from tests.system.measurer.test_executions import digest, foreign

pytestmark = needs_root
PYTHON, SHELL = os.path.realpath(sys.executable), os.path.realpath("/bin/sh")
LOADER = "/lib64/ld-linux-x86-64.so.2"
PATIENCE = 10.0
LINGER = "import time; time.sleep(0.2)\n"


@pytest.fixture
def sidecar(workload: Workload, tree: Path) -> Iterator[Sidecar]:
    with Sidecar(Scope(workload.pid, (str(tree),))) as running:
        running.settle()
        yield running


def script(folder: Path, name: str = "script.py", text: str = LINGER) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def run(workload: Workload, *command: object, **options: object) -> None:
    named = "".join(f", {name}={value!r}" for name, value in options.items())
    workload.do(f"subprocess.run({[str(each) for each in command]!r}{named})")


def told(sidecar: Sidecar, path: object) -> ScriptFact:
    return sidecar.expect(ScriptFact, lambda each: each.path == str(path))


def test_a_file_that_an_interpreter_is_given_is_told_with_its_digest(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    wanted = script(elsewhere)
    run(workload, sys.executable, "-u", "-X", "dev", wanted, "--config", __file__)
    fact = told(sidecar, wanted)
    assert (fact.digest, fact.sighting, fact.deleted) == (digest(wanted), Sighting.EVENT, False)
    assert (fact.process.executable, fact.process.parent) == (PYTHON, workload.pid)
    assert len(sidecar.seen(ScriptFact)) == 1, "arguments of a script are data"


def test_a_relative_name_and_one_that_leads_by_a_link_are_told_by_the_file_that_is_run(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    wanted = script(elsewhere)
    (elsewhere / "link.py").symlink_to("script.py")
    run(workload, sys.executable, "./link.py", cwd=str(elsewhere))
    assert told(sidecar, wanted).digest == digest(wanted)


def test_each_interpreter_that_is_here_has_its_script_told(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    for program, text in (
        ("sh", "sleep 0.2"),
        ("bash", "sleep 0.2"),
        ("perl", "select(undef, undef, undef, 0.2);"),
        ("node", "setTimeout(() => {}, 200)"),
        ("tclsh", "after 200"),
    ):
        if shutil.which(program):
            wanted = script(elsewhere, f"for-{program}", text)
            run(workload, program, wanted)
            assert told(sidecar, wanted).digest == digest(wanted)


def test_a_script_that_is_executed_by_itself_is_told_once(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    itself, last = script(elsewhere, "itself", "#!/bin/sh\nsleep 0.2\n"), script(elsewhere)
    itself.chmod(0o755)
    run(workload, itself)
    run(workload, sys.executable, last)
    told(sidecar, last)
    assert [fact.path for fact in sidecar.seen(ScriptFact)] == [str(last)]
    assert [fact.path for fact in sidecar.seen(ExecutionFact)].count(str(itself)) == 1


def test_code_on_the_command_line_and_modules_are_no_scripts(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    last = script(elsewhere)
    run(workload, "sh", "-ec", f"test -e {last}; sleep 0.1", last)
    run(workload, sys.executable, "-c", LINGER, last)
    run(workload, sys.executable, "-m", "compileall", "-q", last)
    run(workload, sys.executable, last)
    told(sidecar, last)
    assert len(sidecar.seen(ScriptFact)) == 1


def test_what_runs_already_has_its_script_told_before_the_first_measurement(tree: Path, elsewhere: Path) -> None:
    wanted = script(elsewhere, text="import time; print('done', flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, wanted], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        process.stdout.readline()
        with Sidecar(Scope(process.pid, (str(tree),))) as sidecar:
            sidecar.expect(Observed, lambda each: each.observation.layer is Layer.PROCESSES)
            (fact,) = sidecar.seen(ScriptFact)
            assert (fact.path, fact.digest) == (str(wanted), digest(wanted))
    finally:
        process.kill()
        process.communicate()


def test_a_script_in_a_memfd_and_one_on_the_input_are_told(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    """Executed by descriptor, as fexecve(3) does: the kernel runs the interpreter, which is a referenced program."""
    workload.do("held = os.memfd_create('x', 0); os.write(held, b'#!/bin/sh\\nsleep 0.2\\n')")
    workload.do("pid = os.fork() or os.execve(held, ['x'], os.environ); os.waitpid(pid, 0)")
    fact = sidecar.expect(ScriptFact, lambda each: each.path.startswith("/memfd:"))
    assert fact.deleted
    assert fact.digest
    wanted = script(elsewhere, text="sleep 0.2")
    workload.do(f"subprocess.run(['sh'], stdin=open('{wanted}'))")
    assert told(sidecar, wanted).process.executable == SHELL


def test_a_script_that_comes_through_a_pipe_by_name_has_no_digest(sidecar: Sidecar, workload: Workload) -> None:
    run(workload, "bash", "-c", "bash <(echo sleep 0.2)")
    fact = sidecar.expect(ScriptFact)
    assert (fact.path.startswith("/dev/fd/"), fact.digest) == (True, "")


def test_a_script_that_is_gone_before_it_is_looked_at_is_told_without_a_digest(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    run(workload, sys.executable, elsewhere / "gone.py")
    fact = told(sidecar, elsewhere / "gone.py")
    assert (fact.digest, fact.deleted) == ("", True)


def test_a_program_that_a_loader_is_given_is_told_and_its_script_too(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    wanted, program = script(elsewhere), elsewhere / "program"
    shutil.copy("/bin/sleep", program)
    program.chmod(0o644)
    run(workload, LOADER, program, "0.2")
    assert told(sidecar, program).digest == digest(program)
    run(workload, LOADER, "--argv0", "x", PYTHON, wanted)
    assert told(sidecar, PYTHON).digest
    assert told(sidecar, wanted).digest == digest(wanted)


def test_a_process_that_hides_its_arguments_is_told_as_unmeasured(
    workload: Workload, tree: Path, elsewhere: Path
) -> None:
    """Before the measurer comes: afterwards it is quicker."""
    workload.do("import ctypes, mmap; libc = ctypes.CDLL(None)")
    workload.do(
        "lines = open('/proc/self/stat').read().rpartition(')')[2].split();"
        " start = int(lines[45]) & ~4095; libc.munmap(ctypes.c_void_p(start), (int(lines[46]) | 4095) + 1 - start)"
    )
    with Sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
        fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.UNMEASURED)
        assert fact.after == "yes: it hides its arguments"


@pytest.mark.parametrize("variable", ["LD_PRELOAD", "LD_AUDIT"])
def test_a_library_before_a_programs_own_is_told_with_its_digest(
    sidecar: Sidecar, workload: Workload, elsewhere: Path, variable: str
) -> None:
    library = elsewhere / "evil.so"
    shutil.copy(os.path.realpath("/lib/x86_64-linux-gnu/libm.so.6"), library)
    run(workload, "sleep", "0.2", env={"PADDING": "x" * 100_000, variable: f"libc.so.6:{library}"})
    fact = sidecar.expect(PreloadFact, lambda each: each.path == str(library))
    assert (fact.source, fact.entry, fact.digest) == (variable, str(library), digest(library))
    assert sidecar.seen(PreloadFact)[0].entry == "libc.so.6"


def test_folders_before_those_of_the_system_are_told(sidecar: Sidecar, workload: Workload, elsewhere: Path) -> None:
    run(workload, "sleep", "0.2", env={"LD_LIBRARY_PATH": f"{elsewhere}:"})
    sidecar.expect(PreloadFact, lambda each: each.entry == ".")
    assert [(fact.source, fact.entry) for fact in sidecar.seen(PreloadFact)] == [
        ("LD_LIBRARY_PATH", str(elsewhere)),
        ("LD_LIBRARY_PATH", "."),
    ]


def test_libraries_that_a_loader_is_told_to_load_first_are_told(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    run(workload, LOADER, "--preload", "/lib/x86_64-linux-gnu/libm.so.6", "/bin/sleep", "0.2")
    assert sidecar.expect(PreloadFact).source == "LD_PRELOAD"


def test_a_list_of_libraries_for_all_programs_is_told_when_it_appears(tree: Path, elsewhere: Path) -> None:
    """In a mount namespace of its own, whose /etc is another one."""
    (elsewhere / "etc").mkdir()
    subprocess.run(["cp", "-a", "/etc/ld.so.cache", elsewhere / "etc"], check=True)
    workload = Workload(("unshare", "--mount", "--propagation", "private"))
    try:
        workload.do(f"subprocess.run(['mount', '--bind', '{elsewhere}/etc', '/etc'], check=True)")
        with Sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
            sidecar.settle()
            listed = elsewhere / "etc" / "ld.so.preload"
            listed.write_text("# all of them\n/lib/x86_64-linux-gnu/libm.so.6\n")
            fact = sidecar.expect(PreloadFact)
            assert (fact.source, fact.entry) == ("/etc/ld.so.preload", "/lib/x86_64-linux-gnu/libm.so.6")
            run(workload, "sleep", "0.2")
            sidecar.send(Measure((Layer.PROCESSES,), 0.0))
            ran = sidecar.expect(PreloadFact, lambda each: each.process.executable.endswith("/sleep"))
            assert ran.digest == digest(Path(ran.path))
    finally:
        workload.end()


# From where, and with which rights.


@pytest.fixture
def memory() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def ran(sidecar: Sidecar, workload: Workload, program: Path) -> ExecutionFact:
    run(workload, program)
    return sidecar.expect(ExecutionFact, lambda each: each.path == str(program))


def test_an_execution_says_that_nothing_was_built_where_the_file_lies(
    sidecar: Sidecar, workload: Workload, elsewhere: Path, memory: Path
) -> None:
    assert ran(sidecar, workload, foreign(memory, "in-memory")).temporary == "tmpfs"
    (elsewhere / "open").mkdir()
    (elsewhere / "open").chmod(0o1777)
    (elsewhere / "open" / "below").mkdir()
    fact = ran(sidecar, workload, foreign(elsewhere / "open" / "below", "program"))
    assert fact.temporary == str(elsewhere / "open")
    built = Path("/usr/bin/true")
    assert ran(sidecar, workload, built).temporary == ""


def test_an_execution_says_what_its_file_gives_to_its_caller(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    program = foreign(elsewhere, "set-user")
    program.chmod(0o6755)
    assert ran(sidecar, workload, program).gains == "user 0, group 0"
    program = foreign(elsewhere, "with-capabilities")
    attribute = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(program, "security.capability", attribute)
    assert ran(sidecar, workload, program).gains == f"capabilities {attribute.hex()}"
    script = elsewhere / "set-user.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o4755)
    assert ran(sidecar, workload, script).gains == "", "the kernel heeds it of no script"


# What never answers.


def test_a_script_on_a_file_system_that_never_answers_is_told_and_holds_up_nothing_else(
    sidecar: Sidecar, workload: Workload, elsewhere: Path
) -> None:
    with Silent(elsewhere / "silent") as silent:
        workload.begin(f"subprocess.run([sys.executable, '{silent.file}'], timeout=30)")
        silent.asked.wait(PATIENCE)
        for number in range(20):
            sidecar.send(Beat(number))
            sidecar.expect(Beat, lambda each, number=number: each.number == number, seconds=1.0)  # type: ignore[misc]
        fact = sidecar.expect(ProcessFact, lambda each: each.aspect is ProcessAspect.UNMEASURED, seconds=15.0)
        assert "it does not answer" in fact.after
    workload.done()
    run(workload, sys.executable, script(elsewhere))
    assert told(sidecar, elsewhere / "script.py").digest
