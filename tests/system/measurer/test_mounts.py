"""Mounts: whose files a mark hands out, and what hides measured paths."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from attestation import manifest
from attestation.channel import Covered, Observed, Scope
from attestation.facts import ExecutionFact, FileChange, FileFact, MountFact
from attestation.layers import Layer
from measurer import mounts
from measurer.files.fanotify import Fanotify
from measurer.files.manifest import Folder
from measurer.mounts import Mounts
from measurer.processes.openexec import ExecEvents, ExecFiles
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, Workload

pytestmark = needs_root
APART = ("unshare", "--mount", "--propagation", "private")
MOUNT_LATENCY = 0.05
"""Seconds within which a mount is told; docs/threat-model.md states it."""


@pytest.fixture
def apart() -> Iterator[Workload]:
    """A workload with a mount namespace of its own, on the file system that everybody shares here."""
    running = Workload(APART)
    yield running
    running.end()


@pytest.fixture
def neighbour() -> Iterator[Workload]:
    running = Workload(APART)
    yield running
    running.end()


@pytest.fixture
def sidecar(apart: Workload, tree: Path) -> Iterator[Sidecar]:
    with Sidecar(Scope(apart.pid, (str(tree),))) as running:
        running.settle()
        yield running


def foreign(folder: Path, name: str) -> Path:
    return Path(shutil.copy("/bin/true", folder / name))


def table_of(pid: int) -> Mounts:
    return Mounts(os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY))


def test_what_another_workload_of_the_same_file_system_executes_and_writes_is_not_even_received(
    apart: Workload, neighbour: Workload, tree: Path, elsewhere: Path
) -> None:
    with ExitStack() as undo:
        root = os.open(f"/proc/{apart.pid}/root", os.O_PATH)
        undo.callback(os.close, root)
        table = table_of(apart.pid)
        undo.callback(table.close)
        executions = ExecEvents()
        undo.callback(executions.close)
        marked = ExecFiles(executions, root, table, tuple(mounts.here()))
        undo.callback(marked.close)
        files = Fanotify()
        undo.callback(files.close)
        folder = os.open(tree, os.O_RDONLY)
        undo.callback(os.close, folder)
        files.add(folder, Folder(os.fsencode(tree)))
        assert tree.stat().st_dev == elsewhere.stat().st_dev

        program = foreign(elsewhere, "theirs")
        neighbour.do(f"subprocess.run(['{program}']); open('{elsewhere}/theirs.log', 'w').write('secret')")
        for group in (executions.descriptor, files.descriptor):
            with pytest.raises(BlockingIOError):
                os.read(group, 4096)

        apart.do(f"subprocess.run(['{foreign(elsewhere, 'ours')}']); open('{tree}/ours', 'w').write('x')")
        opened = list(executions.read())
        assert {Path(f"/proc/self/fd/{each.descriptor}").readlink() for each in opened} >= {elsewhere / "ours"}
        for each in opened:
            os.close(each.descriptor)
        assert {each.name for each in files.read()} == {b"ours"}


def test_coverage_says_what_is_marked(sidecar: Sidecar) -> None:
    collectors = {each.name: each for each in sidecar.seen(Covered)[0].coverage.collectors}
    assert "marked by mount" in collectors["processes.executions"].detail
    assert "folders marked" in collectors["files"].detail


def test_a_program_on_a_new_mount_and_in_a_new_mount_namespace_is_told_with_its_digest(
    sidecar: Sidecar, apart: Workload, elsewhere: Path
) -> None:
    apart.do(f"subprocess.run(['mount', '-t', 'tmpfs', 'none', '{elsewhere}'], check=True)")
    sidecar.expect(MountFact, lambda each: each.path == str(elsewhere))
    apart.do(f"import shutil; shutil.copy('/bin/true', '{elsewhere}/mounted'); subprocess.run(['{elsewhere}/mounted'])")
    wanted = hashlib.sha256(Path("/bin/true").read_bytes()).hexdigest()
    assert sidecar.expect(ExecutionFact, lambda each: each.path == f"{elsewhere}/mounted").digest == wanted
    script = f"mount -t tmpfs none {elsewhere}; cp /bin/true {elsewhere}/nested; {elsewhere}/nested; exit 0"
    apart.do(f"subprocess.run({[*APART, 'sh', '-c', script]!r}, check=True)")
    assert sidecar.expect(ExecutionFact, lambda each: each.path == f"{elsewhere}/nested").digest == wanted


def test_an_overlay_that_only_the_workload_has_is_marked_as_a_file_system(
    apart: Workload, tree: Path, elsewhere: Path
) -> None:
    apart.do(f"subprocess.run(['mount', '-t', 'tmpfs', 'none', '{elsewhere}'], check=True)")
    lower, upper, work, merged = (f"{elsewhere}/{name}" for name in ("lower", "upper", "work", "merged"))
    apart.do(f"[os.mkdir(each) for each in {[lower, upper, work, merged]}]")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    apart.do(f"subprocess.run({['mount', '-t', 'overlay', 'x', '-o', options, merged]}, check=True)")
    with Sidecar(Scope(apart.pid, (str(tree),))) as sidecar:
        sidecar.settle()
        collectors = {each.name: each for each in sidecar.seen(Covered)[0].coverage.collectors}
        assert collectors["processes.executions"].detail.endswith(f"marked by mount, as a file system: {merged}")
        script = f"mount --bind {merged} {lower}; cp /bin/true {lower}/below; {lower}/below; exit 0"
        apart.do(f"subprocess.run({[*APART, 'sh', '-c', script]!r}, check=True)")
        wanted = hashlib.sha256(Path("/bin/true").read_bytes()).hexdigest()
        told = sidecar.expect(ExecutionFact, lambda each: each.path.endswith("/below"))
        assert told.digest == wanted, "by a mount that is in no namespace we know of"


@contextmanager
def counted(limit: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < limit


HIDING = {
    "tmpfs": "mount -t tmpfs none {tree}/below",
    "bind mount": "mount --bind {elsewhere} {tree}/below",
    "bind mount of a file": "mount --bind {elsewhere}/second {tree}/below/second",
    "mount over all of it": "mount --bind {elsewhere} {tree}",
}


@pytest.mark.parametrize("what", HIDING)
def test_what_is_mounted_over_a_measured_path_is_told_at_once_and_read_through(
    sidecar: Sidecar, apart: Workload, tree: Path, elsewhere: Path, what: str
) -> None:
    (elsewhere / "second").write_text("forged")
    command = HIDING[what].format(tree=tree, elsewhere=elsewhere).split()
    apart.do(f"subprocess.run({command}, check=True)")
    with counted(MOUNT_LATENCY):
        told = sidecar.expect(MountFact, lambda each: each.mounted)
    assert told.path == command[-1]
    sidecar.expect(FileFact, lambda each: each.path == f"{tree}/below/second" and each.change is not FileChange.ADDED)
    sidecar.expect(  # what is still being read cannot be unmounted
        Observed, lambda each: each.observation.layer is Layer.FILES and each.observation.began >= told.at
    )
    apart.do(f"subprocess.run(['umount', '{command[-1]}'], check=True)")
    with counted(MOUNT_LATENCY):
        assert sidecar.expect(MountFact, lambda each: not each.mounted).path == command[-1]
    wanted = hashlib.sha256(b"two").hexdigest()
    sidecar.expect(FileFact, lambda each: each.path == f"{tree}/below/second" and each.digest == wanted)


KERNEL = tuple(int(each) for each in re.findall(r"\d+", os.uname().release)[:2])


@pytest.mark.skipif(KERNEL < (6, 14), reason="mount events came with Linux 6.14")
def test_a_mount_that_is_gone_before_it_can_be_named_is_told_all_the_same(
    sidecar: Sidecar, apart: Workload, tree: Path
) -> None:
    apart.do("import ctypes; libc = ctypes.CDLL(None)")
    os.kill(sidecar.process.pid, 19)
    try:
        apart.do(f"assert libc.mount(b'none', b'{tree}/below', b'tmpfs', 0, None) == 0")
        apart.do(f"assert libc.umount2(b'{tree}/below', 0) == 0")
    finally:
        os.kill(sidecar.process.pid, 18)
    assert sidecar.expect(MountFact).path == ""


def test_after_pivot_root_what_the_workload_sees_is_what_is_measured(
    sidecar: Sidecar, apart: Workload, tree: Path, elsewhere: Path
) -> None:
    below = f"{elsewhere}{tree}/below"
    apart.do(f"subprocess.run(['mount', '-t', 'tmpfs', 'none', '{elsewhere}'], check=True)")
    apart.do(f"os.makedirs('{below}'); os.mkdir('{elsewhere}/old'); open('{below}/second', 'w').write('forged')")
    apart.do("import ctypes; libc = ctypes.CDLL(None)")
    apart.do(f"assert libc.pivot_root(b'{elsewhere}', b'{elsewhere}/old') == 0")
    sidecar.expect(MountFact, lambda each: each.path == "/")
    _, body = sidecar.expect_with_body(Observed, lambda each: each.observation.items == 3)
    assert body is not None
    assert hashlib.sha256(b"forged").hexdigest() in {each.digest for each in manifest.unpack(body)}
