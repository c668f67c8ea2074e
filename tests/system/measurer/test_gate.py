"""The gate: what is not in its list does not run, whatever is tried; and nothing that happens to it stops anybody."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from errno import EPERM
from pathlib import Path

import pytest

from attestation.channel import Beat, Covered, Gate, Measure, Observed, Scope
from attestation.coverage import GATE
from attestation.facts import CollectorFact, CollectorState, ExecutionFact, MountFact, RefusalFact
from attestation.layers import Layer
from measurer.gate.judge import READ_WITHIN
from measurer.gate.watch import INTERVAL, LIMIT
from tests.system.measurer import stuck
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.gates import (
    APART,
    FALSE,
    LOADER,
    SHELL,
    TRUE,
    Gated,
    digest_of,
    foreign,
    gated,
    hangs,
    order,
    pid_of_gate,
    stand,
    stopped,
    until,
)
from tests.system.measurer.stage import Sidecar, Workload

pytestmark = needs_root
LET_GO_WITHIN = INTERVAL + LIMIT + 1.0


@pytest.fixture
def workload(elsewhere: Path) -> Iterator[Gated]:
    running = Gated(elsewhere)
    yield running
    running.end()


@pytest.fixture
def sidecar(workload: Gated, tree: Path) -> Iterator[Sidecar]:
    with gated(workload, tree, TRUE, SHELL, LOADER) as running:
        yield running


def refused(sidecar: Sidecar, path: Path) -> RefusalFact:
    return sidecar.expect(RefusalFact, lambda each: each.path == str(path))


# What runs.


def test_what_is_not_listed_does_not_run_and_is_told_with_who_wanted_it(
    sidecar: Sidecar, workload: Gated, elsewhere: Path
) -> None:
    program = foreign(elsewhere)
    assert workload.run(program) == -EPERM
    told = refused(sidecar, program)
    assert told.digest == digest_of(program)
    assert told.process.executable == str(Path(f"/proc/{workload.pid}/exe").readlink())
    assert told.process.parent == workload.pid
    assert workload.run(TRUE) == 0
    sidecar.expect(ExecutionFact, lambda each: each.digest == digest_of(TRUE))
    assert str(program) not in [each.path for each in sidecar.seen(ExecutionFact)], "it was not executed"


def test_a_copy_of_what_is_listed_runs_wherever_it_lies_and_is_told_as_ever(
    sidecar: Sidecar, workload: Gated, elsewhere: Path
) -> None:
    copy = elsewhere / "copy"
    copy.write_bytes(TRUE.read_bytes())
    copy.chmod(0o755)
    assert workload.run(copy) == 0
    sidecar.expect(ExecutionFact, lambda each: each.path == str(copy))


def test_a_script_has_to_be_listed_beside_its_interpreter(sidecar: Sidecar, workload: Gated, elsewhere: Path) -> None:
    script = elsewhere / "script"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    assert workload.run(script) == -EPERM
    refused(sidecar, script)
    order(sidecar, TRUE, SHELL, LOADER, script)
    deadline = time.monotonic() + 5
    while workload.run(script) != 3:
        assert time.monotonic() < deadline


def test_a_program_does_not_run_by_a_loader_that_is_not_listed(workload: Gated, tree: Path) -> None:
    with gated(workload, tree, TRUE) as sidecar:
        assert workload.run(TRUE) != 0
        assert refused(sidecar, Path(os.path.realpath(LOADER))).digest == digest_of(LOADER)


def test_what_runs_from_memory_is_not_held_up_but_seen(sidecar: Sidecar, workload: Gated, elsewhere: Path) -> None:
    program = foreign(elsewhere)
    workload.do(f"held = os.memfd_create('x', 0); os.write(held, open('{program}', 'rb').read())")
    workload.begin("tell(subprocess.run(['/proc/self/fd/%d' % held], pass_fds=[held]).returncode)")
    assert workload.outcome() == 0
    sidecar.expect(ExecutionFact, lambda each: each.deleted)


def test_another_list_replaces_the_one_before_and_without_one_everything_runs(
    sidecar: Sidecar, workload: Gated, elsewhere: Path
) -> None:
    program = foreign(elsewhere)
    assert workload.run(program) == -EPERM
    order(sidecar, program, LOADER)
    deadline = time.monotonic() + 5
    while workload.run(TRUE) != -EPERM:
        assert time.monotonic() < deadline
    assert workload.run(program) == 0
    sidecar.send(Gate(False))
    sidecar.expect(Covered, lambda told: GATE not in [each.name for each in told.coverage.collectors])
    assert workload.run(TRUE) == 0


# Races.


def raced(workload: Gated, race: str, program: Path, seconds: float = 4.0) -> dict[int, int]:
    """How often executing this ended how, while another thread does something to it again and again."""
    workload.define(
        f"""
