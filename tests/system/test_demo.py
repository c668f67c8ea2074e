"""The main job as a user runs it: real services, Envoys, kernel and traffic, judged by the traffic."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

DEMO = [sys.executable, "-P", "-m", "proofbeat", "demo"]
INTRUSIONS = ["call-outside", "ring-opened", "code-patched", "egress"]
ACTS = [
    *("identity", "steady", "drift", "tamper"),
    *INTRUSIONS,
    *("sidecar-stopped", "sidecar-killed", "authority-away"),
]


def left_over() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("proofbeat-demo-*")}


def running_below(folder: str) -> list[int]:
    """Pids whose command line names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if folder in command:
                found.append(int(entry.name))
    return found


def told_whole(*ways: tuple[str, ...]) -> None:
    """Demos at once, each in its way: every act of each comes out as it must, and nothing leaks."""
    before = left_over()
    running = [
        subprocess.Popen([*DEMO, "--json", *way], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for way in ways
    ]
    for demo in running:
        out, told = demo.communicate(timeout=220)
        report: dict[str, Any] = json.loads(out)
        assert report["requests"]["leaked"] == 0, told
        assert [act["name"] for act in report["acts"]] == ACTS, told
        assert [act["name"] for act in report["acts"] if not act["ok"]] == [], told
        if os.geteuid() == 0:
            assert [act["name"] for act in report["acts"] if act["left_out"]] == [], told
        assert demo.returncode == 0, told
        assert report["requests"]["ok"] > 1000
    assert left_over() == before


@pytest.mark.timeout(240)
def test_two_demos_at_once_one_in_each_mode_tell_the_whole_story_and_nothing_leaks() -> None:
    told_whole(("--delivery", "sds"), ("--delivery", "xds"))


@pytest.mark.timeout(240)
@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give services users of their own")
def test_under_the_policies_for_payments_and_for_health_records_it_is_the_same_story() -> None:
    told_whole(("--policy", "payments"), ("--policy", "hipaa"))


@pytest.mark.timeout(120)
def test_what_a_policy_asks_for_and_this_run_cannot_give_is_said_and_nothing_opens() -> None:
    """TLS resumption is known only where the listeners are ours; an ordinary user lacks more than that."""
    command = [*DEMO, "--json", "--policy", "payments", "--delivery", "sds"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 1
    assert (report["policy"], report["requests"]["ok"]) == ("payments", 0)
    assert [(act["name"], act["ok"]) for act in report["acts"]] == [("identity", False)]
    assert "where no TLS session may be resumed" in done.stderr
    assert ("Run it as root" in done.stderr) == (os.geteuid() != 0)


@pytest.mark.timeout(90)
def test_ctrl_c_in_the_middle_leaves_no_process_and_no_file() -> None:
    before = left_over()
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert demo.stdout is not None
    began, said = time.monotonic(), ""
    while "traffic flows both ways" not in said:
        said = demo.stdout.readline()
        assert said, "the demo ended before its first act"
    (folder,) = left_over() - before
    assert running_below(folder)
    os.kill(demo.pid, signal.SIGINT)
    demo.communicate(timeout=60)
    assert left_over() == before
    assert running_below(folder) == []
    assert time.monotonic() - began < 60
