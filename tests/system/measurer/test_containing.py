"""A real workload frozen, let go and killed, by each of the means that this kernel has."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from attestation.channel import Bundled, Contain, Contained, Pinned, Scope
from attestation.containment import Containment, Means
from attestation.facts import InstanceFact
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, Workload

pytestmark = needs_root
GROUPS = {
    Means.CGROUP: (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")),
    Means.FREEZER: (Path("/sys/fs/cgroup/freezer"),),
    Means.SIGNALS: (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup/memory")),
}
"""Where a group of this means can be made. A group of another hierarchy cannot be frozen: that takes signals."""
MARK = {Means.CGROUP: "cgroup.freeze", Means.FREEZER: "freezer.state", Means.SIGNALS: "cgroup.procs"}
BUNDLE = 1 << 20


@contextmanager
def group(means: Means) -> Iterator[Path]:
    """A new group, gone at the end with all that is still in it."""
    for root in GROUPS[means]:
        made = root / f"contained-{os.getpid()}"
        if not (root / "cgroup.procs").exists():
            continue
        made.mkdir()
        try:
            if (made / MARK[means]).exists():
                yield made
                return
        finally:
            _remove(made)
    pytest.skip(f"this kernel has no group for {means}")


@pytest.fixture
def home() -> Iterator[Path]:
    """A group that the measurer is not told of."""
    with group(Means.SIGNALS) as made:
        yield made


def _remove(made: Path) -> None:
    _end_all(made)
    until(lambda: _removed(made))


def _end_all(made: Path) -> None:
    if (made / "freezer.state").exists():
        (made / "freezer.state").write_text("THAWED")
    if (made / "cgroup.freeze").exists():
        (made / "cgroup.freeze").write_text("0")
    until(lambda: not _killed(made))


def _killed(made: Path) -> list[str]:
    """Who was still in it."""
    found = (made / "cgroup.procs").read_text().split()
    for each in found:
        with suppress(ProcessLookupError):
            os.kill(int(each), signal.SIGKILL)
    return found


def _removed(made: Path) -> bool:
    try:
        made.rmdir()
    except OSError:
        return False
    return True


def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Where no event tells."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


COUNT = "while True:\n    with open({path!r}, 'a') as file: file.write('.')\n    time.sleep(0.002)"


@contextmanager
def busy(folder: Path, where: Path, children: int = 3) -> Iterator[tuple[Workload, list[Path]]]:
    """A workload whose processes each keep writing to a file of their own. where: its group, which ends them all."""
    workload = Workload()
    try:
        (where / "cgroup.procs").write_text(str(workload.pid))
        workload.do("import os, sys, time, subprocess")
        files = [folder / f"ticks-{number}" for number in range(children)]
        for each in files:
            line = "import time\n" + COUNT.format(path=str(each))
            workload.do(f"child = subprocess.Popen([sys.executable, '-c', {line!r}], start_new_session=True)")
            workload.do(f"open('{each}.pid', 'w').write(str(child.pid))")
        until(lambda: all(each.exists() for each in files))
        yield workload, files
    finally:
        workload.end()
        _end_all(where)  # they write to the folder for as long as they run


def child_of(file: Path) -> int:
    """Who writes to it."""
    return int(Path(f"{file}.pid").read_text())


def grows(files: list[Path], seconds: float = 0.1) -> list[Path]:
    """Those of the files that grow in this time."""
    before = [each.stat().st_size for each in files]
    time.sleep(seconds)
    return [each for each, size in zip(files, before, strict=True) if each.stat().st_size > size]


def order(sidecar: Sidecar, number: int, how: Containment, bundle: int = 0, within: float = 3.0) -> Contained:
    sidecar.send(Contain(number, how, bundle, within))
    return sidecar.expect(Contained, lambda each: each.number == number)


def bundled(sidecar: Sidecar) -> tuple[Bundled, list[dict[str, Any]]]:
    told, body = sidecar.expect_with_body(Bundled)
    return told, [json.loads(line) for line in (body or b"").split(b"\n") if line]


def state_of(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def measured(workload: Workload, tree: Path, where: Path | None) -> Iterator[Sidecar]:
    cgroup = "" if where is None else f"/{where.name}"
    with Sidecar(Scope(workload.pid, (str(tree),), cgroup=cgroup, deadman=30.0)) as sidecar:
        sidecar.expect(Pinned)
        yield sidecar


@pytest.mark.parametrize("means", list(GROUPS))
def test_a_group_is_frozen_let_go_and_killed(means: Means, tree: Path, elsewhere: Path) -> None:
    with group(means) as where, busy(elsewhere, where) as (workload, files), measured(workload, tree, where) as sidecar:
        assert sidecar.expect(Contained).means is means
        frozen = order(sidecar, 1, Containment.FREEZE)
        assert (frozen.means, frozen.processes, frozen.left, frozen.refusal) == (means, 4, 0, "")
        assert not grows(files)
        assert order(sidecar, 2, Containment.NONE).processes == 4
        until(lambda: len(grows(files)) == len(files))
        killed = order(sidecar, 3, Containment.KILL)
        assert (killed.left, killed.refusal) == (0, "")
        assert workload.process.wait(5) == -signal.SIGKILL
        assert not (where / "cgroup.procs").read_text()
        sidecar.expect(InstanceFact)


def test_a_tree_without_a_group_is_frozen_let_go_and_killed_with_all_that_descends(
    home: Path, tree: Path, elsewhere: Path
) -> None:
    with (
        busy(elsewhere, home) as (workload, files),
        measured(workload, tree, None) as sidecar,
    ):
        frozen = order(sidecar, 1, Containment.FREEZE)
        assert (frozen.means, frozen.processes, frozen.left) == (Means.SIGNALS, 4, 0)
        assert not grows(files)
        order(sidecar, 2, Containment.NONE)
        until(lambda: len(grows(files)) == len(files))
        assert order(sidecar, 3, Containment.KILL).left == 0
        assert workload.process.wait(5) == -signal.SIGKILL
        assert not grows(files)


def test_what_was_stopped_before_is_not_let_go(home: Path, tree: Path, elsewhere: Path) -> None:
    with (
        busy(elsewhere, home) as (workload, files),
        measured(workload, tree, None) as sidecar,
    ):
        os.kill(child_of(files[0]), signal.SIGSTOP)
        until(lambda: files[0] not in grows(files))
        order(sidecar, 1, Containment.FREEZE)
        order(sidecar, 2, Containment.NONE)
        until(lambda: len(grows(files)) == len(files) - 1)
        assert files[0] not in grows(files)


def test_whoever_lets_go_a_frozen_workload_finds_it_frozen_again_and_that_is_told(
    home: Path, tree: Path, elsewhere: Path
) -> None:
    with (
        busy(elsewhere, home) as (workload, files),
        measured(workload, tree, None) as sidecar,
    ):
        order(sidecar, 1, Containment.FREEZE)
        os.kill(child_of(files[0]), signal.SIGCONT)
        again = sidecar.expect(Contained, lambda each: each.number == 1)
        assert again.left == 0
        assert not grows(files)


def test_a_measurer_that_comes_later_lets_go_what_an_earlier_one_froze(home: Path, tree: Path, elsewhere: Path) -> None:
    with busy(elsewhere, home) as (workload, files):
        with measured(workload, tree, None) as sidecar:
            order(sidecar, 1, Containment.FREEZE)
        assert not grows(files), "its end lets nothing go"
        with measured(workload, tree, None) as sidecar:
            sidecar.send(Contain(1, Containment.FREEZE, before=True))
            assert sidecar.expect(Contained, lambda each: each.number == 1).processes == 4
            order(sidecar, 2, Containment.NONE)
            until(lambda: len(grows(files)) == len(files))


FORKING = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def race(generations):
    for _ in range(generations):
        if os.fork() == 0:
            os.setsid()
            time.sleep(0.01)
            continue
        time.sleep(0.02)
        os._exit(0)
    while True:
        open({path!r}, 'a').write('.')
        time.sleep(0.002)
"""