import threading, time
def against():
    good, bad = open({str(TRUE)!r}, "rb").read(), open({str(FALSE)!r}, "rb").read()
    path, other, over = {str(program)!r}, {str(program) + ".other"!r}, time.monotonic() + {seconds}
    def race():
        while time.monotonic() < over:
            try:
                {race}
            except OSError:
                pass
    def execute(ended):
        while time.monotonic() < over:
            status = ran(path)
            ended[status] = ended.get(status, 0) + 1
    found = {{}}
    threads = [threading.Thread(target=race), *[threading.Thread(target=execute, args=[found]) for _ in range(2)]]
    [each.start() for each in threads]
    [each.join() for each in threads]
    tell(found)
"""
    )
    workload.begin("against()")
    workload.done()
    ended: dict[int, int] = eval((program.parent / "answer").read_text())  # noqa: S307 - a dict of our own workload
    return ended


REWRITE = """
                with open(path, "r+b", buffering=0) as file:
                    file.write(good)
                with open(path, "r+b", buffering=0) as file:
                    file.write(bad)
"""
RENAME = """
                for content in (good, bad):
                    with open(other, "wb") as file:
                        file.write(content)
                    os.chmod(other, 0o755)
                    os.rename(other, path)
"""
MAP = """
                import mmap
                for content in (good, bad):
                    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                        mapped[:] = content
"""


@pytest.mark.parametrize("race", [REWRITE, RENAME, MAP], ids=["rewritten", "renamed", "mapped"])
def test_whoever_races_the_look_never_has_other_content_run(
    sidecar: Sidecar, workload: Gated, elsewhere: Path, race: str
) -> None:
    program = elsewhere / "raced"
    content, other = TRUE.read_bytes(), FALSE.read_bytes()
    assert len(content) == len(other), "so that each may be written over the other"
    program.write_bytes(content)
    program.chmod(0o755)
    ended = raced(workload, race, program)
    assert 1 not in ended, f"the foreign one ran: {ended}"
    assert ended[0] > 10, f"the race was no race: {ended}"
    assert sum(ended.values()) > 20


def test_a_file_is_executed_again_as_soon_as_whoever_has_put_it_there_has_closed_it(
    sidecar: Sidecar, workload: Gated, elsewhere: Path
) -> None:
    program = elsewhere / "placed"
    program.write_bytes(TRUE.read_bytes())
    program.chmod(0o755)
    workload.define(
        f"""
