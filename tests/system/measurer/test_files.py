"""The files layer against the real kernel."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attestation import manifest
from attestation.channel import Covered, Measure, Observed, Pinned, Scope
from attestation.coverage import Mechanism
from attestation.facts import CollectorFact, CollectorState, FileChange, FileFact
from attestation.layers import Layer, Method
from attestation.manifest import Entry
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, Workload

pytestmark = needs_root
EXECUTABLE = os.path.realpath("/proc/self/exe")


def about(path: Path, change: FileChange) -> Callable[[FileFact], bool]:
    return lambda fact: fact.path == str(path) and fact.change is change


def holding(content: bytes) -> Callable[[FileFact], bool]:
    digest = hashlib.sha256(content).hexdigest()
    return lambda fact: fact.digest == digest


def sha256sum(path: Path) -> str:
    return subprocess.run(["sha256sum", "--", path], capture_output=True, check=True).stdout[:64].decode()


def independently(root: Path) -> list[Entry]:
    """The manifest of a folder as other tools see it."""
    entries = []
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        kind, digest, size = manifest.OTHER, manifest.NO_DIGEST, 0
        if stat.S_ISDIR(status.st_mode):
            kind = manifest.DIRECTORY
        elif stat.S_ISLNK(status.st_mode):
            kind, size, digest = manifest.LINK, status.st_size, hashlib.sha256(bytes(path.readlink())).hexdigest()
        elif stat.S_ISREG(status.st_mode):
            kind, size, digest = manifest.FILE, status.st_size, sha256sum(path)
        mode = stat.S_IMODE(status.st_mode)
        entries.append(Entry(str(path), kind, mode, status.st_uid, status.st_gid, size, digest))
    return entries


@pytest.fixture
def sidecar(workload: Workload, tree: Path) -> Iterator[Sidecar]:
    with Sidecar(Scope(workload.pid, (str(tree),))) as running:
        running.settle()
        yield running


def test_a_modified_file_is_told_with_its_digest_and_its_writer(
    sidecar: Sidecar, workload: Workload, tree: Path
) -> None:
    workload.do(f"open('{tree}/first', 'a').write(' more')")
    fact = sidecar.expect(FileFact, holding(b"one more"))
    assert (fact.path, fact.change) == (str(tree / "first"), FileChange.MODIFIED)
    assert fact.actor is not None
    assert (fact.actor.pid, fact.actor.executable) == (workload.pid, EXECUTABLE)


def test_a_fresh_observation_by_event_follows_the_fact(sidecar: Sidecar, workload: Workload, tree: Path) -> None:
    workload.do(f"open('{tree}/first', 'w').write('other')")
    sidecar.expect(FileFact, holding(b"other"))
    observed, body = sidecar.expect_with_body(Observed, lambda each: each.observation.method is Method.EVENT)
    while sidecar.receive(0.1):
        pass
    assert body is not None
    assert manifest.digest(body) == observed.observation.digest
    assert body == manifest.pack(independently(tree))


def test_every_kind_of_change_is_told(sidecar: Sidecar, workload: Workload, tree: Path) -> None:
    second = tree / "below" / "second"
    workload.do(f"open('{tree}/new', 'w').write('n')")
    sidecar.expect(FileFact, about(tree / "new", FileChange.ADDED))
    workload.do(f"os.rename('{tree}/new', '{second}')")
    assert sidecar.expect(FileFact, about(second, FileChange.MODIFIED)).digest == hashlib.sha256(b"n").hexdigest()
    workload.do(f"os.chmod('{second}', 0o4755)")
    assert sidecar.expect(FileFact, about(second, FileChange.ATTRIBUTES)).mode == 0o4755
    workload.do(f"os.unlink('{tree}/link')")
    removed = sidecar.expect(FileFact, about(tree / "link", FileChange.REMOVED))
    assert removed.digest == ""
    assert removed.actor is not None
    workload.do(f"os.symlink('elsewhere', '{tree}/link')")
    link = sidecar.expect(FileFact, about(tree / "link", FileChange.ADDED))
    assert (link.link, link.digest) == (True, hashlib.sha256(b"elsewhere").hexdigest())
    assert not any(fact.link for fact in sidecar.seen(FileFact) if fact.path != str(tree / "link"))


def test_a_write_through_a_descriptor_that_stays_open_is_told(sidecar: Sidecar, workload: Workload, tree: Path) -> None:
    workload.do(f"kept = os.open('{tree}/first', os.O_WRONLY); os.write(kept, b'ONE')")
    sidecar.expect(FileFact, holding(b"ONE"))


def test_files_put_into_a_new_folder_at_once_are_never_missed(sidecar: Sidecar, workload: Workload, tree: Path) -> None:
    for number in range(20):
        folder = tree / f"deep{number}" / "a" / "b"
        workload.do(f"os.makedirs('{folder}'); open('{folder}/x', 'w').write('{number}')")
        assert sidecar.expect(FileFact, holding(str(number).encode())).path == str(folder / "x")


def test_a_renamed_folder_is_followed(sidecar: Sidecar, workload: Workload, tree: Path) -> None:
    workload.do(f"os.rename('{tree}/below', '{tree}/moved')")
    sidecar.expect(FileFact, about(tree / "below" / "second", FileChange.REMOVED))
    sidecar.expect(FileFact, about(tree / "moved" / "second", FileChange.ADDED))
    workload.do(f"open('{tree}/moved/second', 'w').write('later')")
    sidecar.expect(FileFact, about(tree / "moved" / "second", FileChange.MODIFIED))


def test_the_included_folder_itself_can_be_swapped_and_is_read_again(
    sidecar: Sidecar, workload: Workload, tree: Path, elsewhere: Path
) -> None:
    (elsewhere / "first").write_text("swapped")
    try:
        workload.do(f"os.rename('{tree}', '{elsewhere}/kept'); os.mkdir('{tree}')")
        workload.do(f"open('{tree}/first', 'w').write('swapped')")
        wanted = hashlib.sha256(b"swapped").hexdigest()
        sidecar.expect(FileFact, lambda each: each.path == str(tree / "first") and each.digest == wanted)
    finally:
        assert sidecar.files()[0].observation.items == 2


def test_a_change_made_by_somebody_else_is_told_too(sidecar: Sidecar, workload: Workload, tree: Path) -> None:
    subprocess.run(["cp", "/bin/true", tree / "below" / "second"], check=True)
    fact = sidecar.expect(FileFact, lambda each: each.digest == sha256sum(Path("/bin/true")))
    assert fact.path == str(tree / "below" / "second")
    assert fact.actor is not None
    assert fact.actor.pid != workload.pid


def test_the_manifest_is_what_other_tools_compute_and_stays_the_same(
    sidecar: Sidecar, workload: Workload, tree: Path
) -> None:
    for number in range(300):
        (tree / f"n{number % 7}-{number}").mkdir() if number % 10 == 0 else (tree / f"n{number}").write_text(
            str(number)
        )
    (tree / "below.conf").write_text("sorts between a folder and what is in it")
    (tree / "with blank and \udcff byte").write_bytes(b"x" * 3_000_000)
    os.mkfifo(tree / "fifo")
    observed, body = sidecar.files(full=True)
    assert observed.observation.method is Method.FULL
    wanted = manifest.pack(independently(tree))
    if observed.has_body:
        assert body == wanted
    assert observed.observation.digest == manifest.digest(wanted)
    for full in (False, True, False):
        again, body = sidecar.files(full=full)
        assert (again.observation.digest, again.has_body, body) == (observed.observation.digest, False, None)


def test_what_changes_in_volatile_paths_and_outside_is_silent(workload: Workload, tree: Path, elsewhere: Path) -> None:
    (tree / "logs").mkdir()
    with Sidecar(Scope(workload.pid, (str(tree),), volatile=(((f"{tree}/logs/**", "*.tmp"),),))) as sidecar:
        sidecar.settle()
        workload.do(f"open('{tree}/logs/today', 'w').write('line')")
        workload.do(f"open('{tree}/below/x.tmp', 'w').write('line')")
        workload.do(f"open('{elsewhere}/x', 'w').write('line')")
        workload.do(f"open('{tree}/first', 'w').write('seen')")
        sidecar.expect(FileFact, holding(b"seen"))
        assert {fact.path for fact in sidecar.seen(FileFact)} == {str(tree / "first")}


def test_one_file_can_be_included_alone(workload: Workload, tree: Path) -> None:
    with Sidecar(Scope(workload.pid, (f"{tree}/first", f"{tree}/below"))) as sidecar:
        sidecar.settle()
        workload.do(f"open('{tree}/ignored', 'w').write('x')")
        workload.do(f"open('{tree}/first', 'w').write('y')")
        sidecar.expect(FileFact, holding(b"y"))
        observed, _ = sidecar.files()
        assert observed.observation.items == 3
        assert {fact.path for fact in sidecar.seen(FileFact)} == {str(tree / "first")}


def test_an_overrun_queue_is_told_and_everything_is_measured_again(
    sidecar: Sidecar, workload: Workload, tree: Path
) -> None:
    limit = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
    os.kill(sidecar.process.pid, signal.SIGSTOP)
    flood = tree / "below"
    for number in range(limit + 200):
        os.close(os.open(flood / str(number), os.O_CREAT | os.O_WRONLY))
        (flood / str(number)).unlink()
    (flood / "last").write_text("after the flood")
    os.kill(sidecar.process.pid, signal.SIGCONT)
    sidecar.expect(CollectorFact, lambda each: (each.collector, each.state) == ("files", CollectorState.OVERFLOWED))
    observed = sidecar.expect(
        Observed, lambda each: each.observation.layer is Layer.FILES and each.observation.method is Method.FULL
    )
    assert observed.observation.digest == manifest.digest(manifest.pack(independently(tree)))
    covered = sidecar.seen(Covered)[-1].coverage
    assert next(each.lost for each in covered.collectors if each.name == "files") > 0


def test_facts_do_not_wait_for_a_measurement(sidecar: Sidecar, workload: Workload, tree: Path) -> None:
    """512 MB take a third of a second to hash; what an event tells meanwhile, even beside them, does not wait.

    A fact that has a writer comes from an event, not from the measurement's own reading.
    """
    with open(tree / "big", "wb") as file:
        file.truncate(512 << 20)
    sidecar.expect(FileFact, lambda each: each.path == str(tree / "big"))
    sidecar.send(Measure((Layer.FILES,), 0.0, full=True))
    workload.do(f"open('{tree}/first', 'w').write('meanwhile')")
    wanted = hashlib.sha256(b"meanwhile").hexdigest()
    order = []
    while "full" not in order:
        received = sidecar.receive(10)
        assert received is not None
        if isinstance(received[0], FileFact) and received[0].digest == wanted and received[0].actor:
            order.append("fact")
        if isinstance(received[0], Observed) and received[0].observation.method is Method.FULL:
            order.append("full")
    assert order == ["fact", "full"]


def test_fanotify_and_the_kernels_programs_are_what_a_privileged_measurer_reports(sidecar: Sidecar) -> None:
    collectors = {each.name: each for each in sidecar.seen(Covered)[0].coverage.collectors}
    assert collectors["files"].mechanism is Mechanism.FANOTIFY
    assert collectors["processes.executions"].mechanism is Mechanism.BPF
    assert all(each.running for each in collectors.values())
    assert sidecar.seen(Pinned)[0].started > 0