@pytest.mark.parametrize("how", [Containment.FREEZE, Containment.KILL])
def test_a_child_that_is_born_while_its_parents_are_stopped_is_not_forgotten(
    how: Containment, home: Path, tree: Path, elsewhere: Path
) -> None:
    """Eight chains, each process of which forks and ends: whoever stops a parent too late has its child before them."""
    with (
        busy(elsewhere, home, children=0) as (workload, _),
        measured(workload, tree, None) as sidecar,
    ):
        files = [elsewhere / f"race-{number}" for number in range(8)]
        workload.do("import os, sys, time, subprocess")
        for each in files:
            program = FORKING.format(path=str(each)) + "\nrace(2000)"
            workload.do(f"subprocess.Popen([sys.executable, '-c', {program!r}])")
        time.sleep(0.3)
        done = order(sidecar, 1, how)
        for number in range(2, 6):
            if not done.left:
                break
            done = order(sidecar, number, how)  # it forks faster than a busy machine looks: that was told
        assert done.left == 0
        assert done.processes >= 2
        assert not grows([each for each in files if each.exists()], 0.3)
        states = [state_of(pid) for pid in (home / "cgroup.procs").read_text().split()]
        assert set(states) <= ({"T"} if how is Containment.FREEZE else {"Z"})


def test_nothing_is_done_where_the_sidecar_shares_the_workloads_group(tree: Path, elsewhere: Path) -> None:
    in_group = group(Means.SIGNALS)
    with in_group as where, busy(elsewhere, where) as (workload, files), measured(workload, tree, where) as sidecar:
        (where / "cgroup.procs").write_text(str(sidecar.process.pid))
        refused = order(sidecar, 1, Containment.KILL, BUNDLE)
        (where.parent / "cgroup.procs").write_text(str(sidecar.process.pid))
        assert "is among those of the workload" in refused.refusal
        assert refused.processes == 0
        assert len(grows(files)) == len(files)
        assert bundled(sidecar)[1], "to look is not to touch"