import threading, time
held = open({str(program)!r}, "r+b")
threading.Thread(target=lambda: (time.sleep(0.02), held.close())).start()
"""
    )
    assert workload.run(program) == 0
    assert not sidecar.seen(RefusalFact)


# Whoever is not meant.


def test_a_workload_that_shares_its_mounts_has_no_gate_and_coverage_says_so(tree: Path, elsewhere: Path) -> None:
    workload = Workload()
    try:
        with Sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
            sidecar.settle()
            order(sidecar, TRUE)
            assert "no mount namespace of its own" in until(sidecar, stands=False).detail
            assert subprocess.run([foreign(elsewhere)], check=False).returncode == 0
    finally:
        workload.end()


def test_who_executes_from_its_mounts_but_is_not_in_them_is_not_held_up(
    sidecar: Sidecar, workload: Gated, elsewhere: Path
) -> None:
    program = foreign(elsewhere)
    assert workload.run(program) == -EPERM
    assert subprocess.run([f"/proc/{workload.pid}/root{program}"], check=False).returncode == 0


# Mounts.


def test_what_is_mounted_later_is_behind_the_gate_as_well(sidecar: Sidecar, workload: Gated, elsewhere: Path) -> None:
    below = elsewhere / "below"
    below.mkdir()
    sidecar.send(Gate(False))
    workload.do(f"subprocess.run(['mount', '-t', 'tmpfs', 'none', '{below}'], check=True)")
    stand(sidecar, TRUE, Path("/bin/mount"), LOADER)
    later = elsewhere / "later"
    later.mkdir()
    workload.do(f"subprocess.run(['mount', '-t', 'tmpfs', 'none', '{later}'], check=True)")
    sidecar.expect(MountFact, lambda each: each.path == str(later))
    sidecar.send(Beat(7))
    sidecar.expect(Beat)
    for folder in (below, later):
        workload.do(f"import shutil; shutil.copy('{foreign(elsewhere)}', '{folder}/foreign')")
        assert workload.run(folder / "foreign") == -EPERM


def test_an_overlay_of_its_own_is_behind_the_gate_in_every_mount_namespace(
    workload: Gated, tree: Path, elsewhere: Path
) -> None:
    workload.do(f"subprocess.run(['mount', '-t', 'tmpfs', 'none', '{elsewhere}'], check=True)")
    lower, upper, work, merged = (f"{elsewhere}/{name}" for name in ("lower", "upper", "work", "merged"))
    workload.do(f"[os.mkdir(each) for each in {[lower, upper, work, merged]}]")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    workload.do(f"subprocess.run({['mount', '-t', 'overlay', 'x', '-o', options, merged]}, check=True)")
    workload.do(f"import shutil; [shutil.copy('{TRUE}', '{merged}/' + name) for name in ('listed', 'foreign')]")
    workload.do(f"open('{merged}/foreign', 'ab').write(b'foreign')")
    tools = [Path(f"/usr/bin/{name}") for name in ("unshare", "sh", "mount")]
    # With a measurer that is stopped, nobody hears of the other namespace.
    with gated(workload, tree, TRUE, LOADER, *tools) as sidecar, stopped(sidecar.process.pid):
        script = f"mount --bind {merged} {lower}; {lower}/listed && {lower}/foreign"
        workload.do(f"assert subprocess.run({[*APART, 'sh', '-c', script]!r}, stderr=-3).returncode == 126")
        assert workload.process.poll() is None, "sh says 126 of what it may not execute"


SLOWLY = """
import threading
def slowly(path):
    global slow
    slow = ran(path)
"""


@pytest.fixture
def unanswered(workload: Gated, elsewhere: Path) -> Callable[[int], Path]:
    """A program on a file system of the workload's own, which never answers this request."""

    def serve(never: int) -> Path:
        folder = elsewhere / "stuck"
        folder.mkdir()
        workload.define(Path(stuck.__file__).read_text() + SLOWLY)
        workload.do(f"serve({str(folder)!r}, {never})")
        return folder / "program"

    return serve


def run_aside(workload: Gated, program: Path) -> None:
    workload.do(f"waiting = threading.Thread(target=slowly, args=[{str(program)!r}]); waiting.start()")


def test_a_file_that_is_never_read_to_its_end_is_refused_and_keeps_nobody_else_waiting(
    workload: Gated, tree: Path, unanswered: Callable[[int], Path]
) -> None:
    program = unanswered(stuck.READ)
    with gated(workload, tree, TRUE, LOADER) as sidecar:
        began = time.monotonic()
        run_aside(workload, program)
        while time.monotonic() < began + READ_WITHIN / 2:
            assert workload.run(TRUE) == 0
        workload.begin("waiting.join(); tell(slow)")
        assert workload.outcome() == -EPERM
        assert READ_WITHIN <= time.monotonic() - began < READ_WITHIN + 2
        assert refused(sidecar, program).digest == ""
        assert workload.run(TRUE) == 0


def test_a_gate_that_hangs_in_a_file_system_of_the_workloads_own_is_told_and_hangs_nobody_else(
    workload: Gated, tree: Path, unanswered: Callable[[int], Path]
) -> None:
    program = unanswered(stuck.OPEN)
    with gated(workload, tree, TRUE, LOADER) as sidecar:
        run_aside(workload, program)
        dead = sidecar.expect(CollectorFact, lambda each: each.state is CollectorState.DEAD)
        assert "did not answer" in dead.detail
        assert not until(sidecar, stands=False).running
        sidecar.send(Gate(False))
        sidecar.send(Beat(2))
        sidecar.expect(Beat, lambda each: each.number == 2, seconds=1.0)
        workload.begin(f"end({str(program.parent)!r}); waiting.join(); tell(slow)")
        assert workload.outcome() != 0


