"""Every way to change a measured file behind a watcher's back is caught within its stated latency, or said not to be.

docs/threat-model.md has the same table.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attestation import manifest
from attestation.channel import Measure, Observed, Scope
from attestation.facts import FileChange, FileFact
from attestation.layers import Layer
from tests.system.measurer import traps
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, Workload
from tests.system.measurer.traps import FORGED, TRAPS

pytestmark = needs_root
EVENT, PERIOD = 0.05, 2.5
"""Seconds: by an event (5 ms are stated, the rest is this machine's), and by looking at mappings once a second."""
LOOK = "look"
"""By the next incremental measurement: the interval of the policy."""

STATED: dict[str, float | str] = {
    **dict.fromkeys(TRAPS, EVENT),
    "new_hard_link": LOOK,
    "unmapped": LOOK,
    "mapped": PERIOD,
    "mapped_late": PERIOD,
}


def content(data: bytes) -> Callable[[FileFact], bool]:
    wanted = hashlib.sha256(data).hexdigest()
    return lambda fact: fact.digest == wanted


def gone(fact: FileFact) -> bool:
    return fact.change is FileChange.REMOVED


CAUGHT: dict[str, Callable[[FileFact], bool]] = {
    **dict.fromkeys(TRAPS, content(FORGED)),
    "symlinked_parent": gone,
    "punched": content(bytes(len(FORGED))),
    "truncated": content(b""),
    "mode": lambda fact: (fact.change, fact.mode) == (FileChange.ATTRIBUTES, 0o4755),
    "owner": lambda fact: (fact.change, fact.uid, fact.gid) == (FileChange.ATTRIBUTES, 12345, 54321),
    "capabilities": lambda fact: fact.capabilities == "0100000200200000000000000000000000000000",
}


@pytest.fixture
def sidecar(workload: Workload, tree: Path) -> Iterator[Sidecar]:
    (tree / "below" / "second").chmod(0o755)
    with Sidecar(Scope(workload.pid, (str(tree / "below"),))) as running:
        yield running


class Attack:
    """One of the traps, run by the workload, whose files these are."""

    def __init__(self, workload: Workload, name: str, tree: Path) -> None:
        self._workload = workload
        program = [sys.executable, "-P", traps.__file__, name, str(tree / "below" / "second"), str(tree / "beside")]
        run = f"attack = subprocess.Popen({program!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)"
        workload.do(run)

    def until(self, word: str) -> None:
        self._workload.do(f"assert attack.stdout.readline() == '{word}\\n'")

    def go_on(self) -> None:
        self._workload.do("attack.stdin.write('\\n'); attack.stdin.flush()")

    def end(self) -> None:
        self._workload.do("attack.kill(); attack.wait()")


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_caught_within_what_is_stated(sidecar: Sidecar, workload: Workload, tree: Path, name: str) -> None:
    if name == "hard_link":
        os.link(tree / "below" / "second", tree / "beside")
    sidecar.settle()
    attack = Attack(workload, name, tree)
    try:
        if name == "mapped_late":
            attack.until("dirty")
            sidecar.files()
            attack.go_on()
        attack.until("done")
        began, stated = time.monotonic(), STATED[name]
        if isinstance(stated, str):
            sidecar.send(Measure((Layer.FILES,), time.clock_gettime(time.CLOCK_BOOTTIME)))
        fact = sidecar.expect(FileFact, CAUGHT[name])
        assert fact.path == str(tree / "below" / "second")
        if isinstance(stated, float):
            assert time.monotonic() - began < stated
    finally:
        attack.end()


def test_a_mapping_that_the_kernel_tells_nothing_of_is_caught_by_nothing_but_looking_for_mappings(
    sidecar: Sidecar, workload: Workload, tree: Path
) -> None:
    """What the test of `mapped_late` relies on: no look at times finds it."""
    sidecar.settle()
    attack = Attack(workload, "mapped_late", tree)
    attack.until("dirty")
    sidecar.files()
    before = (tree / "below" / "second").stat().st_ctime_ns
    attack.go_on()
    attack.until("done")
    assert (tree / "below" / "second").stat().st_ctime_ns == before
    attack.end()


OVERLAY = ("unshare", "--mount", "--propagation", "private")


def test_what_is_written_into_the_upper_layer_of_an_overlay_from_outside_is_found_by_the_next_look(
    tree: Path, elsewhere: Path
) -> None:
    layers = [elsewhere / name for name in ("lower", "upper", "work", "merged")]
    for each in layers:
        each.mkdir()
    (layers[0] / "app").write_bytes(b"two")
    workload = Workload(OVERLAY)
    lower, upper, work, merged = map(str, layers)
    subprocess_line = ["mount", "-t", "tmpfs", "none", str(elsewhere)]
    workload.do(f"subprocess.run({subprocess_line}, check=True)")
    workload.do(f"[os.mkdir(each) for each in {[lower, upper, work, merged]}]; open('{lower}/app', 'w').write('two')")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    workload.do(f"subprocess.run({['mount', '-t', 'overlay', 'x', '-o', options, merged]}, check=True)")
    workload.do(f"open('{merged}/app', 'r+').write('two')")
    try:
        with Sidecar(Scope(workload.pid, (merged,))) as sidecar:
            sidecar.settle()
            workload.do(f"open('{upper}/app', 'r+').write('TWO')")
            sidecar.files()
            fact = next(each for each in sidecar.seen(FileFact) if content(FORGED)(each))
            assert fact.path == f"{merged}/app"
            workload.do(f"open('{merged}/app', 'r+').write('six')")
            sidecar.expect(FileFact, content(b"six"))
    finally:
        workload.end()


def test_a_file_that_is_being_written_is_told_before_it_is_read(workload: Workload, tree: Path) -> None:
    large = tree / "large"
    with open(large, "wb") as file:
        file.truncate(256 << 20)
    with Sidecar(Scope(workload.pid, (str(tree),), immutable=True)) as sidecar:
        sidecar.settle()
        workload.do(f"os.utime('{large}'); os.chmod('{large}', 0o600); os.close(os.open('{large}', os.O_RDWR))")
        sidecar.expect(FileFact, lambda each: each.change is FileChange.ATTRIBUTES and each.path == str(large))
        assert not [each for each in sidecar.seen(FileFact) if each.change is FileChange.WRITTEN]
        workload.do(f"held = os.open('{large}', os.O_WRONLY); os.write(held, b'x'); os.close(held)")
        began = time.monotonic()
        early = sidecar.expect(FileFact, lambda each: each.change is FileChange.WRITTEN)
        assert time.monotonic() - began < EVENT
        assert (early.path, early.digest, early.actor and early.actor.pid) == (str(large), "", workload.pid)
        late = sidecar.expect(FileFact, lambda each: each.change is FileChange.MODIFIED)
        assert late.at - early.at > EVENT


def test_where_nobody_asks_for_it_no_write_is_told_before_it_is_read(workload: Workload, tree: Path) -> None:
    with Sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
        sidecar.settle()
        workload.do(f"open('{tree}/first', 'w').write('once')")
        sidecar.expect(FileFact, content(b"once"))
        assert FileChange.WRITTEN not in {each.change for each in sidecar.seen(FileFact)}


def test_what_no_time_and_no_event_gives_away_is_found_by_chance(workload: Workload, tree: Path) -> None:
    """A file changed beneath its file system: its inode says nothing. Here a loop device's block is written."""
    image, mounted = tree / "image", tree / "mounted"
    mounted.mkdir()
    subprocess.run(["truncate", "-s", "4M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    try:
        (mounted / "victim").write_bytes(b"what is referenced" * 100)
        subprocess.run(["sync", "-f", mounted], check=True)
        with Sidecar(Scope(workload.pid, (str(mounted),), reread=1.0)) as sidecar:
            sidecar.settle()
            device = subprocess.run(["findmnt", "-no", "SOURCE", mounted], capture_output=True, check=True, text=True)
            with open(device.stdout.strip(), "r+b") as disk:
                data = disk.read()
                at = data.index(b"what is referenced")
                disk.seek(at)
                disk.write(b"WHAT")
                disk.flush()
                os.fsync(disk.fileno())
            with open(mounted / "victim", "rb") as held:
                os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            wanted = content(b"WHAT is referenced" + b"what is referenced" * 99)
            assert sidecar.expect(FileFact, wanted, 30.0).path == str(mounted / "victim")
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.mark.parametrize("asked", [True, False])
def test_capabilities_are_in_a_manifest_only_for_whoever_can_read_them(
    workload: Workload, tree: Path, asked: bool
) -> None:
    program = tree / "first"
    program.chmod(0o755)
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(program, "security.capability", value)
    with Sidecar(Scope(workload.pid, (str(tree),), capabilities=asked)) as sidecar:
        _, body = sidecar.expect_with_body(Observed, lambda each: each.observation.layer is Layer.FILES)
        assert body is not None
        found = [each for each in manifest.unpack(body) if each.kind == manifest.CAPABILITIES]
        assert [(each.owner, each.capabilities) for each in found] == ([(str(program), value.hex())] if asked else [])
