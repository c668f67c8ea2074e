"""The demo as a user runs it, in a place of its own, and what is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEMO = [sys.executable, "-P", "-m", "proofbeat", "demo"]
INTRUSIONS = ["call-outside", "ring-opened", "code-patched", "egress"]
ACTS = [
    *("identity", "steady", "drift", "tamper"),
    *INTRUSIONS,
    *("sidecar-stopped", "sidecar-killed", "authority-away"),
]


@contextmanager
def place() -> Iterator[Path]:
    """Where demos make their folders, and where nothing is left of them in the end. Its path is short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="demos-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # a demo's services may be users of their own
        yield folder
        assert list(folder.iterdir()) == []
        assert running_below(made) == []


def begin(folder: Path, *way: str) -> subprocess.Popen[str]:
    """A demo that makes its own folder below this one."""
    return subprocess.Popen(
        [*DEMO, *way],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told_whole(*ways: tuple[str, ...]) -> None:
    """Demos at once, each in its way: every act of each comes out as it must, and nothing leaks."""
    with place() as folder:
        running = [begin(folder, "--json", *way) for way in ways]
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