# Whatever becomes of the gate.


def test_what_is_measured_after_the_order_already_knows_whether_it_stands(workload: Gated, tree: Path) -> None:
    with Sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
        sidecar.settle()
        order(sidecar, TRUE, LOADER)
        sidecar.send(Measure((Layer.PROCESSES,), time.clock_gettime(time.CLOCK_BOOTTIME)))
        sidecar.inbox.clear()
        sidecar.expect(Observed, lambda each: each.observation.layer is Layer.PROCESSES)
        assert sidecar.seen(Covered)[-1].coverage.gated


def test_a_gate_that_is_killed_lets_everything_run_says_so_and_comes_back(
    sidecar: Sidecar, workload: Gated, elsewhere: Path
) -> None:
    program, before = foreign(elsewhere), pid_of_gate(sidecar)
    with stopped(before):
        workload.begin_to_run(program)
        assert hangs(workload)
        os.kill(before, signal.SIGKILL)
        assert workload.outcome() == 0, "the kernel lets go of whoever waits"
    dead = sidecar.expect(CollectorFact, lambda each: each.collector == GATE and each.state is CollectorState.DEAD)
    assert "SIGKILL" in dead.detail
    assert "SIGKILL" in until(sidecar, stands=False).detail
    sidecar.expect(CollectorFact, lambda each: each.collector == GATE and each.state is CollectorState.RUNNING)
    assert pid_of_gate(sidecar) != before
    assert workload.run(program) == -EPERM


def test_a_gate_that_is_stopped_is_given_up_and_lets_go_in_stated_time(
    sidecar: Sidecar, workload: Gated, elsewhere: Path
) -> None:
    program = foreign(elsewhere)
    with stopped(pid_of_gate(sidecar)):
        began = time.monotonic()
        workload.begin_to_run(program)
        assert hangs(workload)
        assert workload.outcome() == 0
        assert time.monotonic() - began < LET_GO_WITHIN
    assert "did not answer" in sidecar.expect(CollectorFact, lambda each: each.state is CollectorState.DEAD).detail


def test_a_stopped_measurer_holds_nobody_up_and_lets_nothing_foreign_run(
    sidecar: Sidecar, workload: Gated, elsewhere: Path
) -> None:
    program = foreign(elsewhere)
    with stopped(sidecar.process.pid):
        assert workload.run(TRUE) == 0
        assert workload.run(program) == -EPERM
    refused(sidecar, program)


def test_with_measurer_and_gate_stopped_the_end_of_the_measurer_lets_go(workload: Gated, tree: Path) -> None:
    with gated(workload, tree, TRUE, LOADER) as sidecar:
        gate = os.pidfd_open(pid_of_gate(sidecar))
        signal.pidfd_send_signal(gate, signal.SIGSTOP)
        os.kill(sidecar.process.pid, signal.SIGSTOP)
        workload.begin_to_run(TRUE)
        assert hangs(workload, LIMIT + 2 * INTERVAL), "nobody is left who could notice"
        os.kill(sidecar.process.pid, signal.SIGKILL)
        assert workload.outcome() == 0
        os.close(gate)


def test_a_flood_of_executions_is_answered_and_accounted_for(
    sidecar: Sidecar, workload: Gated, elsewhere: Path
) -> None:
    program, count = foreign(elsewhere), 3000
    with stopped(sidecar.process.pid):  # it hears of none of them meanwhile
        workload.begin(f"tell(sum(ran({str(program)!r}) == -{EPERM} for _ in range({count})))")
        assert workload.outcome() == count
    told = lost = 0
    while told + lost < count:
        received = sidecar.receive(5.0)
        assert received is not None, f"{told} told, {lost} lost"
        sidecar.inbox.append(received)
        if isinstance(received[0], RefusalFact):
            told += 1
        elif isinstance(received[0], Covered):
            lost = next(each.lost for each in received[0].coverage.collectors if each.name == GATE)
    assert told + lost == count
    states = [each.state for each in sidecar.seen(CollectorFact) if each.collector == GATE]
    assert (CollectorState.OVERFLOWED in states) == (lost > 0)
    assert CollectorState.DEAD not in states
    assert workload.run(TRUE) == 0
