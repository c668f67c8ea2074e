"""`proofbeat policy learn` as an author runs it: what it sees of a real program, and what it writes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Workload, cgroup

pytestmark = needs_root
PROOFBEAT = [sys.executable, "-P", "-m", "proofbeat", "policy", "learn"]
INTERPRETER = str(Path(sys.executable).resolve())
PATIENCE = 100
PROGRAM = """
import os, signal, sys, time
def end(*_):
    os.sync()
    sys.exit(0)
os.umask(0o22)
signal.signal(signal.SIGTERM, end)
began = time.monotonic()
while True:
    if time.monotonic() > began + 5.5:
        os.getpriority(os.PRIO_PROCESS, 0)
    time.sleep(0.05)
"""
"""One call when it begins, another one while it serves, a third one when it ends."""


@pytest.fixture
def workload() -> Iterator[Workload]:
    running = Workload(python=INTERPRETER)
    yield running
    running.end()


@dataclass(frozen=True)
class Learned:
    """said: the JSON object. folder: what was written."""

    said: dict[str, Any]
    folder: Path

    @property
    def whole(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "learned.json").read_text())
        return found


def learn(name: str, *arguments: str, output: Path) -> Learned:
    command = [*PROOFBEAT, name, "--json", "-o", str(output), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=output.parent)
    assert done.returncode == 0, done.stderr
    return Learned(json.loads(done.stdout), output)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder = tmp_path_factory.mktemp("learn")
    options = ["--for", "8s", "--spiffe-id", "spiffe://town.example/app", "--mode", "enforce"]
    return learn("app", *options, "--", INTERPRETER, "-B", "-c", PROGRAM, output=folder / "out")


def test_a_program_that_is_started_is_seen_from_its_first_instruction_to_its_last(started: Learned) -> None:
    calls = {name: set(known) for name, known in started.whole["calls"].items()}
    assert {"execve", "umask", "brk"} <= calls["startup"]
    assert "getpriority" in calls["serving"]
    assert {"sync", "exit_group"} <= calls["ending"]
    assert "sync" not in calls["startup"] | calls["serving"]
    assert started.said["unseen"] == []


def test_each_call_is_written_with_who_made_it_first_and_when(started: Learned) -> None:
    (run,) = started.whole["runs"]
    origin = started.whole["calls"]["ending"]["sync"]
    assert (origin["run"], origin["maker"]) == (run["id"], INTERPRETER)
    assert origin["at"] >= run["seconds"] >= 8
    references = (started.folder / "policies" / "app-references.yaml").read_text()
    assert f'- "sync"  # {INTERPRETER}, ' in references


def test_what_is_written_is_read_by_an_authority_and_holds_of_all_that_was_seen(started: Learned) -> None:
    command = [sys.executable, "-P", "-m", "proofbeat", "policy", "check", str(started.folder / "policies")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert said.returncode == 0, said.stdout
    assert "app: spiffe://town.example/app under app (enforce), against app" in said.stdout
    assert started.said["findings"] == []
    documents = [*yaml.safe_load_all((started.folder / "policies" / "app.yaml").read_text())]
    assert documents[0]["spec"]["syscalls"] == {"watching": "strict"}


def test_how_far_it_is_from_having_seen_everything_is_said(started: Learned) -> None:
    (run,) = started.said["runs"]
    assert (run["converged"], started.said["converged"], run["needed"]) == (False, False, 30.0)
    assert any("--until-converged" in each for each in started.said["remarks"])


def test_the_profile_lets_a_container_start_and_refuses_the_rest(started: Learned) -> None:
    profile = json.loads((started.folder / "seccomp.json").read_text())
    names = {name for each in profile["syscalls"] for name in each["names"]}
    assert {"execve", "getpriority", "sync", "capset", "prctl"} <= names
    assert not {"mount", "ptrace", "chroot"} & names
    operators = yaml.safe_load((started.folder / "seccomp-profile.yaml").read_text())
    assert operators["spec"] == profile


def test_of_what_runs_already_the_start_was_not_seen_and_another_run_can_add_it(
    workload: Workload, started: Learned, tmp_path: Path
) -> None:
    attached = learn("app", "--pid", str(workload.pid), "--for", "2s", output=tmp_path / "attached")
    assert attached.said["unseen"] == [INTERPRETER]
    assert any("was not seen" in each for each in attached.said["remarks"])
    both = learn("app", "--merge", str(attached.folder), "--merge", str(started.folder), output=tmp_path / "both")
    more = ["--merge", str(started.folder / "learned.json"), "--merge", str(both.folder)]
    again = learn("app", *more, output=tmp_path / "again")
    assert both.said["unseen"] == []
    assert both.whole == again.whole
    assert len(both.said["runs"]) == 2


def test_a_restart_inside_of_its_cgroup_is_seen_while_it_is_watched(tmp_path: Path) -> None:
    """Its first process ends, and somebody outside starts it again in the same cgroup."""
    with cgroup() as group:
        before = Workload()
        (group / "cgroup.procs").write_text(str(before.pid))
        options = ["--pid", str(before.pid), "--cgroup", f"/{group.name}", "--for", "6s"]
        command = [*PROOFBEAT, "app", "--json", "-o", str(tmp_path / "out"), *options]
        learning = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert learning.stderr is not None
        assert "watching" in learning.stderr.readline()
        subprocess.run(["sleep", "2"], check=True)  # until it is watched: nothing says when
        before.end()
        after = Workload(("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"))
        try:
            said, told = learning.communicate(timeout=PATIENCE)
        finally:
            after.end()
        assert learning.returncode == 0, told
        assert json.loads(said)["unseen"] == []
        assert "openat" in json.loads((tmp_path / "out" / "learned.json").read_text())["calls"]["startup"]


def test_what_was_seen_until_somebody_ends_it_is_written(workload: Workload, tmp_path: Path) -> None:
    command = [*PROOFBEAT, "app", "-o", str(tmp_path / "out"), "--pid", str(workload.pid), "--until-converged"]
    learning = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert learning.stderr is not None
    while "mapped file" not in (line := learning.stderr.readline()):
        assert line, "it ended by itself"
    learning.send_signal(signal.SIGINT)
    said, _ = learning.communicate(timeout=PATIENCE)
    assert learning.returncode == 1, "it has not converged"
    assert "not converged" in said
    assert (tmp_path / "out" / "learned.json").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "nothing to learn from"),
        (("--pid", "1", "--", "true"), "either what runs is watched"),
        (("--cgroup", "/x", "--", "true"), "--cgroup"),
        (("--for", "0s", "--", "true"), "--for"),
        (("--merge", "/dev/null"), "nothing that was learned"),
        (("--spiffe-id", "spiffe://x", "--", "true"), "--spiffe-id"),
        (("--", "/nowhere/program"), "cannot be started"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(arguments: tuple[str, ...], word: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROOFBEAT, "app", "-o", str(tmp_path / "out"), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode != 0
    assert word in done.stderr


def test_whoever_may_not_watch_calls_is_told_what_it_takes(tmp_path: Path) -> None:
    dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    done = subprocess.run(
        [*dropped, *PROOFBEAT, "app", "-o", str(tmp_path / "out"), "--for", "2s", "--", "sleep", "30"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "system calls cannot be watched" in done.stderr
    assert "CAP_BPF" in done.stderr
