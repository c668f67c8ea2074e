"""Bundles of workloads that do what they can so that there is none, or that it cannot be read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attestation.channel import Bundled, Contain, Pinned, Scope
from attestation.containment import Containment
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, Workload

pytestmark = needs_root
BUNDLE, WITHIN = 256 << 10, 3.0


@contextmanager
def measured(workload: Workload, tree: Path) -> Iterator[Sidecar]:
    with Sidecar(Scope(workload.pid, (str(tree),), deadman=30.0)) as sidecar:
        sidecar.expect(Pinned)
        yield sidecar


def taken(sidecar: Sidecar, most: int = BUNDLE, within: float = WITHIN) -> tuple[Bundled, list[dict[str, Any]]]:
    """A bundle, within its bounds; each of its lines a document, but for one that was cut."""
    began = time.monotonic()
    sidecar.send(Contain(1, Containment.NONE, most, within))
    told, body = sidecar.expect_with_body(Bundled)
    assert time.monotonic() - began < within + 2.0
    assert body is not None
    assert len(body) <= most
    return told, [json.loads(line) for line in body.split(b"\n")[:-1]]


def of(records: list[dict[str, Any]], kind: str, pid: int) -> dict[str, Any]:
    return next(each for each in records if each["is"] == kind and each.get("pid") == pid)


def test_it_shows_the_tree_with_its_files_sockets_mappings_and_arguments_and_no_environment(
    workload: Workload, tree: Path
) -> None:
    workload.do("import socket; listener = socket.create_server(('127.0.0.1', 0))")
    workload.do("child = subprocess.Popen(['sleep', '60'], env={'PASSWORD': 'hunter2'})")
    with measured(workload, tree) as sidecar:
        told, records = taken(sidecar, 1 << 20)
        workload.do("child.kill(); child.wait()")
    assert told.complete
    parents = {each["pid"]: each["status"]["PPid"] for each in records if each["is"] == "process"}
    child = next(pid for pid, parent in parents.items() if parent == str(workload.pid))
    assert set(parents) == {workload.pid, child}
    assert of(records, "arguments", child)["arguments"][:2] == ["sleep", "60"]
    assert any("libc" in line for line in of(records, "maps", workload.pid)["maps"])
    listening = [each for each in records if each["is"] == "socket" and each["pid"] == workload.pid]
    assert any(each["kind"] == "tcp" for each in listening)
    assert any(each["is"] == "mount" for each in records)
    assert "hunter2" not in json.dumps(records)


MAPS = "maps = [mmap.mmap(-1, 4096, prot=1 + 2 * (each % 2)) for each in range(40_000)]"


def test_forty_thousand_mappings_are_told_by_the_first_ones(workload: Workload, tree: Path) -> None:
    workload.do("import mmap, ctypes")
    workload.do(MAPS)
    with measured(workload, tree) as sidecar:
        _, records = taken(sidecar)
    maps = of(records, "maps", workload.pid)
    assert maps["cut"]
    assert 0 < len(maps["maps"]) <= 256


CROWD = """
import os, time
for each in range({count}):
    if os.fork() == 0:
        time.sleep(600)
print("done", flush=True)
time.sleep(600)
"""


def test_of_a_crowd_the_tree_comes_first_and_what_does_not_fit_is_said_to_be_missing(
    workload: Workload, tree: Path
) -> None:
    workload.do(f"crowd = subprocess.Popen([sys.executable, '-c', {CROWD.format(count=1000)!r}], stdout=-1)")
    workload.do("crowd.stdout.readline()")
    with measured(workload, tree) as sidecar:
        told, records = taken(sidecar)
        sidecar.send(Contain(2, Containment.KILL))
        workload.process.wait(10)
    assert not told.complete
    kinds = [each["is"] for each in records]
    assert kinds.count("process") > 100
    assert "files" in kinds, "no part takes the bytes of another"


def test_names_that_are_no_text_and_arguments_without_end_break_no_line(
    workload: Workload, tree: Path, elsewhere: Path
) -> None:
    odd = os.fsencode(elsewhere) + b'/\xff\n\x1b[2J"}'
    workload.do(f"import shutil; odd = {odd!r}; shutil.copy('/bin/sh', odd)")
    workload.do("child = subprocess.Popen([odd, '-c', 'read line', *(['x' * 100_000] * 8)], stdin=-1)")
    workload.do("import ctypes; ctypes.CDLL(None).prctl(15, b'a)\\n\\x1b {')")
    with measured(workload, tree) as sidecar:
        _, records = taken(sidecar)
        workload.do("child.kill(); child.wait()")
    assert of(records, "process", workload.pid)["status"]["Name"].startswith("a)")
    child = next(each for each in records if each["is"] == "process" and each["pid"] != workload.pid)
    assert child["exe"] == odd.decode("utf-8", "backslashreplace")
    arguments = of(records, "arguments", child["pid"])
    assert arguments["cut"]
    assert sum(map(len, arguments["arguments"])) <= 4096


VANISHING = """
import os, time
end = time.monotonic() + 3
while time.monotonic() < end:
    for _ in range(20):
        if os.fork() == 0:
            os._exit(0)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
"""


def test_processes_that_vanish_while_they_are_looked_at_are_told_as_gone_or_not_at_all(
    workload: Workload, tree: Path
) -> None:
    workload.do(f"child = subprocess.Popen([sys.executable, '-c', {VANISHING!r}])")
    with measured(workload, tree) as sidecar:
        _, records = taken(sidecar)
        workload.do("child.kill(); child.wait()")
    assert of(records, "process", workload.pid)
    assert {each["is"] for each in records} <= {"process", "gone", "files", "socket", "mount", "maps", "arguments"}


def test_a_bundle_that_takes_too_long_is_sent_as_far_as_it_came(workload: Workload, tree: Path) -> None:
    with measured(workload, tree) as sidecar:
        told, _ = taken(sidecar, within=0.001)
    assert not told.complete
