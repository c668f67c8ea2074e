"""`proofbeat up -- CMD` as a user runs it: somebody's own program, closed when it changes, opened when mended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.system.test_demo import running_below

PROOFBEAT = [sys.executable, "-P", "-m", "proofbeat"]
INTERPRETER = str(Path(sys.executable).resolve())
SERVICE = [INTERPRETER, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
PATIENCE = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>mine</h1>\n")
    return tmp_path / "site"


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*PROOFBEAT, "up", *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stdout, done.stderr


def body(url: str) -> bytes | None:
    """What a call brings; None where it is refused."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - an address of our own
            return bytes(answer.read())
    except OSError:
        return None


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    before = running_below("proofbeat-up-")
    process = subprocess.Popen(
        [*PROOFBEAT, "up", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    assert set(running_below("proofbeat-up-")) <= set(before), "nothing is left"


def until(lines: IO[str], wanted: str) -> str:
    """Reads on until a line matches; the test's own time limit ends it."""
    read = []
    for line in lines:
        read.append(line)
        if re.search(wanted, line):
            return line
    raise AssertionError(f"{wanted!r} was never said:\n{''.join(read)}")


@pytest.mark.timeout(90)
def test_trying_it_closes_and_opens_the_program_once_and_reports_that_as_one_object(folder: Path) -> None:
    code, out, told = run(folder, "--try", "--json", "--learn", "1s", "--", *SERVICE)
    assert code == 0, told
    report = json.loads(out)
    assert report["ok"]
    assert report["include"] == [str(folder)]
    assert report["learned"]["files"] == 1
    assert report["learned"]["volatile"] == []
    assert 0 < report["closed_ms"] < 15_000
    assert 0 < report["reopened_ms"] < 15_000
    assert [path.name for path in folder.iterdir()] == ["index.html"], "what was laid down is gone"


@pytest.mark.timeout(120)
def test_a_changed_file_closes_it_a_repair_opens_it_and_a_foreign_program_takes_a_new_instance(folder: Path) -> None:
    page, sleep = folder / "index.html", folder.parent / "sleep"
    original = page.read_text()
    service = (
        "import http.server, os, signal, subprocess; "
        f"signal.signal(signal.SIGHUP, lambda *_: subprocess.Popen([{str(sleep)!r}, '5'])); "
        "http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler).serve_forever()"
    )
    with running(folder, "--learn", "1s", "--", INTERPRETER, "-c", service) as (process, lines):
        program = int(until(lines, r"runs as pid \d+").split(" pid ")[1].split()[0])
        url = until(lines, "call it").split()[-1]
        until(lines, "a new instance:")
        assert body(url) == original.encode()
        # 1. Drift: mended, it opens again.
        page.write_text("<h1>yours</h1>\n")
        until(lines, "violation: .*index.html")
        until(lines, "CLOSED")
        assert body(url) is None
        page.write_text(original)
        until(lines, "OPEN")
        assert body(url) == original.encode()
        # 2. Tamper: a new instance opens it, and nothing else.
        sleep.write_bytes(Path("/bin/sleep").read_bytes())
        sleep.chmod(0o755)
        os.kill(program, signal.SIGHUP)
        until(lines, "violation: .*sleep")
        until(lines, "CLOSED")
        process.send_signal(signal.SIGUSR1)
        until(lines, "a new instance: pid")
        until(lines, "OPEN")
        assert body(url) == original.encode()
    assert process.returncode == 0
    assert body(url) is None
    assert not Path(f"/proc/{program}").exists()


@pytest.mark.timeout(60)
def test_it_ends_with_the_program_and_says_how_that_ended(folder: Path) -> None:
    serve_once = (
        "import http.server; s = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler); "
        "[s.handle_request() for _ in range(2)]; raise SystemExit(3)"
    )
    with running(folder, "--learn", "1s", "--", INTERPRETER, "-c", serve_once) as (process, lines):
        url = until(lines, "call it").split()[-1]
        until(lines, "a new instance:")
        body(url)
        until(lines, "exit code 3")
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--", "/no/such/program"], 1, "/no/such/program"),
        (["--wait", "100ms", "--", "/bin/sleep", "20"], 1, "--wait"),
        (["--", "/bin/true"], 1, "ended before it listened"),
        (["--learn", "soon", "--", "/bin/true"], 2, "250ms"),
        (["--include", "/", "--", "/bin/true"], 2, "--include"),
        ([], 2, "CMD"),
    ],
)
@pytest.mark.timeout(60)
def test_typical_mistakes_are_told_with_what_mends_them(
    folder: Path, arguments: list[str], code: int, said: str
) -> None:
    returned, _, told = run(folder, *arguments)
    assert returned == code, told
    assert said in told
    assert "Traceback" not in told


def test_a_folder_that_is_not_the_programs_alone_is_refused_before_anything_runs() -> None:
    code, _, told = run(Path("/"), "--", *SERVICE)
    assert code == 2
    assert "--include" in told
